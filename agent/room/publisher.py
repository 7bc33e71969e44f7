"""The publisher of a session that is a LiveKit room: the data channel, and text streams for stock clients."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import structlog
from livekit import rtc

from agent.captions.outbox import Outbox
from agent.captions.protocol import EVENTS_TOPIC, encode
from agent.room.microphone import heard_track
from agent.values import Caption, Event

__all__ = ["TRANSCRIPTION_TOPIC", "RoomPublisher"]

log = structlog.get_logger(__name__)

TRANSCRIPTION_TOPIC = "lk.transcription"
SEND_TIMEOUT_S = 5.0  # a send takes milliseconds; a connection that is being resumed takes seconds
CLOSE_TIMEOUT_S = 2.0
WORTH_A_WARNING = 3
TEXT_PARTIALS_PER_S = 1000.0  # the session has paced them; here only a slow connection makes them wait


class RoomPublisher:
    """Sends events to everybody in a room.

    Captions go out a second time as text streams on `lk.transcription`, which the stock components of LiveKit
    show. That takes several messages each, so it never holds up the data channel. Use it as an async context
    manager.
    """

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._texts = Outbox(TEXT_PARTIALS_PER_S)
        self._texts_filled = asyncio.Event()
        self._texts_emptied = asyncio.Event()
        self._texts_emptied.set()
        self._texting: asyncio.Task[None] | None = None
        self.failed = 0
        self._failed_in_a_row = 0

    async def __aenter__(self) -> "RoomPublisher":
        self._texting = asyncio.create_task(self._send_texts(), name="room.texts")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._texting is None:
            return
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._texts_emptied.wait()
        finally:
            self._texting.cancel()
            await asyncio.wait((self._texting,))

    async def publish(self, event: Event) -> None:
        """Send an event on the data channel; a caption is also queued as a text stream."""
        publishing = self._room.local_participant.publish_data(encode(event), topic=EVENTS_TOPIC)
        if await self._send(publishing):
            self._failed_in_a_row = 0
        else:
            self._failed_in_a_row += 1
            # One or two fail at the end of every room that closes before we know.
            if self._failed_in_a_row == WORTH_A_WARNING:
                log.warning("room.events_cannot_be_sent")
        if event.caption is not None:
            self._texts.put(event)
            self._texts_emptied.clear()
            self._texts_filled.set()

    async def _send_texts(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            event = self._texts.get(round(loop.time() * 1000))
            if event is not None and event.caption is not None:
                await self._send(self._send_text(event.caption))
            elif self._texts.is_empty:
                self._texts_emptied.set()
                self._texts_filled.clear()
                await self._texts_filled.wait()
            else:
                await asyncio.sleep(1 / TEXT_PARTIALS_PER_S)

    async def _send_text(self, caption: Caption) -> None:
        speaker = self._room.remote_participants.get(caption.speaker.identity)
        track = heard_track(speaker) if speaker else None
        attributes = {
            "lk.segment_id": caption.id,
            "lk.transcription_final": "true" if caption.is_final else "false",
        }
        if track is not None:
            attributes["lk.transcribed_track_id"] = track.sid
        writer = await self._room.local_participant.stream_text(
            topic=TRANSCRIPTION_TOPIC,
            attributes=attributes,
            # Attributed to somebody who has left, it would be aborted at the receivers.
            sender_identity=speaker.identity if speaker else None,
        )
        await writer.write(caption.text)
        await writer.aclose()

    async def _send(self, sending: Coroutine[Any, Any, None]) -> bool:
        """Send within a limit; tells whether it went. A closed room costs a count, not the session."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await sending
        except Exception as error:  # noqa: BLE001  the SDK raises bare exceptions of several kinds here
            self.failed += 1
            log.debug("room.send_failed", error=type(error).__name__)
            return False
        return True
