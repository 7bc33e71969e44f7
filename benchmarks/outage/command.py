"""The command: what is asked for, progress while it runs, and the report."""

import asyncio
import logging
import shutil
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from rich.console import Console

from agent.errors import RoomscribeError
from agent.telemetry.logs import configure_structlog
from benchmarks.options import parser
from benchmarks.outage.faults import FAILOVER, HALF_OPEN, KINDS, UNDISTURBED, ServiceError
from benchmarks.outage.figures import LATE_S, explain, figures
from benchmarks.outage.run import AFTER_S, BEFORE_S, Plan, Session, prepare, run
from benchmarks.outage.talk import talk
from benchmarks.report import Report, current_commit, current_machine, write_section
from tests.support.toxiproxy import Toxiproxy

__all__ = ["main", "plans"]

LENGTHS_S = (5.0, 20.0, 60.0)
TALKS = 5  # with --full
ALL = (*KINDS, FAILOVER)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit code 1 where a target was missed."""
    options = parser("outage", "What outages of a speech engine cost: words, and time.")
    options.add_argument(
        "--only", type=_kinds, default=list(ALL), metavar="KIND,…", help=f"of {', '.join(ALL)} (all)"
    )
    options.add_argument("--logs", type=Path, metavar="FILE", help="where all logs go, as JSON")
    asked = options.parse_args(arguments)
    console = Console()
    _configure_logs(asked.logs)
    try:
        report = asyncio.run(_run(asked, console))
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except (RoomscribeError, OSError) as error:
        console.print(f"benchmarks.outage: {error}", style="red", markup=False)
        return 1
    report.print(console)
    if asked.only == list(ALL):  # RESULTS.md holds whole runs
        write_section(report)
    return 0 if all(figure.held is not False for figure in report.figures) else 1


def plans(kinds: Sequence[str]) -> Iterator[Plan]:
    """The sessions that belong to some kinds of outage, an undisturbed one first."""
    yield Plan(UNDISTURBED, LENGTHS_S[-1])
    for kind in kinds:
        for length_s in LENGTHS_S[-1:] if kind == FAILOVER else LENGTHS_S:
            yield Plan(kind, length_s)


def _kinds(text: str) -> list[str]:
    named = text.split(",")
    if unknown := [kind for kind in named if kind not in ALL]:
        raise ArgumentTypeError(f"{', '.join(unknown)} is unknown; known: {', '.join(ALL)}")
    return [kind for kind in ALL if kind in named]


def _configure_logs(file: Path | None) -> None:
    """Keep the terminal to the benchmark: engines that fail are logged a hundred times here."""
    configure_structlog()
    root = logging.getLogger()
    if file is None:
        root.addHandler(logging.NullHandler())
        return
    handler = logging.FileHandler(file, mode="w")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), structlog.processors.TimeStamper("iso")],
        )
    )
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)


async def _run(asked: Namespace, console: Console) -> Report:
    started_at = datetime.now(UTC)
    seeds = range(1, 1 + (TALKS if asked.full else 1))
    sessions: list[Session] = []
    for seed in seeds:
        sessions += await _side_by_side(list(plans(asked.only)), seed, console)
    return Report(
        benchmark="outage",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={
            "only": asked.only if asked.only != list(ALL) else None,
            "talks": len(seeds),
            "before_s": BEFORE_S,
            "after_s": AFTER_S,
            "full": asked.full,
        },
        figures=list(figures(sessions)),
        remarks=REMARKS,
    )


async def _side_by_side(wanted: Sequence[Plan], seed: int, console: Console) -> list[Session]:
    longest_s = max(plan.talk_s for plan in wanted)
    talks = {plan: talk(plan.talk_s, seed) for plan in wanted}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="roomscribe-benchmark-")))
        is_proxied = any(plan.kind == HALF_OPEN for plan in wanted)
        toxiproxy = stack.enter_context(_toxiproxy(folder)) if is_proxied else None
        started = {plan: await prepare(plan, folder, stack, toxiproxy) for plan in wanted}
        console.print(f"talk {seed}: {len(wanted)} sessions of up to {longest_s:g} s side by side")

        async def session(plan: Plan) -> Session:
            found = await run(plan, talks[plan], started[plan])
            console.print(f"{plan.name}: done", highlight=False)
            for line in explain(found):
                console.print(f"  {line}", style="yellow", highlight=False, soft_wrap=True)
            return found

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(session(plan)) for plan in wanted]
        return [each.result() for each in running]


def _toxiproxy(folder: Path) -> Toxiproxy:
    if shutil.which("toxiproxy-server") is None:
        raise ServiceError("toxiproxy-server is not on PATH; `make setup` installs it")
    return Toxiproxy(folder / "toxiproxy.log")


REMARKS = (
    "Four voices, two of them at once now and then; a word is 32 ms of voice, and no two are alike. All "
    "sessions run side by side in one process, each with a stand-in of its own.",
    "killed: the stand-in's process by SIGKILL, and it is started again on its port; stalled: it takes audio "
    "and says nothing; half_open: connections stay and nothing passes, and what was open is closed at the "
    "end; too_many: the stream is closed, and new ones and recordings get status 429; failover: killed, "
    "with a second engine.",
    "Outage: how long it really was. First final and caught up: from its end (failover: from its beginning) "
    "to the first final, and until all that was said before was told. Down told: from its beginning, up "
    "told: from its end.",
    f"Late: the final came more than {LATE_S:g} s after the word. Lost untold: without the room being told "
    "that speech is missing. Audio late: by how much audio came later than in real time, at worst.",
)
