"""What a session was like in numbers."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.statistics import TURN_PAUSE_MS, Statistics, Stay, statistics
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker

ADA, BEN, CEM = (Speaker(name.lower(), name) for name in ("Ada", "Ben", "Cem"))
DURATION_MS = 60_000

SPANS = st.tuples(st.integers(0, DURATION_MS - 1), st.integers(1, 20_000)).map(
    lambda span: (span[0], min(span[0] + span[1], DURATION_MS))
)
PEOPLE = st.sampled_from([ADA, BEN, CEM])
SAID = st.lists(st.tuples(PEOPLE, SPANS, st.sampled_from(["Yes.", "Let us begin.", "…"])), max_size=12)
STAYS = st.lists(st.builds(lambda who, span: Stay(who, *span), PEOPLE, SPANS), max_size=8)


def said(*utterances: tuple[Speaker, tuple[int, int], str], present: Sequence[Speaker] = ()) -> Transcript:
    return Transcript(
        (
            Utterance(f"1-{number}", who, text, start_ms, end_ms)
            for number, (who, (start_ms, end_ms), text) in enumerate(utterances, start=1)
        ),
        present,
    )


def turns(found: Statistics) -> dict[str, int]:
    return {each.speaker.name: each.turns for each in found.participations}


def test_talk_time_is_counted_for_each_and_for_all() -> None:
    found = statistics(
        said(
            (ADA, (0, 10_000), "Good morning. Let us begin."),
            (BEN, (8_000, 14_000), "Yes."),
            (ADA, (20_000, 24_000), "One more thing"),
        ),
        [Stay(ADA, 0, 60_000), Stay(BEN, 5_000, 60_000)],
        DURATION_MS,
    )
    assert (found.speech_ms, found.overlap_ms, found.silence_ms) == (18_000, 2_000, 42_000)
    assert (found.turns, found.words, found.people_at_once) == (3, 9, 2)
    ada, ben = found.participations
    assert (ada.speaker, ada.talk_ms, ada.talk_share, ada.turns, ada.words) == (ADA, 14_000, 0.7, 2, 8)
    assert (ben.speaker, ben.talk_ms, ben.turns, ben.words, ben.present_ms) == (BEN, 6_000, 1, 1, 55_000)


def test_turn_ends_with_a_pause_and_with_somebody_elses_words() -> None:
    pause_ms = TURN_PAUSE_MS
    alone = said(
        (ADA, (0, 1_000), "a"), (ADA, (1_000 + pause_ms, 4_000), "b"), (ADA, (4_001 + pause_ms, 7_000), "c")
    )
    assert turns(statistics(alone, [], DURATION_MS)) == {"Ada": 2}
    together = said((ADA, (0, 1_000), "a"), (BEN, (1_000, 1_100), "b"), (ADA, (1_100, 2_000), "c"))
    assert turns(statistics(together, [], DURATION_MS)) == {"Ada": 2, "Ben": 1}


def test_words_within_a_longer_utterance_do_not_end_its_turn() -> None:
    heard = said((ADA, (0, 20_000), "a"), (ADA, (1_000, 1_500), "b"), (ADA, (19_000, 21_000), "c"))
    assert turns(statistics(heard, [], DURATION_MS)) == {"Ada": 1}


def test_who_begins_at_the_same_time_has_a_turn_in_whatever_order_they_are_given() -> None:
    first, second, third = (ADA, (0, 500), "a"), (BEN, (0, 600), "b"), (ADA, (700, 900), "c")
    for heard in ((first, second, third), (second, first, third), (third, second, first)):
        assert turns(statistics(said(*heard), [], DURATION_MS)) == {"Ada": 2, "Ben": 1}


def test_people_who_never_spoke_are_there() -> None:
    found = statistics(said((ADA, (0, 1_000), "Hello"), present=[BEN]), [Stay(CEM, 10, 500)], DURATION_MS)
    assert [(each.speaker, each.talk_ms, each.present_ms) for each in found.participations] == [
        (ADA, 1_000, 0),
        (CEM, 0, 490),
        (BEN, 0, 0),
    ]


def test_two_stays_of_one_person_that_overlap_count_once() -> None:
    found = statistics(said(), [Stay(ADA, 0, 10_000), Stay(ADA, 5_000, 20_000)], DURATION_MS)
    assert found.people_at_once == 1
    assert [each.present_ms for each in found.participations] == [20_000]


def test_who_comes_when_somebody_leaves_was_not_there_with_them() -> None:
    found = statistics(said(), [Stay(ADA, 0, 10_000), Stay(BEN, 10_000, 20_000)], DURATION_MS)
    assert found.people_at_once == 1


def test_session_in_which_nothing_happened_is_silence() -> None:
    assert statistics(said(), [], 0) == Statistics(0, 0, 0, 0, 0, 0, 0, ())
    assert statistics(said(), [], 5_000).silence_ms == 5_000


@given(SAID, STAYS)
def test_speech_and_silence_are_the_whole_session(
    heard: list[tuple[Speaker, tuple[int, int], str]], stays: list[Stay]
) -> None:
    found = statistics(said(*heard), stays, DURATION_MS)
    assert found.speech_ms + found.silence_ms == DURATION_MS
    # Counted another way: each millisecond by who speaks in it.
    speaking = [0] * DURATION_MS
    for who in (ADA, BEN, CEM):
        covered = set()
        for speaker, (start_ms, end_ms), _ in heard:
            if speaker == who:
                covered.update(range(start_ms, end_ms))
        for at_ms in covered:
            speaking[at_ms] += 1
    assert found.speech_ms == sum(count > 0 for count in speaking)
    assert found.overlap_ms == sum(count > 1 for count in speaking)


@given(SAID, STAYS)
def test_parts_are_those_of_the_whole(
    heard: list[tuple[Speaker, tuple[int, int], str]], stays: list[Stay]
) -> None:
    found = statistics(said(*heard), stays, DURATION_MS)
    assert found.overlap_ms <= found.speech_ms
    parts = found.participations
    assert sum(each.talk_share for each in parts) == pytest.approx(1 if heard else 0)
    assert sum(each.turns for each in parts) == found.turns <= len(heard)
    assert sum(each.words for each in parts) == found.words
    assert {each.speaker for each in parts} == {who for who, *_ in heard} | {stay.speaker for stay in stays}
    assert found.people_at_once <= len({stay.speaker for stay in stays})
    for each in parts:
        assert each.talk_ms <= found.speech_ms <= sum(other.talk_ms for other in parts)
        assert (each.turns == 0) == (each.talk_ms == 0)
        assert 0 <= each.present_ms <= DURATION_MS


@given(SAID, STAYS, st.randoms(use_true_random=False))
def test_order_of_what_is_given_does_not_matter(
    heard: list[tuple[Speaker, tuple[int, int], str]], stays: list[Stay], dice: Random
) -> None:
    expected = statistics(said(*heard), stays, DURATION_MS)
    dice.shuffle(heard)
    dice.shuffle(stays)
    assert statistics(said(*heard), stays, DURATION_MS) == expected
