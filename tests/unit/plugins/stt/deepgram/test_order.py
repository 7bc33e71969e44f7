"""Finals: given out in the order of their audio, and none while one before it is owed."""

from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.deepgram.order import HOLE_S, FinalsInOrder
from plugins.stt.deepgram.results import Results

SENT_S = 100.0


def final(start_s: float, end_s: float) -> Results:
    return Results.model_validate(
        {
            "start": start_s,
            "duration": end_s - start_s,
            "channel": {"alternatives": [{"transcript": "words"}]},
            "metadata": {"request_id": "1"},
            "is_final": True,
        }
    )


def test_finals_in_order_are_given_at_once() -> None:
    finals = FinalsInOrder()
    for each in (final(0, 2), final(2, 5), final(5, 6)):
        assert finals.hear(each, SENT_S) == [each]
        assert finals.owed_s == 0


def test_final_that_comes_too_early_waits_for_the_one_before_it() -> None:
    finals = FinalsInOrder()
    first, second = final(0, 2), final(2, 5)

    assert finals.hear(second, SENT_S) == []
    assert finals.owed_s == 2
    assert finals.hear(first, SENT_S) == [first, second]
    assert finals.owed_s == 0


def test_hole_without_room_for_a_word_is_none() -> None:
    finals = FinalsInOrder()
    finals.hear(final(0, 2), SENT_S)

    assert len(finals.hear(final(2 + HOLE_S / 2, 5), SENT_S)) == 1


def test_final_again_is_not_held_back() -> None:
    finals = FinalsInOrder()
    finals.hear(final(0, 5), SENT_S)

    assert len(finals.hear(final(2, 4), SENT_S)) == 1
    assert len(finals.hear(final(5, 6), SENT_S)) == 1


def test_times_outside_the_audio_tell_nothing_of_what_is_owed() -> None:
    finals = FinalsInOrder()

    assert len(finals.hear(final(1000, 1002), SENT_S)) == 1
    assert len(finals.hear(final(-1000, -998), SENT_S)) == 1
    assert finals.owed_s == 0


@given(st.data())
def test_in_whatever_order_they_come_all_are_given_once_and_in_order(data: st.DataObject) -> None:
    lengths_s = data.draw(st.lists(st.floats(HOLE_S + 0.1, 5), min_size=1, max_size=8))
    starts_s = [sum(lengths_s[:at]) for at in range(len(lengths_s))]
    tiles = [final(start, start + length) for start, length in zip(starts_s, lengths_s, strict=True)]
    finals = FinalsInOrder()

    given_out = [each for tile in data.draw(st.permutations(tiles)) for each in finals.hear(tile, SENT_S)]

    assert [each.start for each in given_out] == starts_s
    assert finals.owed_s == 0
