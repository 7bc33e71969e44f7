"""Transcripts: words with times are the text again, and a senseless answer is said to be one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.openai.transcript import TimedWord, Usage, parse_transcript, parse_usage, time_words

WORD = st.text("abcé4", min_size=1, max_size=5)
PUNCTUATION = st.sampled_from(["", ".", ",", "?", "%", " –", '"'])


def parse(**answer: Any) -> Any:
    return parse_transcript(json.dumps(answer))


def timed(*texts: str) -> list[TimedWord]:
    return [TimedWord(text, float(at), float(at + 1)) for at, text in enumerate(texts)]


def test_words_take_along_the_punctuation_of_the_text() -> None:
    words = time_words("Well, 4% of all orders. Right?", timed("Well", "4", "of", "all", "orders", "Right"))
    assert [word.text for word in words] == ["Well,", "4%", "of", "all", "orders.", "Right?"]
    assert [word.start_s for word in words] == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.tuples(WORD, PUNCTUATION), min_size=1))
def test_words_joined_are_the_text(said: list[tuple[str, str]]) -> None:
    text = " ".join(word + mark for word, mark in said)
    words = time_words(text, timed(*(word for word, _ in said)))
    assert len(words) == len(said)
    assert " ".join(word.text for word in words) == text


def test_words_that_are_not_in_the_text_place_nothing() -> None:
    assert time_words("Twenty orders", timed("20", "orders")) == ()
    assert time_words("Good morning", timed("morning", "Good")) == ()
    assert time_words("Good morning", timed("Good", " ")) == ()
    assert time_words("Good morning", []) == ()


def test_verbose_answer_has_word_times() -> None:
    words = [
        {"word": "Good", "start": 0.1, "end": 0.4},
        {"word": "morning", "start": 0.4, "end": 0.9, "probability": 0.75},
    ]
    transcript = parse(text=" Good morning. ", duration=1.5, words=words)
    assert transcript.text == "Good morning."
    assert transcript.words == (
        TimedWord("Good", 0.1, 0.4, None),
        TimedWord("morning.", 0.4, 0.9, 0.75),
    )
    assert transcript.usage.audio_s == 1.5


def test_times_never_run_backwards() -> None:
    words = [{"word": "a", "start": 1, "end": 0.5}, {"word": "b", "start": 0.2, "end": 0.3}]
    spans = [(word.start_s, word.end_s) for word in parse(text="a b", words=words).words]
    assert spans == [(1, 1), (1, 1)]


@pytest.mark.parametrize(
    "words",
    [
        None,
        "no",
        {},
        [None],
        [{"word": 5, "start": 0, "end": 1}],
        [{"word": "Good", "start": None, "end": 1}],
        [{"word": "Good", "start": True, "end": 1}],
        [{"word": "Good", "start": float("nan"), "end": 1}],
        [{"word": "Good", "start": 10**400, "end": 1}],
    ],
)
def test_senseless_words_leave_the_text(words: object) -> None:
    transcript = parse(text="Good", words=words)
    assert transcript.text == "Good"
    assert transcript.words == ()


@pytest.mark.parametrize("data", ["", "{", "[]", '"text"', '{"text": 5}', '{"words": []}', "[" * 100_000])
def test_answer_without_a_text_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="no transcript"):
        parse_transcript(data)


def test_usage_is_read_in_both_kinds() -> None:
    assert parse_usage({"type": "duration", "seconds": 4.0}) == Usage(audio_s=4.0)
    tokens = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    assert parse_usage(tokens) == Usage(input_tokens=14, output_tokens=45)
    assert parse_usage(None) == parse_usage({"input_tokens": "many", "seconds": "few"}) == Usage()
