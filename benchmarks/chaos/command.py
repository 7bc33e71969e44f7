"""The command: what is asked for, progress while it runs, and the report."""

import asyncio
import logging
import random
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from agent.errors import RoomscribeError
from agent.ingest.meeting import load_meeting
from agent.values import Samples
from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.figures import Observed, figures, is_silent_for_long
from benchmarks.chaos.keeping import pool
from benchmarks.chaos.observations import overlaps_s
from benchmarks.chaos.run import Run
from benchmarks.options import meetings, parser
from benchmarks.report import Report, current_commit, current_machine, write_section

__all__ = ["main", "wanted"]

FIRST = "job"
TRIES = KINDS[FIRST][0]
ROOMS = 4  # at once: two cores are busy with the processes that begin
SPEECH_S = 20.0
TELL_S = 10.0
SHOWN = 10  # of what was missed
DESCRIPTION = "Agents, workers and servers are killed at random moments, and what viewers got is looked for."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit code 1 where a target was missed."""
    options = parser("chaos", DESCRIPTION)
    options.add_argument(
        "--only", type=_kinds, default=list(KINDS), metavar="KIND,…", help=f"of {', '.join(KINDS)} (all)"
    )
    options.add_argument(
        "--tries",
        type=int,
        metavar="N",
        help=f"of the kind, if it is only one; else kills of jobs ({TRIES}), and of the others in proportion",
    )
    options.add_argument("--rooms", type=int, default=ROOMS, metavar="N", help=f"rooms at once ({ROOMS})")
    options.add_argument("--database", default="", metavar="URL", help="instead of SQLite files")
    options.add_argument("--logs", type=Path, metavar="DIR", help="where logs and all that was kept remain")
    options.add_argument("--seed", type=int, default=1, metavar="N", help="of the random moments (1)")
    asked = options.parse_args(arguments)
    console = Console()
    # The SDK tells of each try to reach a server that is away.
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    try:
        report = asyncio.run(_run(asked, console))
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except (RoomscribeError, OSError, AssertionError) as error:
        console.print(f"benchmarks.chaos: {error}", style="red", markup=False)
        return 1
    report.print(console)
    if wanted(asked.only, asked.tries) == wanted(list(KINDS), None):  # RESULTS.md holds whole runs
        write_section(report)
    return 0 if all(figure.held is not False for figure in report.figures) else 1


def wanted(only: Sequence[str], tries: int | None) -> Mapping[str, int]:
    """How often each kind is tried."""
    if tries is None:
        return {kind: KINDS[kind][0] for kind in only}
    if len(only) == 1:
        return {only[0]: tries}
    return {kind: max(round(KINDS[kind][0] * tries / TRIES), 1) for kind in only}


def _kinds(text: str) -> list[str]:
    named = text.split(",")
    if unknown := [kind for kind in named if kind not in KINDS]:
        raise ArgumentTypeError(f"{', '.join(unknown)} is unknown; known: {', '.join(KINDS)}")
    return [kind for kind in KINDS if kind in named]


async def _run(asked: Namespace, console: Console) -> Report:
    started_at = datetime.now(UTC)
    run = Run(
        _speech(meetings(asked)[0]),
        asked.rooms,
        asked.database,
        random.Random(asked.seed),
        lambda line: console.print(line, style="yellow", markup=False),
        wanted(asked.only, asked.tries),
        asked.logs.resolve() if asked.logs else None,
    )
    telling = asyncio.create_task(_tell(run, console), name="chaos.tell")
    try:
        for kind, tries in run.wanted.items():
            try:
                await KINDS[kind][1](run, tries)
            except Exception as error:  # noqa: BLE001  what the other kinds show is worth having
                run.give_up(kind, f"cut short: {error!r}")
    finally:
        telling.cancel()
        await asyncio.wait((telling,))
    observed = Observed(
        {kind: run.tries(kind) for kind in run.wanted},
        run.unrecovered,
        pool(run.outcomes),
        [room.watched for room in run.rooms],
        [fault for room in run.rooms for fault in room.faults],
        [handover for room in run.rooms for handover in room.handovers],
        run.undrained,
        list(run.wanted),
    )
    _explain(observed, console)
    return Report(
        benchmark="chaos",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={
            "only": asked.only if asked.only != list(KINDS) else None,
            "tries": sum(run.wanted.values()),
            "rooms": asked.rooms,
            "database": "postgresql" if asked.database else "sqlite",
            "seed": asked.seed,
        },
        figures=list(figures(observed)),
        remarks=REMARKS,
    )


async def _tell(run: Run, console: Console) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        done = ", ".join(f"{kind} {run.tries(kind)} of {tries}" for kind, tries in run.wanted.items())
        finals = sum(event.final is not None for room in run.rooms for event in room.watched.events)
        console.print(f"{done}; {finals} finals seen", highlight=False)


def _explain(observed: Observed, console: Console) -> None:
    """Name what was missed, so that it can be looked into."""
    outcome = observed.outcome
    for name, found in (
        ("lost", outcome.lost),
        ("changed", outcome.changed),
        ("twice", outcome.twice),
        ("unplayable", outcome.unplayable),
        ("two sessions", outcome.split),
        ("seq repeated", outcome.seq_repeated),
        ("seq falling", outcome.seq_falling),
        ("silent for long", [room.name for room in observed.watched if is_silent_for_long(room)]),
        ("two agents", [room.name for room in observed.watched if any(overlaps_s(room.events))]),
    ):
        if found:
            console.print(f"{name}: {', '.join(map(str, found[:SHOWN]))}", markup=False, highlight=False)


def _speech(folder: Path) -> Samples:
    """Somebody who speaks most of the time."""
    tracks = load_meeting(folder, end_s=SPEECH_S).tracks.values()
    return max(tracks, key=lambda samples: float(np.mean(np.abs(samples.astype(np.float32)))))


REMARKS = (
    "The engine counts instead of listening, a final every 0.2 s, so that each one can be told from all "
    "others. Nobody but Roomscribe itself brings an agent back.",
    "job: killed up to 2.5 s after it began, or 11.5 to 14 s; worker: killed with all its rooms, while "
    "another one runs with a folder of its own; up: the worker of `roomscribe up`, which is alone; server: "
    "killed or stopped, and started again on its ports; pause: a job stands still for 15 s; reconnect: an "
    "agent reconnects fully; drain: SIGTERM to a worker, while another one runs.",
    "Gap: from the fault until the successor hears; of a server, from its answering again until the viewer "
    "has a final. A kill whose successor was killed before it could hear has none.",
    "Silence: for how long the viewer got nothing while somebody spoke. Two agents: for how long two epochs "
    "came in turns.",
    "Seq: missing are numbers within an epoch that neither viewer nor database has; skipped those between "
    "two epochs, where the dead agent's journal is on a disk that its successor does not have; unseen are "
    "those that only the database has, of finals kept just before a kill or while the viewer was away.",
    "Hole: from the end of the old agent's audio to the beginning of the new one's, below 0 for an overlap; "
    "unheard: the same where it is more than the 50 ms of a block, within which two processes place the same "
    "audio differently. Without leader: from the old one's leaving to the new one's session.",
    "Audio behind a kill: from the end of the last segment that plays to the kill.",
)
