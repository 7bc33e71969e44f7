"""One live session: it listens to a source, has it recognised, and announces captions and its state."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from agent.audio.activity import WINDOW_MS, VoiceActivityDetector, VoiceLog, Window
from agent.audio.front_end import Signal
from agent.captions.assembler import CaptionAssembler
from agent.captions.protocol import notice_body, state_body
from agent.recording.recorder import Recorder
from agent.session.announcer import Announcer, SessionIdentity
from agent.session.attendance import Attendance
from agent.session.coverage import Coverage
from agent.session.lead import Lead, Unopposed
from agent.session.limits import Limit, SessionLimits
from agent.session.listener import Listener
from agent.session.publisher import Publisher
from agent.session.source import (
    AudioReceived,
    HeardAgain,
    ParticipantJoined,
    ParticipantLeft,
    Source,
    SourceEnded,
    SourceEvent,
    SpeakerRenamed,
    TrackClosed,
    TrackMuted,
    TrackOpened,
    TrackUnmuted,
    Unheard,
)
from agent.session.store import Store
from agent.session.usage import UsageMeter
from agent.transcription.engine import EngineDown, EngineUp, Missed, Told, TurnEnds, TurnWaits
from agent.transcription.transcriber import Transcriber
from agent.values import Heard, Speaker, Storage, Track
from persistence.records import Ended, Failure, Gap, Record

__all__ = ["HANDED_OVER", "JOB_ENDED", "SUPERSEDED", "Session", "SessionReport"]

log = structlog.get_logger(__name__)

STATE_INTERVAL_S = 10.0
PAUSE_POLL_S = 0.05
STATE_POLL_S = 0.25  # a change is told within that; a failed recording within a second
USAGE_INTERVAL_S = 5.0  # what a crash may leave out of a bill
MEASURED = {"coverage", "lag_ms"}  # of a state: no reason to announce it
LOOK_S = 0.2  # where nothing comes, so that turns end
DELAYED_MS = 4_000  # who speaks longer than others wait for a turn is not late yet
FINISH_TIMEOUT_S = 15.0  # for the last finals; a local engine on a busy machine takes seconds
DRAIN_TIMEOUT_S = 4.0  # for what is still to be published then
GOODBYE_TIMEOUT_S = 1.0

PAUSED_AFTER_S = 3.0  # a loop that stood still for so long heard nothing meanwhile
PAUSE_MS = 400  # without anybody's voice, in which an agent can hand over: no word is cut there
PAUSE_PATIENCE_S = 12.0  # for such a pause; then a word may be cut

# After these, and after a limit, nobody will go on with the session.
OVER = {"room_closed", "room_deleted", "recording_over", "host", "api"}
# After these somebody does, at once or later.
HANDED_OVER = "handed_over"
JOB_ENDED = "job_ended"
SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a session did, once it is over.

    It ended at `end_ms` of session time. `unkept` finals stayed partials, because nothing could keep them.
    `sent_ms` went to speech engines, and `billed_ms` is what they are paid for; `coverage` is the share of
    all speech that is in finals, and `unrecognised_ms` the voice that is nobody's words, by the reason.
    `dropped_ms`, `moved_ms` and `trimmed_ms` are summed over all tracks, and so are `recorded_ms` and
    `unrecorded_ms`, what the recorder wrote and what it could not. `replayed_turns` were sent more than once,
    and `failovers` counts the changes to another engine. `dropped_events` were never published, because
    nothing could be for very long.
    """

    ended_by: str
    end_ms: int
    duration_ms: int
    finals: int
    unkept: int
    sent_ms: int
    billed_ms: int
    coverage: float
    unrecognised_ms: Mapping[str, int]
    replayed_turns: int
    failovers: int
    dropped_ms: int
    moved_ms: int
    trimmed_ms: int
    recorded_ms: int
    unrecorded_ms: int
    dropped_events: int


class Session:
    """Wires a source to a publisher. All its time is the event loop's, so a virtual clock drives it as well.

    Args:
        source: What is listened to.
        publisher: Where events go.
        transcriber: The speech recognition; the session finishes it.
        store: What keeps finals and all else that must outlive the session.
        recorder: Writes every track's audio; None where there is no recording. The session closes it.
        identity: What names the session to the outside.
        limits: When it ends by itself.
        lead: Whether it may still speak.
        zero_s: When session time was 0, on the event loop's clock; None lets it begin, at its offset, when it
            is run.
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
        store: Store,
        recorder: Recorder | None,
        identity: SessionIdentity,
        *,
        limits: SessionLimits,
        lead: Lead | None = None,
        zero_s: float | None = None,
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
        self._store = store
        self._recorder = recorder
        self._limits = limits
        self._lead = lead or Unopposed()
        self._announcer = Announcer(
            publisher, store, self._lead, identity, partials_per_s=partials_per_s, utc_now=utc_now
        )
        self._listener = Listener(new_detector, self._session_ms, is_sum=transcriber.is_sum)
        self._voice_log = VoiceLog()
        self._coverage = Coverage()
        self._track_owners: dict[str, str] = {}  # of every track that was ever heard
        self._assembler = CaptionAssembler(identity.epoch)
        self._speakers: dict[str, Speaker] = {}
        self._open_tracks: dict[str, Track] = {}
        self._attendance = Attendance()
        self._unheard: dict[str, str] = {}
        self._engine_fault: str | None = None
        self._last_voice_ms = identity.offset_ms
        self._usage = UsageMeter()
        self._lag_ms = 0
        self._has_heard = False
        self._end_asked = asyncio.Event()
        self._ended_by = ""
        self._limit_reached: Limit | None = None
        self._ending_ms = 0
        self._zero_s = zero_s

    @property
    def ended_by(self) -> str:
        """Why it ends; empty while it goes on."""
        return self._ended_by

    @property
    def last_seq(self) -> int:
        """The last `seq` that was given in this session."""
        return self._announcer.last_seq

    def end(self, reason: str) -> None:
        """Ask the session to end; `run` returns when the last finals are out. The first reason counts."""
        if self._end_asked.is_set():
            return
        self._ended_by = reason
        self._ending_ms = self._now_ms()
        self._end_asked.set()
        if reason in OVER or self._limit_reached is not None:
            # At once: a room of the same name that opens a second later is another session.
            self._note(Ended(reason=reason, end_ms=self._ending_ms, at=self._utc_now()))

    async def until_ending(self) -> int:
        """Wait until the session hears no more; gives from when on, in session time."""
        await self._end_asked.wait()
        return self._ending_ms

    async def hand_over(self) -> None:
        """Wait for a pause in what is said, for a limited time, and end there: somebody else goes on."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PAUSE_PATIENCE_S
        while (now_s := loop.time()) < deadline_s:
            quiet_ms = self._session_ms(now_s) - self._last_voice_ms
            if quiet_ms >= PAUSE_MS:
                break
            await asyncio.sleep(max((PAUSE_MS - quiet_ms) / 1000, PAUSE_POLL_S))
        self.end(HANDED_OVER)

    async def run(self) -> SessionReport:
        """Live until the source ends or `end` is called, give out the last finals, and return.

        Raises:
            ExceptionGroup: What a part could not cope with. Everything that was started is stopped by then.
        """
        if self._zero_s is None:
            self._zero_s = asyncio.get_running_loop().time() - self._identity.offset_ms / 1000
        try:
            await self._run()
        finally:
            self._listener.close()
            await self._close_recorder()
        return self._report()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._announcer.run(), name="session.publish")
            hearing = tasks.create_task(self._transcriber.run(self._heed), name="session.hear")
            reporting = tasks.create_task(self._report_state(), name="session.state")
            await self._listen()
            self._transcriber.finish()
            if self._ended_by == SUPERSEDED:
                hearing.cancel()  # another agent has heard it, too
            closing = tasks.create_task(self._close_recorder(), name="session.close_recorder")
            await asyncio.wait((hearing, closing), timeout=FINISH_TIMEOUT_S)
            reporting.cancel()
            self._note_rest()
            # The last words come before the goodbye.
            is_drained = await self._announcer.drain(DRAIN_TIMEOUT_S)
            if (limit := self._limit_reached) is not None:
                self._announcer.notice(notice_body(code=f"limit_{limit}", text=self._limits.explain(limit)))
            if self._ended_by != HANDED_OVER:
                self._announcer.state(self._state())
            is_drained &= await self._announcer.drain(GOODBYE_TIMEOUT_S)
            if not hearing.done() or not is_drained:
                log.warning("session.cut_short", finals_done=hearing.done(), published=is_drained)
            for task in (hearing, closing, publishing):
                task.cancel()

    async def _listen(self) -> None:
        """Take what the source gives until it ends or somebody asks for the end."""
        end_asked = asyncio.create_task(self._end_asked.wait(), name="session.end_asked")
        receiving = asyncio.create_task(self._source.receive(), name="session.receive")
        try:
            while not self._end_asked.is_set():
                await asyncio.wait(
                    (receiving, end_asked), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                if not receiving.done():
                    self._transcriber.push((), self._now_ms())
                    continue
                events = receiving.result()
                receiving = asyncio.create_task(self._source.receive(), name="session.receive")
                await self._take_in(events)
            # What has arrived by now is still heard, and so is what waited for a late track.
            await asyncio.sleep(0)
            await self._take_in(receiving.result() if receiving.done() else ())
            self._take_windows(*await self._listener.drain())
        finally:
            for task in (end_asked, receiving):
                task.cancel()
            await asyncio.wait((end_asked, receiving))

    async def _take_in(self, events: Sequence[SourceEvent]) -> None:
        for event in events:
            self._follow(event)
            self._record(event)
            if isinstance(event, AudioReceived) and not self._has_heard:
                self._has_heard = True
                log.info("session.hears", at_ms=self._session_ms(event.received_s))
        self._take_windows(*await self._listener.hear(events))

    def _take_windows(self, voices: Sequence[Window], signals: Sequence[Signal]) -> None:
        for window in voices:
            identity = self._track_owners[window.track_id]
            self._voice_log.add(identity, window)
            self._usage.add_speech(identity, window.voice_ms)
            if 2 * window.voice_ms >= WINDOW_MS:
                self._last_voice_ms = max(self._last_voice_ms, window.end_ms)
        self._transcriber.push(signals, self._now_ms())

    def _follow(self, event: SourceEvent) -> None:
        """Keep track of who is there and who is heard."""
        match event:
            case ParticipantJoined() | SpeakerRenamed():
                self._speakers[event.speaker.identity] = event.speaker
                who = event.speaker
                self._note(*self._attendance.arrive(who.identity, who.name, self._now_ms()))
            case TrackOpened():
                # A speaker stays known when the track is gone: the last words are still on their way.
                self._speakers[event.track.speaker.identity] = event.track.speaker
                self._open_tracks[event.track.id] = event.track
                self._track_owners[event.track.id] = event.track.speaker.identity
            case TrackClosed():
                self._open_tracks.pop(event.track_id, None)
            case Unheard():
                self._unheard[event.identity] = event.reason
            case HeardAgain():
                self._unheard.pop(event.identity, None)
            case ParticipantLeft():
                self._unheard.pop(event.identity, None)
                self._note(*self._attendance.leave(event.identity, self._now_ms()))
            case SourceEnded():
                self.end(event.reason)

    def _record(self, event: SourceEvent) -> None:
        """Give a track's audio to the recorder as it came, before anything is done to it."""
        if self._recorder is None:
            return
        match event:
            case TrackOpened():
                self._recorder.open(event.track.id, event.track.speaker.identity, event.track.sample_rate_hz)
            case TrackUnmuted():
                if (track := self._open_tracks.get(event.track_id)) is not None:
                    self._recorder.open(track.id, track.speaker.identity, track.sample_rate_hz)
            case AudioReceived():
                self._recorder.push(event.track_id, event.samples, self._session_ms(event.received_s))
            case TrackMuted() | TrackClosed():
                self._recorder.close(event.track_id)

    async def _close_recorder(self) -> None:
        if self._recorder is not None:
            await self._recorder.aclose()

    def _note(self, *records: Record) -> None:
        for record in records:
            self._store.note(record)

    def _note_usage(self) -> None:
        self._note(*self._usage.changes(self._transcriber.sent_ms, self._coverage.covered_ms()))

    def _note_rest(self) -> None:
        """What is known only at the end."""
        if self._ended_by != SUPERSEDED:  # who leads now has heard it, too
            self._transcriber.give_up()
        self._note_usage()
        self._note(*self._attendance.leave_all(self._now_ms()))

    def _heed(self, told: Told) -> None:
        """Turn what the transcriber tells into captions."""
        match told:
            case Heard():
                self._caption(told)
            case TurnWaits():
                if (identity := self._track_owners.get(told.track_id)) is not None:
                    speaker = self._speaker_of(identity)
                    if (caption := self._assembler.wait(told.turn, speaker, told.start_ms)) is not None:
                        self._announcer.caption(caption, self._utc_now())
            case TurnEnds():
                if told.is_void:
                    self._coverage.forget(told.turn)
                else:
                    identity = self._track_owners.get(told.track_id)
                    self._coverage.end(
                        told.turn, told.start_ms, told.end_ms, identity, self._voice_log.voice_in
                    )
                for caption in self._assembler.end(told.turn):
                    self._announcer.caption(caption, self._utc_now())
            case Missed():
                self._note_missed(told)
            case EngineUp():
                self._engine_fault = None
            case EngineDown():
                self._engine_fault = told.reason

    def _note_missed(self, missed: Missed) -> None:
        identity = self._track_owners.get(missed.track_id)
        self._note(
            Gap(
                start_ms=missed.start_ms,
                end_ms=missed.end_ms,
                identity=identity or "",
                reason=missed.reason,
            )
        )

    def _caption(self, heard: Heard) -> None:
        heard_at = self._utc_now()
        if heard.text:
            self._lag_ms = max(self._now_ms() - heard.end_ms, 0)
        identity = self._track_owners.get(heard.track_id)
        for caption in self._assembler.hear(heard, self._voice_log.voice_in, self._speaker_of, identity):
            if caption.is_final and caption.text:
                self._coverage.final(heard.turn, caption.speaker.identity, caption.start_ms, caption.end_ms)
            self._announcer.caption(caption, heard_at)

    def _speaker_of(self, identity: str) -> Speaker:
        return self._speakers.get(identity, Speaker(identity, identity))

    async def _report_state(self) -> None:
        """Announce the state on change and every ten seconds, and end what is beyond its limits."""
        loop = asyncio.get_running_loop()
        announced: dict[str, Any] = {}
        looked_s = due_s = loop.time()
        usage_due_s = due_s + USAGE_INTERVAL_S
        while True:
            await self._note_pause(looked_s, looked_s := loop.time())
            body = self._state()
            # The figures move all the time; they go along when something else changes.
            settled = {key: body[key] for key in body.keys() - MEASURED}
            if body["recording"] == "failed" != announced.get("recording"):
                self._note_recording_failure(body["recording_reason"])
            if loop.time() >= due_s or settled != announced:
                self._announcer.state(body)
                announced = settled
                due_s = loop.time() + STATE_INTERVAL_S
            if loop.time() >= usage_due_s:
                self._note_usage()
                usage_due_s = loop.time() + USAGE_INTERVAL_S
            self._heed_limits()
            await asyncio.sleep(STATE_POLL_S)

    async def _note_pause(self, before_s: float, now_s: float) -> None:
        """Say what nobody heard because the whole process stood still."""
        if now_s - before_s > PAUSED_AFTER_S and await self._lead.confirm():
            start_ms, end_ms = self._session_ms(before_s), self._session_ms(now_s)
            self._note(Gap(start_ms=start_ms, end_ms=end_ms, reason="agent_paused"))

    def _note_recording_failure(self, reason: str) -> None:
        """Whoever looks at the session later learns why audio is missing, and since when."""
        minutes, seconds = divmod(self._now_ms() // 1000, 60)
        self._note(
            Failure(
                id=uuid.uuid4().hex,
                stage="recording",
                code=reason,
                message=f"Recording failed {minutes} min {seconds} s into the session: audio is missing.",
                at=self._utc_now(),
            )
        )

    def _heed_limits(self) -> None:
        limit = self._limits.reached(
            now_ms=self._now_ms(), last_voice_ms=self._last_voice_ms, participants=len(self._attendance)
        )
        if limit is not None and not self._end_asked.is_set():
            self._limit_reached = limit
            self.end(limit)

    def _state(self) -> dict[str, Any]:
        captions, reason = self._captions_state()
        recording, recording_reason = self._recorder.state if self._recorder else ("off", "disabled")
        return state_body(
            agent=self._identity.agent,
            captions=captions,
            captions_reason=reason,
            recording=recording,
            recording_reason=recording_reason,
            storage=self._store.storage,
            unheard=self._unheard,
            coverage=self._coverage.share,
            lag_ms=max(self._lag_ms, self._transcriber.behind_ms),
            languages=self._languages,
        )

    def _captions_state(self) -> tuple[str, str | None]:
        if self._end_asked.is_set() and self._ended_by != HANDED_OVER:
            if self._limit_reached is not None:
                return "off", f"limit_{self._limit_reached}"
            return "off", "agent_leaves" if self._ended_by == JOB_ENDED else "ended"
        if self._engine_fault is not None:
            return "degraded", "engine"
        if self._store.storage is Storage.NOWHERE:
            return "degraded", "storage"
        if self._transcriber.behind_ms > DELAYED_MS:
            return "delayed", "backlog"
        if self._unheard and not self._open_tracks:
            return "off", "unheard"
        return "live", None

    def _now_ms(self) -> int:
        return self._session_ms(asyncio.get_running_loop().time())

    def _session_ms(self, loop_s: float) -> int:
        assert self._zero_s is not None
        return round((loop_s - self._zero_s) * 1000)

    def _report(self) -> SessionReport:
        return SessionReport(
            ended_by=self._ended_by,
            end_ms=self._now_ms(),
            duration_ms=self._now_ms() - self._identity.offset_ms,
            finals=self._announcer.finals,
            unkept=self._announcer.unkept,
            sent_ms=self._transcriber.sent_ms,
            billed_ms=round(self._transcriber.billed_s * 1000),
            coverage=round(self._coverage.share, 3),
            unrecognised_ms=self._transcriber.dropped_ms,
            replayed_turns=self._transcriber.replayed_turns,
            failovers=self._transcriber.failovers,
            dropped_ms=self._source.dropped_ms,
            moved_ms=self._listener.moved_ms,
            trimmed_ms=self._listener.trimmed_ms,
            recorded_ms=self._recorder.written_ms if self._recorder else 0,
            unrecorded_ms=self._recorder.dropped_ms if self._recorder else 0,
            dropped_events=self._announcer.dropped,
        )
