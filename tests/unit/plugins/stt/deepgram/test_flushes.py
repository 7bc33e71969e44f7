"""Flushes: each is answered once and in order, by whatever shows that nothing before it is open."""

from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.deepgram.flushes import FlushLedger


def flushed(*positions_s: float) -> FlushLedger:
    ledger = FlushLedger()
    for position_s in positions_s:
        assert ledger.flush(position_s)
    return ledger


def test_final_that_reaches_the_flush_answers_it_once() -> None:
    ledger = flushed(2.0)

    assert ledger.hear_final(2.0) == 1
    assert ledger.hear_final(2.0) == 0
    assert ledger.pending == 0


def test_first_of_two_finals_of_a_turn_answers_nothing() -> None:
    ledger = flushed(6.0)

    assert ledger.hear_final(4.5) == 0
    assert ledger.hear_final(6.0, from_finalize=True) == 1


def test_final_that_ends_a_step_of_the_decoder_early_answers() -> None:
    assert flushed(2.0).hear_final(1.94) == 1


def test_final_of_two_turns_answers_both() -> None:
    assert flushed(2.0, 3.5).hear_final(3.5) == 2


def test_final_of_one_turn_does_not_answer_the_next() -> None:
    assert flushed(2.0, 3.5).hear_final(2.0, from_finalize=True) == 1


def test_flush_without_audio_since_the_last_is_none() -> None:
    ledger = FlushLedger()

    assert not ledger.flush(0.0)
    assert ledger.flush(1.0)
    assert not ledger.flush(1.0)
    assert ledger.hear_final(1.0) == 1


def test_rest_that_was_final_already_answers_when_no_answer_comes() -> None:
    ledger = FlushLedger()
    ledger.hear_final(4.8)
    ledger.flush(5.0)

    assert ledger.give_up(5.0) == 1
    assert ledger.hear_final(5.0, from_finalize=True) == 0


def test_silence_of_the_service_is_no_answer_for_a_turn() -> None:
    assert flushed(2.0).give_up(2.0) == 0


def test_silence_of_the_service_is_no_answer_where_it_heard_words() -> None:
    ledger = FlushLedger()
    ledger.hear_final(4.8)
    ledger.hear_interim(4.85)
    ledger.flush(5.0)

    assert ledger.give_up(5.0) == 0


def test_words_of_the_next_turn_are_not_owed_to_this_flush() -> None:
    ledger = FlushLedger()
    ledger.hear_final(4.8)
    ledger.flush(5.0)
    ledger.hear_interim(5.4)

    assert ledger.give_up(5.0) == 1


def test_marked_answer_with_an_early_end_counts_when_it_can_be_to_nothing_else() -> None:
    ledger = flushed(5.0)

    assert ledger.hear_final(3.0, from_finalize=True) == 0
    assert ledger.give_up(5.0) == 1


def test_marked_answer_to_an_earlier_flush_is_none_to_a_later_one() -> None:
    ledger = flushed(5.0)
    ledger.hear_final(5.0, from_finalize=True)
    ledger.flush(9.0)

    assert ledger.give_up(9.0) == 0


def test_end_of_the_stream_answers_what_is_left() -> None:
    assert flushed(2.0, 4.0).end() == 2


steps = st.lists(
    st.tuples(
        st.sampled_from(["audio", "flush", "final", "marked", "interim", "give up"]), st.floats(0.01, 20)
    ),
    max_size=40,
)


@given(steps)
def test_every_flush_with_audio_is_answered_exactly_once(sequence: list[tuple[str, float]]) -> None:
    ledger = FlushLedger()
    sent_s, owed, answered = 0.0, 0, 0
    for kind, value in sequence:
        if kind == "audio":
            sent_s += value
        elif kind == "flush":
            owed += ledger.flush(sent_s)
        elif kind == "interim":
            ledger.hear_interim(value)
        elif kind == "give up":
            answered += ledger.give_up(value)
        else:
            answered += ledger.hear_final(value, from_finalize=kind == "marked")
        assert ledger.pending == owed - answered >= 0
    assert answered + ledger.end() == owed
