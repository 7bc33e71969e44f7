"""The benchmark of the local engine: turns as a session feeds them, and what is made of the answers."""

import numpy as np
import pytest

from agent.audio.turns import PAUSED_MS, PRE_ROLL_MS, TAIL_MS
from agent.values import SAMPLE_RATE_HZ, Samples
from benchmarks.whisper import BLOCK_MS, Flush, Prepare, Send, plan_turns


def is_loud(window: Samples) -> float:
    """A stand-in for voice activity detection that a test can steer."""
    return float(np.abs(window).max() > 1000)


def track(*stretches: tuple[int, float]) -> Samples:
    """Stretches of an amplitude and seconds."""
    parts = [np.full(round(duration_s * SAMPLE_RATE_HZ), level) for level, duration_s in stretches]
    return np.concatenate(parts).astype(np.int16)


def sent_ms(steps: list[Send | Prepare | Flush]) -> int:
    return sum(step.end_ms - step.start_ms for step in steps if isinstance(step, Send))


def test_silence_is_no_turn() -> None:
    assert plan_turns(track((0, 5.0)), is_loud) == []


def test_turn_is_its_speech_with_a_little_silence_around_it() -> None:
    steps = plan_turns(track((0, 1.6), (5000, 1.6), (0, 3.2)), is_loud)
    assert [type(step) for step in steps if not isinstance(step, Send)] == [Prepare, Flush]
    assert sent_ms(steps) == pytest.approx(1600 + PRE_ROLL_MS + TAIL_MS, abs=64)
    prepare, flush = steps[-2:]
    assert prepare.at_ms == pytest.approx(3200 + PAUSED_MS, abs=BLOCK_MS + 32)
    assert flush.at_ms == pytest.approx(3200 + 500, abs=BLOCK_MS + 32)


def test_pause_is_prepared_for_and_then_sent_after_all_if_speech_goes_on() -> None:
    steps = plan_turns(track((0, 1.6), (5000, 1.6), (0, 0.4), (5000, 1.6), (0, 1.0)), is_loud)
    assert [type(step) for step in steps if not isinstance(step, Send)] == [Prepare, Prepare, Flush]
    assert {step.turn for step in steps if isinstance(step, Send)} == {1}
    assert sent_ms(steps) == pytest.approx(3600 + PRE_ROLL_MS + TAIL_MS, abs=64)


def test_nothing_is_sent_before_it_was_said() -> None:
    steps = plan_turns(track((0, 1.0), (5000, 9.0), (0, 0.2), (5000, 1.0), (0, 0.3)), is_loud)
    assert all(step.end_ms <= step.at_ms for step in steps if isinstance(step, Send))
    assert [step.at_ms for step in steps] == sorted(step.at_ms for step in steps)
    assert isinstance(steps[-1], Flush)
