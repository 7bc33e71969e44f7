import numpy as np
import pytest

from agent.audio.activity import KEEP_MS, WINDOW_MS, WINDOW_SAMPLES, VoiceDetector, VoiceLog, Window
from agent.values import SAMPLES_PER_MS, Block


class LevelDetector:
    """Voice is what is not silent. Counts its resets."""

    def __init__(self) -> None:
        self.resets = 0

    def predict(self, pcm: np.ndarray) -> float:
        assert pcm.shape == (512,)
        return float(np.mean(pcm != 0))

    def reset(self) -> None:
        self.resets += 1


def block(start_ms: int, duration_ms: int, value: int = 1) -> Block:
    return Block("a", start_ms, np.full(duration_ms * SAMPLES_PER_MS, value, np.int16))


def test_blocks_of_any_length_become_windows_placed_in_time():
    detector = VoiceDetector(LevelDetector())
    voices = [voice for start in (1_000, 1_050, 1_100) for voice in detector.detect(block(start, 50))]
    assert [(voice.start_ms, voice.end_ms) for voice in voices] == [
        (1_000, 1_032),
        (1_032, 1_064),
        (1_064, 1_096),
        (1_096, 1_128),
    ]
    assert {voice.voice_ms for voice in voices} == {float(WINDOW_MS)}


def test_gap_in_a_track_starts_the_detector_afresh():
    native = LevelDetector()
    detector = VoiceDetector(native)
    detector.detect(block(1_000, 40))
    before = native.resets
    rest, first = detector.detect(block(5_000, 40))
    assert native.resets == before + 1
    assert (rest.start_ms, first.start_ms) == (1_032, 5_000)


def test_what_does_not_fill_a_window_is_not_lost_at_the_end():
    detector = VoiceDetector(LevelDetector())
    detector.detect(block(1_000, 40))
    [rest] = detector.finish("a")
    assert (rest.start_ms, int(rest.samples.sum())) == (1_032, 8 * SAMPLES_PER_MS)
    assert detector.finish("a") == []


def window(track_id: str, start_ms: int, probability: float) -> Window:
    return Window(track_id, start_ms, np.zeros(WINDOW_SAMPLES, np.int16), probability)


def log_of(identity: str, start_ms: int, end_ms: int, log: VoiceLog | None = None) -> VoiceLog:
    log = log or VoiceLog()
    for at in range(start_ms, end_ms, WINDOW_MS):
        log.add(identity, window("t", at, 1.0))
    return log


def test_voice_is_counted_only_between_the_two_times():
    log = log_of("nora", 0, 3_200)
    assert log.voice_in(1_000, 1_500) == {"nora": pytest.approx(500)}
    assert log.voice_in(3_100, 9_000) == {"nora": pytest.approx(100)}
    assert log.voice_in(5_000, 6_000) == {}


def test_voices_of_several_people_are_told_apart():
    log = log_of("felix", 1_600, 3_200, log_of("nora", 0, 1_600))
    assert log.voice_in(1_500, 1_800) == {"nora": pytest.approx(100), "felix": pytest.approx(200)}


def test_who_is_heard_by_two_tracks_does_not_speak_twice():
    log = log_of("nora", 0, 3_200)
    for at in range(160, 3_200, WINDOW_MS):
        log.add("nora", window("another track", at, 0.5))
    assert log.voice_in(1_000, 1_500) == {"nora": pytest.approx(500)}


def test_who_could_be_heard_and_was_silent_is_told_from_who_was_not_there():
    log = log_of("nora", 0, 1_600)
    for at in range(0, 1_600, WINDOW_MS):
        log.add("omar", window("u", at, 0.0))
    assert log.voice_in(500, 900) == {"nora": pytest.approx(400), "omar": 0.0}


def test_who_has_been_silent_for_long_is_forgotten():
    log = log_of("omar", 0, 1_600)
    log_of("nora", 0, 4 * KEEP_MS, log)
    assert log.voice_in(0, 4 * KEEP_MS).keys() == {"nora"}


def test_memory_of_a_long_session_is_bounded():
    log = log_of("nora", 0, 4 * KEEP_MS)
    assert log.voice_in(0, KEEP_MS) == {}
    assert log.voice_in(4 * KEEP_MS - 1_000, 4 * KEEP_MS) == {"nora": pytest.approx(1_000)}
