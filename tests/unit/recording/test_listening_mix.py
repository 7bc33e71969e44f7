"""A listening mix plays what was said when it was said, and says what of it was not there."""

import errno
import math
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.errors import RecordingError
from agent.recording.listening_mix import BLOCK_MS, MEDIA_TYPE, Rendered, render
from agent.recording.segment import SegmentWriter
from persistence.renderings import Source

RATE_HZ = 48_000
MAX_OFF_MS = 20  # AAC spreads what begins suddenly over some milliseconds
LOW_HZ, HIGH_HZ = 440, 2_500
FULL_SCALE = 32_767

Sound = NDArray[np.float32]


def tone(duration_ms: int, sample_rate_hz: int = RATE_HZ, *, hz: int = LOW_HZ, level: float = 0.3) -> Sound:
    time = np.arange(duration_ms * sample_rate_hz // 1000) / sample_rate_hz
    return (level * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def click(at_ms: int, duration_ms: int, sample_rate_hz: int = RATE_HZ) -> Sound:
    """A burst of 10 ms in silence."""
    samples = np.zeros(duration_ms * sample_rate_hz // 1000, np.float32)
    burst = tone(10, sample_rate_hz, hz=1_000, level=0.6)
    begin = at_ms * sample_rate_hz // 1000
    samples[begin : begin + len(burst)] = burst
    return samples


class Disk:
    """A worker's folder of stems."""

    def __init__(self, folder: Path) -> None:
        self.stems = folder / "stems"
        self.stems.mkdir()
        self.output = folder / "renderings" / "listening.m4a"
        self.sources: list[Source] = []

    def speak(self, identity: str, start_ms: int, samples: Sound, sample_rate_hz: int = RATE_HZ) -> Path:
        """Write a segment as a session does."""
        path = self.stems / f"{identity}-{len(self.sources) + 1:04}.ogg"
        writer = SegmentWriter(path, sample_rate_hz, 64)
        writer.write((samples * FULL_SCALE).astype(np.int16))
        duration_ms, _ = writer.close()
        self.sources.append(Source(identity, "worker", path.name, sample_rate_hz, start_ms, duration_ms))
        return path

    def render(self, duration_ms: int) -> Rendered:
        return render(self.sources, self.stems, self.output, duration_ms=duration_ms)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def played(path: Path) -> Sound:
    """What a browser plays: from the edit list's begin, for as long as the file says."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        assert stream.duration is not None
        assert stream.time_base is not None
        samples = round(stream.duration * stream.time_base * RATE_HZ)
    assert [frame.pts for frame in frames[:1]] == [0]
    sound: Sound = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return sound[:samples]


def sought(path: Path, at_ms: int) -> Sound:
    """Half a second from where a player stands that sought a time."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.time_base is not None
        container.seek(round(Fraction(at_ms, 1000) / stream.time_base), stream=stream)
        pieces = []
        for frame in container.decode(stream):
            assert frame.pts is not None
            begin = at_ms * RATE_HZ // 1000 - frame.pts
            if begin < frame.samples:
                pieces.append(frame.to_ndarray()[0][max(begin, 0) :])
            if begin < -RATE_HZ // 2:
                break
    sound: Sound = np.concatenate(pieces)
    return sound[: RATE_HZ // 2]


def onsets_ms(sound: Sound) -> list[int]:
    loud = np.flatnonzero(np.abs(sound) > 0.15)
    begins = loud[np.diff(loud, prepend=-RATE_HZ) > RATE_HZ // 10]
    return [round(begin * 1000 / RATE_HZ) for begin in begins]


def level(sound: Sound, begin_ms: int, end_ms: int, *, hz: int | None = None) -> float:
    """The amplitude of a tone in a part of what is played, or the loudest sample."""
    part = sound[begin_ms * RATE_HZ // 1000 : end_ms * RATE_HZ // 1000]
    if hz is None:
        return float(np.abs(part).max())
    wave = np.exp(-2j * np.pi * hz * np.arange(len(part)) / RATE_HZ)
    return float(2 * np.abs(np.mean(part * wave)))


def test_two_who_overlap_are_each_heard_in_their_time(disk: Disk) -> None:
    disk.speak("nora", 1_000, tone(4_000, hz=LOW_HZ))
    disk.speak("omar", 3_000, tone(4_000, hz=HIGH_HZ))

    assert disk.render(8_000).missing == 0
    sound = played(disk.output)
    heard = {
        (begin_ms, hz): round(level(sound, begin_ms + 100, begin_ms + 1_900, hz=hz), 1)
        for begin_ms in (1_000, 3_000, 5_000)
        for hz in (LOW_HZ, HIGH_HZ)
    }

    assert heard == {
        (1_000, LOW_HZ): 0.3,
        (1_000, HIGH_HZ): 0.0,
        (3_000, LOW_HZ): 0.3,
        (3_000, HIGH_HZ): 0.3,
        (5_000, LOW_HZ): 0.0,
        (5_000, HIGH_HZ): 0.3,
    }


def test_silence_lies_between_segments_and_around_them(disk: Disk) -> None:
    disk.speak("nora", 2_000, tone(1_000))
    disk.speak("nora", 2 * BLOCK_MS + 3_000, tone(1_000))

    disk.render(3 * BLOCK_MS)
    sound = played(disk.output)

    assert onsets_ms(sound) == pytest.approx([2_000, 2 * BLOCK_MS + 3_000], abs=MAX_OFF_MS)
    for begin_ms, end_ms in (
        (0, 1_900),
        (3_100, 2 * BLOCK_MS + 2_900),
        (2 * BLOCK_MS + 4_100, 3 * BLOCK_MS),
    ):
        assert level(sound, begin_ms, end_ms) < 0.001


def test_one_voice_keeps_its_level_and_has_no_seam_between_blocks(disk: Disk) -> None:
    disk.speak("nora", 0, tone(3 * BLOCK_MS, level=0.7))

    disk.render(3 * BLOCK_MS)
    sound = played(disk.output)

    for begin_ms in range(200, 3 * BLOCK_MS - 1_000, 500):
        assert level(sound, begin_ms, begin_ms + 500, hz=LOW_HZ) == pytest.approx(0.7, abs=0.05)


def test_many_who_are_loud_at_once_saturate_and_do_not_wrap_around(disk: Disk) -> None:
    for number in range(6):
        disk.speak(f"person-{number}", 0, tone(3_000, level=0.9))

    disk.render(3_000)
    sound = played(disk.output)
    expected = tone(3_000, level=1.0)
    middle = slice(RATE_HZ // 2, 5 * RATE_HZ // 2)

    assert 0.95 < level(sound, 500, 2_500) < 1.2
    assert np.corrcoef(sound[middle], expected[middle])[0, 1] > 0.9


@pytest.mark.parametrize("sample_rate_hz", [48_000, 24_000, 16_000, 8_000])
def test_segments_of_any_rate_are_heard_in_time(disk: Disk, sample_rate_hz: int) -> None:
    disk.speak("nora", 500, click(700, 2_000, sample_rate_hz), sample_rate_hz)
    disk.speak("omar", 3_000, click(400, 2_000), RATE_HZ)

    assert disk.render(6_000).missing == 0
    assert onsets_ms(played(disk.output)) == pytest.approx([1_200, 3_400], abs=MAX_OFF_MS)


def test_click_is_at_its_session_time_also_where_it_is_sought(disk: Disk) -> None:
    duration_ms = 150_000
    at_ms = (1_234, 70_777, duration_ms - 1_500)
    for number, click_ms in enumerate(at_ms):
        disk.speak(f"person-{number}", click_ms - 500, click(500, 1_500))

    disk.render(duration_ms)

    assert onsets_ms(played(disk.output)) == pytest.approx(at_ms, abs=MAX_OFF_MS)
    for click_ms in at_ms:
        assert onsets_ms(sought(disk.output, click_ms - 250)) == pytest.approx([250], abs=MAX_OFF_MS)


@pytest.mark.parametrize("duration_ms", [1, 20, 21, 999, 1_000, BLOCK_MS, BLOCK_MS + 1, 12_345])
def test_file_lasts_as_long_as_the_session(disk: Disk, duration_ms: int) -> None:
    rendered = disk.render(duration_ms)

    assert rendered == Rendered(duration_ms, disk.output.stat().st_size, 0)
    sound = played(disk.output)
    assert len(sound) == pytest.approx(duration_ms * RATE_HZ / 1000, abs=1)
    assert not sound.any()


@pytest.mark.parametrize("duration_ms", [0, -1])
def test_session_without_duration_is_refused_and_leaves_nothing(disk: Disk, duration_ms: int) -> None:
    with pytest.raises(RecordingError, match="1 ms or more"):
        disk.render(duration_ms)

    assert not disk.output.parent.exists()


def test_file_is_what_browsers_play_and_seek(disk: Disk) -> None:
    disk.speak("nora", 0, tone(1_000))
    disk.render(30_000)

    content = disk.output.read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")  # a player knows where to seek from the first bytes
    with av.open(str(disk.output)) as container:
        codec = container.streams.audio[0].codec_context
        assert (codec.name, codec.profile, codec.sample_rate, codec.layout.name) == (
            "aac",
            "LC",
            RATE_HZ,
            "mono",
        )
    assert MEDIA_TYPE == "audio/mp4"


def test_only_its_owner_may_hear_it_and_enter_the_folders_that_were_made(tmp_path: Path) -> None:
    output = tmp_path / "renderings" / "default" / "listening.m4a"
    render([], tmp_path, output, duration_ms=100)

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (output, output.parent, output.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_same_segments_in_another_order_give_the_same_file(disk: Disk) -> None:
    disk.speak("nora", 1_000, tone(2_000))
    disk.speak("omar", 2_000, tone(2_000, hz=HIGH_HZ))
    disk.render(5_000)
    before = disk.output.read_bytes()
    disk.sources.reverse()
    disk.render(5_000)

    assert disk.output.read_bytes() == before


def test_missing_segment_is_counted_and_the_others_are_heard(disk: Disk) -> None:
    disk.speak("nora", 0, tone(2_000)).unlink()
    disk.speak("omar", 3_000, tone(1_000))

    assert disk.render(5_000).missing == 1
    assert onsets_ms(played(disk.output)) == pytest.approx([3_000], abs=MAX_OFF_MS)


@pytest.mark.parametrize("content", [b"", b"OggS", b"no audio", b"OggS" * 50_000, bytes(range(256)) * 400])
def test_segment_that_is_none_is_counted_and_the_others_are_heard(disk: Disk, content: bytes) -> None:
    disk.speak("nora", 0, tone(2_000)).write_bytes(content)
    disk.speak("omar", 3_000, tone(1_000))

    assert disk.render(5_000).missing == 1
    assert onsets_ms(played(disk.output)) == pytest.approx([3_000], abs=MAX_OFF_MS)


def test_folder_in_the_place_of_a_segment_is_counted(disk: Disk) -> None:
    path = disk.speak("nora", 0, tone(1_000))
    path.unlink()
    path.mkdir()

    assert disk.render(2_000).missing == 1


def test_segment_that_was_cut_is_heard_as_far_as_it_goes_and_counted(disk: Disk) -> None:
    path = disk.speak("nora", 1_000, tone(8_000))
    os.truncate(path, path.stat().st_size // 2)

    assert disk.render(10_000).missing == 1
    sound = played(disk.output)
    assert level(sound, 1_100, 4_000, hz=LOW_HZ) == pytest.approx(0.3, abs=0.03)
    assert level(sound, 6_500, 10_000) < 0.001


def test_segment_is_counted_wherever_more_than_its_last_packet_was_cut_off(disk: Disk) -> None:
    path = disk.speak("nora", 0, tone(2_000))
    content = path.read_bytes()
    for size in range(0, len(content), 997):
        path.write_bytes(content[:size])
        assert disk.render(3_000).missing == 1
    path.write_bytes(content)
    assert disk.render(3_000).missing == 0


def test_what_follows_a_damaged_page_stays_in_its_time(disk: Disk) -> None:
    path = disk.speak("nora", 1_000, click(3_500, 4_000) + tone(4_000, level=0.1))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)

    assert disk.render(6_000).missing == 1
    assert onsets_ms(played(disk.output)) == pytest.approx([4_500], abs=MAX_OFF_MS)


def test_segment_goes_on_no_longer_than_was_noted(disk: Disk) -> None:
    disk.speak("nora", 0, tone(5_000))
    (source,) = disk.sources
    noted = Source(source.identity, source.worker, source.path, source.sample_rate_hz, 0, 2_000)

    assert render([noted], disk.stems, disk.output, duration_ms=4_000).missing == 0
    assert level(played(disk.output), 2_100, 4_000) < 0.001


def test_what_lies_outside_of_the_session_is_left_out_and_not_missing(disk: Disk) -> None:
    disk.speak("nora", -1_000, click(1_500, 2_000))
    disk.speak("omar", 3_000, tone(4_000))
    disk.speak("ines", 9_000, tone(1_000)).unlink()
    disk.speak("greta", -2_000, tone(1_000))

    assert disk.render(4_000).missing == 0
    sound = played(disk.output)
    assert len(sound) == 4 * RATE_HZ
    assert onsets_ms(sound) == pytest.approx([500, 3_000], abs=MAX_OFF_MS)


def test_segment_that_lasted_no_time_is_not_missing(disk: Disk) -> None:
    disk.sources.append(Source("nora", "worker", "gone.ogg", RATE_HZ, 0, 0))

    assert disk.render(1_000).missing == 0


def test_audio_that_is_not_a_stem_is_left_out(disk: Disk) -> None:
    """Other formats may name further files, or keep time in another way."""
    path = disk.speak("nora", 0, tone(1_000))
    path.unlink()
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        samples = (tone(1_000) * FULL_SCALE).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    assert disk.render(1_000).missing == 1


def test_file_of_before_is_replaced_and_what_a_kill_left_is_removed(disk: Disk) -> None:
    disk.render(1_000)
    left = disk.output.with_name(f".{disk.output.name}.killed.part")
    left.write_bytes(b"half")
    other = disk.output.with_name(".another.m4a.killed.part")
    other.write_bytes(b"of another session")
    disk.render(2_000)

    assert len(played(disk.output)) == 2 * RATE_HZ
    assert sorted(disk.output.parent.iterdir()) == sorted([disk.output, other])


def test_failure_leaves_the_file_of_before_and_nothing_beside_it(disk: Disk) -> None:
    disk.output.mkdir(parents=True)

    with pytest.raises(RecordingError, match=r"listening\.m4a cannot be written: Is a directory"):
        disk.render(1_000)

    assert list(disk.output.parent.iterdir()) == [disk.output]


@contextmanager
def few_open_files(count: int) -> Iterator[None]:
    """Let this process open only so many files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull, "rb") as lowest:
        limit = lowest.fileno() + count
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_at_once_for_the_process_is_an_error_and_not_silence(disk: Disk) -> None:
    disk.speak("nora", 0, tone(BLOCK_MS + 1_000))
    disk.sources *= 20

    with few_open_files(15), pytest.raises(RecordingError, match=os.strerror(errno.EMFILE)):
        disk.render(BLOCK_MS + 1_000)

    assert list(disk.output.parent.iterdir()) == []


def test_segments_are_open_only_while_they_are_heard(disk: Disk) -> None:
    disk.speak("nora", 0, tone(1_000))
    (source,) = disk.sources
    starts_ms = range(0, 30_000, 1_000)
    disk.sources = [Source("nora", "worker", source.path, RATE_HZ, start_ms, 1_000) for start_ms in starts_ms]

    with few_open_files(15):
        rendered = disk.render(30_000)

    assert rendered.missing == 0
    assert math.isclose(level(played(disk.output), 29_100, 29_900, hz=LOW_HZ), 0.3, abs_tol=0.03)
