"""One live session: it listens to a source, has it recognised, and announces captions and its state."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import structlog

from agent.audio.activity import VoiceActivityDetector, VoiceLog
from agent.audio.front_end import FrontEnd
from agent.captions.assembler import CaptionAssembler
from agent.captions.protocol import state_body
from agent.session.announcer import Announcer, SessionIdentity
from agent.session.publisher import Publisher
from agent.session.source import (
    AudioReceived,
    Ended,
    HeardAgain,
    ParticipantJoined,
    ParticipantLeft,
    Source,
    SourceEvent,
    SpeakerRenamed,
    TrackClosed,
    TrackMuted,
    TrackOpened,
    TrackUnmuted,
    Unheard,
)
from agent.transcription.transcriber import EngineDown, EngineUp, Transcriber
from agent.values import Block, Heard, Speaker, Voice

__all__ = ["Session", "SessionReport"]

log = structlog.get_logger(__name__)

STATE_INTERVAL_S = 10.0
MEASURED = {"coverage", "lag_ms"}  # of a state: no reason to announce it
FLUSH_AFTER_S = 0.5  # without any audio an engine would wait for ever for the silence that ends an utterance
FINISH_TIMEOUT_S = 15.0  # for the last finals; a local engine on a busy machine takes seconds
DRAIN_TIMEOUT_S = 5.0  # for what is still to be published then


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a session did, once it is over.

    `sent_ms` and `unsent_ms` are of the mix; `dropped_ms`, `moved_ms` and `trimmed_ms` are summed over all
    tracks. `dropped_events` were never published, because nothing could be for very long.
    """

    ended_by: str
    duration_ms: int
    finals: int
    sent_ms: int
    unsent_ms: int
    dropped_ms: int
    moved_ms: int
    trimmed_ms: int
    dropped_events: int


class Session:
    """Wires a source to a publisher. All its time is the event loop's, so a virtual clock drives it as well.

    Args:
        source: What is listened to.
        publisher: Where events go.
        transcriber: The speech recognition; the session finishes it.
        identity: What names the session to the outside.
        languages: What is spoken, as ISO 639-1 codes, to be told to viewers.
        new_detector: Makes a voice activity detector for a track.
        partials_per_s: How many partial captions a second viewers get.
        utc_now: The wall clock.
    """

    def __init__(
        self,
        source: Source,
        publisher: Publisher,
        transcriber: Transcriber,
        identity: SessionIdentity,
        *,
        languages: Sequence[str],
        new_detector: Callable[[], VoiceActivityDetector],
        partials_per_s: float,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._transcriber = transcriber
        self._identity = identity
        self._languages = tuple(languages)
        self._utc_now = utc_now
        self._announcer = Announcer(publisher, identity, partials_per_s=partials_per_s, utc_now=utc_now)
        self._front_end = FrontEnd(new_detector)
        self._voice_log = VoiceLog()
        self._assembler = CaptionAssembler(identity.epoch)
        self._speakers: dict[str, Speaker] = {}
        self._open_tracks: set[str] = set()
        self._identities: dict[str, str] = {}  # by open track; used in the front end's thread only
        self._unheard: dict[str, str] = {}
        self._engine_fault: str | None = None
        self._lag_ms = 0
        self._state_changed = asyncio.Event()
        self._end_asked = asyncio.Event()
        self._ended_by = ""
        self._started_s = 0.0

    def end(self, reason: str) -> None:
        """Ask the session to end; `run` returns when the last finals are out. The first reason counts."""
        self._ended_by = self._ended_by or reason
        self._end_asked.set()

    async def run(self) -> SessionReport:
        """Live until the source ends or `end` is called, give out the last finals, and return.

        Raises:
            ExceptionGroup: What a part could not cope with. Everything that was started is stopped by then.
        """
        self._started_s = asyncio.get_running_loop().time()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="front-end") as thread:
            async with asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(self._announcer.run(), name="session.publish")
                hearing = tasks.create_task(self._hear(), name="session.hear")
                reporting = tasks.create_task(self._report_state(), name="session.state")
                await self._listen(thread)
                self._transcriber.finish()
                await asyncio.wait([hearing], timeout=FINISH_TIMEOUT_S)
                reporting.cancel()
                self._announcer.state(self._state())
                is_drained = await self._announcer.drain(DRAIN_TIMEOUT_S)
                if not hearing.done() or not is_drained:
                    log.warning("session.cut_short", finals_done=hearing.done(), published=is_drained)
                hearing.cancel()
                publishing.cancel()
        return self._report()

    async def _listen(self, thread: ThreadPoolExecutor) -> None:
        """Take what the source gives until it ends or somebody asks for the end."""
        loop = asyncio.get_running_loop()
        end_asked = asyncio.create_task(self._end_asked.wait(), name="session.end_asked")
        receiving = asyncio.create_task(self._source.receive(), name="session.receive")
        try:
            while not self._end_asked.is_set():
                await asyncio.wait(
                    (receiving, end_asked), timeout=FLUSH_AFTER_S, return_when=asyncio.FIRST_COMPLETED
                )
                if not receiving.done():
                    self._transcriber.flush()
                    continue
                events = receiving.result()
                receiving = asyncio.create_task(self._source.receive(), name="session.receive")
                await self._take_in(events, thread)
            # What has arrived by now is still heard, and so is what waited for a late track.
            await asyncio.sleep(0)
            await self._take_in(receiving.result() if receiving.done() else (), thread)
            if (rest := await loop.run_in_executor(thread, self._front_end.drain)) is not None:
                self._transcriber.push(rest)
        finally:
            for task in (end_asked, receiving):
                task.cancel()
            await asyncio.wait((end_asked, receiving))

    async def _take_in(self, events: Sequence[SourceEvent], thread: ThreadPoolExecutor) -> None:
        for event in events:
            self._note(event)
        loop = asyncio.get_running_loop()
        voices, mix = await loop.run_in_executor(thread, self._process, events)
        for identity, voice in voices:
            self._voice_log.add(identity, voice)
        if mix is not None:
            self._transcriber.push(mix)

    def _note(self, event: SourceEvent) -> None:
        """Keep track of who is there and who is heard."""
        match event:
            case ParticipantJoined() | SpeakerRenamed():
                self._speakers[event.speaker.identity] = event.speaker
            case TrackOpened():
                # A speaker stays known when the track is gone: the last words are still on their way.
                self._speakers[event.track.speaker.identity] = event.track.speaker
                self._open_tracks.add(event.track.id)
            case TrackClosed():
                self._open_tracks.discard(event.track_id)
            case Unheard():
                self._unheard[event.identity] = event.reason
            case HeardAgain() | ParticipantLeft():
                self._unheard.pop(event.identity, None)
            case Ended():
                self.end(event.reason)
        if isinstance(event, TrackOpened | TrackClosed | Unheard | HeardAgain | ParticipantLeft):
            self._state_changed.set()

    def _process(self, events: Sequence[SourceEvent]) -> tuple[list[tuple[str, Voice]], Block | None]:
        """Compute on the samples, in order; runs in the front end's own thread.

        Returns:
            The voice of each identity, and the next stretch of the mix.
        """
        voices: list[tuple[str, Voice]] = []
        arrived: dict[str, list[AudioReceived]] = {}

        def push(track_id: str) -> None:
            if blocks := arrived.pop(track_id, None):
                samples = np.concatenate([block.samples for block in blocks])
                received_ms = round((blocks[-1].received_s - self._started_s) * 1000)
                for voice in self._front_end.push(track_id, samples, received_ms):
                    voices.append((self._identities[track_id], voice))

        for event in events:
            match event:
                case AudioReceived():
                    arrived.setdefault(event.track_id, []).append(event)
                case TrackOpened():
                    push(event.track.id)
                    self._identities[event.track.id] = event.track.speaker.identity
                    self._front_end.open(event.track.id)
                case TrackUnmuted():
                    push(event.track_id)
                    self._front_end.open(event.track_id)
                case TrackMuted():
                    push(event.track_id)
                    self._front_end.close(event.track_id)
                case TrackClosed():
                    push(event.track_id)
                    self._front_end.close(event.track_id)
                    self._identities.pop(event.track_id, None)
        for track_id in list(arrived):
            push(track_id)
        return voices, self._front_end.take()

    async def _hear(self) -> None:
        """Turn what the engine hears into captions."""
        async with contextlib.aclosing(self._transcriber.heard()) as stream:
            async for heard in stream:
                match heard:
                    case Heard():
                        self._caption(heard)
                    case EngineUp():
                        self._engine_fault = None
                        self._state_changed.set()
                    case EngineDown():
                        self._engine_fault = heard.reason
                        self._state_changed.set()

    def _caption(self, heard: Heard) -> None:
        heard_at = self._utc_now()
        if heard.text:
            self._lag_ms = max(self._now_ms() - heard.end_ms, 0)
        for caption in self._assembler.hear(heard, self._voice_log.voice_in, self._speaker_of):
            self._announcer.caption(caption, heard_at)

    def _speaker_of(self, identity: str) -> Speaker:
        return self._speakers.get(identity, Speaker(identity, identity))

    async def _report_state(self) -> None:
        """Announce the state on change and every ten seconds."""
        loop = asyncio.get_running_loop()
        announced: dict[str, Any] = {}
        due_s = loop.time()
        while True:
            body = self._state()
            # The figures move all the time; they go along when something else changes.
            settled = {key: body[key] for key in body.keys() - MEASURED}
            if loop.time() >= due_s or settled != announced:
                self._announcer.state(body)
                announced = settled
                due_s = loop.time() + STATE_INTERVAL_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._state_changed.wait()
            self._state_changed.clear()

    def _state(self) -> dict[str, Any]:
        captions, reason = self._captions_state()
        return state_body(
            agent=self._identity.agent,
            captions=captions,
            captions_reason=reason,
            recording="off",
            recording_reason="not_available",
            unheard=self._unheard,
            coverage=self._coverage(),
            lag_ms=self._lag_ms,
            languages=self._languages,
        )

    def _captions_state(self) -> tuple[str, str | None]:
        if self._end_asked.is_set():
            return "off", "ended"
        if self._engine_fault is not None:
            return "degraded", "engine"
        if self._unheard and not self._open_tracks:
            return "off", "unheard"
        return "live", None

    def _coverage(self) -> float:
        """The share of the audio so far that went to the engine, as if one spoke at a time."""
        sent_ms, lost_ms = self._transcriber.sent_ms, self._transcriber.unsent_ms + self._source.dropped_ms
        return sent_ms / (sent_ms + lost_ms) if sent_ms + lost_ms else 1.0

    def _now_ms(self) -> int:
        return round((asyncio.get_running_loop().time() - self._started_s) * 1000)

    def _report(self) -> SessionReport:
        return SessionReport(
            ended_by=self._ended_by,
            duration_ms=self._now_ms(),
            finals=self._announcer.finals,
            sent_ms=self._transcriber.sent_ms,
            unsent_ms=self._transcriber.unsent_ms,
            dropped_ms=self._source.dropped_ms,
            moved_ms=self._front_end.moved_ms,
            trimmed_ms=self._front_end.trimmed_ms,
            dropped_events=self._announcer.dropped,
        )
