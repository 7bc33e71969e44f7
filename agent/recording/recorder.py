"""Records the tracks of a session beside it: nothing here ever holds its event loop up."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from agent.recording.stems import Fault, Stems
from agent.values import Samples
from persistence.records import Stem

__all__ = ["Recorder", "RecordingState"]

log = structlog.get_logger(__name__)

RecordingState = tuple[Literal["on", "off", "failed"], str | None]
"""What viewers are told of the recording, with the reason where it is not on."""

# What comes in goes to the thread together, since a hop costs more than a block does. It adds to what a crash
# takes, and to the time until a full disk is noticed.
HAND_OVER_S = 0.2

# A disk that stands still for 3 s loses nothing of 20 people; it takes 6 MB of memory at 48 kHz.
MAX_WAITING_MS = 60_000

CLOSE_TIMEOUT_S = 5.0  # for a disk that stands still; a healthy one takes milliseconds


@dataclass(frozen=True, slots=True)
class _Progress:
    """How things stand after a hand-over, as the event loop is to know it."""

    changed: Sequence[Stem]
    fault: Fault | None
    segments: int
    written_ms: float
    dropped_ms: float


class Recorder:
    """Writes what is pushed, in a thread of its own. Make it in a running event loop, and close it there.

    Audio that the disk does not take, or not in time, is dropped and counted; in the stem it is a hole.

    Args:
        folder: Of all stems.
        space: The space, session and epoch name what is written below it.
        session: See `space`.
        epoch: See `space`.
        bitrate_kbps: Of Opus, a track.
        min_free_mb: Nothing is written where the disk has less left.
        on_stem: Gets a record of each segment when it is opened and when it is closed, in the event loop.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: str,
        session: str,
        epoch: int,
        bitrate_kbps: int,
        min_free_mb: int,
        on_stem: Callable[[Stem], None],
    ) -> None:
        self._stems = Stems(
            folder,
            space=space,
            session=session,
            epoch=epoch,
            bitrate_kbps=bitrate_kbps,
            min_free_bytes=min_free_mb * 1_000_000,
        )
        self._on_stem = on_stem
        self._rates_hz: dict[str, int] = {}
        self._todo: list[Callable[[], None]] = []
        self._waiting_ms = 0.0
        self._refused_ms = 0.0
        self._is_too_slow = False
        self._progress = _Progress((), None, 0, 0.0, 0.0)
        self._closing = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recording")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="recording.run")
        self._task.add_done_callback(_on_done)

    @property
    def state(self) -> RecordingState:
        """Whether everything is recorded that should be. It follows a change within half a second."""
        if self._closing.is_set():
            return "off", "ended"
        if self._task.done():
            return "failed", "internal"
        if self._is_too_slow:
            return "failed", "too_slow"
        if self._progress.fault is not None:
            return "failed", self._progress.fault
        return "on", None

    @property
    def segments(self) -> int:
        """How many segments were begun."""
        return self._progress.segments

    @property
    def written_ms(self) -> int:
        """Milliseconds of audio that were written, over all tracks."""
        return round(self._progress.written_ms)

    @property
    def dropped_ms(self) -> int:
        """Milliseconds of audio that were not, because the disk failed or did not keep up."""
        return round(self._progress.dropped_ms + self._refused_ms)

    def open(self, track_id: str, identity: str, sample_rate_hz: int) -> None:
        """Expect audio of a track, which may have been closed before.

        Args:
            track_id: Unique in the session; what is in it does not matter.
            identity: Whose it is.
            sample_rate_hz: 48000, 24000, 16000, 12000 or 8000.
        """
        self._rates_hz[track_id] = sample_rate_hz
        self._todo.append(partial(self._stems.open, track_id, identity, sample_rate_hz))

    def push(self, track_id: str, samples: Samples, received_ms: int) -> None:
        """Write samples of an open track; those of another one are ignored.

        Args:
            track_id: As it was opened.
            samples: `int16` of shape `(samples,)` at the track's rate, which nobody changes any more.
            received_ms: Session time at which the last of them arrived.
        """
        if track_id not in self._rates_hz or self._closing.is_set():
            return
        duration_ms = 1000 * len(samples) / self._rates_hz[track_id]
        if self._waiting_ms + duration_ms > MAX_WAITING_MS:
            self._refused_ms += duration_ms
            self._is_too_slow = True
            return
        self._waiting_ms += duration_ms
        self._todo.append(partial(self._stems.push, track_id, samples, received_ms))

    def close(self, track_id: str) -> None:
        """Expect no more audio of a track: it is muted or gone."""
        if self._rates_hz.pop(track_id, None) is not None:
            self._todo.append(partial(self._stems.close, track_id))

    async def aclose(self) -> None:
        """Finish every segment; `on_stem` has had all of them then. Idempotent, and limited in time."""
        self._closing.set()
        _, unfinished = await asyncio.wait([self._task], timeout=CLOSE_TIMEOUT_S)
        if unfinished:
            log.warning("recording.cut_short")
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while not self._closing.is_set():
            await self._hand_over()
            with suppress(TimeoutError):
                async with asyncio.timeout(HAND_OVER_S):
                    await self._closing.wait()
        self._todo.append(self._stems.close_all)
        await self._hand_over()

    async def _hand_over(self) -> None:
        """Have done in the thread what there is to do, and tell what came of it."""
        loop = asyncio.get_running_loop()
        todo, self._todo = self._todo, []
        waiting_ms, refused_ms = self._waiting_ms, self._refused_ms
        self._progress = await loop.run_in_executor(self._thread, self._record, todo, loop.time())
        self._waiting_ms -= waiting_ms
        self._is_too_slow = self._refused_ms > refused_ms
        for stem in self._progress.changed:
            self._on_stem(stem)

    def _record(self, todo: Sequence[Callable[[], None]], now_s: float) -> _Progress:
        """Runs in the thread, which alone uses the stems."""
        stems = self._stems
        stems.check(now_s)
        for do in todo:
            do()
        return _Progress(
            stems.take_changed(), stems.fault, stems.segments, stems.written_ms, stems.dropped_ms
        )


def _on_done(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("recording.stopped", exc_info=error)
