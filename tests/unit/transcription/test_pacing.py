"""How fast a stream is fed."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.transcription.pacing import AHEAD_MS, Pacer


@given(
    st.floats(1.0, 8.0),
    st.lists(st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 1_000.0)), max_size=50),
)
def test_stream_never_gets_more_than_its_rate_and_a_little_ahead(rate, steps):
    pacer, now_s, sent_ms = Pacer(rate, 0.0), 0.0, 0.0
    for wait_s, wanted_ms in steps:
        now_s += wait_s
        taken_ms = max(min(wanted_ms, pacer.allowed_ms(now_s)), 0.0)
        pacer.spend(taken_ms)
        sent_ms += taken_ms
        assert sent_ms <= 1_000 * rate * now_s + AHEAD_MS + 1e-6


def test_stream_at_a_rate_catches_up_at_that_rate():
    pacer, sent_ms = Pacer(2.0, 0.0), 0.0
    for tick in range(1, 101):
        allowed_ms = pacer.allowed_ms(tick * 0.05)
        pacer.spend(allowed_ms)
        sent_ms += allowed_ms
    assert sent_ms == pytest.approx(2 * 5_000 + AHEAD_MS, rel=0.03)


def test_stream_without_a_limit_takes_everything():
    assert Pacer(inf, 0.0).allowed_ms(0.0) == inf
