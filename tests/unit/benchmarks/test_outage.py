from argparse import ArgumentTypeError
from collections.abc import Iterable

import pytest

from agent.transcription.engine import EngineDown, EngineUp, Missed, Told
from agent.values import Heard, Word
from benchmarks.outage.command import _kinds, plans
from benchmarks.outage.faults import FAILOVER, UNDISTURBED
from benchmarks.outage.figures import LATE_S, Cost, cost_of, explain, figures
from benchmarks.outage.run import Plan, Session
from benchmarks.outage.talk import LONGEST_S, Spoken, Talk, number_of, talk

WORDS = {1: Spoken("a", 1.0), 2: Spoken("a", 12.0), 3: Spoken("b", 14.0), 4: Spoken("a", 30.0)}
IN_TIME = [(1.5, [1]), (21.0, [2]), (22.0, [3]), (30.5, [4])]


def final(*numbers: int, track_id: str | None = None, shift_s: float = 0.0) -> Heard:
    spoken = [WORDS.get(number, Spoken("a", 0.0)) for number in numbers]
    words = tuple(
        Word(f"w{number}", round((word.start_s + shift_s) * 1000), round((word.end_s + shift_s) * 1000), 0.9)
        for number, word in zip(numbers, spoken, strict=True)
    )
    return Heard(
        utterance=1,
        is_final=True,
        text=" ".join(word.text for word in words),
        start_ms=words[0].start_ms,
        end_ms=words[-1].end_ms,
        language="en",
        confidence=0.9,
        words=words,
        turn=1,
        track_id=track_id or spoken[0].track_id,
    )


def session(told: Iterable[tuple[float, Told]], *, kind: str = "killed", length_s: float = 5.0) -> Session:
    """One of four words, with an outage from 12 to 20 s."""
    return Session(Plan(kind, length_s), Talk([], WORDS), began_s=12.0, ended_s=20.0, told=list(told))


def heard(*more: tuple[float, Told], kind: str = "killed", without: int = 0) -> Cost:
    told = [(at_s, final(*numbers)) for at_s, numbers in IN_TIME if without not in numbers]
    return cost_of(session(sorted([*told, *more], key=lambda each: each[0]), kind=kind))


# What is said


def test_each_word_of_a_talk_is_unlike_all_others_and_says_when_it_was_said() -> None:
    found = talk(LONGEST_S, seed=1)
    numbers = [int(window.samples[0]) for windows in found.steps for window in windows]

    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers
    assert all(window.samples.min() == window.samples.max() for windows in found.steps for window in windows)
    assert set(found.words) <= set(numbers)


def test_two_of_several_people_speak_at_once_now_and_then() -> None:
    found = talk(100.0, seed=1)
    starts = [word.start_s for word in found.words.values()]
    at_once = len(starts) - len(set(starts))

    assert {word.track_id for word in found.words.values()} == set(found.tracks)
    assert 0.03 < at_once / len(starts) < 0.3


def test_nobody_says_two_things_at_once() -> None:
    words = talk(100.0, seed=2).words.values()

    assert len({(word.track_id, word.start_s) for word in words}) == len(words)


def test_a_talk_is_the_same_for_the_same_seed() -> None:
    assert talk(20.0, seed=3).words == talk(20.0, seed=3).words
    assert talk(20.0, seed=3).words != talk(20.0, seed=4).words


def test_the_stand_ins_words_are_numbers() -> None:
    assert number_of("w8001") == 8001


# What it costs


def test_what_is_told_once_under_its_name_and_at_its_time_costs_nothing() -> None:
    cost = heard()

    assert (cost.said, cost.lost, cost.untold, cost.twice, cost.misplaced) == (4, 0, 0, 0, 0)
    assert (cost.down_s, cost.up_s, cost.false_ups) == (None, None, 0)


def test_a_word_without_a_final_is_lost_and_untold_unless_it_was_told_as_missed() -> None:
    missed = Missed("b", 13_900, 14_100, "engine")

    assert (heard(without=3).lost, heard(without=3).untold) == (1, 1)
    assert (heard((90.0, missed), without=3).lost, heard((90.0, missed), without=3).untold) == (1, 0)
    assert heard((90.0, Missed("a", 0, 99_000, "engine")), without=3).untold == 1


def test_a_final_with_a_word_that_was_told_is_twice() -> None:
    assert heard((23.0, final(3))).twice == 1
    assert heard((23.0, final(9, 9))).twice == 1


def test_silence_that_is_told_around_words_is_no_word() -> None:
    assert heard((23.0, final(7, 8))) == heard()


def test_a_word_under_another_name_or_at_another_time_is_misplaced_and_lost() -> None:
    for wrong in (final(3, track_id="a"), final(3, shift_s=0.1)):
        cost = heard((23.0, wrong), without=3)
        assert (cost.misplaced, cost.lost) == (1, 1)


def test_words_are_late_by_the_time_from_their_end_to_their_final() -> None:
    at_s = WORDS[3].end_s + LATE_S

    assert heard((at_s - 0.1, final(3)), without=3).late == 0
    assert heard((at_s + 0.1, final(3)), without=3).late == 1
    assert heard((at_s + 0.1, final(3)), without=3).slowest_s == pytest.approx(LATE_S + 0.1)


def test_recovery_counts_from_the_end_of_the_outage() -> None:
    cost = heard()

    assert (cost.lasted_s, cost.first_final_s, cost.caught_up_s) == (8.0, 1.0, 2.0)


def test_with_a_second_engine_recovery_counts_from_the_beginning() -> None:
    cost = heard((13.0, final(2)), kind=FAILOVER, without=2)

    assert (cost.first_final_s, cost.caught_up_s) == (1.0, 0.0)


def test_the_room_is_told_of_the_outage_and_of_its_end() -> None:
    cost = heard(
        (12.5, EngineDown("no")), (15.0, EngineUp("e")), (16.0, EngineDown("no")), (23.0, EngineUp("e"))
    )

    assert (cost.down_s, cost.up_s, cost.false_ups) == (0.5, 3.0, 1)


def test_where_nothing_was_told_there_are_no_times() -> None:
    cost = cost_of(session([]))

    assert (cost.lost, cost.slowest_s, cost.first_final_s, cost.caught_up_s) == (4, None, None, None)


# The figures


def test_sessions_of_one_plan_are_summed_and_the_longest_time_counts() -> None:
    told = [(at_s, final(*numbers)) for at_s, numbers in IN_TIME]
    found = {figure.name: figure for figure in figures([session(told), session(told[:-1])])}

    assert (found["killed_5s_words"].value, found["killed_5s_words_lost"].value) == (8, 1)
    assert found["killed_5s_words_lost"].held is False
    assert found["killed_5s_caught_up"].value == 2.0


def test_only_where_another_engine_takes_over_nothing_may_be_late() -> None:
    late = [(at_s + 60.0, final(*numbers)) for at_s, numbers in IN_TIME]
    found = {figure.name: figure for figure in figures([session(late), session(late, kind=FAILOVER)])}

    assert (found["killed_5s_words_late"].held, found["failover_5s_words_late"].held) == (None, False)


def test_an_undisturbed_session_has_no_recovery() -> None:
    names = [figure.name for figure in figures([session([], kind=UNDISTURBED)])]

    assert "undisturbed_words_lost" in names
    assert not any(name.endswith(("_outage", "_first_final", "_told")) for name in names)


# What is asked for


def test_each_kind_has_each_length_and_a_second_engine_only_the_longest() -> None:
    assert [plan.name for plan in plans(["killed", FAILOVER])] == [
        "undisturbed",
        "killed_5s",
        "killed_20s",
        "killed_60s",
        "failover_60s",
    ]


def test_kinds_are_named_in_any_order_and_run_in_ours() -> None:
    assert _kinds("failover,killed") == ["killed", "failover"]
    with pytest.raises(ArgumentTypeError, match="deaf is unknown"):
        _kinds("deaf")


def test_what_was_lost_told_twice_or_misplaced_is_named() -> None:
    told = [(1.5, final(1)), (2.5, final(1)), (23.0, final(2, shift_s=0.5)), (24.0, final(4))]

    assert list(explain(session(told))) == [
        "lost: 1 words of a, 12.00 to 12.00 s",
        "lost: 1 words of b, 14.00 to 14.00 s",
        "twice: a, 1000 to 1032 ms, told at 2.50 s",
        "misplaced: a 12.000 s, told as a 12500 ms in turn 1, 12500 to 12532 ms",
    ]
