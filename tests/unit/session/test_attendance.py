"""Who was there, when, and under which name."""

from agent.session.attendance import Attendance
from persistence.records import Presence


def presence(name: str, joined_ms: int, left_ms: int | None = None) -> Presence:
    return Presence(identity="nora", name=name, joined_ms=joined_ms, left_ms=left_ms)


def test_somebody_is_there_from_their_coming_to_their_going():
    attendance = Attendance()
    assert attendance.arrive("nora", "Nora", 100) == [presence("Nora", 100)]
    assert len(attendance) == 1
    assert attendance.leave("nora", 900) == [presence("Nora", 100, 900)]
    assert len(attendance) == 0


def test_another_name_begins_another_stretch():
    attendance = Attendance()
    attendance.arrive("nora", "Nora", 100)
    assert attendance.arrive("nora", "Nora", 200) == []
    assert attendance.arrive("nora", "Nora K.", 300) == [
        presence("Nora", 100, 300),
        presence("Nora K.", 300),
    ]


def test_who_was_not_there_does_not_leave():
    assert Attendance().leave("nora", 100) == []


def test_at_the_end_everybody_has_left():
    attendance = Attendance()
    attendance.arrive("nora", "Nora", 100)
    attendance.arrive("omar", "Omar", 200)
    assert [record.left_ms for record in attendance.leave_all(500)] == [500, 500]
    assert len(attendance) == 0
