"""The publisher of a session that is a LiveKit room: the data channel, and text streams for stock clients."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import structlog
from livekit import rtc

from agent.captions.outbox import Outbox
from agent.captions.protocol import EVENTS_TOPIC, encode
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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._texts_emptied.wait()
        self._texting.cancel()
        await asyncio.wait((self._texting,))

    async def publish(self, event: Event) -> None:
        """Send an event on the data channel; a caption is also queued as a text stream."""
        await self._send(self._room.local_participant.publish_data(encode(event), topic=EVENTS_TOPIC))
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
        attributes = {
            "lk.segment_id": caption.id,
            "lk.transcription_final": "true" if caption.is_final else "false",
        }
        if (track_id := _microphone(speaker)) is not None:
            attributes["lk.transcribed_track_id"] = track_id
        writer = await self._room.local_participant.stream_text(
            topic=TRANSCRIPTION_TOPIC,
            attributes=attributes,
            # Attributed to somebody who has left, it would be aborted at the receivers.
            sender_identity=speaker.identity if speaker else None,
        )
        await writer.write(caption.text)
        await writer.aclose()

    async def _send(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send within a limit; a room that is closed or away costs a count, not the session."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await sending
            self._failed_in_a_row = 0
        except Exception as error:  # noqa: BLE001  the SDK raises bare exceptions of several kinds here
            self.failed += 1
            self._failed_in_a_row += 1
            # One or two fail at the end of every room that closes before we know.
            if self._failed_in_a_row == WORTH_A_WARNING:
                log.warning("room.sends_fail", error=type(error).__name__)


def _microphone(speaker: rtc.RemoteParticipant | None) -> str | None:
    """The track that a speaker is heard by."""
    if speaker is None:
        return None
    tracks = [
        publication.sid
        for publication in speaker.track_publications.values()
        if publication.source == rtc.TrackSource.SOURCE_MICROPHONE
    ]
    return tracks[-1] if tracks else None
