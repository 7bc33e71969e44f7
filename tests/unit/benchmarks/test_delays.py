from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from benchmarks.alignment import Word
from benchmarks.delays import Delays, Received, measure_delays, own_share, pool_delays

BEGAN_AT = datetime(2025, 3, 1, 12, 0, 0, tzinfo=UTC)
SENDING_S = 0.02
SESSION_BEGAN_S = -3.0  # the agent was there before the meeting began


def say(segment: int, speaker: str, start_s: float, text: str) -> list[Word]:
    """A word every half second, each 0.4 s long."""
    return [
        Word(word, start_s + index / 2, start_s + index / 2 + 0.4, speaker, segment, matched=True)
        for index, word in enumerate(text.split())
    ]


def see(
    received_s: float,
    caption: str,
    speaker: str,
    text: str,
    start_s: float,
    end_s: float,
    *,
    final: bool = False,
) -> Received:
    """A caption event; all times are meeting time."""
    made_at = BEGAN_AT + timedelta(seconds=received_s - SENDING_S)
    event: dict[str, Any] = {
        "at": made_at.isoformat(timespec="milliseconds"),
        "kind": "caption",
        "id": caption,
        "speaker": {"identity": speaker.lower(), "name": speaker},
        "text": text,
        "final": final,
        "start_ms": round((start_s - SESSION_BEGAN_S) * 1000),
        "end_ms": round((end_s - SESSION_BEGAN_S) * 1000),
    }
    return Received(BEGAN_AT + timedelta(seconds=received_s), event)


def measure(words: list[Word], log: list[Received]) -> Delays:
    return measure_delays(words, log, BEGAN_AT)


def test_a_word_is_shown_with_the_first_revision_that_has_it() -> None:
    words = say(0, "Ines", 10.0, "none from me")  # ends at 10.4, 10.9 and 11.4
    log = [
        see(10.7, "1-1", "Ines", "Nun", 10.0, 10.5),
        see(11.2, "1-1", "Ines", "None from", 10.0, 11.0),
        see(11.7, "1-1", "Ines", "None of me", 10.0, 11.5),
        see(12.4, "1-1", "Ines", "None from me.", 10.0, 11.5, final=True),
    ]

    delays = measure(words, log)

    assert delays.shown_s == pytest.approx((0.8, 0.3, 0.3))
    assert delays.engine_s == pytest.approx((0.78, 0.28, 0.28))
    assert delays.final_s == pytest.approx((1.0,))
    assert (delays.words, delays.never_shown, delays.turns, delays.without_final) == (3, 0, 1, 0)


def test_a_final_without_a_partial_shows_its_words() -> None:
    delays = measure(say(0, "Omar", 1.0, "right"), [see(2.0, "1-1", "Omar", "Right.", 1.0, 1.5, final=True)])

    assert delays.shown_s == delays.final_s == pytest.approx((0.6,))


def test_lost_and_misrecognised_words_are_counted_apart() -> None:
    words = say(0, "Felix", 0.0, "the alert fires at two percent")
    log = [see(4.0, "1-1", "Felix", "The alert fires at 10.", 0.0, 3.0, final=True)]

    delays = measure(words, log)

    assert len(delays.shown_s) == 4
    assert delays.never_shown == 2
    # What was recognised in the place of the last word came with a final.
    assert delays.final_s == pytest.approx((4.0 - 2.9,))


def test_a_turn_that_nobody_captioned_is_counted_apart() -> None:
    words = [*say(0, "Felix", 0.0, "no objection"), *say(1, "Ines", 0.5, "none from me")]
    log = [see(2.0, "1-1", "Felix", "No objection.", 0.0, 1.0, final=True)]

    delays = measure(words, log)

    assert (delays.turns, delays.without_final, delays.never_shown) == (2, 1, 3)
    assert len(delays.final_s) == 1


def test_words_under_another_name_are_not_shown() -> None:
    delays = measure(
        say(0, "Greta", 0.0, "oh well"), [see(1.5, "1-1", "Felix", "Oh well.", 0.0, 1.0, final=True)]
    )

    assert (delays.never_shown, delays.without_final) == (2, 1)


def test_a_partial_that_later_changed_its_speaker_has_shown_its_words() -> None:
    words = [*say(0, "Greta", 0.0, "how many"), *say(1, "Nora", 1.2, "there are two")]
    log = [
        see(1.2, "1-1", "Greta", "How many", 0.0, 0.9),
        see(3.5, "1-1", "Nora", "There are two.", 1.2, 2.6, final=True),
    ]

    delays = measure(words, log)

    assert delays.never_shown == 0
    assert (delays.turns, delays.without_final) == (2, 1)


def test_the_same_word_said_again_is_not_shown_by_the_earlier_caption() -> None:
    words = [*say(0, "Nora", 0.0, "good omar adds it"), *say(1, "Nora", 20.0, "good")]
    log = [
        see(3.0, "1-1", "Nora", "Good, Omar adds it.", 0.0, 2.0, final=True),
        see(21.4, "1-2", "Nora", "Good.", 20.0, 20.5, final=True),
    ]

    delays = measure(words, log)

    assert delays.shown_s[-1] == pytest.approx(1.0)
    assert delays.final_s == pytest.approx((3.0 - 1.9, 1.0))


def test_a_lost_word_is_not_taken_from_a_caption_of_another_time() -> None:
    words = [*say(0, "Nora", 0.0, "yes"), *say(1, "Nora", 10.0, "we do not know yes")]
    log = [see(14.0, "1-1", "Nora", "We do not know. Yes.", 10.0, 12.5, final=True)]

    delays = measure(words, log)

    assert (delays.never_shown, delays.without_final) == (1, 1)
    assert max(delays.shown_s) == pytest.approx(14.0 - 10.4)


def test_a_word_is_not_shown_before_it_was_spoken() -> None:
    words = say(0, "Omar", 0.0, "the list the proxy")  # the second "the" begins at 1.0
    log = [
        see(0.9, "1-1", "Omar", "the", 0.0, 0.5),
        see(2.5, "1-1", "Omar", "The list, the proxy.", 0.0, 2.0, final=True),
    ]

    assert measure(words, log).shown_s == pytest.approx((0.5, 1.6, 1.1, 0.6))


def test_a_turn_whose_last_word_was_dropped_ends_with_the_final_after_it() -> None:
    words = say(0, "Omar", 0.0, "when it expires")
    log = [see(2.4, "1-1", "Omar", "When it", 0.0, 1.0, final=True)]

    assert measure(words, log).final_s == pytest.approx((1.0,))


def test_a_turn_whose_end_was_lost_has_no_final() -> None:
    words = say(0, "Omar", 0.0, "one risk that i see is the second proxy in frankfurt")
    log = [see(2.4, "1-1", "Omar", "One risk that", 0.0, 1.5, final=True)]

    delays = measure(words, log)

    assert (delays.final_s, delays.without_final) == ((), 1)


def test_a_withdrawn_caption_shows_nothing_more() -> None:
    words = say(0, "Omar", 0.0, "right")
    log = [see(0.9, "1-1", "Omar", "Right", 0.0, 0.5), see(1.2, "1-1", "Omar", "", 0.0, 0.5)]

    delays = measure(words, log)

    assert delays.shown_s == pytest.approx((0.5,))
    assert delays.without_final == 1


def test_a_word_without_a_time_of_its_own_gives_no_delay() -> None:
    words = [Word("ines", 0.0, 0.4, "Nora", 0, matched=False), *say(0, "Nora", 0.5, "how did it begin")]
    log = [see(4.0, "1-1", "Nora", "Ines, how did it begin?", 0.0, 2.5, final=True)]

    delays = measure(words, log)

    assert (delays.words, delays.never_shown, len(delays.shown_s)) == (5, 0, 4)


def test_events_that_are_no_captions_are_passed_over() -> None:
    state = Received(BEGAN_AT, {"kind": "state", "captions": "live"})

    assert measure(say(0, "Omar", 0.0, "right"), [state]).never_shown == 1


def test_nothing_spoken_measures_nothing() -> None:
    log = [see(1.0, "1-1", "Omar", "Thank you.", 0.0, 1.0, final=True)]

    assert measure([], log) == Delays((), (), (), 0, 0, 0, 0)


def test_meetings_are_pooled() -> None:
    one = Delays((0.1, 0.2), (0.0, 0.1), (1.0,), words=3, never_shown=1, turns=2, without_final=1)
    other = Delays((0.3,), (0.2,), (), words=1, never_shown=0, turns=1, without_final=1)

    assert pool_delays([one, other]) == Delays(
        (0.1, 0.2, 0.3), (0.0, 0.1, 0.2), (1.0,), words=4, never_shown=1, turns=3, without_final=2
    )


def test_own_share_is_from_the_session_to_the_viewer_for_partials_and_finals_apart() -> None:
    log = [
        Received(BEGAN_AT + timedelta(milliseconds=30), {"kind": "caption", "final": False}),
        Received(BEGAN_AT + timedelta(milliseconds=5), {"kind": "caption", "final": True}),
        Received(BEGAN_AT, {"kind": "state"}),
    ]
    log = [Received(each.received_at, {**each.event, "at": "2025-03-01T12:00:00.000Z"}) for each in log]

    assert own_share(log, final=False) == pytest.approx([0.03])
    assert own_share(log, final=True) == pytest.approx([0.005])
