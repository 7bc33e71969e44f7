from argparse import ArgumentTypeError
from dataclasses import replace

import pytest

from benchmarks.chaos import Outcome
from benchmarks.chaos.command import _kinds, wanted
from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.figures import Observed, figures
from benchmarks.chaos.keeping import pool
from benchmarks.chaos.observations import (
    OVERLAP_MS,
    Audio,
    Caption,
    Fault,
    HandOver,
    Seen,
    SeqFaults,
    Watched,
    hole_ms,
    overlaps_s,
    recovered_after_s,
    said_twice,
    seq_faults,
    silences_s,
    without_leader_s,
)

NOTHING = Outcome(0, (), (), (), (), ())


def final(seq: int, *, epoch: int = 1, start_ms: int | None = None, text: str = "") -> Caption:
    start_ms = seq * 200 if start_ms is None else start_ms
    return Caption(
        "s", epoch, f"{epoch}-{seq}", seq, text or f"number {epoch} {seq}", start_ms, start_ms + 90
    )


def seen(received_s: float, epoch: int = 1) -> Seen:
    return Seen(received_s, "s", epoch)


def room(
    *events: Seen, spans: tuple[tuple[float, float], ...] = ((0.0, 10.0),), kind: str = "job"
) -> Watched:
    return Watched("r", kind, list(events), list(spans))


def observed(**changes: object) -> Observed:
    nothing = Observed({}, {}, NOTHING, [], [], [], kinds=list(KINDS))
    return replace(nothing, **changes)  # type: ignore[arg-type]


def held(found: Observed) -> dict[str, bool | None]:
    return {figure.name: figure.held for figure in figures(found)}


# Silence


def test_silence_is_between_events_and_to_both_ends_of_what_was_watched() -> None:
    assert list(silences_s(room(seen(2.0), seen(3.0)))) == [2.0, 1.0, 7.0]


def test_a_room_in_which_nothing_came_was_silent_all_the_time() -> None:
    assert list(silences_s(room())) == [10.0]


def test_it_is_no_silence_while_nobody_spoke() -> None:
    events = seen(0.5), seen(1.0), seen(20.0)

    assert max(silences_s(room(*events, spans=((0.0, 1.5), (19.0, 21.0))))) == 1.0


# Two agents


def test_epochs_that_follow_each_other_do_not_overlap() -> None:
    assert not list(overlaps_s([seen(1.0), seen(2.0), seen(2.1, 2), seen(3.0, 2)]))


def test_two_epochs_overlap_while_they_come_in_turns() -> None:
    assert list(overlaps_s([seen(1.0), seen(2.0, 2), seen(4.5), seen(6.0, 2)])) == [2.5]


def test_one_word_of_an_agent_that_was_replaced_counts() -> None:
    assert list(overlaps_s([seen(1.0), seen(2.0, 2), seen(3.0, 2), seen(5.0)])) == [1.0]


# Numbers


def test_numbers_that_rise_by_one_are_right_whoever_gives_them() -> None:
    assert seq_faults([final(1), final(2), final(3, epoch=2)]) == SeqFaults([], [], 0)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1, 2, 2, 3), SeqFaults([final(2)], [], 0)),
        ((1, 3, 2, 4), SeqFaults([], [final(2)], 0)),
        ((1, 2, 5), SeqFaults([], [], 2)),
    ],
)
def test_numbers_that_do_not_rise_by_one_are_counted(numbers: tuple[int, ...], expected: SeqFaults) -> None:
    assert seq_faults(map(final, numbers)) == expected


def test_numbers_that_a_successor_leaves_out_are_not_taken_for_lost_finals() -> None:
    finals = [final(1), final(2), final(102, epoch=2), final(105, epoch=2)]
    assert seq_faults(finals) == SeqFaults([], [], missing=2, skipped=99)


def test_each_session_has_its_own_numbers() -> None:
    other = replace(final(1), session="t")

    assert seq_faults([final(1), other, final(2)]) == SeqFaults([], [], 0)


# The same twice


def test_what_later_epochs_say_of_later_speech_is_not_twice() -> None:
    assert not said_twice([final(1), final(2), final(3, epoch=2)])


def test_a_text_that_comes_again_is_twice() -> None:
    again = final(2, text="Right.")

    assert said_twice([final(1, text="Right."), again]) == [again]


def test_a_successor_that_begins_before_its_predecessor_has_ended_says_it_twice() -> None:
    early = final(3, epoch=2, start_ms=490 - OVERLAP_MS - 1)

    assert said_twice([early, final(1), final(2)]) == [early]
    assert not said_twice([replace(early, start_ms=early.start_ms + 1), final(1), final(2)])


def test_captions_of_one_epoch_may_overlap() -> None:
    assert not said_twice([final(1, start_ms=100), final(2, start_ms=150)])


# Audio and hand-overs


def test_the_hole_is_between_the_last_end_and_the_first_beginning() -> None:
    audio = [Audio("s", 1, 0, 1000), Audio("s", 1, 1000, 500), Audio("s", 2, 1700, 100), Audio("t", 2, 0, 9)]

    assert hole_ms(audio, "s", 1, 2) == 200


def test_where_an_epoch_has_no_audio_no_hole_is_known() -> None:
    assert hole_ms([Audio("s", 1, 0, 1000), Audio("s", 2, 1000, 0)], "s", 1, 2) is None


def test_an_agent_that_leaves_after_the_next_one_leads_leaves_no_time_without_a_leader() -> None:
    handover = HandOver("drain", "r", "s", 1, 2, left_s=5.0, led_s=4.0)

    assert list(without_leader_s([handover, replace(handover, led_s=5.5)])) == [0.0, 0.5]
    assert not list(without_leader_s([replace(handover, left_s=None)]))


def test_a_fault_without_a_known_recovery_has_no_gap() -> None:
    fault = Fault("job", "r", 10.0)

    assert list(recovered_after_s([fault, replace(fault, heard_s=10.5)])) == [0.5]


# The figures


def test_a_run_in_which_nothing_happened_has_figures_all_the_same() -> None:
    found = held(observed())

    assert found["finals_seen"] is False
    assert found["finals_lost"] is True
    assert found["job_gap_p50"] is None


def test_a_lost_final_breaks_the_target() -> None:
    found = held(observed(outcome=replace(NOTHING, finals=1, lost=[("s", "1-1")])))

    assert (found["finals_seen"], found["finals_lost"]) == (True, False)


def test_gaps_have_targets_by_kind_of_fault() -> None:
    fault = Fault("worker", "r", 10.0, heard_s=14.0)
    found = held(
        observed(faults=[fault, replace(fault, kind="job"), replace(fault, kind="up", heard_s=21.0)])
    )

    assert (found["worker_gap_max"], found["job_gap_p50"], found["up_gap_max"]) == (True, False, False)


def test_a_room_without_an_agent_for_long_is_counted_and_its_kind_named() -> None:
    found = {figure.name: figure for figure in figures(observed(watched=[room(spans=((0.0, 12.0),))]))}

    assert (found["rooms_without_agent_10_s"].value, found["job_silence_max"].value) == (1, 12.0)
    assert not found["job_silence_max"].held


def test_two_agents_may_overlap_for_a_moment() -> None:
    events = [seen(1.0), seen(2.0, 2), seen(2.5), seen(6.0, 2)]

    assert held(observed(watched=[room(*events)]))["rooms_with_two_agents_1_s"] is True
    assert held(observed(watched=[room(*events, seen(4.5))]))["rooms_with_two_agents_1_s"] is False


def test_only_a_drain_must_lose_no_audio() -> None:
    found = held(observed(outcome=replace(NOTHING, holes_ms=[("drain", 80), ("reconnect", 900)])))

    assert (found["drain_unheard_max"], found["reconnect_unheard_max"]) == (False, None)


def test_audio_that_overlaps_in_a_hand_over_is_not_unheard() -> None:
    assert held(observed(outcome=replace(NOTHING, holes_ms=[("drain", -40)])))["drain_unheard_max"] is True


def test_two_processes_place_the_same_audio_within_a_block() -> None:
    found = {f.name: f for f in figures(observed(outcome=replace(NOTHING, holes_ms=[("drain", 21)])))}

    assert (found["drain_hole_max"].value, found["drain_unheard_max"].value) == (21, 0)


def test_only_the_kinds_that_were_tried_have_figures() -> None:
    names = [figure.name for figure in figures(observed(kinds=["pause"]))]

    assert "pause_gap_p50" in names
    assert not any(name.startswith(("job_", "drain_")) for name in names)


def test_tries_that_nobody_recovered_from_break_the_target() -> None:
    assert held(observed(unrecovered={"server": 1}))["server_unrecovered"] is False


def test_outcomes_are_pooled() -> None:
    one = replace(NOTHING, finals=2, twice=["a"], seq_missing=1)
    pooled = pool([one, replace(one, twice=["b"])])

    assert (pooled.finals, pooled.twice, pooled.seq_missing, pooled.lost) == (4, ["a", "b"], 2, [])


# What is asked for


def test_everything_is_tried_unless_less_is_asked_for() -> None:
    assert wanted(list(KINDS), None) == {kind: tries for kind, (tries, _) in KINDS.items()}


def test_tries_of_one_kind_are_meant_for_it() -> None:
    assert wanted(["pause"], 2) == {"pause": 2}


def test_tries_of_several_kinds_are_in_proportion_and_never_none() -> None:
    assert wanted(["job", "worker", "pause"], 20) == {"job": 20, "worker": 2, "pause": 1}


def test_kinds_are_named_in_any_order_and_run_in_ours() -> None:
    assert _kinds("worker,job") == ["job", "worker"]
    with pytest.raises(ArgumentTypeError, match="jobs is unknown"):
        _kinds("jobs")
