"""Drives one stream of speech recognition for a session: feeds it, and gives back what was heard."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from livekit import rtc
from livekit.agents import APIConnectOptions, stt

from agent.transcription.stream_map import StreamMap
from agent.values import SAMPLE_RATE_HZ, Block, Heard, Word

__all__ = ["EngineDown", "EngineUp", "Transcriber"]

log = structlog.get_logger(__name__)

FIRST_BACKOFF_S = 0.5
PROVED_AFTER_S = 5.0  # an engine that refuses a connection does so sooner
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class EngineUp:
    """The engine takes audio."""


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The engine's stream ended with an error; it is opened again after a while. `reason` is its type."""

    reason: str


async def _with_proof(stream: stt.RecognizeStream) -> AsyncGenerator[stt.SpeechEvent | None, None]:
    """The events of a stream; None before the first one where it has been open for long without failing."""
    first = asyncio.ensure_future(anext(stream, None))
    try:
        await asyncio.wait((first,), timeout=PROVED_AFTER_S)
        if not first.done():
            yield None
        if (event := await first) is None:
            return
        yield event
        async for event in stream:
            yield event
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


class Transcriber:
    """One session's speech recognition.

    The engine's own retries are off: they lose the frames that were taken already and let stream time jump by
    the wall clock. A stream that fails is replaced by a new one here, with a map of its own.
    """

    def __init__(self, engine: stt.STT[Any]) -> None:
        self._engine = engine
        self._stream: stt.RecognizeStream | None = None
        self._map = StreamMap()
        self._utterance = 1
        self._is_open = False
        self._finishing = asyncio.Event()
        self._has_unflushed = False
        self.sent_ms = 0
        self.unsent_ms = 0

    def push(self, block: Block) -> None:
        """Send audio that follows what was sent before. Without a stream it is counted as unsent."""
        duration_ms = block.end_ms - block.start_ms
        if self._stream is None or self._finishing.is_set():
            self.unsent_ms += duration_ms
            return
        try:
            self._stream.push_frame(
                rtc.AudioFrame(block.samples.tobytes(), SAMPLE_RATE_HZ, 1, len(block.samples))
            )
        except RuntimeError:  # the stream has just failed; `heard` is about to notice
            self.unsent_ms += duration_ms
            return
        self._map.append(block.start_ms, duration_ms)
        self._has_unflushed = True
        self.sent_ms += duration_ms

    def flush(self) -> None:
        """Ask for the final of everything that was sent; nothing follows it directly."""
        if self._stream is not None and self._has_unflushed and not self._finishing.is_set():
            self._has_unflushed = False
            with contextlib.suppress(RuntimeError):  # as in push
                self._stream.flush()

    def finish(self) -> None:
        """Send nothing more: `heard` gives what is still to come and ends."""
        if self._finishing.is_set():
            return
        self._finishing.set()
        if self._stream is not None:
            with contextlib.suppress(RuntimeError):  # as in push
                self._stream.end_input()

    async def heard(self) -> AsyncGenerator[Heard | EngineUp | EngineDown, None]:
        """Give what the engine hears, in session time, and its ups and downs. Ends after `finish`.

        After a failure the engine counts as up again when it says something, or has not failed for a while.
        """
        backoff_s = FIRST_BACKOFF_S
        is_proved = True
        while not self._finishing.is_set():
            self._map = StreamMap()
            reason = "ended"
            try:
                self._stream = self._engine.stream(conn_options=APIConnectOptions(max_retry=0))
                async with contextlib.aclosing(_with_proof(self._stream)) as events:
                    async for event in events:
                        backoff_s = FIRST_BACKOFF_S
                        if not is_proved:
                            is_proved = True
                            yield EngineUp()
                        if event is not None and (heard := self._place(event)) is not None:
                            yield heard
            except Exception as error:  # noqa: BLE001  an engine may raise whatever its library raises
                reason = type(error).__name__
            finally:
                stream, self._stream = self._stream, None
                self._has_unflushed = False
                if stream is not None:
                    await stream.aclose()
            if (withdrawn := self._close_utterance()) is not None:
                yield withdrawn
            if self._finishing.is_set():
                return
            log.warning("engine.stream_ended", engine=self._engine.label, reason=reason, retry_s=backoff_s)
            is_proved = False
            yield EngineDown(reason)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._finishing.wait()
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    def _place(self, event: stt.SpeechEvent) -> Heard | None:
        match event.type:
            case stt.SpeechEventType.INTERIM_TRANSCRIPT if event.alternatives:
                self._is_open = True
                return self._heard(event.alternatives[0], is_final=False)
            case stt.SpeechEventType.FINAL_TRANSCRIPT if event.alternatives:
                heard = self._heard(event.alternatives[0], is_final=True)
                self._next_utterance()
                return heard
            case stt.SpeechEventType.END_OF_SPEECH:
                return self._close_utterance()
            case _:
                return None

    def _close_utterance(self) -> Heard | None:
        """An utterance that was shown and has no final came to nothing."""
        if not self._is_open:
            return None
        nothing = Heard(self._utterance, True, "", 0, 0, "", 0.0)
        self._next_utterance()
        return nothing

    def _next_utterance(self) -> None:
        self._utterance += 1
        self._is_open = False

    def _heard(self, data: stt.SpeechData, *, is_final: bool) -> Heard:
        words = tuple(self._words(data))
        start_ms = words[0].start_ms if words else self._session_ms(data.start_time)
        end_ms = words[-1].end_ms if words else self._session_end_ms(data.end_time)
        stable = (data.metadata or {}).get("stable_words", 0)
        return Heard(
            utterance=self._utterance,
            is_final=is_final,
            text=data.text,
            start_ms=start_ms,
            end_ms=max(start_ms, end_ms),
            language=str(data.language),
            confidence=min(max(data.confidence, 0.0), 1.0),
            words=words,
            stable_words=len(words) if is_final else min(int(stable), len(words)),
        )

    def _words(self, data: stt.SpeechData) -> Sequence[Word]:
        words = []
        for word in data.words or ():
            if not isinstance(word.start_time, float | int) or not isinstance(word.end_time, float | int):
                return ()
            confidence = word.confidence if isinstance(word.confidence, float | int) else 0.0
            start_ms = self._session_ms(word.start_time)
            end_ms = max(start_ms, self._session_end_ms(word.end_time))
            words.append(Word(str(word), start_ms, end_ms, confidence))
        return words

    def _session_ms(self, stream_s: float) -> int:
        return self._map.to_session(round(stream_s * 1000))

    def _session_end_ms(self, stream_s: float) -> int:
        return self._map.to_session_end(round(stream_s * 1000))
