"""What a recorder makes of a session's audio, under virtual time and on the real disk."""

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import av
import numpy as np
import pytest

from agent.recording.recorder import CLOSE_TIMEOUT_S, MAX_WAITING_MS, Recorder
from agent.recording.stems import RETRY_S, TRIAL_S
from persistence.records import Stem
from tests.support.virtual_time import run_virtual

RATE_HZ = 16_000
BLOCK_MS = 50
ALMOST_ALL_MB = 10**9  # more than any disk has


class Recording:
    """A recorder at work on a folder, with the records that it gave."""

    def __init__(
        self, folder: Path, *, min_free_mb: int = 0, on_stem: Callable[[Stem], None] | None = None
    ) -> None:
        self.folder = folder
        self.stems: list[Stem] = []
        self.recorder = Recorder(
            folder,
            space="default",
            session="session-1",
            epoch=1,
            bitrate_kbps=32,
            min_free_mb=min_free_mb,
            on_stem=on_stem or self.stems.append,
        )

    @property
    def closed(self) -> list[Stem]:
        return [stem for stem in self.stems if stem.duration_ms is not None]

    def path(self, stem: Stem) -> Path:
        return self.folder / stem.path

    async def speak(self, track_id: str, duration_ms: int, *, value: int = 0) -> None:
        """Push blocks as a room does, each when it is over."""
        loop = asyncio.get_running_loop()
        for _ in range(duration_ms // BLOCK_MS):
            await asyncio.sleep(BLOCK_MS / 1000)
            samples = np.full(BLOCK_MS * RATE_HZ // 1000, value, np.int16)
            self.recorder.push(track_id, samples, round(loop.time() * 1000))


def record(
    folder: Path, script: Callable[[Recording], Awaitable[None]], *, min_free_mb: int = 0
) -> Recording:
    """Run a script beside a recorder, and close that."""

    async def main() -> Recording:
        recording = Recording(folder, min_free_mb=min_free_mb)
        await script(recording)
        await recording.recorder.aclose()
        return recording

    return run_virtual(main())


def test_track_becomes_a_segment_whose_record_is_given_at_its_begin_and_at_its_end(tmp_path):
    async def script(recording):
        await asyncio.sleep(2)
        recording.recorder.open("TR_nora", "nora", RATE_HZ)
        await recording.speak("TR_nora", 3_000)

    recording = record(tmp_path, script)
    begun, ended = recording.stems
    assert (begun.track, begun.number, begun.identity) == ("TR_nora", 1, "nora")
    assert begun.path == "default/session-1/1/TR_nora-0001.ogg"
    assert (begun.sample_rate_hz, begun.start_ms, begun.duration_ms) == (RATE_HZ, 2_000, None)
    assert (ended.start_ms, ended.duration_ms, ended.ended_by) == (2_000, 3_000, "")
    assert ended.size_bytes == recording.path(ended).stat().st_size
    with av.open(str(recording.path(ended))) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 3_000 * 48
    recorder = recording.recorder
    assert (recorder.segments, recorder.written_ms, recorder.dropped_ms) == (1, 3_000, 0)


def test_nobody_else_may_look_into_the_folders(tmp_path):
    async def script(recording):
        recording.recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 100)

    folder = tmp_path / "data" / "stems"
    recording = record(folder, script)
    path = recording.path(recording.stems[0])
    modes = [stat.S_IMODE(each.stat().st_mode) for each in [path, *path.parents[:5]]]
    assert modes == [0o600, *[0o700] * 5]


def test_long_speech_is_cut_into_segments_of_a_minute_that_follow_one_another(tmp_path):
    async def script(recording):
        recording.recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 150_000)

    recording = record(tmp_path, script)
    assert [stem.number for stem in recording.closed] == [1, 2, 3]
    assert [stem.start_ms for stem in recording.closed] == [0, 60_000, 120_000]
    assert [stem.duration_ms for stem in recording.closed] == [60_000, 60_000, 30_000]


def test_mute_and_silence_of_the_network_end_a_segment_and_time_goes_on(tmp_path):
    async def script(recording):
        recording.recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 1_000)
        recording.recorder.close("a")
        await asyncio.sleep(4)
        recording.recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 1_000)
        await asyncio.sleep(2)
        await recording.speak("a", 1_000)

    recording = record(tmp_path, script)
    assert [stem.start_ms for stem in recording.closed] == [0, 5_000, 8_000]
    assert [stem.duration_ms for stem in recording.closed] == [1_000] * 3
    assert len({stem.path for stem in recording.closed}) == 3


def test_click_is_heard_when_it_was_made_whatever_the_network_did(tmp_path):
    clicks_ms = (700, 1_450, 6_210, 7_900)
    delays_ms = (3, 80, 140, 30, 0, 120, 55, 10)

    async def script(recording):
        recorder, loop = recording.recorder, asyncio.get_running_loop()
        recorder.open("a", "nora", RATE_HZ)
        track = np.zeros(9 * RATE_HZ, np.int16)
        for at_ms in clicks_ms:
            track[at_ms * RATE_HZ // 1000 :][:160] = 20_000
        for number, end_ms in enumerate(range(BLOCK_MS, 9_001, BLOCK_MS)):
            if 2_000 < end_ms <= 5_000 or end_ms in (7_150, 7_200):
                continue  # nobody told of the mute, nor of what the network lost
            await asyncio.sleep(max((end_ms + delays_ms[number % 8]) / 1000 - loop.time(), 0))
            samples = track[: end_ms * RATE_HZ // 1000][-BLOCK_MS * RATE_HZ // 1000 :]
            recorder.push("a", samples, round(loop.time() * 1000))

    recording = record(tmp_path, script)
    heard_ms = []
    for stem in recording.closed:
        with av.open(str(recording.path(stem))) as container:
            sound = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
        loud = np.flatnonzero(np.abs(sound) > 0.2)
        heard_ms += [stem.start_ms + begin / 48 for begin in loud[np.diff(loud, prepend=-48_000) > 4_800]]
    assert heard_ms == pytest.approx(clicks_ms, abs=20)


def test_tracks_that_speak_at_once_have_a_file_each(tmp_path):
    async def script(recording):
        recording.recorder.open("../a", "nora", RATE_HZ)
        recording.recorder.open("..%2Fa", "omar", RATE_HZ)
        await asyncio.gather(recording.speak("../a", 1_000), recording.speak("..%2Fa", 2_000))

    recording = record(tmp_path, script)
    durations_ms = {stem.identity: stem.duration_ms for stem in recording.closed}
    assert durations_ms == {"nora": 1_000, "omar": 2_000}
    assert len({stem.path for stem in recording.closed}) == 2
    assert all(recording.path(stem).resolve().is_relative_to(tmp_path) for stem in recording.closed)


def test_track_that_cannot_be_encoded_leaves_the_others_alone(tmp_path):
    async def script(recording):
        recording.recorder.open("odd", "nora", 44_100)
        recording.recorder.open("good", "omar", RATE_HZ)
        await asyncio.gather(recording.speak("odd", 1_000), recording.speak("good", 1_000))
        assert recording.recorder.state == ("on", None)

    recording = record(tmp_path, script)
    assert [(stem.identity, stem.duration_ms) for stem in recording.closed] == [("omar", 1_000)]
    assert recording.recorder.dropped_ms > 0


def test_audio_of_a_track_that_is_not_open_is_ignored(tmp_path):
    async def script(recording):
        await recording.speak("nobody", 500)

    recording = record(tmp_path, script)
    assert recording.stems == []
    assert list(tmp_path.rglob("*.ogg")) == []


def test_what_is_beyond_the_bound_is_dropped_counted_said_and_a_hole_in_the_stem(tmp_path):
    async def script(recording):
        recorder = recording.recorder
        recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 1_000)
        await asyncio.sleep(0.5)
        # The event loop does not get to hand anything over: as if the disk stood still.
        zeros = np.zeros(RATE_HZ, np.int16)
        for second in range(2, 2 + MAX_WAITING_MS // 1000 + 5):
            recorder.push("a", zeros, second * 1000 + 500)
        assert recorder.state == ("failed", "too_slow")
        assert recorder.dropped_ms == 5_000
        await asyncio.sleep(0.5)
        assert recorder.state == ("on", None)
        now_ms = 2_500 + MAX_WAITING_MS + 10_000
        recorder.push("a", zeros, now_ms)

    recording = record(tmp_path, script)
    recorder = recording.recorder
    assert recorder.written_ms == 1_000 + MAX_WAITING_MS + 1_000
    assert sum(stem.duration_ms for stem in recording.closed) == recorder.written_ms
    assert recording.closed[-1].start_ms == 2_500 + MAX_WAITING_MS + 9_000


def test_disk_that_stands_still_holds_neither_the_session_up_nor_its_end(tmp_path):
    tracks = ["a", "b", "c", "d"]

    async def main() -> Recording:
        recording = Recording(tmp_path)
        loop = asyncio.get_running_loop()
        for track in tracks:
            recording.recorder.open(track, track, RATE_HZ)
        await asyncio.gather(*(recording.speak(track, 20_000) for track in tracks))
        assert loop.time() == pytest.approx(20, abs=0.1)
        assert recording.recorder.state == ("failed", "too_slow")
        await recording.recorder.aclose()
        assert loop.time() == pytest.approx(20 + CLOSE_TIMEOUT_S, abs=0.1)
        return recording

    recorder = run_virtual(main(), charge=lambda _function, _took_s: 3_600.0).recorder
    assert recorder.dropped_ms == len(tracks) * 20_000 - MAX_WAITING_MS


def test_nothing_is_written_where_too_little_is_free(tmp_path):
    async def script(recording):
        recording.recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 2_000)
        assert recording.recorder.state == ("failed", "disk_low")

    recording = record(tmp_path, script, min_free_mb=ALMOST_ALL_MB)
    assert recording.stems == []
    assert (recording.recorder.written_ms, recording.recorder.dropped_ms) == (0, 2_000)


def test_disk_that_fails_is_said_and_tried_again_in_a_new_segment(tmp_path):
    folder = tmp_path / "stems"
    states = []

    async def script(recording):
        recorder = recording.recorder
        recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 1_000)
        folder.rename(tmp_path / "away")
        folder.write_text("what no folder can be made in")
        for _ in range(4):
            await recording.speak("a", 500)
            states.append(recorder.state)
        folder.unlink()
        (tmp_path / "away").rename(folder)
        await recording.speak("a", round((RETRY_S + TRIAL_S) * 1000))
        states.append(recorder.state)

    recording = record(folder, script)
    assert states == [("failed", "disk_error")] * 4 + [("on", None)]
    first, second = recording.closed
    assert (first.number, first.start_ms, first.ended_by) == (1, 0, "disk_error")
    assert (second.number, second.ended_by) == (2, "")
    assert first.start_ms + first.duration_ms < second.start_ms
    recorder = recording.recorder
    assert recorder.written_ms == first.duration_ms + second.duration_ms
    assert recorder.written_ms + recorder.dropped_ms == 3_000 + round((RETRY_S + TRIAL_S) * 1000)


def test_closing_is_idempotent_and_nothing_is_taken_afterwards(tmp_path):
    async def script(recording):
        recording.recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 500)
        await asyncio.gather(recording.recorder.aclose(), recording.recorder.aclose())
        await recording.speak("a", 500)
        assert recording.recorder.state == ("off", "ended")

    recording = record(tmp_path, script)
    assert [stem.duration_ms for stem in recording.closed] == [500]


def test_recorder_that_is_closed_at_once_leaves_no_file(tmp_path):
    recording = record(tmp_path, lambda _recording: asyncio.sleep(0))
    assert recording.stems == []
    assert list(tmp_path.rglob("*.ogg")) == []


@pytest.mark.parametrize("fails", ["open", "closed"])
def test_fault_of_who_gets_the_records_is_a_failure_that_is_said(tmp_path, fails):
    async def main() -> tuple[str, str | None]:
        def refuse(stem: Stem) -> None:
            if (stem.duration_ms is None) == (fails == "open"):
                raise RuntimeError("no")

        recording = Recording(tmp_path, on_stem=refuse)
        recording.recorder.open("a", "nora", RATE_HZ)
        await recording.speak("a", 500)
        recording.recorder.close("a")
        await asyncio.sleep(0.5)
        state = recording.recorder.state
        await recording.recorder.aclose()
        return state

    assert run_virtual(main()) == ("failed", "internal")
