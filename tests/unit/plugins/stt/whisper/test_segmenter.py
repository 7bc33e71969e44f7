"""Segmentation: the samples of an utterance are those that were pushed, however they were pushed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.whisper.segmenter import Segmenter, Utterance


def is_loud(window: Samples) -> float:
    """A stand-in for voice activity detection that a test can steer."""
    return float(np.abs(window).max() > 1000)


def speech(duration_s: float) -> Samples:
    # No two samples near each other are equal, so that a shift is seen.
    return (2000 + np.arange(round(duration_s * SAMPLE_RATE_HZ)) % 7919).astype(np.int16)


def silence(duration_s: float) -> Samples:
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)


def pushed_in_pieces(samples: Samples, size: int) -> list[Utterance]:
    segmenter = Segmenter(is_loud)
    utterances = []
    for first in range(0, len(samples), size):
        utterances += segmenter.push(samples[first : first + size])
    return utterances + segmenter.flush()


MEETING = np.concatenate([silence(2.0), speech(1.5), silence(1.0), speech(9.0), silence(0.2), speech(30.0)])


@settings(max_examples=15, deadline=None)
@given(st.integers(100, 40_000))
def test_utterances_do_not_depend_on_the_size_of_the_frames(size: int) -> None:
    whole = pushed_in_pieces(MEETING, len(MEETING))
    pieces = pushed_in_pieces(MEETING, size)
    assert [(u.start, u.end, u.speech_end) for u in pieces] == [(u.start, u.end, u.speech_end) for u in whole]


def test_samples_are_those_of_the_positions() -> None:
    utterances = pushed_in_pieces(MEETING, 800)
    assert len(utterances) == 4
    for utterance in utterances:
        np.testing.assert_array_equal(utterance.samples, MEETING[utterance.start : utterance.end])


def test_flush_gives_every_sample_pushed() -> None:
    segmenter = Segmenter(is_loud)
    said = speech(1.2345)
    assert segmenter.push(said) == []
    [utterance] = segmenter.flush()
    np.testing.assert_array_equal(utterance.samples, said)


def test_open_utterance_can_be_read_while_it_goes_on() -> None:
    segmenter = Segmenter(is_loud)
    segmenter.push(speech(1.024))
    assert segmenter.opened is not None
    heard = segmenter.heard(segmenter.opened)
    np.testing.assert_array_equal(heard.samples, speech(1.024))


@given(st.integers(1, 60_000), st.integers(0, 40_000))
def test_what_is_pending_is_what_a_flush_returns(spoken: int, silent: int) -> None:
    segmenter = Segmenter(is_loud)
    segmenter.push(np.concatenate([speech(4.0)[:spoken], silence(3.0)[:silent]]))
    pending, flushed = segmenter.pending(), [part for part in segmenter.flush() if part.voiced_windows]
    assert [positions(part) for part in flushed] == ([] if pending is None else [positions(pending)])
    assert segmenter.pending() is None


def positions(utterance: Utterance) -> tuple[int, ...]:
    return (
        utterance.start,
        utterance.speech_start,
        utterance.speech_end,
        utterance.end,
        utterance.voiced_windows,
    )


def test_short_turn_without_a_voice_is_returned_whole() -> None:
    segmenter = Segmenter(is_loud)
    segmenter.push(speech(2.0))
    segmenter.flush()
    soft = speech(0.7) // 10
    segmenter.push(soft)
    [utterance] = segmenter.flush()
    assert positions(utterance) == (32_000, 32_000, 43_200, 43_200, 0)
    assert not utterance.has_speech
    np.testing.assert_array_equal(utterance.samples, soft)


@pytest.mark.parametrize("duration_s", [0.05, 5.0])
def test_turn_without_a_voice_is_not_returned_where_it_is_a_click_or_long(duration_s: float) -> None:
    segmenter = Segmenter(is_loud)
    segmenter.push(silence(duration_s))
    assert segmenter.flush() == []


def test_turn_whose_speech_was_returned_already_is_not_returned_again() -> None:
    segmenter = Segmenter(is_loud)
    assert len(segmenter.push(np.concatenate([speech(0.2), silence(0.6)]))) == 1
    assert segmenter.flush() == []


def test_silence_is_not_kept() -> None:
    segmenter = Segmenter(is_loud)
    for _ in range(100):
        segmenter.push(silence(1.0))
    assert segmenter.kept_samples <= 0.25 * SAMPLE_RATE_HZ
