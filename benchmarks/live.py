"""A meeting in a real room, from the microphones to a viewer: delays, errors, and what it costs.

    python -m benchmarks.live --meeting DIR [--meeting DIR …] [--json FILE] [--full] [--from S] [--to S]

A livekit-server and a worker are started, each in a process of its own. The meeting's participants join a
room and speak in real time; a viewer, a participant like any other, notes what it receives and when.
Speakers, server, worker and viewer share one machine and its clock.
"""

import asyncio
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
from pydantic import SecretStr
from rich.console import Console

from agent.cli.ending import end_process
from agent.cli.local_livekit import LocalLiveKit
from agent.config import Settings, load_settings
from agent.errors import InputError, RoomscribeError
from agent.ingest.meeting import Segment
from agent.room.dispatch import Rooms
from agent.room.player import Playback, Player
from agent.room.viewer import Viewer
from benchmarks.alignment import METHOD
from benchmarks.cut import Cut, read_cut
from benchmarks.delays import Delays, Received, measure_delays, own_share, pool_delays
from benchmarks.distribution import percentile
from benchmarks.options import meetings, parser
from benchmarks.process_cost import CostMeter, ProcessCost
from benchmarks.report import Figure, Report, current_commit, current_machine, write_section
from benchmarks.scoring import Scores, pool, score
from tests.support.worker import RunningWorker

__all__ = ["main"]

LIMIT_S = 420.0  # of playing, without --full: recognition for the truth, starts and ends need time too
DEPARTURE_TIMEOUT_S = 2  # the room, and with it the session, ends soon after the last has left
JOIN_S = 30.0  # a cold first job takes three seconds
SUBSCRIBE_S = 1.0  # the agent hears a new track after 0.1 s
TAIL_S = 3.0  # of silence after the last word: people do not leave before its caption is there
SETTLE_S = 20.0  # for captions that are open even then
END_S = 60.0
PROGRESS_S = 10.0
MEGABYTE = 1_000_000
TARGETS = {"shown_p50": 0.5, "final_p50": 1.2, "own_share_finals_p95": 25.0, "stt_per_speech": 1.05}


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one meeting measured. `load` is the machine's load average at its end, over a minute."""

    cut: Cut
    delays: Delays
    scores: Scores
    partials_share_s: Sequence[float]
    finals_share_s: Sequence[float]
    sent_s: float
    cost: ProcessCost
    load: float
    skipped_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark as the command line says; returns the exit code."""
    options = parser("live", "A meeting in a real room: delays, errors, and what it costs.")
    options.add_argument(
        "--from", type=float, default=0.0, dest="start_s", metavar="S", help="where to begin"
    )
    options.add_argument("--to", type=float, dest="end_s", metavar="S", help="where to end")
    asked = options.parse_args(arguments)
    console = Console()
    try:
        if asked.json:  # not found out after ten minutes
            asked.json.parent.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(_run(asked, console))
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except InputError as error:
        console.print(f"benchmarks.live: {error}", style="red", markup=False)
        return 2
    except (RoomscribeError, OSError, AssertionError) as error:
        console.print(f"benchmarks.live: {error}", style="red", markup=False)
        return 1
    report.print(console)
    if asked.start_s == 0 and asked.end_s is None:  # RESULTS.md holds runs without a cut
        write_section(report)
    return 1 if report.has_missed else 0


async def _run(asked: Namespace, console: Console) -> Report:
    started_at = datetime.now(UTC)
    folders = meetings(asked)
    end_s = asked.end_s
    if not asked.full:
        limited_s = asked.start_s + LIMIT_S / len(folders)
        end_s = limited_s if end_s is None else min(end_s, limited_s)
    cuts = [
        await asyncio.to_thread(read_cut, folder, console, start_s=asked.start_s, end_s=end_s)
        for folder in folders
    ]
    console.print("starting livekit-server and a worker")
    measured = []
    async with (
        await LocalLiveKit.start(departure_timeout_s=DEPARTURE_TIMEOUT_S) as server,
        _worker(server) as worker,
        Rooms(_settings_for(server)) as rooms,
    ):
        for number, cut in enumerate(cuts, start=1):
            stage = _Stage(server.url, rooms, worker, f"benchmark-{number}", console)
            measured.append(await stage.play(cut))
    return Report(
        benchmark="live",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={
            "meetings": [cut.meeting.name for cut in cuts],
            "from_s": asked.start_s,
            "to_s": asked.end_s,
            "full": asked.full,
            "played_s": round(sum(cut.meeting.duration_s for cut in cuts), 1),
        },
        figures=list(_figures(measured)),
        remarks=list(_remarks(measured)),
    )


@asynccontextmanager
async def _worker(server: LocalLiveKit) -> AsyncIterator[RunningWorker]:
    """A worker of this server with the settings in force here."""
    with TemporaryDirectory(prefix="roomscribe-benchmark-") as temporary:
        folder = Path(temporary)
        name = load_settings().dispatch.agent_name
        async with await RunningWorker.start(
            server, folder, folder / "worker.log", agent_name=name
        ) as worker:
            yield worker


def _settings_for(server: LocalLiveKit) -> Settings:
    """The settings in force, with another server."""
    settings = load_settings()
    livekit = settings.livekit.model_copy(
        update={"url": server.url, "api_key": server.api_key, "api_secret": SecretStr(server.api_secret)}
    )
    return settings.model_copy(update={"livekit": livekit})


class _Stage:
    """One room in which a meeting is played to the agent and a viewer."""

    def __init__(self, url: str, rooms: Rooms, worker: RunningWorker, room: str, console: Console) -> None:
        self._url = url
        self._token = partial(rooms.token, room)
        self._worker = worker
        self._room = room
        self._console = console
        self._log: list[Received] = []

    async def play(self, cut: Cut) -> _Measured:
        """Play the cut in real time, wait for its last captions, and end the session."""
        viewer, player = Viewer(), Player(self._url, self._token)
        noting = asyncio.create_task(self._note(viewer), name="benchmark.note")
        async with viewer:
            await viewer.join(self._url, self._token("viewer"))
            session = await self._worker.until_logged("session.started", room=self._room, within_s=JOIN_S)
            async with player:
                tail = round(TAIL_S * cut.meeting.sample_rate_hz)
                tracks = {name: np.pad(samples, (0, tail)) for name, samples in cut.meeting.tracks.items()}
                playback = await player.join(tracks)
                await asyncio.sleep(SUBSCRIBE_S)
                cost = await self._speak(playback, CostMeter(session["pid"]), cut.meeting.name)
                load, _, _ = os.getloadavg()
                await self._settle()
        await noting
        ended = await self._worker.until_logged("session.ended", room=self._room, within_s=END_S)
        assert playback.started_at is not None, "it has run"
        began_at = datetime.fromtimestamp(playback.started_at, UTC)
        return _Measured(
            cut=cut,
            delays=measure_delays(cut.words, self._log, began_at),
            scores=score(cut.truth, list(_finals(self._log))),
            partials_share_s=own_share(self._log, final=False),
            finals_share_s=own_share(self._log, final=True),
            sent_s=ended["sent_ms"] / 1000,
            cost=cost,
            load=load,
            skipped_s=playback.skipped_s,
        )

    async def _note(self, viewer: Viewer) -> None:
        async for event in viewer.events():
            self._log.append(Received(datetime.fromtimestamp(event.received_at, UTC), event.data))

    async def _speak(self, playback: Playback, meter: CostMeter, name: str) -> ProcessCost:
        """Play, and say how far it is; gives what it cost the job."""
        running = asyncio.create_task(playback.run(), name="benchmark.play")
        try:
            while not running.done():
                await asyncio.wait((running,), timeout=PROGRESS_S)
                cost = await asyncio.to_thread(meter.sample)
                finals = sum(1 for _ in _finals(self._log))
                self._console.print(
                    f"{name}: {playback.position_s:.0f} of {playback.duration_s:.0f} s, {finals} finals"
                )
            await running
        finally:
            running.cancel()
        return cost

    async def _settle(self) -> None:
        """Wait until no caption is open."""
        for _ in range(round(SETTLE_S / 0.1)):
            if not _open_captions(self._log):
                return
            await asyncio.sleep(0.1)


def _open_captions(log: Sequence[Received]) -> set[str]:
    """The ids of captions that are neither final nor withdrawn."""
    captions = {each.event["id"]: each.event for each in log if each.event["kind"] == "caption"}
    return {id_ for id_, caption in captions.items() if not caption["final"] and caption["text"]}


def _finals(log: Sequence[Received]) -> Iterator[Segment]:
    for received in log:
        event = received.event
        if event["kind"] == "caption" and event["final"]:
            start_s, end_s = event["start_ms"] / 1000, event["end_ms"] / 1000
            yield Segment(event["speaker"]["name"], event["text"], start_s, end_s)


def _figures(measured: Sequence[_Measured]) -> Iterator[Figure]:
    for figure in _measures(measured):
        target = TARGETS.get(figure.name)
        if target is None or figure.value is None:
            yield figure
        else:
            yield replace(figure, target=f"<= {target:g}", held=figure.value <= target)


def _measures(measured: Sequence[_Measured]) -> Iterator[Figure]:
    delays = pool_delays([each.delays for each in measured])
    scores = pool([each.scores for each in measured])
    measures = {"shown": delays.shown_s, "shown_engine": delays.engine_s, "final": delays.final_s}
    for name, values in measures.items():
        for part, percent in (("p50", 50), ("p95", 95), ("max", 100)):
            yield Figure(f"{name}_{part}", _rounded(percentile(values, percent), 2), "s")
    yield Figure("words", delays.words, "")
    yield Figure("words_never_shown", delays.never_shown, "")
    yield Figure("turns", delays.turns, "")
    yield Figure("turns_without_final", delays.without_final, "")
    for name, shares in (
        ("partials", [share for each in measured for share in each.partials_share_s]),
        ("finals", [share for each in measured for share in each.finals_share_s]),
    ):
        for percent in (50, 95):
            share_s = percentile(shares, percent)
            value = None if share_s is None else 1000 * share_s
            yield Figure(f"own_share_{name}_p{percent}", _rounded(value, 1), "ms")
    yield Figure("wer", _rounded(scores.wer.rate_percent, 1), "%")
    yield Figure("cpwer", _rounded(scores.cpwer.rate_percent, 1), "%")
    sent_s = sum(each.sent_s for each in measured)
    speech_s = sum(each.cut.speech_s for each in measured)
    yield Figure("stt_seconds", round(sent_s, 1), "s")
    yield Figure("speech_seconds", round(speech_s, 1), "s")
    yield Figure("stt_per_speech", round(sent_s / speech_s, 2), "")
    cpu_s, wall_s = (sum(each.cost.cpu_s for each in measured), sum(each.cost.wall_s for each in measured))
    yield Figure("job_cpu", round(cpu_s / wall_s, 3), "of a core")
    yield Figure("job_pss", round(max(each.cost.pss_bytes for each in measured) / MEGABYTE, 1), "MB")
    yield Figure("load_average", round(max(each.load for each in measured), 1), "")


def _remarks(measured: Sequence[_Measured]) -> Iterator[str]:
    delays = pool_delays([each.delays for each in measured])
    if delays.shown_s:
        shown_s, engine_s = fmean(delays.shown_s), fmean(delays.engine_s)
        what = "recognition" if engine_s >= shown_s / 2 else "the caption's way to the viewer"
        yield (
            f"What dominates: {what}. A word is shown {shown_s:.3f} s after its end on average. The session "
            f"has it from the engine after {engine_s:.3f} s of these, {100 * engine_s / shown_s:.0f} % (the "
            "sound's way into the job, the engine's interval between partials, decoding); the rest is the "
            "caption's way to the viewer."
        )
    known = sum(word.matched for each in measured for word in each.cut.words)
    yield f"Word times: {METHOD}; of {delays.words} words, {known} were recognised, the others interpolated."
    if skipped_s := sum(each.skipped_s for each in measured):
        yield f"The machine was too busy to speak {skipped_s:.2f} s of the meeting; it was left out."


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


if __name__ == "__main__":
    end_process(main())
