"""Repetition: loops of a decoder are seen, and what people repeat is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.whisper.repetition import count_before_loop, has_loop


def words(text: str) -> list[str]:
    return [f" {word}" for word in text.split()]


@pytest.mark.parametrize(
    "text",
    [
        "How many are there? How many are there?",
        "we send it tomorrow morning and we send it tomorrow",
        "na na na na na na na na na na na na na na na na na na",
    ],
)
def test_loop_is_seen(text: str) -> None:
    assert has_loop(words(text))


@pytest.mark.parametrize(
    "text",
    ["", "Right.", "Mm hmm.", "No, no.", "The alert fires at two percent, two percent is fine with me."],
)
def test_what_people_say_is_no_loop(text: str) -> None:
    assert not has_loop(words(text))
    assert count_before_loop(words(text)) == len(text.split())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Okay. Okay. Okay. Okay.", 1),
        ("No objection. No objection. No objection.", 2),
        ("well how many are there? How many are there?", 5),
    ],
)
def test_loop_is_cut_after_its_first_round(text: str, kept: int) -> None:
    assert count_before_loop(words(text)) == kept


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12))
def test_what_is_kept_has_no_loop_in_it(said: list[str]) -> None:
    kept = said[: count_before_loop(said)]
    assert count_before_loop(kept) == len(kept)
