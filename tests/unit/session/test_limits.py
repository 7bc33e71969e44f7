"""The limits of a session: which one is reached, and what people are told."""

import pytest

from agent.session.limits import Limit, SessionLimits

LIMITS = SessionLimits(idle_s=600, max_duration_s=7200, max_participants=3)


@pytest.mark.parametrize(
    ("now_s", "last_voice_s", "participants", "expected"),
    [
        (0, 0, 0, None),
        (599, 0, 3, None),
        (600, 0, 3, Limit.IDLE),
        (7_199, 7_000, 3, None),
        (7_200, 7_199, 3, Limit.DURATION),
        (1, 1, 4, Limit.PARTICIPANTS),
    ],
)
def test_session_ends_at_its_limit_and_not_before(
    now_s: int, last_voice_s: int, participants: int, expected: Limit | None
):
    reached = LIMITS.reached(
        now_ms=now_s * 1000, last_voice_ms=last_voice_s * 1000, participants=participants
    )
    assert reached is expected


def test_zero_is_no_limit():
    assert SessionLimits().reached(now_ms=10**12, last_voice_ms=0, participants=10**6) is None


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (Limit.IDLE, "Captions have ended: nobody spoke for 10 minutes."),
        (Limit.DURATION, "Captions have ended: they last 2 hours at most."),
        (Limit.PARTICIPANTS, "Captions have ended: there are more than 3 people here."),
    ],
)
def test_people_are_told_why_captions_end(limit: Limit, told: str):
    assert LIMITS.explain(limit) == told


def test_odd_times_are_told_in_seconds():
    assert "for 90 seconds" in SessionLimits(idle_s=90).explain(Limit.IDLE)
    assert "for 1 hour." in SessionLimits(idle_s=3600).explain(Limit.IDLE)
