import pytest

from agent.dispatch_policy import Pursuit, Reason, Verdict, is_among, wants_agent
from persistence.open_rooms import RoomRecord

A_LONG_TIME_S = 1_000.0


@pytest.mark.parametrize(
    ("room", "patterns", "is_served"),
    [
        ("weekly", ["*"], True),
        ("team-red", ["board", "team-*"], True),
        ("Team-red", ["team-*"], False),
        ("my-team-red", ["team-*"], False),
    ],
)
def test_patterns_are_those_of_a_shell(room: str, patterns: list[str], is_served: bool) -> None:
    assert is_among(room, patterns) == is_served


@pytest.mark.parametrize(
    ("record", "is_served", "was_asked", "is_wanted"),
    [
        (RoomRecord(), True, False, False),
        (RoomRecord(), True, True, True),
        (RoomRecord(), False, True, False),
        (RoomRecord(has_agent=True), True, False, True),
        (RoomRecord(has_agent=True), False, False, True),
        (RoomRecord(has_agent=False), True, True, False),
        (RoomRecord(has_agent=False, has_open_session=True), True, True, False),
        (RoomRecord(has_open_session=True), True, False, True),
        (RoomRecord(has_open_session=True), False, False, False),
        *((RoomRecord(ended_by=by), True, True, False) for by in ("api", "host", "duration", "participants")),
        (RoomRecord(ended_by="idle"), True, True, False),
        (RoomRecord(has_agent=True, ended_by="api"), True, True, False),
        (RoomRecord(ended_by="agent_lost"), True, True, True),
        (RoomRecord(ended_by="room_closed"), True, False, False),
    ],
)
def test_a_room_wants_an_agent_where_it_asks_or_its_session_goes_on(
    record: RoomRecord, is_served: bool, was_asked: bool, is_wanted: bool
) -> None:
    assert wants_agent(record, is_served=is_served, was_asked=was_asked) == is_wanted


@pytest.mark.parametrize(
    ("is_wanted", "people", "is_parked", "verdict"),
    [
        (False, 2, False, Verdict.UNWANTED),
        (True, 0, False, Verdict.EMPTY),
        (True, 0, True, Verdict.EMPTY),
        (True, 1, True, Verdict.PARKED),
        (True, 1, False, Verdict.DISPATCH),
    ],
)
def test_only_people_who_want_an_agent_get_one(
    is_wanted: bool, people: int, is_parked: bool, verdict: Verdict
) -> None:
    pursuit = Pursuit()

    assert (
        pursuit.decide(is_wanted=is_wanted, people=people, is_parked=is_parked, now_s=A_LONG_TIME_S)
        == verdict
    )


def is_due(pursuit: Pursuit, now_s: float) -> bool:
    verdict = pursuit.decide(is_wanted=True, people=1, is_parked=False, now_s=now_s)
    assert verdict in (Verdict.DISPATCH, Verdict.WAIT)
    return verdict is Verdict.DISPATCH


def test_waits_between_dispatches_grow_while_nobody_comes() -> None:
    pursuit, now_s, waits_s = Pursuit(), 100.0, []
    pursuit.note_asked(now_s)  # by LiveKit, when the room was made
    for _ in range(7):
        waits_s.append(pursuit.due_s - now_s)
        now_s = pursuit.due_s
        assert not is_due(pursuit, now_s - 0.1)
        assert is_due(pursuit, now_s)
        pursuit.note_dispatched(now_s)

    assert waits_s == [3, 3, 6, 12, 24, 30, 30]


def test_a_known_death_brings_a_successor_at_once_and_only_one() -> None:
    pursuit = Pursuit()
    for now_s in (100.0, 103.0, 106.0):
        pursuit.note_dispatched(now_s)
    assert pursuit.reason is Reason.NEVER_CAME

    pursuit.note_death("agent-1", Reason.LEASE_LAPSED, 107.0)

    assert (pursuit.reason, pursuit.dead, is_due(pursuit, 107.0)) == (Reason.LEASE_LAPSED, "agent-1", True)
    pursuit.note_dispatched(107.0)
    pursuit.note_death("agent-1", Reason.AGENT_DIED, 108.0)
    assert not is_due(pursuit, 108.0)
    assert is_due(pursuit, 110.0)
    assert pursuit.reason is Reason.NEVER_CAME
    pursuit.note_death("agent-2", Reason.AGENT_DIED, 108.0)
    assert is_due(pursuit, 108.0)


def test_who_was_asked_in_after_a_death_is_waited_for() -> None:
    pursuit = Pursuit()
    pursuit.note_asked(100.0)
    pursuit.note_death("agent-1", Reason.LEASE_LAPSED, 107.0)
    pursuit.note_asked(107.5)  # by its worker

    assert not is_due(pursuit, 110.0)
    assert is_due(pursuit, 110.5)
