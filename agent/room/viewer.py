"""Receiving what the agent says, as any participant does."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from livekit import rtc

from agent.captions.protocol import EVENTS_TOPIC
from agent.room.join import join, leave
from agent.room.publisher import TRANSCRIPTION_TOPIC

__all__ = ["ReceivedEvent", "ReceivedText", "Viewer"]

CAPACITY = 2_000  # minutes of captions: more means that nobody reads them any longer

Received = TypeVar("Received")


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event of the agent. `received_at` is wall time in seconds, as `time.time()` gives it."""

    data: Mapping[str, Any]
    received_at: float


@dataclass(frozen=True, slots=True)
class ReceivedText:
    """A caption as stock LiveKit clients get it. `sender` is the identity of whoever spoke."""

    sender: str
    attributes: Mapping[str, str]
    text: str
    received_at: float


class _Inbox(Generic[Received]):
    """What waits to be read. Beyond its capacity the oldest is dropped and counted."""

    def __init__(self, capacity: int) -> None:
        self._waiting: deque[Received] = deque(maxlen=capacity)
        self._changed = asyncio.Event()
        self._is_closed = False
        self.dropped = 0

    def put(self, item: Received) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            self.dropped += 1
        self._waiting.append(item)
        self._changed.set()

    def close(self) -> None:
        self._is_closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Received]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._is_closed:
                return
            self._changed.clear()
            await self._changed.wait()


class Viewer:
    """A participant who gets the agent's events. Use it as an async context manager: it leaves at the end.

    `forged` counts events that somebody other than a hidden agent sent, `malformed` those that are not JSON
    objects. LiveKit blanks the identity of a hidden agent and writes that of everybody else; this SDK gives
    it as a participant object only, which is missing for ordinary people too in their first seconds.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._events: _Inbox[ReceivedEvent] = _Inbox(capacity)
        self._texts: _Inbox[ReceivedText] = _Inbox(capacity)
        self._reading: set[asyncio.Task[None]] = set()
        self._room = rtc.Room()
        self._room.on("data_received", self._on_data)
        self._room.on("disconnected", self._on_disconnected)
        self._room.register_text_stream_handler(TRANSCRIPTION_TOPIC, self._on_text)
        self.forged = 0
        self.malformed = 0
        self.closed_reason: str | None = None

    async def join(self, url: str, token: str) -> None:
        """Join a room without hearing anybody. It stays through reconnects, until the room closes.

        Raises:
            LiveKitError: The server is away or refuses the token.
        """
        await join(self._room, url, token)

    @property
    def room(self) -> rtc.Room:
        return self._room

    @property
    def dropped(self) -> int:
        """How much was not read in time."""
        return self._events.dropped + self._texts.dropped

    def events(self) -> AsyncIterator[ReceivedEvent]:
        """What comes on the events topic, until the room closes; `closed_reason` then tells why."""
        return aiter(self._events)

    def texts(self) -> AsyncIterator[ReceivedText]:
        """What comes as text streams of captions, until the room closes."""
        return aiter(self._texts)

    async def leave(self) -> None:
        """Leave the room. Idempotent."""
        await leave(self._room)
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        self._close("left")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()

    def _on_data(self, packet: rtc.DataPacket) -> None:
        received_at = time.time()
        if packet.topic != EVENTS_TOPIC:
            return
        if packet.participant is not None:
            self.forged += 1
            return
        try:
            data = json.loads(packet.data)
        except ValueError:
            data = None
        if isinstance(data, dict):
            self._events.put(ReceivedEvent(data, received_at))
        else:
            self.malformed += 1

    def _on_text(self, reader: rtc.TextStreamReader, sender: str) -> None:
        task = asyncio.create_task(self._read(reader, sender), name="viewer.read")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read(self, reader: rtc.TextStreamReader, sender: str) -> None:
        # A stream that breaks off is followed by another one of the same segment.
        with suppress(rtc.StreamError):
            text = await reader.read_all()
            self._texts.put(ReceivedText(sender, reader.info.attributes or {}, text, time.time()))

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        self._close(rtc.DisconnectReason.Name(reason).lower())

    def _close(self, reason: str) -> None:
        if self.closed_reason is None:
            self.closed_reason = reason
        self._events.close()
        self._texts.close()
