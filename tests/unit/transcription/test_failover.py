"""Which of several speech engines is used."""

from hypothesis import given
from hypothesis import strategies as st

from agent.transcription.failover import FIRST_BACKOFF_S, MAX_BACKOFF_S, Failover


def test_first_engine_is_used_as_long_as_it_works():
    failover = Failover(2, lambda: 1.0)
    assert failover.choose(0.0) == 0
    assert failover.wait_s(0.0) == 0.0


def test_failed_engine_gives_way_and_is_tried_again_after_its_back_off():
    failover = Failover(2, lambda: 1.0)
    failover.failed(0, 0.0, 10.0)
    assert failover.choose(10.0) == 1
    assert failover.choose(10.0 + FIRST_BACKOFF_S) == 0


def test_nothing_is_used_while_all_wait_and_it_is_known_for_how_long():
    failover = Failover(2, lambda: 1.0)
    failover.failed(0, 0.0, 10.0)
    failover.failed(1, 0.0, 10.2)
    assert failover.choose(10.3) is None
    assert abs(failover.wait_s(10.3) - (FIRST_BACKOFF_S - 0.3)) < 1e-9


def test_streams_that_fail_together_count_once():
    failover = Failover(1, lambda: 1.0)
    failover.failed(0, 0.0, 10.0)
    failover.failed(0, 5.0, 10.1)
    assert failover.choose(10.0 + FIRST_BACKOFF_S) == 0


def test_health_resets_the_back_off():
    failover = Failover(1, lambda: 1.0)
    for now_s in (10.0, 20.0, 30.0):
        failover.failed(0, now_s - 1.0, now_s)
    failover.proved(0, 35.0, 40.0)
    failover.failed(0, 50.0, 60.0)
    assert failover.wait_s(60.0) == FIRST_BACKOFF_S


def test_stream_that_goes_on_does_not_call_back_an_engine_that_refuses_a_second_one():
    failover = Failover(1, lambda: 1.0)
    failover.failed(0, 10.0, 10.0, busy_s=5.0)
    failover.proved(0, 0.0, 11.0)
    assert failover.wait_s(11.0) == 4.0
    assert failover.has_proved(0, 10.0)


def test_engine_that_is_asked_too_much_is_left_alone_for_as_long_as_it_says():
    failover = Failover(1, lambda: 0.0)
    failover.failed(0, 0.0, 10.0, busy_s=45.0)
    assert failover.wait_s(10.0) == 45.0


@given(st.integers(1, 40), st.floats(0.0, 1.0))
def test_back_off_grows_and_is_bounded(failures, jitter):
    failover, now_s, waits = Failover(1, lambda: jitter), 0.0, []
    for _ in range(failures):
        failover.failed(0, now_s, now_s)
        waits.append(round(failover.wait_s(now_s), 6))
        now_s += waits[-1] + 1.0
    assert waits == sorted(waits)
    assert FIRST_BACKOFF_S / 2 <= waits[0] <= waits[-1] <= MAX_BACKOFF_S
