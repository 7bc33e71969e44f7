"""Endpointing: utterances open and close where they should, and share or lose no sample."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.values import SAMPLE_RATE_HZ
from plugins.stt.whisper.endpoint import (
    CUT_AFTER_S,
    LONGEST_UTTERANCE_S,
    START_WINDOWS,
    WINDOW_SAMPLES,
    Closed,
    Endpointer,
    Opened,
)

VOICE = (0.9, 1.0)
SILENCE = (0.0, 0.0)


def windows(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ / WINDOW_SAMPLES)


def run(*stretches: tuple[tuple[float, float], float]) -> list[Opened | Closed]:
    """Push stretches of ((probability, power), seconds), then flush."""
    endpointer = Endpointer()
    decisions: list[Opened | Closed] = []
    for (probability, power), duration_s in stretches:
        for _ in range(windows(duration_s)):
            decisions += endpointer.push(probability, power)
    return decisions + list(endpointer.flush())


def closed(decisions: list[Opened | Closed]) -> list[Closed]:
    return [decision for decision in decisions if isinstance(decision, Closed)]


def test_silence_opens_nothing() -> None:
    assert run((SILENCE, 60.0)) == []


def test_click_shorter_than_three_windows_opens_nothing() -> None:
    assert run((SILENCE, 1.0), (VOICE, 0.064), (SILENCE, 1.0)) == []


def test_utterance_has_pre_roll_and_ends_after_half_a_second_of_silence() -> None:
    [opened, ended] = run((SILENCE, 1.6), (VOICE, 1.6), (SILENCE, 3.2))
    voice_start, voice_end = windows(1.6) * WINDOW_SAMPLES, windows(3.2) * WINDOW_SAMPLES
    assert opened == Opened(voice_start - 3200, voice_start)
    assert ended == Closed(
        voice_start - 3200, voice_end + 16 * WINDOW_SAMPLES, voice_start, voice_end, windows(1.6)
    )


def test_pause_of_a_third_of_a_second_does_not_end_a_short_utterance() -> None:
    assert len(closed(run((VOICE, 1.6), (SILENCE, 0.32), (VOICE, 1.6), (SILENCE, 1.0)))) == 1


def test_voice_that_fades_stays_open_down_to_the_lower_threshold() -> None:
    [ended] = closed(run((VOICE, 0.96), ((0.4, 1.0), 0.96), (SILENCE, 1.0)))
    assert ended.speech_end == (windows(0.96) * 2) * WINDOW_SAMPLES


def test_only_windows_of_clear_voice_are_counted() -> None:
    faint = (0.4, 1.0)
    [ended] = closed(run((VOICE, 0.32), (faint, 0.64), (SILENCE, 0.32), (VOICE, 0.16), (SILENCE, 1.0)))
    assert ended.voiced_windows == windows(0.32) + windows(0.16)


def test_long_utterance_ends_at_the_first_short_pause() -> None:
    decisions = run((VOICE, CUT_AFTER_S + 0.5), (SILENCE, 0.192), (VOICE, 1.6))
    first, second = closed(decisions)
    assert CUT_AFTER_S < (first.end - first.start) / SAMPLE_RATE_HZ < CUT_AFTER_S + 1.0
    assert first.end <= second.start


def test_speech_without_a_pause_is_divided_at_its_quietest_moment_without_a_gap() -> None:
    quiet_from = windows(23.0) * WINDOW_SAMPLES
    decisions = run((VOICE, 23.0), ((0.9, 0.01), 0.192), (VOICE, 10.0))
    first, second = closed(decisions)
    assert first.end == second.start == second.speech_start
    assert quiet_from <= first.end <= quiet_from + windows(0.192) * WINDOW_SAMPLES


def test_flush_ends_the_utterance_with_the_very_last_sample() -> None:
    endpointer = Endpointer()
    for _ in range(windows(1.0)):
        endpointer.push(*VOICE)
    [ended] = endpointer.flush(100)
    assert ended.end == ended.speech_end == windows(1.0) * WINDOW_SAMPLES + 100


def test_nothing_from_before_a_flush_gets_into_the_next_utterance() -> None:
    endpointer = Endpointer()
    for _ in range(windows(1.0)):
        endpointer.push(*SILENCE)
    endpointer.flush(17)
    flushed_at = windows(1.0) * WINDOW_SAMPLES + 17
    opened = [endpointer.push(*VOICE) for _ in range(START_WINDOWS)][-1]
    assert opened == [Opened(flushed_at, flushed_at)]


def test_turn_whose_voice_is_noticed_late_is_heard_from_the_flush_on() -> None:
    endpointer = Endpointer()
    for _ in range(windows(0.48)):
        endpointer.push(*SILENCE)
    [opened] = [decision for _ in range(START_WINDOWS) for decision in endpointer.push(*VOICE)]
    assert opened == Opened(0, windows(0.48) * WINDOW_SAMPLES)


# A probability and a power, for one to two hundred windows at a time.
stretch = st.tuples(st.sampled_from([0.0, 0.3, 0.4, 0.6, 0.9]), st.floats(0.0, 1.0), st.integers(1, 200))


@given(st.lists(stretch, max_size=20), st.integers(0, WINDOW_SAMPLES - 1))
def test_utterances_neither_overlap_nor_lose_voice(
    stretches: list[tuple[float, float, int]], remainder: int
) -> None:
    endpointer = Endpointer()
    decisions: list[Opened | Closed] = []
    for probability, power, count in stretches:
        for _ in range(count):
            decisions += endpointer.push(probability, power)
            assert endpointer.retained_from <= endpointer.position
    decisions += endpointer.flush(remainder)

    # They alternate, and each one closes with the start that it was opened with.
    assert [type(decision) for decision in decisions] == [Opened, Closed] * (len(decisions) // 2)
    for opened, ended in zip(decisions[::2], decisions[1::2], strict=True):
        assert isinstance(opened, Opened)
        assert isinstance(ended, Closed)
        assert (opened.start, opened.speech_start) == (ended.start, ended.speech_start)
        assert ended.start <= ended.speech_start < ended.speech_end <= ended.end
        assert (ended.end - ended.start) / SAMPLE_RATE_HZ <= LONGEST_UTTERANCE_S + 0.1
    for before, after in pairwise(closed(decisions)):
        assert before.end <= after.start

    # Every run of START_WINDOWS windows of clear voice is inside utterances.
    inside: set[int] = set()
    for ended in closed(decisions):
        inside.update(range(ended.start // WINDOW_SAMPLES, -(-ended.end // WINDOW_SAMPLES)))
    clear = [p >= 0.5 for p, _, count in stretches for _ in range(count)]
    for at in range(len(clear) - START_WINDOWS + 1):
        if all(clear[at : at + START_WINDOWS]):
            assert inside.issuperset(range(at, at + START_WINDOWS))
