"""One stream that hears everyone: the floor beside the plain sum and a stream for each participant.

    python -m benchmarks.floor [--meeting DIR …] [--only POLICY,…] [--json FILE] [--full]

Whole sessions with the local engine under virtual time, in which each decode takes as long as it really took.
All policies hear the same sound through the same engine; what differs is what they give to it. `streams` is a
stream for each participant, silence included, as most captioners do. `floor` is the default. The other floors
have the traits of engines that are paid by connection: one stream at a time, fed at most so much faster than
real time, with or without `recognize()` for turns that waited.
"""

import asyncio
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from livekit.local_inference import VAD
from rich.console import Console

from agent.captions.protocol import caption_body
from agent.cli.ending import end_process
from agent.config import load_settings
from agent.errors import InputError, RoomscribeError
from agent.ingest.meeting import Meeting, Segment, load_meeting
from agent.ingest.recorded import RecordedSource
from agent.session.announcer import SessionIdentity
from agent.session.limits import SessionLimits
from agent.session.session import Session, SessionReport
from agent.telemetry.logs import configure_structlog
from agent.transcription.engine import Engine
from agent.transcription.transcriber import Transcriber
from agent.values import SAMPLE_RATE_HZ, Event, Samples, Storage
from benchmarks.alignment import METHOD, Word, align_meeting, spoken_segments, within
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

LIMIT_S = 210.0  # of meetings, without --full: each policy takes a quarter of that, and there are seven
TAIL_S = 1.0
BEGAN_AT = datetime(2000, 1, 1, tzinfo=UTC)  # of virtual time
MOST_POINTS = 1.0
MOST_SENT = 1.05
MOST_STREAMS_SHARE = 0.3

LOCAL = TRAITS["whisper"]
ONE_STREAM = replace(LOCAL, live_turns=1, speculates=False, bills="stream")

POLICIES: Mapping[str, Traits | None] = {
    "streams": None,
    "sum": replace(
        LOCAL, finalizes=False, acknowledges=False, recognizes=False, live_turns=1, bills="stream"
    ),
    "floor": LOCAL,
    "recognize": replace(ONE_STREAM, burst_rate=1.25),
    "burst_1_25": replace(ONE_STREAM, burst_rate=1.25, recognizes=False),
    "burst_1_5": replace(ONE_STREAM, burst_rate=1.5, recognizes=False),
    "burst_2": replace(ONE_STREAM, burst_rate=2.0, recognizes=False),
}


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is heard of a meeting, and what was said in it."""

    meeting: Meeting
    words: Sequence[Word]
    truth: Sequence[Segment]

    @property
    def speech_s(self) -> float:
        return sum(segment.end_s - segment.start_s for segment in self.meeting.segments)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one policy made of one meeting."""

    delays: Delays
    scores: Scores
    tcp: ErrorCount
    right_s: float  # of captions, under the name of somebody who spoke then
    captions_s: float
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
        report = _run(asked, policies, console)
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except (InputError, RoomscribeError, OSError) as error:
        console.print(f"benchmarks.floor: {error}", style="red", markup=False)
        return 2 if isinstance(error, InputError) else 1
    report.print(console)
    if len(policies) == len(POLICIES):
        write_section(report)
    return 0


def _run(asked: Namespace, policies: Sequence[str], console: Console) -> Report:
    started_at = datetime.now(UTC)
    folders = meetings(asked)
    limit_s = None if asked.full else LIMIT_S / len(folders)
    cuts = [_read(folder, limit_s, console) for folder in folders]
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
        },
        figures=list(_figures(found)),
        remarks=list(_remarks()),
    )


def _read(folder: Path, limit_s: float | None, console: Console) -> _Cut:
    meeting = load_meeting(folder, sample_rate_hz=SAMPLE_RATE_HZ, end_s=limit_s)

    def on_progress(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            console.print(f"{meeting.name}: word times of {done} of {total} segments")

    words = within(
        align_meeting(folder, 0.0, meeting.duration_s, on_progress=on_progress), 0.0, meeting.duration_s
    )
    return _Cut(meeting, words, spoken_segments(words))


def _measure(cut: _Cut, traits: Traits | None) -> _Measured:
    charged_s: list[float] = []

    def charge(function: Callable[..., Any], took_s: float) -> float:
        """Recognition takes its time, with one thread; what the front end computes is the same for all."""
        if getattr(function, "__name__", "") == "_process":
            return 0.0
        charged_s.append(took_s)
        return took_s

    viewers, reports = run_virtual(_hear(cut.meeting, traits), charge=charge)
    log = sorted(
        (each for viewer in viewers for each in viewer.log), key=lambda received: received.received_at
    )
    finals = [_segment(each.event) for each in log if _is_final(each)]
    right_s, captions_s = _attribution(finals, cut.meeting.segments)
    return _Measured(
        delays=measure_delays(cut.words, log, BEGAN_AT),
        scores=score(cut.truth, finals),
        tcp=time_constrained(cut.truth, finals),
        right_s=right_s,
        captions_s=captions_s,
        waits_s=_waits_s(log),
        sent_s=sum(report.sent_ms for report in reports) / 1000,
        billed_s=sum(report.billed_ms for report in reports) / 1000,
        cpu_s=sum(charged_s),
        speech_s=cut.speech_s,
    )


async def _hear(meeting: Meeting, traits: Traits | None) -> tuple[list[_Viewer], list[SessionReport]]:
    """One session for all, or one for each participant where there are no traits."""
    engine = load_engine("whisper", load_settings().stt)
    engine.prewarm()
    groups: list[Mapping[str, Samples]] = [meeting.tracks]
    if traits is None:
        groups, traits = [{name: samples} for name, samples in meeting.tracks.items()], POLICIES["sum"]
    assert traits is not None
    viewers = [_Viewer() for _ in groups]
    sessions = [
        Session(
            RecordedSource(tracks),
            viewer,
            Transcriber([Engine("whisper", engine, traits)]),
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


def _attribution(finals: Sequence[Segment], truth: Sequence[Segment]) -> tuple[float, float]:
    """Seconds of captions whose speaker spoke in their middle, of all seconds of captions."""
    right_s = all_s = 0.0
    for final in finals:
        middle_s = (final.start_s + final.end_s) / 2
        is_right = any(
            each.speaker == final.speaker and each.start_s - 0.5 <= middle_s <= each.end_s + 0.5
            for each in truth
        )
        length_s = final.end_s - final.start_s
        all_s += length_s
        right_s += length_s * is_right
    return right_s, all_s


def _waits_s(log: Sequence[Received]) -> list[float]:
    """For each caption that was shown waiting, from its last word to its final."""
    waited = {each.event["id"] for each in log if each.event["kind"] == "caption" and each.event["waiting"]}
    return [
        (each.received_at - BEGAN_AT).total_seconds() - each.event["end_ms"] / 1000
        for each in log
        if _is_final(each) and each.event["id"] in waited
    ]


def _figures(found: Mapping[str, Sequence[_Measured]]) -> Iterator[Figure]:
    cpwer = {policy: _percent(pool([each.scores for each in runs]).cpwer) for policy, runs in found.items()}
    streams = cpwer.get("streams")
    for policy, runs in found.items():
        speech_s = sum(each.speech_s for each in runs)
        has_target = policy == "floor" and streams is not None
        yield Figure(
            f"{policy}_cpwer",
            cpwer[policy],
            "%",
            f"<= {streams + MOST_POINTS:.1f}" if has_target and streams is not None else None,
            cpwer[policy] <= streams + MOST_POINTS if has_target and streams is not None else None,
        )
        yield Figure(f"{policy}_tcpwer", _percent(_sum([each.tcp for each in runs])), "%")
        captions_s = sum(each.captions_s for each in runs)
        right = 100 * sum(each.right_s for each in runs) / captions_s if captions_s else None
        yield Figure(f"{policy}_named_right", _rounded(right, 1), "%")
        sent = sum(each.sent_s for each in runs) / speech_s
        is_target = policy == "floor"
        yield Figure(
            f"{policy}_sent_per_speech",
            round(sent, 2),
            "",
            f"<= {MOST_SENT}" if is_target else None,
            sent <= MOST_SENT if is_target else None,
        )
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
        yield Figure(
            "floor_sent_per_streams",
            round(share, 2),
            "",
            f"<= {MOST_STREAMS_SHARE}",
            share <= MOST_STREAMS_SHARE,
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
    yield "tcpWER lets a word be found within 5 s of where it was said. Named right: by time in captions."
    yield METHOD


if __name__ == "__main__":
    end_process(main())
