"""What keeping costs: writes to the database a second, and what the journal adds to a caption's delay.

    python -m benchmarks.writes [--database URL] [--json FILE] [--full]

Sessions of 2, 20 and 100 speakers run with the real store, journal, recorder and database; only their audio
and their speech engine are made up. They run under virtual time, so that this machine's speed does not change
what is counted. The delay of the journal is measured in real time, each way of syncing it.
"""

import asyncio
import time
import uuid
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from rich.console import Console
from sqlalchemy import event

from agent.cli.ending import end_process
from agent.errors import RoomscribeError
from agent.recording.recorder import Recorder
from agent.session.announcer import SessionIdentity
from agent.session.limits import SessionLimits
from agent.session.session import Session
from agent.session.source import (
    AudioReceived,
    ParticipantJoined,
    ParticipantLeft,
    SourceEnded,
    SourceEvent,
    TrackClosed,
    TrackOpened,
)
from agent.transcription.engine import Engine
from agent.transcription.transcriber import Transcriber
from agent.values import SAMPLE_RATE_HZ, Event, Samples, Speaker, Storage, Track
from benchmarks.counting_stt import CountingSTT
from benchmarks.distribution import percentile
from benchmarks.options import parser
from benchmarks.report import Figure, Report, current_commit, current_machine, write_section
from persistence import schema, sessions
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.journal.writer import Journal, JournalLimits
from persistence.records import DEFAULT_SPACE, Begun, Final, Record
from persistence.session_store import SessionStore
from plugins.stt.traits import traits_of
from tests.support.virtual_time import run_virtual

__all__ = ["main"]

SPEAKERS = (2, 20, 100)
SESSION_S = 60.0
FULL_SESSION_S = 600.0
DELAY_S = 20.0
BLOCK_MS = 50
TURN_S = 2.0  # then somebody else speaks, together with the next one for a quarter of it
FINAL_EVERY_S = 0.1  # more than people can say, so that batches matter
CHURN_S = 5.0  # so often somebody leaves and comes back
MOST_WRITES_PER_S = 4.0
LIMITS = JournalLimits(max_bytes=1_000_000_000)


class CrowdSource:
    """So many people with a microphone each, who speak in turns; now and then one leaves and comes back."""

    def __init__(self, speakers: int, duration_s: float) -> None:
        self._tracks = [
            Track(f"track-{number}", Speaker(f"person-{number}", f"Person {number}"))
            for number in range(speakers)
        ]
        dice = np.random.default_rng(1)
        size = SAMPLE_RATE_HZ * BLOCK_MS // 1000
        self._voice: Samples = dice.normal(0, 3_000, size).astype(np.int16)
        self._silence: Samples = np.zeros(size, np.int16)
        self._blocks = round(duration_s * 1000) // BLOCK_MS
        self._next = -1
        self._began_s = 0.0

    @property
    def dropped_ms(self) -> int:
        return 0

    async def receive(self) -> Sequence[SourceEvent]:
        loop = asyncio.get_running_loop()
        if self._next < 0:
            self._next, self._began_s = 0, loop.time()
            return [event for track in self._tracks for event in self._coming(track)]
        index, self._next = self._next, self._next + 1
        due_s = self._began_s + self._next * BLOCK_MS / 1000
        await asyncio.sleep(max(due_s - loop.time(), 0.0))
        if index >= self._blocks:
            return [*(TrackClosed(track.id) for track in self._tracks), SourceEnded("room_closed")]
        return [*self._audio(index, due_s), *self._churn(index)]

    def _audio(self, index: int, due_s: float) -> Iterator[SourceEvent]:
        turn, into_s = divmod(index * BLOCK_MS / 1000, TURN_S)
        speaking = {int(turn) % len(self._tracks)}
        if into_s > TURN_S * 3 / 4:
            speaking.add((int(turn) + 1) % len(self._tracks))
        for number, track in enumerate(self._tracks):
            yield AudioReceived(track.id, self._voice if number in speaking else self._silence, due_s)

    def _churn(self, index: int) -> Iterator[SourceEvent]:
        every = round(CHURN_S * 1000) // BLOCK_MS
        if index and index % every == 0:
            track = self._tracks[(index // every) % len(self._tracks)]
            yield TrackClosed(track.id)
            yield ParticipantLeft(track.speaker.identity)
            yield from self._coming(track)

    def _coming(self, track: Track) -> Iterator[SourceEvent]:
        yield ParticipantJoined(track.speaker)
        yield TrackOpened(track)


class LevelDetector:
    """Voice where it is loud: made-up audio needs no more."""

    def predict(self, pcm: Samples) -> float:
        return float(np.abs(pcm).max() > 1_000)

    def reset(self) -> None:
        """It has no memory."""


class Nobody:
    """Nobody reads along."""

    async def publish(self, event: Event) -> None:
        pass


class TimedStore:
    """A store, and how long each final waited for it, in milliseconds."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.waits_ms: list[float] = []

    @property
    def storage(self) -> Storage:
        return self._store.storage

    def note(self, record: Record) -> None:
        self._store.note(record)

    async def keep(self, record: Final) -> bool:
        started_s = time.perf_counter()
        is_safe = await self._store.keep(record)
        self.waits_ms.append((time.perf_counter() - started_s) * 1000)
        return is_safe


@dataclass(frozen=True, slots=True)
class _Run:
    """What one session did. `writes` are transactions, `statements` what they were made of."""

    speakers: int
    duration_s: float
    finals: int
    writes: int
    statements: int
    waits_ms: Sequence[float]

    @property
    def writes_per_s(self) -> float:
        return self.writes / self.duration_s


async def _session(
    folder: Path, url: str, speakers: int, duration_s: float, sync: Literal["interval", "each"]
) -> _Run:
    database = Database(url)
    schema.upgrade(database)
    new_id = uuid.uuid4().hex
    with database.write() as connection:
        opening = sessions.begin(
            connection, space=DEFAULT_SPACE, room=new_id, room_sid=f"RM_{new_id}", worker="benchmark",
            languages=["en"], new_id=new_id,
        )  # fmt: skip
    assert not isinstance(opening, sessions.Refused)
    begun: Begun = opening.begun
    counts = {"writes": 0, "statements": 0}

    def count(what: str, *_: object) -> None:
        counts[what] += 1

    event.listen(database.engine, "commit", partial(count, "writes"))
    event.listen(database.engine, "before_cursor_execute", partial(count, "statements"))
    inner = SessionStore(
        begun,
        partial(Journal.create, folder / "journal", begun, LIMITS),
        DatabaseThread(database),
        sync=sync,
        sync_interval_s=0.2,
    )
    store = TimedStore(inner)
    engine = CountingSTT(FINAL_EVERY_S)
    async with inner:
        session = Session(
            CrowdSource(speakers, duration_s),
            Nobody(),
            Transcriber([Engine("counting", engine, traits_of("counting", engine))]),
            store,
            Recorder(
                folder / "stems", space=begun.space, session=begun.session, epoch=begun.epoch,
                bitrate_kbps=32, min_free_mb=0, on_stem=store.note,
            ),
            SessionIdentity(begun.session, begun.epoch, "agent"),
            limits=SessionLimits(),
            languages=begun.languages,
            new_detector=LevelDetector,
            partials_per_s=4.0,
        )  # fmt: skip
        report = await session.run()
    await engine.aclose()
    return _Run(
        speakers,
        report.duration_ms / 1000,
        report.finals,
        counts["writes"],
        counts["statements"],
        store.waits_ms,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and write down what was measured; exit code 1 where a target was missed."""
    options = parser("writes", __doc__.split("\n", maxsplit=1)[0])
    options.add_argument(
        "--database", default="", metavar="URL", help="an empty one, instead of a SQLite file"
    )
    asked = options.parse_args(arguments)
    console = Console()
    try:
        report = _measure(asked, console)
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except (RoomscribeError, OSError) as error:
        console.print(f"benchmarks.writes: {error}", style="red", markup=False)
        return 1
    report.print(console)
    write_section(report)
    return 1 if report.has_missed else 0


def _measure(asked: Namespace, console: Console) -> Report:
    started_at = datetime.now(UTC)
    duration_s = FULL_SESSION_S if asked.full else SESSION_S
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="roomscribe-benchmark-") as temporary:
        folder = Path(temporary)
        url = asked.database or f"sqlite:///{folder / 'roomscribe.db'}"
        for speakers in SPEAKERS:
            console.print(f"{speakers} speakers, {duration_s:g} s of virtual time")
            figures += _writes(run_virtual(_session(folder, url, speakers, duration_s, "interval")))
        for sync in ("interval", "each"):
            console.print(f"the journal's delay, synced by {sync}, {DELAY_S:g} s of real time")
            figures += _delays(sync, asyncio.run(_session(folder, url, 2, DELAY_S, sync)))
    return Report(
        benchmark="writes",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={
            "database": "postgresql" if asked.database else "sqlite",
            "session_s": duration_s,
            "full": asked.full,
        },
        figures=figures,
        remarks=[
            "A write is a transaction. There are ten finals a second, recording is on, and somebody leaves "
            "and comes back every 5 s.",
            "The journal's delay is how long a final waits before it is published; `each` syncs it to the "
            "disk within that time.",
        ],
    )


def _writes(run: _Run) -> Iterator[Figure]:
    yield Figure(
        f"writes_per_s_{run.speakers}_speakers",
        round(run.writes_per_s, 2),
        "/s",
        f"<= {MOST_WRITES_PER_S:g}",
        run.writes_per_s <= MOST_WRITES_PER_S,
    )
    yield Figure(f"statements_per_s_{run.speakers}_speakers", round(run.statements / run.duration_s, 1), "/s")
    yield Figure(f"finals_per_s_{run.speakers}_speakers", round(run.finals / run.duration_s, 2), "/s")


def _delays(sync: str, run: _Run) -> Iterator[Figure]:
    for percent in (50, 95):
        wait_ms = percentile(run.waits_ms, percent)
        yield Figure(f"journal_delay_{sync}_p{percent}", None if wait_ms is None else round(wait_ms, 2), "ms")


if __name__ == "__main__":
    end_process(main())
