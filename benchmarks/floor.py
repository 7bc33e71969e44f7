"""One stream that hears everyone: the floor beside the plain sum and a stream for each participant.

    python -m benchmarks.floor [--meeting DIR …] [--only POLICY,…] [--json FILE] [--full]

Whole sessions with the local engine under virtual time, in which each decode takes as long as the processor
time it really took. All policies hear the same sound through the same engine; what differs is what they give
to it. `streams` is a stream for each participant, silence included, as most captioners do; `own_floors` is a
floor for each, so that what differs from `floor` is the sharing alone. `floor` is the default engine's.
`deepgram` and `openai` have the traits of these engines. The others are engines without `recognize()`, paid
by connection and fed at most so much faster than real time; below 1.5 that takes a second stream.
"""

import asyncio
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from livekit.local_inference import VAD
from rich.console import Console

from agent.captions.protocol import caption_body
from agent.cli.ending import end_process
from agent.config import load_settings
from agent.errors import InputError, RoomscribeError
from agent.ingest.meeting import Meeting, Segment
from agent.ingest.recorded import RecordedSource
from agent.session.announcer import SessionIdentity
from agent.session.limits import SessionLimits
from agent.session.session import Session, SessionReport
from agent.telemetry.logs import configure_structlog
from agent.transcription.engine import Engine
from agent.transcription.transcriber import Transcriber
from agent.values import SAMPLE_RATE_HZ, Event, Samples, Storage
from benchmarks.alignment import METHOD
from benchmarks.cut import Cut, read_cut
from benchmarks.delays import Delays, Received, measure_delays, pool_delays
from benchmarks.distribution import percentile
from benchmarks.options import meetings, parser
from benchmarks.report import Figure, Report, current_commit, current_machine, write_section
from benchmarks.scoring import ErrorCount, Scores, pool, score, time_constrained
from persistence.records import Final, Record
from plugins.stt import load_engine
from plugins.stt.traits import TRAITS, Traits
from tests.support.virtual_time import run_virtual

__all__ = ["POLICIES", "main"]

LIMIT_S = 210.0  # of meetings, without --full: each policy takes a quarter of that, and there are nine
TAIL_S = 1.0
BEGAN_AT = datetime(2000, 1, 1, tzinfo=UTC)  # of virtual time
MOST_POINTS = 1.0
MOST_SENT = 1.05
MOST_STREAMS_SHARE = 0.3

LOCAL = TRAITS["whisper"]
SUM = replace(LOCAL, finalizes=False, acknowledges=False, recognizes=False, live_turns=1, bills="stream")
UNRECOGNIZING = replace(LOCAL, live_turns=1, recognizes=False, speculates=False, bills="stream")


@dataclass(frozen=True, slots=True)
class _Policy:
    """What an engine can do, and whether it hears each participant in a session of their own."""

    traits: Traits
    is_each_alone: bool = False
    has_target: bool = False


POLICIES: Mapping[str, _Policy] = {
    "streams": _Policy(SUM, is_each_alone=True),
    "own_floors": _Policy(LOCAL, is_each_alone=True),
    "sum": _Policy(SUM),
    "floor": _Policy(LOCAL, has_target=True),
    "deepgram": _Policy(TRAITS["deepgram"], has_target=True),
    "openai": _Policy(TRAITS["openai"], has_target=True),
    "burst_1_25_second_stream": _Policy(replace(UNRECOGNIZING, burst_rate=1.25)),
    "burst_1_5": _Policy(replace(UNRECOGNIZING, burst_rate=1.5)),
    "burst_2": _Policy(replace(UNRECOGNIZING, burst_rate=2.0)),
}


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one policy made of one meeting."""

    delays: Delays
    scores: Scores
    tcp: ErrorCount
    waits_s: Sequence[float]  # of turns that waited: from their last word to their final
    sent_s: float
    billed_s: float
    cpu_s: float
    speech_s: float


class _Viewer:
    """Notes what a session publishes, and keeps nothing."""

    def __init__(self) -> None:
        self.log: list[Received] = []

    @property
    def storage(self) -> Storage:
        return Storage.DATABASE

    def note(self, record: Record) -> None:
        """Nobody asks for it here."""

    async def keep(self, record: Final) -> bool:
        return True

    async def publish(self, event: Event) -> None:
        at = BEGAN_AT + timedelta(seconds=asyncio.get_running_loop().time())
        body = dict(event.body) if event.caption is None else caption_body(event.caption)
        self.log.append(Received(at, {"kind": event.kind, "at": event.at.isoformat(), **body}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark as the command line says; returns the exit code."""
    options = parser("floor", "The floor beside the plain sum and a stream for each participant.")
    options.add_argument(
        "--only", metavar="POLICY,…", default=",".join(POLICIES), help=f"of {', '.join(POLICIES)} (all)"
    )
    asked = options.parse_args(arguments)
    configure_structlog()
    console = Console()
    policies = asked.only.split(",")
    if unknown := set(policies) - set(POLICIES):
        console.print(
            f"benchmarks.floor: no policy {', '.join(sorted(unknown))}; known: {', '.join(POLICIES)}"
        )
        return 2
    try:
        if asked.json:  # not found out after ten minutes
            asked.json.parent.mkdir(parents=True, exist_ok=True)
        report = _run(asked, policies, console)
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except (InputError, RoomscribeError, OSError) as error:
        console.print(f"benchmarks.floor: {error}", style="red", markup=False)
        return 2 if isinstance(error, InputError) else 1
    report.print(console)
    if len(policies) == len(POLICIES):
        write_section(report)
    return 1 if report.has_missed else 0


def _run(asked: Namespace, policies: Sequence[str], console: Console) -> Report:
    started_at = datetime.now(UTC)
    folders = meetings(asked)
    limit_s = None if asked.full else LIMIT_S / len(folders)
    cuts = [read_cut(folder, console, end_s=limit_s, sample_rate_hz=SAMPLE_RATE_HZ) for folder in folders]
    found: dict[str, list[_Measured]] = {}
    for policy in policies:
        for cut in cuts:
            console.print(f"{policy}: {cut.meeting.name}, {cut.meeting.duration_s:.0f} s")
            found.setdefault(policy, []).append(_measure(cut, POLICIES[policy]))
    return Report(
        benchmark="floor",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={
            "meetings": [cut.meeting.name for cut in cuts],
            "full": asked.full,
            "heard_s": round(sum(cut.meeting.duration_s for cut in cuts), 1),
            "speech_s": round(sum(cut.speech_s for cut in cuts), 1),
            "overlap": [round(cut.overlap_share, 3) for cut in cuts],
        },
        figures=list(_figures(found)),
        remarks=list(_remarks()),
    )


def _measure(cut: Cut, policy: _Policy) -> _Measured:
    charged_s: list[float] = []

    def charge(function: Callable[..., Any], took_s: float) -> float:
        """Recognition takes its time, with one thread; what the front end computes is the same for all."""
        if getattr(function, "__name__", "") == "_process":
            return 0.0
        charged_s.append(took_s)
        return took_s

    viewers, reports = run_virtual(_hear(cut.meeting, policy), charge=charge)
    log = sorted(
        (each for viewer in viewers for each in viewer.log), key=lambda received: received.received_at
    )
    finals = [_segment(each.event) for each in log if _is_final(each)]
    return _Measured(
        delays=measure_delays(cut.words, log, BEGAN_AT),
        scores=score(cut.truth, finals),
        tcp=time_constrained(cut.truth, finals),
        waits_s=_waits_s(log),
        sent_s=sum(report.sent_ms for report in reports) / 1000,
        billed_s=sum(report.billed_ms for report in reports) / 1000,
        cpu_s=sum(charged_s),
        speech_s=cut.speech_s,
    )


async def _hear(meeting: Meeting, policy: _Policy) -> tuple[list[_Viewer], list[SessionReport]]:
    """One session for all, or one for each participant."""
    engine = load_engine("whisper", load_settings().stt)
    engine.prewarm()
    groups: list[Mapping[str, Samples]] = [meeting.tracks]
    if policy.is_each_alone:
        groups = [{name: samples} for name, samples in meeting.tracks.items()]
    viewers = [_Viewer() for _ in groups]
    sessions = [
        Session(
            RecordedSource(tracks),
            viewer,
            Transcriber([Engine("whisper", engine, policy.traits)]),
            viewer,
            None,
            SessionIdentity(f"session-{number}", number, "agent"),
            limits=SessionLimits(),
            languages=["en"],
            new_detector=VAD,
            partials_per_s=4.0 * len(groups),
            utc_now=lambda: BEGAN_AT + timedelta(seconds=asyncio.get_running_loop().time()),
        )
        for number, (tracks, viewer) in enumerate(zip(groups, viewers, strict=True), start=1)
    ]
    reports = await asyncio.gather(*(session.run() for session in sessions))
    await engine.aclose()
    return viewers, reports


def _is_final(received: Received) -> bool:
    return received.event["kind"] == "caption" and received.event["final"] and bool(received.event["text"])


def _segment(event: Mapping[str, Any]) -> Segment:
    return Segment(event["speaker"]["name"], event["text"], event["start_ms"] / 1000, event["end_ms"] / 1000)


def _waits_s(log: Sequence[Received]) -> list[float]:
    """For each caption that was shown waiting, from its last word to its final."""
    waited = {each.event["id"] for each in log if each.event["kind"] == "caption" and each.event["waiting"]}
    return [
        (each.received_at - BEGAN_AT).total_seconds() - each.event["end_ms"] / 1000
        for each in log
        if _is_final(each) and each.event["id"] in waited
    ]


def _figures(found: Mapping[str, Sequence[_Measured]]) -> Iterator[Figure]:
    scores = {policy: pool([each.scores for each in runs]) for policy, runs in found.items()}
    least = _percent(scores["streams"].cpwer) if "streams" in scores else None
    for policy, runs in found.items():
        speech_s = sum(each.speech_s for each in runs)
        has_target = POLICIES[policy].has_target
        wer, cpwer = scores[policy].wer, scores[policy].cpwer
        most = least + MOST_POINTS if has_target and least is not None else None
        yield _bounded(f"{policy}_cpwer", _percent(cpwer), "%", most)
        yield Figure(f"{policy}_tcpwer", _percent(_sum([each.tcp for each in runs])), "%")
        yield Figure(f"{policy}_wer", _percent(wer), "%")
        misnamed = ErrorCount(max(cpwer.errors - wer.errors, 0), cpwer.words)
        yield Figure(f"{policy}_misnamed", _percent(misnamed), "%")
        sent = sum(each.sent_s for each in runs) / speech_s
        yield _bounded(f"{policy}_sent_per_speech", round(sent, 2), "", MOST_SENT if has_target else None)
        billed_s = sum(each.billed_s for each in runs)
        yield Figure(f"{policy}_billed", round(billed_s, 1), "s")
        yield Figure(f"{policy}_cpu_per_speech", round(sum(each.cpu_s for each in runs) / speech_s, 3), "")
        delays = pool_delays([each.delays for each in runs])
        for name, values in (("shown", delays.shown_s), ("final", delays.final_s)):
            for percent in (50, 95):
                yield Figure(f"{policy}_{name}_p{percent}", _rounded(percentile(values, percent), 2), "s")
        yield Figure(f"{policy}_never_shown", delays.never_shown, "words")
        waits_s = [wait_s for each in runs for wait_s in each.waits_s]
        yield Figure(f"{policy}_waiting_turns", len(waits_s), "")
        if waits_s:
            yield Figure(f"{policy}_waiting_mean", round(sum(waits_s) / len(waits_s), 2), "s")
            yield Figure(f"{policy}_waiting_p95", _rounded(percentile(waits_s, 95), 2), "s")
            yield Figure(f"{policy}_waiting_max", round(max(waits_s), 2), "s")
    if "streams" in found and "floor" in found:
        share = _total(found["floor"]) / _total(found["streams"])
        yield _bounded("floor_sent_per_streams", round(share, 2), "", MOST_STREAMS_SHARE)


def _bounded(name: str, value: float, unit: str, most: float | None) -> Figure:
    return (
        Figure(name, value, unit)
        if most is None
        else Figure(name, value, unit, f"<= {most:g}", value <= most)
    )


def _total(runs: Sequence[_Measured]) -> float:
    return sum(each.sent_s for each in runs)


def _sum(counts: Sequence[ErrorCount]) -> ErrorCount:
    return ErrorCount(sum(each.errors for each in counts), sum(each.words for each in counts))


def _percent(count: ErrorCount) -> float:
    return round(count.rate_percent or 0.0, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _remarks() -> Iterator[str]:
    yield (
        "Sent: audio given to the engine, for each second of speech in the truth; streams and sum get "
        "silence as well. Billed: seconds that connections were open, for engines that are paid by them; the "
        "local engine costs nothing but cpu, in seconds of one core for each second of speech."
    )
    yield "Waiting: captions that were shown empty first; from the end of their last word to their final."
    yield (
        "tcpWER lets a word be found within 5 s of where it was said. WER counts a word under any name; "
        "misnamed is what cpWER counts beyond it: words under the wrong one, each missed and added."
    )
    yield METHOD


if __name__ == "__main__":
    end_process(main())
