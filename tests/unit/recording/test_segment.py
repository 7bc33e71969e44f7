"""A segment plays, has the duration that is told, and is measured however it was cut off."""

import stat
from pathlib import Path

import av
import numpy as np
import pytest

from agent.errors import RecordingError
from agent.recording.segment import SegmentError, SegmentWriter, measure

CLICK_AT_MS = (300, 1_730, 3_210)


def clicks(sample_rate_hz: int, duration_ms: int = 4_000) -> np.ndarray:
    """Bursts of 10 ms in silence."""
    samples = np.zeros(duration_ms * sample_rate_hz // 1000, np.int16)
    time = np.arange(sample_rate_hz // 100) / sample_rate_hz
    burst = (20_000 * np.sin(2 * np.pi * 1_000 * time)).astype(np.int16)
    for at_ms in CLICK_AT_MS:
        begin = at_ms * sample_rate_hz // 1000
        samples[begin : begin + len(burst)] = burst
    return samples


def write(path: Path, samples: np.ndarray, sample_rate_hz: int) -> SegmentWriter:
    writer = SegmentWriter(path, sample_rate_hz, 32)
    block = sample_rate_hz // 20
    for begin in range(0, len(samples), block):
        writer.write(samples[begin : begin + block])
    return writer


def played(path: Path) -> np.ndarray:
    """What a player hears of a file, at 48 kHz."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    return np.concatenate(frames) if frames else np.empty(0)


def onsets_ms(sound: np.ndarray) -> list[int]:
    loud = np.flatnonzero(np.abs(sound) > 0.1)
    begins = loud[np.diff(loud, prepend=-48_000) > 4_800]
    return [round(begin / 48) for begin in begins]


@pytest.mark.parametrize("sample_rate_hz", [48_000, 16_000])
def test_what_was_written_is_played_at_its_time_and_for_its_duration(tmp_path, sample_rate_hz):
    path = tmp_path / "a:b.ogg"
    writer = write(path, clicks(sample_rate_hz), sample_rate_hz)
    duration_ms, size_bytes = writer.close()
    assert (duration_ms, size_bytes) == (4_000, path.stat().st_size)
    sound = played(path)
    assert len(sound) == 4_000 * 48
    assert onsets_ms(sound) == pytest.approx(CLICK_AT_MS, abs=5)


def test_closing_twice_gives_the_same(tmp_path):
    writer = write(tmp_path / "a.ogg", clicks(16_000), 16_000)
    assert writer.close() == writer.close()


def test_segment_without_audio_lasts_no_time(tmp_path):
    assert SegmentWriter(tmp_path / "a.ogg", 48_000, 32).close()[0] == 0


def test_only_its_owner_may_hear_it(tmp_path):
    SegmentWriter(tmp_path / "a.ogg", 48_000, 32).close()
    assert stat.S_IMODE((tmp_path / "a.ogg").stat().st_mode) == 0o600


def test_all_but_half_a_second_is_on_disk_while_it_is_written(tmp_path):
    path = tmp_path / "a.ogg"
    writer = SegmentWriter(path, 48_000, 32)
    for written_ms in range(50, 4_000, 50):
        writer.write(np.ones(50 * 48, np.int16))
        assert measure(path) >= written_ms - 500
    writer.close()


def test_file_that_was_cut_anywhere_is_measured_as_it_plays(tmp_path):
    whole = tmp_path / "whole.ogg"
    write(whole, clicks(16_000), 16_000).close()
    content = whole.read_bytes()
    cut = tmp_path / "cut.ogg"
    for size in [*range(0, len(content), 61), len(content) - 1]:
        cut.write_bytes(content[:size])
        if (duration_ms := measure(cut)) > 0:
            assert duration_ms == len(played(cut)) // 48


@pytest.mark.parametrize("content", [b"", b"OggS", b"no audio", b"OggS" * 50_000])
def test_file_that_is_none_lasts_no_time(tmp_path, content):
    (tmp_path / "a.ogg").write_bytes(content)
    assert measure(tmp_path / "a.ogg") == 0


def test_file_that_is_not_there_cannot_be_measured(tmp_path):
    with pytest.raises(RecordingError, match="cannot be read"):
        measure(tmp_path / "a.ogg")


def test_nothing_that_is_there_is_written_over(tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(b"a stem")
    with pytest.raises(SegmentError) as refused:
        SegmentWriter(path, 48_000, 32)
    assert refused.value.code == "disk_error"
    assert path.read_bytes() == b"a stem"


def test_rate_that_opus_does_not_have_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(SegmentError) as refused:
        SegmentWriter(tmp_path / "a.ogg", 44_100, 32)
    assert refused.value.code == "encoder_error"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_encoded_leaves_what_was_written(tmp_path):
    writer = write(tmp_path / "a.ogg", clicks(48_000), 48_000)
    with pytest.raises(SegmentError) as refused:
        writer.write(np.zeros(100, np.float64))
    assert refused.value.code == "encoder_error"
    assert writer.close()[0] >= 3_500
