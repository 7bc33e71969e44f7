"""A stream by the Realtime API: one session after the other, each for as long as the service allows.

A stream is two coroutines. One sends audio as it comes and commits it at each flush; the other receives, and
gives out answers in the order of the flushes. A session that gets old is replaced between turns, when all
that was sent has been answered, so that nothing is lost and nothing is sent twice.

What goes wrong with the connection or the session ends the stream with an APIError. What goes wrong with one
turn is logged, and its flush is acknowledged without a final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import numpy as np
import structlog
from livekit import rtc
from livekit.agents import APIConnectionError, stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import APIConnectOptions
from livekit.agents.utils import aio

from agent.values import SAMPLE_RATE_HZ
from plugins.stt.openai import protocol
from plugins.stt.openai.errors import status_error
from plugins.stt.openai.events import answered, interim, recognition_usage, speech_data
from plugins.stt.openai.hints import Hints
from plugins.stt.openai.protocol import REALTIME_RATE_HZ, SHORTEST_COMMIT_S
from plugins.stt.openai.service import Service
from plugins.stt.openai.transcript import Transcript
from plugins.stt.openai.turns import Turn, Turns
from plugins.stt.openai.upsampler import Upsampler

__all__ = ["RealtimeStream"]

log = structlog.get_logger(__name__)

# Resampling and encoding this much takes 2 ms; then the event loop has its turn.
_SENDING_STEP_SAMPLES = SAMPLE_RATE_HZ
_BYTES_PER_SAMPLE = 2


class RealtimeStream(stt.RecognizeStream):
    """Recognises turns, with a `flush` after each."""

    def __init__(
        self,
        *,
        engine: stt.STT[Any],
        service: Service,
        model: str,
        language: LanguageCode,
        hints: Callable[[], Hints],
        renew_after_s: float,
        conn_options: APIConnectOptions,
    ) -> None:
        super().__init__(stt=engine, conn_options=conn_options, sample_rate=SAMPLE_RATE_HZ)
        self._service = service
        self._model = model
        self._language = language
        self._hints = hints
        self._renew_after_s = renew_after_s
        self._turns = Turns()
        self._answered = asyncio.Event()
        self._upsampler = Upsampler()

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Take the next audio: mono, of any rate as long as it stays the same.

        Raises:
            ValueError: the frame has several channels, or another rate than the ones before.
        """
        if frame.num_channels != 1:
            raise ValueError(f"stt: a frame has {frame.num_channels} channels; mix them to one")
        super().push_frame(frame)

    async def _run(self) -> None:
        is_over = False
        while not is_over:
            async with self._service.realtime(timeout_s=self._conn_options.timeout) as socket:
                self._turns.forget_items()
                is_over = await self._hold_session(socket)

    async def _hold_session(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        """Send and receive until all is answered; say whether the stream is over, or only the session."""
        sending = asyncio.create_task(self._send(socket), name="RealtimeStream.send")
        receiving = asyncio.create_task(self._receive(socket), name="RealtimeStream.receive")
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                await receiving
                return False
            try:
                return sending.result()
            except (aiohttp.ClientError, OSError):
                # What was received before the connection broke still counts, and may say why it did.
                await receiving
                return False
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        """Send what comes until the input ends or the session is old, and wait until all is answered."""
        clock = asyncio.get_running_loop()
        renew_at = clock.time() + self._renew_after_s
        configuration = await self._configure(socket, None)
        is_over = False
        while self._turns.is_open or clock.time() < renew_at:
            try:
                async with asyncio.timeout_at(None if self._turns.is_open else renew_at):
                    item = await self._input_ch.recv()
            except TimeoutError:
                break
            except aio.ChanClosed:
                is_over = True
                break
            if isinstance(item, self._FlushSentinel):
                if self._turns.is_open:
                    await self._commit(socket)
            elif item.samples_per_channel:
                is_first = not self._turns.is_open
                # Before anything is awaited: a turn that is open keeps the session from being replaced.
                self._turns.hear(item.samples_per_channel)
                if is_first:
                    configuration = await self._configure(socket, configuration)
                await self._append(socket, item)
        while not self._turns.is_idle:
            self._answered.clear()
            await self._answered.wait()
        return is_over

    async def _configure(self, socket: aiohttp.ClientWebSocketResponse, current: str | None) -> str:
        """Tell the session what to expect, unless it knows."""
        configuration = protocol.configure(self._model, self._hints())
        if configuration != current:
            await socket.send_str(configuration)
        return configuration

    async def _append(self, socket: aiohttp.ClientWebSocketResponse, frame: rtc.AudioFrame) -> None:
        samples = np.frombuffer(frame.data, np.int16)
        for first in range(0, len(samples), _SENDING_STEP_SAMPLES):
            if pcm := self._upsampler.push(samples[first : first + _SENDING_STEP_SAMPLES]):
                await socket.send_str(protocol.append(pcm))
                await asyncio.sleep(0)

    async def _commit(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        turn = self._turns.commit()
        missing_s = max(SHORTEST_COMMIT_S - _duration_s(turn), 0.0)
        silence = bytes(round(missing_s * REALTIME_RATE_HZ) * _BYTES_PER_SAMPLE)
        if rest := self._upsampler.flush() + silence:
            await socket.send_str(protocol.append(rest))
        await socket.send_str(protocol.commit(turn.id))

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Give out what comes. Returns where the session has come to its end and nothing is missing.

        Raises:
            APIError: The connection or the session broke.
        """
        is_configured = has_answered = False
        async for frame in socket:
            if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                break
            message = protocol.parse(frame.data)
            if isinstance(message, protocol.Refused) and message.is_expiry:
                # A service that grants no time at all is not asked again and again.
                if has_answered and self._turns.is_idle:
                    return
                raise APIConnectionError("openai: the session has expired")
            if isinstance(message, protocol.Configured):
                is_configured = True
            elif isinstance(message, protocol.Refused) and not is_configured:
                # Whatever it is about: it keeps the session from being one that transcribes.
                raise status_error(message.status_code or 400, message.code or message.kind)
            self._note(message)
            for turn in self._turns.take():
                has_answered = has_answered or turn.is_answered
                self._give_out(turn)
            if self._turns.is_idle:
                self._answered.set()
        raise APIConnectionError(f"openai: the connection was closed with code {socket.close_code}")

    def _note(self, message: protocol.Message) -> None:
        turns = self._turns
        match message:
            case protocol.Committed(item_id):
                turns.name(item_id)
            case protocol.Delta(item_id, text):
                turns.extend(item_id, text)
            case protocol.Completed(item_id, text, usage):
                heard = "" if self._hints().is_echo(text) else text
                if not turns.answer(item_id, heard, usage):
                    log.warning("openai.unexpected_answer")
            case protocol.Failed(item_id, code):
                if (status_code := message.status_code) is not None:
                    raise status_error(status_code, code)
                # It could not be understood, and would not be the next time.
                if turns.answer(item_id, "", None):
                    log.error("openai.turn_failed", code=code)
            case protocol.Refused() if message.is_empty_commit:
                if turns.refuse(message.event_id):
                    log.error("openai.turn_refused", code=message.code)
            case protocol.Refused(code, kind):
                if (status_code := message.status_code) is not None:
                    raise status_error(status_code, code or kind)
                log.warning("openai.error", code=code, kind=kind)
            case protocol.Malformed():
                log.warning("openai.malformed_message")

    def _give_out(self, turn: Turn) -> None:
        start_s = self.start_time_offset + turn.start / SAMPLE_RATE_HZ
        data = speech_data(
            self._language, Transcript(turn.text.strip()), start_s=start_s, end_s=start_s + _duration_s(turn)
        )
        if not turn.is_answered:
            self._event_ch.send_nowait(interim(turn.id, data))
            return
        sent_s = max(_duration_s(turn), SHORTEST_COMMIT_S)
        usage = None if turn.usage is None else recognition_usage(turn.usage, sent_s=sent_s)
        for event in answered(turn.id, data, usage):
            self._event_ch.send_nowait(event)


def _duration_s(turn: Turn) -> float:
    return (turn.end - turn.start) / SAMPLE_RATE_HZ
