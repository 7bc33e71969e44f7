"""The local engine alone: errors, delays and what it costs, its short window beside the plain one of 30 s.

    python -m benchmarks.whisper [--meeting DIR …] [--json FILE] [--full]

Each speaker's clean track is one stream, fed with turns as a session feeds them: speech with a little silence
around it, a flush when the speaker is done. The streams of a meeting share one engine, as in a room. They run
under virtual time, in which every decode takes the processor time that it really took: that is how long it
takes where a core is free, whatever else this machine does meanwhile.

`plain` is Whisper as it is usually streamed: the same policy and the same turns, but every decode, also of a
partial, is padded to 30 s. Each run has a process of its own.
"""

import asyncio
import os
import time
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil  # type: ignore[import-untyped]
from livekit import rtc
from livekit.agents import APIConnectOptions, stt
from livekit.local_inference import VAD, init_vad
from rich.console import Console

from agent.audio.activity import WINDOW_MS, Window
from agent.audio.turns import CUT_PAUSE_MS, HANGOVER_MS, LONG_MS, Began, Over, Paused, Spoke, TurnDetector
from agent.cli.ending import end_process
from agent.config import load_settings
from agent.errors import InputError, RoomscribeError
from agent.ingest.meeting import Segment, load_meeting
from agent.transcription.stream_map import StreamMap
from agent.values import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Samples
from benchmarks.alignment import METHOD
from benchmarks.cut import Cut, read_cut
from benchmarks.delays import Delays, Received, measure_delays, pool_delays
from benchmarks.distribution import percentile
from benchmarks.options import meetings, parser
from benchmarks.report import Figure, Report, current_commit, current_machine, write_section
from benchmarks.scoring import Scores, pool, score
from plugins.stt.traits import FLUSHED
from plugins.stt.whisper.decoder import FULL_WINDOW_S, WhisperDecoder, Windows
from plugins.stt.whisper.engine import WhisperStream, WhisperSTT
from tests.support.virtual_time import run_virtual

__all__ = ["Flush", "Prepare", "Send", "main", "plan_turns"]

LIMIT_S = 240.0  # of meetings, without --full: the plain window takes a second of work per second of speech
BLOCK_MS = 50  # in which sound comes
WINDOW_SAMPLES = WINDOW_MS * SAMPLES_PER_MS
SETTLE_S = 0.7  # after the last sample: an utterance ends after half a second of silence
MEGABYTE = 1_000_000
_Result = TypeVar("_Result")

BEGAN_AT = datetime(2000, 1, 1, tzinfo=UTC)  # of virtual time

WINDOWS: Mapping[str, Windows] = {
    "short": Windows(),
    "plain": Windows(
        final_padding_s=FULL_WINDOW_S, partial_padding_s=FULL_WINDOW_S, partial_shortest_s=FULL_WINDOW_S
    ),
}

TARGETS: Mapping[str, float] = {
    "short_shown_p50": 0.25,
    "short_shown_p95": 0.9,
    "short_final_p50": 0.6,
    "cpu_ratio": 0.27,
}


@dataclass(frozen=True, slots=True)
class Send:
    """At `at_ms` of the track, a turn is sent its milliseconds `start_ms` to `end_ms`."""

    at_ms: int
    turn: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """At `at_ms` of the track, the speaker may be done."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Flush:
    """At `at_ms` of the track, the turn is over."""

    at_ms: int


Step = Send | Prepare | Flush


@dataclass(frozen=True, slots=True)
class _Said:
    """What an engine said of one speaker at `at_s`; times are milliseconds of the meeting."""

    at_s: float
    speaker: str
    request_id: str
    text: str
    is_final: bool
    start_ms: int
    end_ms: int


class _MeteredSTT(WhisperSTT):
    """Knows what its last decode cost."""

    cpu_s = 0.0

    async def run(self, job: Callable[[WhisperDecoder], _Result]) -> _Result:
        def metered(decoder: WhisperDecoder) -> _Result:
            began_s = time.process_time()
            result = job(decoder)
            self.cpu_s = time.process_time() - began_s
            return result

        return await super().run(metered)


@dataclass(frozen=True, slots=True)
class _Run:
    """One meeting through one engine. `answers_s` is how long each flush waited for its answer."""

    results: Sequence[_Said]
    answers_s: Sequence[float]
    cpu_s: float
    pss_bytes: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Measured:
    delays: Delays
    scores: Scores
    run: _Run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and write down what was measured; exit code 1 where a target was missed."""
    asked = parser("whisper", __doc__.split("\n", maxsplit=1)[0]).parse_args(arguments)
    console = Console()
    try:
        if asked.json:  # not found out after ten minutes
            asked.json.parent.mkdir(parents=True, exist_ok=True)
        report = _measure(asked, console)
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except InputError as error:
        console.print(f"benchmarks.whisper: {error}", style="red", markup=False)
        return 2
    except (RoomscribeError, OSError) as error:
        console.print(f"benchmarks.whisper: {error}", style="red", markup=False)
        return 1
    report.print(console)
    write_section(report)
    return 1 if report.has_missed else 0


def plan_turns(samples: Samples, voice_probability: Callable[[Samples], float]) -> list[Step]:
    """What a session does with a track that comes in real time, block by block, if nobody else speaks.

    Args:
        samples: The whole track; what follows the last whole window is left out.
        voice_probability: Of the next window of samples, 0 to 1; called once a window.
    """
    detector = TurnDetector()
    steps: list[Step] = []
    turn, start_ms = 0, 0
    for first in range(0, len(samples) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        piece = samples[first : first + WINDOW_SAMPLES]
        window = Window("", first // SAMPLES_PER_MS, piece, voice_probability(piece))
        at_ms = -(-window.end_ms // BLOCK_MS) * BLOCK_MS
        is_long = detector.is_open and window.end_ms - start_ms > LONG_MS
        for signal in detector.push(window, CUT_PAUSE_MS if is_long else HANGOVER_MS):
            match signal:
                case Began():
                    turn, start_ms = turn + 1, signal.start_ms
                case Spoke():
                    steps.append(Send(at_ms, turn, signal.window.start_ms, signal.window.end_ms))
                case Paused():
                    steps.append(Prepare(at_ms))
                case Over():
                    steps.append(Flush(at_ms))
    if detector.is_open:
        steps.append(Flush(len(samples) // SAMPLES_PER_MS))
    return steps


def _measure(asked: Namespace, console: Console) -> Report:
    started_at = datetime.now(UTC)
    folders = meetings(asked)
    end_s = None if asked.full else LIMIT_S / len(folders)
    cuts = [read_cut(folder, console, end_s=end_s, sample_rate_hz=SAMPLE_RATE_HZ) for folder in folders]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as a worker does for its rooms' processes
    measured: dict[str, list[_Measured]] = {name: [] for name in WINDOWS}
    # The windows take turns, so that whatever else the machine does meets both.
    for cut in cuts:
        for name, windows in WINDOWS.items():
            # A process of its own: its memory and its processor time are this engine's.
            with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool_of_one:
                run = pool_of_one.submit(_transcribe, cut.folder, end_s, windows).result()
            measured[name].append(_evaluate(cut, run))
            console.print(f"{cut.meeting.name}, {name} window: {run.cpu_s:.1f} s of processor time")
    settings = load_settings().stt.whisper
    words = [word for cut in cuts for word in cut.words]
    return Report(
        benchmark="whisper",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={
            "meetings": [cut.meeting.name for cut in cuts],
            "model": settings.model,
            "beam_size": settings.beam_size,
            "partial_interval_s": settings.partial_interval_s,
            "full": asked.full,
            "used_s": round(sum(cut.meeting.duration_s for cut in cuts), 1),
        },
        figures=list(_figures(measured, sum(cut.speech_s for cut in cuts))),
        remarks=[
            "Delays are from the end of a word to the engine's event, without the way from the microphone "
            "and to the viewer. `answer` is the part of `final` after the flush, the engine's own; the rest "
            "is the half second of silence after which a turn is over.",
            "`cpu` is the processor time of the whole process per second of speech, `pss` its memory at "
            "the end, the meeting's tracks included; `cpu_ratio` is short to plain in this run.",
            f"Word times: {METHOD}; of {len(words)} words, {sum(word.matched for word in words)} were "
            "recognised, the others interpolated.",
        ],
    )


def _transcribe(folder: Path, end_s: float | None, windows: Windows) -> _Run:
    """Run in a process of its own: one meeting through one engine."""
    init_vad()
    meeting = load_meeting(folder, sample_rate_hz=SAMPLE_RATE_HZ, end_s=end_s)
    plans = {name: _plan(samples) for name, samples in meeting.tracks.items()}
    settings = load_settings().stt
    engine = _MeteredSTT(
        model=settings.whisper.model,
        language=settings.language,
        threads=settings.whisper.threads,
        beam_size=settings.whisper.beam_size,
        partial_interval_s=settings.whisper.partial_interval_s,
        windows=windows,
    )
    engine.prewarm()
    results: list[_Said] = []
    answers_s: list[float] = []

    async def session() -> None:
        async with asyncio.TaskGroup() as tasks:
            for name, plan in plans.items():
                speaker = _Speaker(engine, name, meeting.tracks[name])
                tasks.create_task(speaker.run(plan, results, answers_s))
        await engine.aclose()

    cpu_began_s = time.process_time()
    run_virtual(session(), charge=lambda _function, _took_s: engine.cpu_s)
    return _Run(
        results=results,
        answers_s=answers_s,
        cpu_s=time.process_time() - cpu_began_s,
        pss_bytes=psutil.Process().memory_full_info().pss,
        dropped=dict(engine.dropped),
    )


def _plan(samples: Samples) -> list[Step]:
    padded = np.pad(samples, (0, round(SETTLE_S * SAMPLE_RATE_HZ)))
    with VAD() as vad:
        return plan_turns(padded, vad.predict)


class _Speaker:
    """One speaker's turns through a stream of an engine."""

    def __init__(self, engine: WhisperSTT, name: str, samples: Samples) -> None:
        self._engine = engine
        self._name = name
        self._samples = np.pad(samples, (0, round(SETTLE_S * SAMPLE_RATE_HZ)))
        self._places = StreamMap()
        self._flushed_s: deque[float] = deque()

    async def run(self, plan: Sequence[Step], results: list[_Said], answers_s: list[float]) -> None:
        """Take each step at its time, and note what comes of it."""
        now_s = asyncio.get_running_loop().time
        stream = self._engine.stream(conn_options=APIConnectOptions(max_retry=0))
        async with stream:
            noting = asyncio.create_task(self._note(stream, results, answers_s))
            for step in plan:
                await asyncio.sleep(max(0.0, step.at_ms / 1000 - now_s()))
                match step:
                    case Send():
                        self._send(step, stream)
                    case Prepare():
                        stream.prepare_final()
                    case Flush():
                        self._flushed_s.append(now_s())
                        stream.flush()
            stream.end_input()
            await noting

    def _send(self, step: Send, stream: WhisperStream) -> None:
        self._places.append(step.turn, self._name, step.start_ms, step.end_ms - step.start_ms)
        samples = self._samples[step.start_ms * SAMPLES_PER_MS : step.end_ms * SAMPLES_PER_MS]
        stream.push_frame(rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE_HZ, 1, len(samples)))

    async def _note(self, stream: WhisperStream, results: list[_Said], answers_s: list[float]) -> None:
        now_s = asyncio.get_running_loop().time
        async for event in stream:
            is_final = event.type == stt.SpeechEventType.FINAL_TRANSCRIPT
            if event.request_id == FLUSHED:
                answers_s.append(now_s() - self._flushed_s.popleft())
            elif is_final or event.type == stt.SpeechEventType.INTERIM_TRANSCRIPT:
                data = event.alternatives[0]
                results.append(
                    _Said(
                        at_s=now_s(),
                        speaker=self._name,
                        request_id=event.request_id,
                        text=data.text,
                        is_final=is_final,
                        start_ms=self._places.to_session(round(data.start_time * 1000)),
                        end_ms=self._places.to_session_end(round(data.end_time * 1000)),
                    )
                )


def _evaluate(cut: Cut, run: _Run) -> _Measured:
    finals = [
        Segment(result.speaker, result.text, result.start_ms / 1000, result.end_ms / 1000)
        for result in run.results
        if result.is_final
    ]
    return _Measured(
        delays=measure_delays(cut.words, [_received(result) for result in run.results], BEGAN_AT),
        scores=score(cut.truth, finals),
        run=run,
    )


def _received(result: _Said) -> Received:
    """The same as a viewer without any delay of its own would get it."""
    at = BEGAN_AT + timedelta(seconds=result.at_s)
    return Received(
        at,
        {
            "kind": "caption",
            "id": result.request_id,
            "speaker": {"name": result.speaker},
            "text": result.text,
            "start_ms": result.start_ms,
            "end_ms": result.end_ms,
            "final": result.is_final,
            "at": at.isoformat(),
        },
    )


def _figures(measured: Mapping[str, Sequence[_Measured]], speech_s: float) -> Iterator[Figure]:
    cpu_s: dict[str, float] = {}
    for name, runs in measured.items():
        delays = pool_delays([each.delays for each in runs])
        scores = pool([each.scores for each in runs])
        yield _figure(f"{name}_wer", scores.wer.rate_percent, 1, "%")
        measures = {
            "shown": delays.shown_s,
            "final": delays.final_s,
            "answer": [answer_s for each in runs for answer_s in each.run.answers_s],
        }
        for measure, values in measures.items():
            for part, percent in (("p50", 50), ("p95", 95), ("max", 100)):
                yield _figure(f"{name}_{measure}_{part}", percentile(values, percent), 2, "s")
        yield Figure(f"{name}_words", delays.words, "")
        yield Figure(f"{name}_words_never_shown", delays.never_shown, "")
        yield Figure(f"{name}_turns", delays.turns, "")
        yield Figure(f"{name}_turns_without_final", delays.without_final, "")
        dropped = sum((Counter(each.run.dropped) for each in runs), Counter[str]())
        yield Figure(f"{name}_dropped", dropped.total(), "")
        cpu_s[name] = sum(each.run.cpu_s for each in runs)
        yield _figure(f"{name}_cpu", cpu_s[name] / speech_s, 3, "of a core")
        yield _figure(f"{name}_pss", max(each.run.pss_bytes for each in runs) / MEGABYTE, 1, "MB")
    yield _figure("cpu_ratio", cpu_s["short"] / cpu_s["plain"], 3, "")


def _figure(name: str, value: float | None, digits: int, unit: str) -> Figure:
    rounded = None if value is None else round(value, digits)
    if name not in TARGETS:
        return Figure(name, rounded, unit)
    is_held = value is not None and value <= TARGETS[name]
    return Figure(name, rounded, unit, f"<= {TARGETS[name]:g}", is_held)


if __name__ == "__main__":
    end_process(main())
