"""Puts a session's captions and state into envelopes and hands them to its publisher, in order."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.captions.outbox import Outbox
from agent.captions.protocol import caption_body
from agent.session.publisher import Publisher
from agent.values import Caption, Event

__all__ = ["Announcer", "SessionIdentity"]


@dataclass(frozen=True, slots=True)
class SessionIdentity:
    """What names a session to the outside. `agent` is the agent's identity in the room."""

    session: str
    epoch: int
    agent: str


class Announcer:
    """The one way out of a session."""

    def __init__(
        self,
        publisher: Publisher,
        identity: SessionIdentity,
        *,
        partials_per_s: float,
        utc_now: Callable[[], datetime],
    ) -> None:
        self._publisher = publisher
        self._identity = identity
        self._utc_now = utc_now
        self._outbox = Outbox(partials_per_s)
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self.finals = 0

    @property
    def dropped(self) -> int:
        """Events that were dropped because nothing could be published for very long."""
        return self._outbox.dropped

    def caption(self, caption: Caption, heard_at: datetime) -> None:
        """Announce a caption that the engine gave at `heard_at`; a final gets the next `seq`."""
        seq = None
        if caption.is_final:
            self.finals += 1
            seq = self.finals
        self._put("caption", caption_body(caption), heard_at, seq=seq, caption=caption)

    def state(self, body: Mapping[str, Any]) -> None:
        """Announce how the session is doing."""
        self._put("state", body, self._utc_now())

    async def run(self) -> None:
        """Publish for ever, one event at a time."""
        loop = asyncio.get_running_loop()
        while True:
            now_ms = round(loop.time() * 1000)
            if (event := self._outbox.get(now_ms)) is not None:
                await self._publisher.publish(event)
                continue
            due_ms = self._outbox.due_ms()
            if due_ms is None:
                self._emptied.set()
            self._filled.clear()
            wait_s = None if due_ms is None else max(due_ms - now_ms, 0) / 1000
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._filled.wait()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is published; whether that was so within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    def _put(
        self,
        kind: str,
        body: Mapping[str, Any],
        at: datetime,
        *,
        seq: int | None = None,
        caption: Caption | None = None,
    ) -> None:
        who = self._identity
        self._outbox.put(Event(who.session, who.epoch, kind, at, body, seq, caption))
        self._emptied.clear()
        self._filled.set()
