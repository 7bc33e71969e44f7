"""Drives the speech engines of a session: gives them what the floor decides, and tells what they hear."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import structlog
from livekit import rtc
from livekit.agents import NOT_GIVEN, APIConnectOptions, APIStatusError, stt

from agent.audio.activity import Window
from agent.audio.bleed import Bleed, Echo
from agent.audio.floor import WITHDRAWN, Decision, Floor, WholeTurn
from agent.audio.front_end import Closed, Opened, Signal
from agent.transcription.engine import Engine, EngineDown, EngineUp, Heed, Missed, Told, TurnEnds, TurnWaits
from agent.transcription.failover import Failover
from agent.transcription.lane import Lane
from agent.transcription.placing import place
from agent.transcription.stream_map import StreamMap
from agent.values import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Heard

__all__ = ["Transcriber"]

log = structlog.get_logger(__name__)

SPARE_IDLE_S = 10.0  # then a stream beside the first is closed: it may be paid for
LOOK_S = 0.5  # to see whether a lane is wanted
PARALLEL_RECOGNITIONS = 2
MAX_RECOGNITIONS = 2  # of one turn; then it goes over a stream
RECOGNITION_TIMEOUT_S = 30.0  # at least: an engine that may take longer over a turn has it in its traits
MAX_BREAKS = 3  # of streams on one turn: it may be what breaks them
TOO_MANY_REQUESTS = 429
REFUSED = ("status_401", "status_403")
MOST_BUSY_S = 60.0  # longer than what is kept for it, no engine is left alone, whatever it asks for


@dataclass(slots=True)
class _Breaks:
    """How many streams broke on a turn though the engine worked, and when the last one did."""

    at_s: float
    count: int = 0


class Transcriber:
    """One session's speech recognition, over the engines in order of preference.

    The engines' own retries are off: they lose the frames that were taken already and let stream time jump by
    the wall clock. A stream that fails is replaced here, and the floor gives once more what has no text yet.

    Args:
        engines: The first that works is used, and gone back to when it works again, but never within a turn.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)
        self._failover = Failover(len(engines), random.random)
        self._recordings = Failover(len(engines), random.random)  # `recognize()` may be refused alone
        self._floor = Floor(engines[0].lanes)
        self._lanes: dict[int, Lane] = {}
        self._wakes = [asyncio.Event() for _ in range(max(engine.lanes for engine in engines))]
        self._whole_waits = asyncio.Event()
        self._finishing = asyncio.Event()
        self._heed: Heed = _heed_nothing
        self._last_utterance = 0
        self._is_up = True
        self._breaks: dict[int, _Breaks] = {}  # by turn
        self._recognitions: dict[int, int] = {}  # by turn, those that failed
        self._ended_ms = 0  # of audio, that streams took which are over, and recognitions
        self._billed_s = 0.0  # as far as streams are over
        self.replayed_turns = 0
        self.failovers = 0

    @property
    def is_sum(self) -> bool:
        """Whether the engines hear the sum of all tracks, since one of them gives no final on request."""
        return not all(engine.traits.finalizes for engine in self._engines)

    @property
    def sent_ms(self) -> int:
        """The audio that engines were given, what was given twice counted twice."""
        return self._ended_ms + sum(lane.sent_ms for lane in self._lanes.values())

    @property
    def billed_s(self) -> float:
        """What the engines are paid for, by their traits."""
        return self._billed_s + sum(lane.billed_s for lane in self._lanes.values())

    @property
    def dropped_ms(self) -> dict[str, int]:
        """The voice that no engine's words are for, by the reason."""
        return {reason: round(dropped_ms) for reason, dropped_ms in self._floor.dropped_ms.items()}

    @property
    def is_settled(self) -> bool:
        """Whether all that was said has its text by now, or has none."""
        return self._floor.is_idle

    @property
    def behind_ms(self) -> int:
        """For how long the oldest speech waits to be sent, or its text is due."""
        owes_s = max((lane.owes_s() for lane in self._lanes.values()), default=0.0)
        return max(self._floor.waited_ms, round(owes_s * 1000))

    def push(self, signals: Sequence[Signal], now_ms: int) -> None:
        """What was heard until now, in order."""
        for signal in signals:
            match signal:
                case Window():
                    self._floor.push(signal)
                case Bleed():
                    self._floor.push_bleed(signal.window)
                case Opened():
                    self._floor.open(signal.track_id)
                case Closed():
                    self._floor.close(signal.track_id)
                case Echo():
                    self._floor.withdraw(signal.track_id, signal.since_ms, "bleed")
        self._floor.advance(now_ms)
        self.told()
        self._wake()

    def set_keyterms(self, terms: Sequence[str]) -> None:
        """Words that are likely to be said. An engine that has no use for them is not told."""
        for engine in self._engines:
            if (update := getattr(engine.stt, "update_keyterms", None)) is None:
                continue
            try:
                update(list(terms))
            except Exception as error:  # noqa: BLE001  captions without them are better than none
                log.warning("engine.keyterms_refused", engine=engine.name, problem=type(error).__name__)

    def finish(self) -> None:
        """Nothing more is said: `run` tells what is still to come and ends."""
        self._finishing.set()
        self.told()
        self._wake()

    def give_up(self) -> None:
        """Wait for nothing more: what has no text by now is told as missed."""
        self._floor.give_up("engine")
        self.told()

    async def run(self, heed: Heed) -> None:
        """Recognise until `finish`, and tell what is heard as it comes.

        Raises:
            ExceptionGroup: `heed` raised something.
        """
        self._heed = _ours(heed)
        async with asyncio.TaskGroup() as tasks:
            lanes = [
                tasks.create_task(self._keep_lane(number), name=f"transcriber.lane-{number}")
                for number in range(len(self._wakes))
            ]
            recognizing = tasks.create_task(self._recognize_waiting(), name="transcriber.recognize")
            for keeping in lanes:
                await keeping
            self.told()
            recognizing.cancel()

    def told(self) -> None:
        """Pass on what the floor has decided, if anything, and have the lanes look at it."""
        if not self._floor.has_decisions:
            return
        for decision in self._floor.decisions():
            log.debug("floor.decided", **asdict(decision))
            match decision.kind:
                case "waits" | "rejoins":
                    self._heed(TurnWaits(decision.turn, decision.track_id, decision.start_ms))
                case "settled":
                    self._breaks.pop(decision.turn, None)
                    self._recognitions.pop(decision.turn, None)
                    self._heed(_ended(decision, is_void=decision.reason == WITHDRAWN))
                case "dropped" if decision.reason == "bleed":
                    self._heed(_ended(decision, is_void=True))
                case "dropped":
                    reason = decision.reason if self._is_up else "engine"
                    self._heed(Missed(decision.track_id, decision.start_ms, decision.end_ms, reason))
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()
        for lane in self._lanes.values():
            lane.wake()
        self._whole_waits.set()

    async def _keep_lane(self, number: int) -> None:
        """Keep a stream of the best engine for one lane, as long as there is something to recognise."""
        loop = asyncio.get_running_loop()
        while not (self._finishing.is_set() and self._floor.is_idle):
            index = self._failover.choose(loop.time())
            if number > 0 and index is not None:
                # While a stream beside the first was refused there were fewer.
                self._floor.set_lanes(self._engines[index].lanes)
            if index is None:
                await self._look_again(number, self._failover.wait_s(loop.time()))
            elif not self._is_lane_wanted(number, self._engines[index]):
                await self._look_again(number, LOOK_S)
            else:
                await self._stream(number, index)

    def _is_lane_wanted(self, number: int, engine: Engine) -> bool:
        """The first lane is kept open, to find out early whether the engine is there."""
        if number == 0:
            return not (self._finishing.is_set() and self._floor.is_sent)
        return number < engine.lanes and self._floor.has_holder(number)

    async def _look_again(self, number: int, after_s: float) -> None:
        self._wakes[number].clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await self._wakes[number].wait()

    async def _stream(self, number: int, index: int) -> None:
        """Use one stream, and clear up after it."""
        loop = asyncio.get_running_loop()
        engine = self._engines[index]
        if number == 0:
            self._floor.set_lanes(engine.lanes)
        opened_s = loop.time()
        lane = Lane(number, engine, self._floor, _Owner(self, number, index), self._breaks.__contains__)
        self._lanes[number] = lane
        try:
            await lane.run()
        except _ListenerError:
            raise
        except Exception as error:  # noqa: BLE001  an engine may raise whatever its library raises
            del self._lanes[number]
            self._fail(index, opened_s, error)
            if number > 0:
                self._floor.set_lanes(number)  # those who wait do not wait for this one
        finally:
            self._lanes.pop(number, None)
            self._ended_ms += lane.sent_ms
            self._billed_s += lane.billed_s
            self._replay(lane, number, index)
            self.told()

    def _replay(self, lane: Lane, number: int, index: int) -> None:
        """What a stream took along is given once more."""
        now_s = asyncio.get_running_loop().time()
        turns = lane.unanswered
        self._floor.rewind(number)
        self.replayed_turns += len(turns)
        for turn in turns:
            breaks = self._breaks.setdefault(turn, _Breaks(now_s))
            # An engine that is away breaks on everything.
            breaks.count += lane.has_spoken or self._failover.has_proved(index, breaks.at_s)
            breaks.at_s = now_s
            if breaks.count > MAX_BREAKS:
                log.warning("transcriber.turn_given_up", breaks=breaks.count)
                self._floor.drop(turn, "engine")

    def _fail(self, index: int, opened_s: float, error: BaseException) -> None:
        now_s = asyncio.get_running_loop().time()
        reason, busy_s = _reason_of(error)
        self._failover.failed(index, opened_s, now_s, busy_s=busy_s)
        other = self._failover.choose(now_s)
        if other == index:
            return  # a stream beside it has failed, too, and the engine may be back
        if any(lane.engine is self._engines[index] for lane in self._lanes.values()):
            log.info("engine.stream_refused", engine=self._engines[index].name, reason=reason)
            return  # another stream of it goes on
        # A wrong key does not become right by waiting.
        tell = log.error if reason in REFUSED else log.warning
        tell(
            "engine.stream_ended",
            engine=self._engines[index].name,
            reason=reason,
            retry_s=round(self._failover.wait_s(now_s), 1),
            next_engine=None if other is None else self._engines[other].name,
        )
        if other is not None:
            self.failovers += 1
        elif self._is_up:
            self._is_up = False
            self._heed(EngineDown(reason))

    def prove(self, index: int, opened_s: float, *, has_spoken: bool) -> None:
        """An engine works: it said something on a stream opened at `opened_s`, or did not refuse one."""
        if has_spoken:
            self._failover.proved(index, opened_s, asyncio.get_running_loop().time())
            self._floor.forgive()
        if not self._is_up:
            self._is_up = True
            self._heed(EngineUp(self._engines[index].name))
            self._wake()

    def new_utterance(self) -> int:
        """The next number; each is given once."""
        self._last_utterance += 1
        return self._last_utterance

    def hear(self, heard: Heard) -> None:
        """Something was heard."""
        self._heed(heard)

    def is_to_end(self, number: int, index: int, idle_s: float) -> bool:
        """Whether a lane that has nothing to do, for so long, gives up its stream."""
        if self._finishing.is_set() and self._floor.is_sent:
            return True
        if number > 0 and idle_s > SPARE_IDLE_S:
            return True
        best = self._failover.choose(asyncio.get_running_loop().time())
        return best is not None and best < index

    async def _recognize_waiting(self) -> None:
        """Have whole turns recognised beside the streams, a few at a time."""
        running: set[asyncio.Task[None]] = set()
        waits: asyncio.Task[Any] = asyncio.create_task(self._whole_waits.wait())
        try:
            while True:
                self._whole_waits.clear()
                while len(running) < PARALLEL_RECOGNITIONS and (index := self._recognizer()) is not None:
                    if (whole := self._floor.take_whole()) is None:
                        break
                    running.add(asyncio.create_task(self._recognize(index, whole)))
                if waits.done():
                    waits = asyncio.create_task(self._whole_waits.wait())
                await asyncio.wait((*running, waits), return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    running.remove(task)
                    task.result()
        finally:
            for task in (*running, waits):
                task.cancel()
            await asyncio.gather(*running, waits, return_exceptions=True)

    def _recognizer(self) -> int | None:
        now_s = asyncio.get_running_loop().time()
        index = self._failover.choose(now_s)
        if index is None or not self._recordings.is_ready(index, now_s):
            return None
        return index if self._engines[index].traits.recognizes else None

    async def _recognize(self, index: int, whole: WholeTurn) -> None:
        engine = self._engines[index]
        opened_s = asyncio.get_running_loop().time()
        stream = StreamMap()
        for feed in whole.feeds:
            stream.append(feed.turn, feed.track_id, feed.start_ms, len(feed.samples) // SAMPLES_PER_MS)
        samples = whole.samples
        frame = rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE_HZ, 1, len(samples))
        try:
            async with asyncio.timeout(max(RECOGNITION_TIMEOUT_S, engine.traits.stall_after_s)):
                event = await engine.stt.recognize(
                    frame,
                    language=engine.language or NOT_GIVEN,
                    conn_options=APIConnectOptions(max_retry=0),
                )
            heard = self._place_whole(event, whole, stream)
        except (Exception, asyncio.CancelledError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            # An engine may raise whatever its library raises, and cancel requests of its own.
            now_s = asyncio.get_running_loop().time()
            reason, busy_s = _reason_of(error)
            self._recordings.failed(index, opened_s, now_s, busy_s=busy_s)
            log.warning("engine.recognition_failed", engine=engine.name, reason=reason)
            is_well = any(each.has_proved(index, opened_s) for each in (self._recordings, self._failover))
            failed = self._recognitions[whole.turn] = self._recognitions.get(whole.turn, 0) + is_well
            self._floor.put_back(whole.turn, may_be_taken=failed < MAX_RECOGNITIONS)
            self.told()
            return
        self._recordings.proved(index, opened_s, asyncio.get_running_loop().time())
        self._ended_ms += stream.length_ms
        if engine.traits.bills != "nothing":
            self._billed_s += stream.length_ms / 1000
        if heard is not None and not self._floor.is_withdrawn(whole.turn):
            self._heed(heard)
        self._floor.settle(whole.turn)
        self.told()

    def _place_whole(self, event: stt.SpeechEvent, whole: WholeTurn, stream: StreamMap) -> Heard | None:
        piece = stream.piece_at(0)
        if not event.alternatives or piece is None:
            return None
        return place(event.alternatives[0], piece, stream, self.new_utterance(), is_final=True)


class _Owner:
    """What one lane tells and asks of its transcriber."""

    def __init__(self, transcriber: Transcriber, number: int, index: int) -> None:
        self._transcriber = transcriber
        self._number = number
        self._index = index
        self.hear = transcriber.hear
        self.told = transcriber.told
        self.new_utterance = transcriber.new_utterance

    def prove(self, opened_s: float, *, has_spoken: bool) -> None:
        self._transcriber.prove(self._index, opened_s, has_spoken=has_spoken)

    def is_to_end(self, idle_s: float) -> bool:
        return self._transcriber.is_to_end(self._number, self._index, idle_s)


class _ListenerError(Exception):
    """Whoever heeds what is told has failed: no engine's fault."""


def _ours(heed: Heed) -> Heed:
    def tell(told: Told) -> None:
        try:
            heed(told)
        except Exception as error:
            raise _ListenerError(type(told).__name__) from error

    return tell


def _ended(decision: Decision, *, is_void: bool) -> TurnEnds:
    return TurnEnds(decision.turn, decision.track_id, decision.start_ms, decision.end_ms, is_void)


def _reason_of(error: BaseException) -> tuple[str, float | None]:
    if (busy_s := _busy_s(error)) is not None:
        return "too_many_requests", busy_s
    if isinstance(error, APIStatusError):
        return f"status_{error.status_code}", None
    return type(error).__name__, None


def _busy_s(error: BaseException) -> float | None:
    """For how long an engine that is asked too much is to be left alone; None where it failed otherwise."""
    if not isinstance(error, APIStatusError) or error.status_code != TOO_MANY_REQUESTS:
        return None
    body: Any = error.body
    after = body.get("retry_after") if isinstance(body, dict) else None
    return min(float(after), MOST_BUSY_S) if isinstance(after, int | float) and isfinite(after) else 0.0


def _heed_nothing(_heard: object) -> None:
    """Nobody listens yet."""
