"""What is killed loses nothing: jobs are killed at random moments, and what viewers got is looked for.

    python -m benchmarks.chaos [--only job] [--tries N] [--rooms N] [--database URL] [--json FILE] [--full]

A livekit-server and a worker run as they do for operators. In each room somebody speaks and a viewer notes
every final. The agent is killed (SIGKILL) and asked for again, as often as is wanted; at the end every final
that the viewer got must be in the database, once, and the audio must play to the moment of the kill.
"""

import asyncio
import os
import random
import signal
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from rich.console import Console
from sqlalchemy import select

from agent.cli.ending import end_process
from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings
from agent.errors import LiveKitError, RoomscribeError
from agent.ingest.meeting import load_meeting
from agent.room.dispatch import Rooms
from agent.room.player import SAMPLE_RATE_HZ, Playback, Talker
from agent.room.viewer import Viewer
from agent.values import Samples
from benchmarks.distribution import percentile
from benchmarks.options import meetings, parser
from benchmarks.report import Figure, Report, current_commit, current_machine, write_section
from persistence.database import Database
from persistence.tables import SCHEMA
from tests.support.gathering import settings_for
from tests.support.worker import RunningWorker

__all__ = ["COUNTING", "Kill", "Outcome", "Room", "look_for", "main", "torment", "until_drained"]

TRIES = 200
ROOMS = 4  # at once: two cores are busy with the processes that begin
LONGEST_LIFE_S = 2.5  # of an agent before it is killed; it says its first final after half a second
COME_S = 60.0  # for an agent to come; machines are shared
DRAIN_S = 60.0
POLL_S = 0.1
SPEECH_S = 20.0
DEPARTURE_TIMEOUT_S = 2
MOST_BEHIND_MS = 1_000

COUNTING = {
    "ROOMSCRIBE_STT__ENGINES": "benchmarks.counting_stt:CountingSTT",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


@dataclass(frozen=True, slots=True)
class Kill:
    """An agent that was killed while it led an epoch of a session."""

    session: str
    epoch: int
    at: datetime


@dataclass(slots=True)
class Room:
    """A room in which somebody speaks without an end, and what a viewer got there.

    `finals` holds texts by session and caption.
    """

    name: str
    rooms: Rooms
    worker: RunningWorker
    finals: dict[tuple[str, str], str] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, url: str, speech: Samples) -> AsyncIterator[None]:
        """Somebody speaks and somebody reads, until the end."""
        async with Viewer() as viewer:
            await viewer.join(url, self.rooms.token(self.name, "viewer"))
            talker = await Talker.join(url, self.rooms.token(self.name, "speaker"))
            microphone = await talker.publish()

            async def speak() -> None:
                while True:
                    await Playback({microphone: speech}).run()

            running = [asyncio.create_task(speak()), asyncio.create_task(self._read(viewer))]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
                await talker.leave()

    async def kill_agents(self, tries: int, dice: random.Random) -> None:
        """Ask for an agent and kill it at a random moment, so many times."""
        for _ in range(tries):
            started = await self.bring_agent()
            await asyncio.sleep(dice.uniform(0.0, LONGEST_LIFE_S))
            os.kill(started["pid"], signal.SIGKILL)
            self.kills.append(Kill(started["session"], started["epoch"], datetime.now(UTC)))

    async def bring_agent(self) -> Mapping[str, Any]:
        """Ask for another agent and give what it logs when it begins."""
        before = len(self.kills)
        if self.kills:  # the first one comes with the room
            await self.rooms.dispatch(self.name)
        try:
            async with asyncio.timeout(COME_S):
                while len(found := self.worker.logged("session.started", room=self.name)) <= before:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise LiveKitError(f"no agent came into {self.name} within {COME_S:g} s") from None
        return found[-1]

    async def _read(self, viewer: Viewer) -> None:
        async for event in viewer.events():
            if event.data["kind"] == "caption" and event.data["final"]:
                self.finals[event.data["session"], event.data["id"]] = event.data["text"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found. `behind_ms` is how long before each kill its audio ends, where there is any."""

    finals: int
    lost: Sequence[tuple[str, str]]
    changed: Sequence[tuple[str, str]]
    twice: Sequence[str]
    behind_ms: Sequence[int]
    unplayable: Sequence[str]


def look_for(settings: Settings, rooms: Sequence[Room]) -> Outcome:
    """Look in the database and on the disk for what the viewers of these rooms got. It blocks."""
    seen = {key: text for room in rooms for key, text in room.finals.items()}
    database = Database(settings.database_url)
    try:
        with database.read() as connection:
            utterance, session, stem = (SCHEMA.tables[name] for name in ("utterance", "session", "stem"))
            kept = {
                (row.session_id, row.id): row.text
                for row in connection.execute(
                    select(utterance.c.session_id, utterance.c.id, utterance.c.text)
                )
            }
            started_at = {row.id: row.started_at for row in connection.execute(select(session))}
            stems = connection.execute(select(stem)).all()
    finally:
        database.close()
    texts = Counter((session_id, text) for (session_id, _), text in kept.items())
    behind_ms = []
    for room in rooms:
        for kill in room.kills:
            ends_ms = [
                row.start_ms + (row.duration_ms or 0)
                for row in stems
                if (row.session_id, row.epoch) == (kill.session, kill.epoch)
            ]
            if ends_ms:
                killed_ms = round((kill.at - started_at[kill.session]).total_seconds() * 1000)
                behind_ms.append(killed_ms - max(ends_ms))
    return Outcome(
        finals=len(seen),
        lost=[key for key in seen if key not in kept],
        changed=[key for key, text in seen.items() if kept.get(key, text) != text],
        twice=[text for (_, text), count in texts.items() if count > 1],
        behind_ms=behind_ms,
        unplayable=[row.path for row in stems if not _plays(settings.stems_dir / row.path, row.duration_ms)],
    )


def _plays(path: Path, duration_ms: int | None) -> bool:
    """Whether a segment of audio can be decoded to its end, as long as the database says it is."""
    if not duration_ms:
        return duration_ms == 0
    with av.open(path) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    return abs(samples * 1000 / SAMPLE_RATE_HZ - duration_ms) <= 40


async def until_drained(settings: Settings, limit_s: float = DRAIN_S) -> None:
    """Wait until the worker has brought over everything that was left behind, and completed its audio."""
    database = Database(settings.database_url)
    try:
        async with asyncio.timeout(limit_s):
            while any(settings.journal_dir.iterdir()) or _has_open_stems(database):  # noqa: ASYNC110  polls files
                await asyncio.sleep(POLL_S)
    finally:
        database.close()


def _has_open_stems(database: Database) -> bool:
    stem = SCHEMA.tables["stem"]
    with database.read() as connection:
        return connection.execute(select(stem.c.path).where(stem.c.duration_ms.is_(None))).first() is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit code 1 where something was lost."""
    options = parser("chaos", __doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--only", choices=["job"], default="job", help="what is killed (job)")
    options.add_argument("--tries", type=int, default=TRIES, metavar="N", help=f"kills in all ({TRIES})")
    options.add_argument("--rooms", type=int, default=ROOMS, metavar="N", help=f"rooms at once ({ROOMS})")
    options.add_argument("--database", default="", metavar="URL", help="instead of a SQLite file")
    options.add_argument("--seed", type=int, default=1, metavar="N", help="of the random moments (1)")
    asked = options.parse_args(arguments)
    console = Console()
    try:
        report, is_whole = asyncio.run(_run(asked, console))
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except (RoomscribeError, OSError, AssertionError) as error:
        console.print(f"benchmarks.chaos: {error}", style="red", markup=False)
        return 1
    report.print(console)
    if asked.tries >= TRIES:  # RESULTS.md holds whole runs
        write_section(report)
    return 0 if is_whole else 1


async def _run(asked: Namespace, console: Console) -> tuple[Report, bool]:
    started_at = datetime.now(UTC)
    speech = _speech(meetings(asked)[0])
    with TemporaryDirectory(prefix="roomscribe-benchmark-") as folder:
        async with await LocalLiveKit.start(departure_timeout_s=DEPARTURE_TIMEOUT_S) as server:
            variables = {**COUNTING, "ROOMSCRIBE_WORKER__MAX_JOBS": str(2 * asked.rooms)}
            if asked.database:
                variables["ROOMSCRIBE_DATABASE__URL"] = asked.database
            worker = await RunningWorker.start(
                server, Path(folder), Path(folder) / "worker.log", agent_name="roomscribe", settings=variables
            )
            settings = settings_for(server, data_dir=worker.data_dir, database_url=asked.database)
            async with worker, Rooms(settings) as rooms:
                stages = [Room(f"chaos-{number}", rooms, worker) for number in range(asked.rooms)]
                telling = asyncio.create_task(_tell(stages, asked.tries, console))
                try:
                    async with asyncio.TaskGroup() as tasks:
                        for number, stage in enumerate(stages):
                            tries = (asked.tries + number) // asked.rooms
                            dice = random.Random(asked.seed * 1000 + number)
                            tasks.create_task(torment(stage, server.url, speech, tries, dice))
                finally:
                    telling.cancel()
                await until_drained(settings)
                outcome = await asyncio.to_thread(look_for, settings, stages)
    figures = list(_figures(outcome, asked.tries))
    report = Report(
        benchmark="chaos",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={
            "only": asked.only,
            "tries": asked.tries,
            "rooms": asked.rooms,
            "database": "postgresql" if asked.database else "sqlite",
            "seed": asked.seed,
        },
        figures=figures,
        remarks=[
            "An agent is killed 0 to 2.5 s after it began; the engine counts instead of listening, a final "
            "every 0.4 s, so that each one can be told from all others.",
            "Audio behind a kill: from the end of the last segment that plays to the kill.",
        ],
    )
    return report, all(figure.held is not False for figure in figures)


async def torment(room: Room, url: str, speech: Samples, tries: int, dice: random.Random) -> None:
    """Open a room and kill its agents, so many of them; the last one sees the room close."""
    async with room.open(url, speech):
        await room.kill_agents(tries, dice)
        await room.bring_agent()
        await asyncio.sleep(LONGEST_LIFE_S)


async def _tell(rooms: Sequence[Room], tries: int, console: Console) -> None:
    while True:
        await asyncio.sleep(10.0)
        kills, finals = sum(len(room.kills) for room in rooms), sum(len(room.finals) for room in rooms)
        console.print(f"{kills} of {tries} killed, {finals} finals seen")


def _figures(outcome: Outcome, tries: int) -> Iterator[Figure]:
    yield Figure("kills", tries, "")
    yield Figure("finals_seen", outcome.finals, "", "> 0", outcome.finals > 0)
    yield Figure("finals_lost", len(outcome.lost), "", "0", not outcome.lost)
    yield Figure("finals_changed", len(outcome.changed), "", "0", not outcome.changed)
    yield Figure("finals_twice", len(outcome.twice), "", "0", not outcome.twice)
    yield Figure("segments_unplayable", len(outcome.unplayable), "", "0", not outcome.unplayable)
    for name, percent in (("p50", 50), ("p95", 95), ("max", 100)):
        behind_ms = percentile(outcome.behind_ms, percent)
        is_bound = name == "max" and behind_ms is not None
        yield Figure(
            f"audio_behind_kill_{name}",
            None if behind_ms is None else round(behind_ms),
            "ms",
            f"<= {MOST_BEHIND_MS}" if is_bound else None,
            behind_ms <= MOST_BEHIND_MS if is_bound and behind_ms is not None else None,
        )


def _speech(folder: Path) -> Samples:
    """Somebody who speaks most of the time."""
    tracks = load_meeting(folder, end_s=SPEECH_S).tracks.values()
    return max(tracks, key=lambda samples: float(np.mean(np.abs(samples.astype(np.float32)))))


if __name__ == "__main__":
    end_process(main())
