"""One stream of a speech engine: gives it turns, and gives back what it hears of them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import structlog
from livekit import rtc
from livekit.agents import NOT_GIVEN, APIConnectOptions, stt

from agent.audio.floor import Feed, Floor, Flush, Pause
from agent.transcription.engine import Engine
from agent.transcription.pacing import Pacer
from agent.transcription.placing import place, span_s
from agent.transcription.stream_map import Piece, StreamMap
from agent.values import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Heard
from plugins.stt.traits import FLUSHED

__all__ = ["Lane", "LaneOwner", "StalledError"]

log = structlog.get_logger(__name__)

PROVED_AFTER_S = 5.0  # an engine that refuses a connection does so sooner
POLL_S = 0.5  # to see whether the engine has stalled
PACE_S = 0.05  # between two helpings where a stream takes no more at once
CLOSE_S = 5.0  # an engine that does not let go is left to itself
SHORT_LIVED_S = 5.0  # a stream that an engine ends so soon has failed
MOST_OWED_MS = 60_000  # beyond it the floor keeps what is said, and tells what gets too old
QUIET_MS = 10_000  # engines say something of an utterance well before
LATE_FINAL_MS = 500  # engines end a final so much before the audio that they were sent


class StalledError(Exception):
    """The engine owes an answer for too long."""


class LaneOwner(Protocol):
    """What a lane tells, and asks."""

    def hear(self, heard: Heard) -> None: ...

    def prove(self, opened_s: float, *, has_spoken: bool) -> None:
        """The engine works: it says something on a stream opened at `opened_s`, or did not refuse one."""

    def told(self) -> None:
        """The floor may have decided something."""

    def new_utterance(self) -> int: ...

    def is_to_end(self, idle_s: float) -> bool:
        """Whether a lane that has nothing to do, for so long, gives up its stream."""
        ...


class _Speculating(Protocol):
    def prepare_final(self) -> None: ...


@dataclass(slots=True)
class _Owed:
    """A turn that was sent and flushed, whose end the engine has not told. It ends there in the stream."""

    turn: int
    end_ms: int
    since_s: float
    is_replay: bool
    has_final: bool = False


class Lane:
    """A stream from its opening to its end, good or bad.

    Args:
        number: Which lane of the floor.
        engine: Whose stream.
        floor: Gives what is to be sent.
        owner: Is told what is heard.
        is_replay: Whether a turn has been sent before.
    """

    def __init__(
        self, number: int, engine: Engine, floor: Floor, owner: LaneOwner, is_replay: Callable[[int], bool]
    ) -> None:
        self._number = number
        self.engine = engine
        self._floor = floor
        self._owner = owner
        self._is_replay = is_replay
        self._map = StreamMap()
        self._owed: deque[_Owed] = deque()
        self._fed_turn: int | None = None  # that has audio in the stream and was not flushed
        self._utterance: int | None = None  # the one that was shown and has no final
        self._utterance_turn = 0
        self._settled_s = 0.0
        self._answered_ms = 0  # of the stream
        self._has_spoken = False
        self._opened_s = asyncio.get_running_loop().time()
        self._wake = asyncio.Event()
        self.sent_ms = 0

    @property
    def unanswered(self) -> list[int]:
        """The turns that were sent, at least in part, and have no answer."""
        return [owed.turn for owed in self._owed] + ([] if self._fed_turn is None else [self._fed_turn])

    @property
    def has_spoken(self) -> bool:
        """Whether anything has come from the engine."""
        return self._has_spoken

    @property
    def billed_s(self) -> float:
        """What the engine is paid for, so far."""
        match self.engine.traits.bills:
            case "stream":
                return self._age_s()
            case "audio":
                return self.sent_ms / 1000
            case "nothing":
                return 0.0

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def owes_s(self) -> float:
        """For how long the oldest answer is due."""
        return asyncio.get_running_loop().time() - self._owed[0].since_s if self._owed else 0.0

    def _owed_ms(self) -> int:
        """How much audio the stream has that it has not answered."""
        return self._map.length_ms - self._answered_ms

    def _age_s(self) -> float:
        return asyncio.get_running_loop().time() - self._opened_s

    async def run(self) -> None:
        """Use the stream until the owner wants no more of it.

        Raises:
            Exception: Whatever the engine's stream failed with. `unanswered` says what it took along.
        """
        stream = self.engine.stt.stream(
            language=self.engine.language or NOT_GIVEN, conn_options=APIConnectOptions(max_retry=0)
        )
        hearing = asyncio.create_task(self._hear(stream), name=f"lane-{self._number}.hear")
        feeding = asyncio.create_task(self._feed(stream), name=f"lane-{self._number}.feed")
        try:
            await asyncio.wait((hearing, feeding), return_when=asyncio.FIRST_COMPLETED)
            if hearing.done() and (hearing.cancelled() or hearing.exception() or not feeding.done()):
                # Libraries cancel requests of their own: that is no cancellation of ours.
                error = None if hearing.cancelled() else hearing.exception()
                if error is None and not self.unanswered and self._age_s() >= SHORT_LIVED_S:
                    return  # services close streams that are idle; the next turn opens another
                raise error or ConnectionError("it ended")
            feeding.result()
            async with asyncio.timeout(self.engine.traits.stall_after_s):
                await hearing
            while self._owed:  # it has said what it had to say
                self._settle()
        finally:
            self._close_utterance()
            for task in (hearing, feeding):
                task.cancel()
            closing = asyncio.create_task(stream.aclose(), name=f"lane-{self._number}.close")
            done, left = await asyncio.wait((hearing, feeding, closing), timeout=CLOSE_S)
            for task in left:
                task.cancel()
            await asyncio.gather(
                *done, return_exceptions=True
            )  # what they failed with is known, or of no use
            if left or closing.cancelled() or closing.exception() is not None:
                log.warning("engine.not_closed", engine=self.engine.name, tasks=len(left))

    async def _feed(self, stream: stt.RecognizeStream) -> None:
        """Send what the floor gives until nothing more is to be sent."""
        loop = asyncio.get_running_loop()
        idle_since_s = self._opened_s
        pacer = Pacer(self.engine.traits.burst_rate, self._opened_s)
        while True:
            now_s = loop.time()
            most_ms = pacer.allowed_ms(now_s) if self._owed_ms() < MOST_OWED_MS else 0
            for item in self._floor.take(self._number, most_ms):
                pacer.spend(self._send(stream, item))
                idle_since_s = now_s
            self._owner.told()
            if now_s - self._opened_s >= PROVED_AFTER_S and not self.unanswered:
                self._owner.prove(self._opened_s, has_spoken=False)
            self._see_stall()
            if self._is_answered() and self._owner.is_to_end(now_s - idle_since_s):
                stream.end_input()
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PACE_S if self._floor.has_more(self._number) else POLL_S):
                    await self._wake.wait()

    def _is_answered(self) -> bool:
        """Whether the input may end: an engine that tells no end gives its last finals only then."""
        if not self.engine.traits.acknowledges:
            return self._fed_turn is None
        return not self.unanswered

    def _send(self, stream: stt.RecognizeStream, item: Feed | Pause | Flush) -> int:
        """Give the stream one thing; tells how much audio it is."""
        match item:
            case Feed():
                duration_ms = len(item.samples) // SAMPLES_PER_MS
                self._map.append(item.turn, item.track_id, item.start_ms, duration_ms)
                self._fed_turn = item.turn
                self.sent_ms += duration_ms
                stream.push_frame(
                    rtc.AudioFrame(item.samples.tobytes(), SAMPLE_RATE_HZ, 1, len(item.samples))
                )
                self._settle_quiet(item)
                return duration_ms
            case Pause() if self.engine.traits.speculates and self._fed_turn == item.turn:
                cast(_Speculating, stream).prepare_final()
            case Flush() if self._fed_turn == item.turn:
                now_s = asyncio.get_running_loop().time()
                self._owed.append(
                    _Owed(item.turn, self._map.length_ms, now_s, is_replay=self._is_replay(item.turn))
                )
                self._fed_turn = None
                stream.flush()
            case Flush():  # all its audio was settled or dropped before it was over
                self._floor.settle(item.turn)
        return 0

    def _settle_quiet(self, feed: Feed) -> None:
        """Of a sum, whose silence is sent as well: what an engine had for long without a word has none."""
        if not self.engine.traits.finalizes and self._utterance is None:
            self._floor.settle_until(feed.turn, feed.start_ms - QUIET_MS)

    def _see_stall(self) -> None:
        """Raise where an answer is overdue; an engine that tells no end may have nothing more to say."""
        if not self._owed:
            return
        first, traits = self._owed[0], self.engine.traits
        waited_s = asyncio.get_running_loop().time() - max(first.since_s, self._settled_s)
        if waited_s < traits.stall_after_s:
            return
        is_quiet = not traits.finalizes or first.has_final or first.is_replay
        if traits.acknowledges or not is_quiet:
            raise StalledError
        self._settle()

    async def _hear(self, stream: stt.RecognizeStream) -> None:
        """Take the stream's events until it ends."""
        async for event in stream:
            self._has_spoken = True
            self._owner.prove(self._opened_s, has_spoken=True)
            match event.type:
                case stt.SpeechEventType.INTERIM_TRANSCRIPT if event.alternatives:
                    self._hear_words(event.alternatives[0], is_final=False)
                case stt.SpeechEventType.FINAL_TRANSCRIPT if event.alternatives:
                    self._hear_words(event.alternatives[0], is_final=True)
                case stt.SpeechEventType.END_OF_SPEECH:
                    self._close_utterance()
                    if event.request_id == FLUSHED and self._owed:
                        self._settle()

    def _hear_words(self, data: stt.SpeechData, *, is_final: bool) -> None:
        piece = self._piece_of(data)
        if piece is None or self._floor.is_withdrawn(piece.turn):
            return
        if self._utterance is None or self._utterance_turn != piece.turn:
            self._close_utterance()
            self._utterance, self._utterance_turn = self._owner.new_utterance(), piece.turn
        heard = place(data, piece, self._map, self._utterance, is_final=is_final)
        self._owner.hear(heard)
        if is_final:
            self._utterance = None
            if heard.text and self._is_placed(data):  # what else it is about, it does not say
                self._floor.settle_until(piece.turn, heard.end_ms)
            self._note_final(piece.turn, data)

    def _is_placed(self, data: stt.SpeechData) -> bool:
        """Whether it tells which of the audio it is about."""
        span = span_s(data)
        return span is not None and span[0] >= 0 and span[1] * 1000 <= self._map.length_ms + LATE_FINAL_MS

    def _note_final(self, turn: int, data: stt.SpeechData) -> None:
        for owed in self._owed:
            owed.has_final |= owed.turn == turn
        if self.engine.traits.acknowledges or not self._owed:
            return
        # An engine that does not tell when it has answered a flush: by the time of its words, and where it
        # gives none by the final itself, of which such engines have one for a flush.
        first, span = self._owed[0], span_s(data)
        is_timed = span is not None and self.engine.traits.has_word_times
        if first.has_final and (
            not is_timed or (span is not None and span[1] * 1000 >= first.end_ms - LATE_FINAL_MS)
        ):
            self._settle()

    def _piece_of(self, data: stt.SpeechData) -> Piece | None:
        """Of whose turn the words are: by their time, else of the turn whose answer is due."""
        span = span_s(data) if self.engine.traits.has_word_times else None
        if span is not None and 0 <= (middle_ms := sum(span) * 500) <= self._map.length_ms:
            return self._map.piece_at(middle_ms)
        return self._map.piece_at(self._owed[0].end_ms - 1 if self._owed else self._map.length_ms)

    def _settle(self) -> None:
        owed = self._owed.popleft()
        self._answered_ms = owed.end_ms
        if self._utterance_turn == owed.turn:
            self._close_utterance()
        self._settled_s = asyncio.get_running_loop().time()
        self._floor.settle(owed.turn)
        self._owner.told()

    def _close_utterance(self) -> None:
        """An utterance that was shown and has no final came to nothing."""
        if self._utterance is not None:
            nothing = Heard(self._utterance, True, "", 0, 0, "", 0.0, turn=self._utterance_turn)
            self._utterance = None
            self._owner.hear(nothing)
