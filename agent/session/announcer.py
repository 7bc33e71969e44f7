"""Puts a session's captions and state into envelopes, has finals kept, and hands all to its publisher."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from agent.captions.outbox import Outbox
from agent.captions.protocol import caption_body
from agent.session.publisher import Publisher
from agent.session.store import Store
from agent.values import Caption, Event
from persistence.records import Final

__all__ = ["Announcer", "SessionIdentity"]

RETRY_MS = 1_000  # a disk or a database that was away may be back
MAX_UNKEPT = 1_000  # more than an hour of one speaker; older ones stay what viewers see them as, partials


@dataclass(frozen=True, slots=True)
class SessionIdentity:
    """What names a session to the outside, and where it goes on.

    `agent` is the agent's identity in the room. The epoch begins at `offset_ms` of the session's time, and
    its first durable event gets `first_seq`.
    """

    session: str
    epoch: int
    agent: str
    offset_ms: int = 0
    first_seq: int = 1


class Announcer:
    """The one way out of a session.

    A final is kept before it is published, and gets the next `seq` then. One that cannot be kept goes out as
    a partial, and becomes final when it can.
    """

    def __init__(
        self,
        publisher: Publisher,
        store: Store,
        identity: SessionIdentity,
        *,
        partials_per_s: float,
        utc_now: Callable[[], datetime],
    ) -> None:
        self._publisher = publisher
        self._store = store
        self._identity = identity
        self._utc_now = utc_now
        self._outbox = Outbox(partials_per_s)
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._unkept: deque[Event] = deque()
        self._retry_ms = 0
        self._next_seq = identity.first_seq
        self._given_up = 0

    @property
    def finals(self) -> int:
        """Finals that were kept and published."""
        return self._next_seq - self._identity.first_seq

    @property
    def unkept(self) -> int:
        """Finals that are partials to this day, because nothing could keep them."""
        return len(self._unkept) + self._given_up

    @property
    def dropped(self) -> int:
        """Events that were dropped because nothing could be published for very long."""
        return self._outbox.dropped

    def caption(self, caption: Caption, heard_at: datetime) -> None:
        """Announce a caption that the engine gave at `heard_at`."""
        self._put("caption", caption_body(caption), heard_at, caption)

    def state(self, body: Mapping[str, Any]) -> None:
        """Announce how the session is doing."""
        self._put("state", body, self._utc_now())

    def notice(self, body: Mapping[str, Any]) -> None:
        """Tell the people in the room something, in a sentence."""
        self._put("notice", body, self._utc_now())

    async def run(self) -> None:
        """Publish for ever, one event at a time."""
        loop = asyncio.get_running_loop()
        while True:
            now_ms = round(loop.time() * 1000)
            if self._unkept and now_ms >= self._retry_ms:
                await self._keep_rest()
                continue
            if (event := self._outbox.get(now_ms)) is not None:
                await self._publisher.publish(await self._settled(event))
                continue
            due_ms = self._outbox.due_ms()
            if due_ms is None:
                self._emptied.set()
            if self._unkept and (due_ms is None or self._retry_ms < due_ms):
                due_ms = self._retry_ms
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

    async def _settled(self, event: Event) -> Event:
        """An event as viewers may see it: a final that is not kept yet is a partial, and has no number."""
        if event.caption is None or not event.caption.is_final:
            return event
        if not self._unkept:  # else those before it come first
            if await self._store.keep(self._final(event.caption, event.at)):
                return self._numbered(event)
            self._retry_later()
        self._unkept.append(event)
        if len(self._unkept) > MAX_UNKEPT:
            self._unkept.popleft()
            self._given_up += 1
        return _with_caption(event, replace(event.caption, is_final=False))

    async def _keep_rest(self) -> None:
        """Make finals of those that could not be kept before, as far as that works now."""
        while self._unkept:
            event = self._unkept[0]
            assert event.caption is not None
            # Viewers have seen its revision as a partial.
            caption = replace(event.caption, revision=event.caption.revision + 1)
            if not await self._store.keep(self._final(caption, event.at)):
                self._retry_later()
                return
            self._unkept.popleft()
            await self._publisher.publish(self._numbered(_with_caption(event, caption)))

    def _retry_later(self) -> None:
        # From now: a try may have taken seconds, after which the others have their turn.
        self._retry_ms = round(asyncio.get_running_loop().time() * 1000) + RETRY_MS

    def _numbered(self, event: Event) -> Event:
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        return replace(event, seq=seq)

    def _final(self, caption: Caption, at: datetime) -> Final:
        return Final(
            id=caption.id,
            revision=caption.revision,
            seq=self._next_seq,
            identity=caption.speaker.identity,
            name=caption.speaker.name,
            text=caption.text,
            language=caption.language,
            confidence=caption.confidence,
            has_overlap=caption.has_overlap,
            start_ms=caption.start_ms,
            end_ms=caption.end_ms,
            at=at,
        )

    def _put(self, kind: str, body: Mapping[str, Any], at: datetime, caption: Caption | None = None) -> None:
        who = self._identity
        self._outbox.put(Event(who.session, who.epoch, kind, at, body, None, caption))
        self._emptied.clear()
        self._filled.set()


def _with_caption(event: Event, caption: Caption) -> Event:
    return replace(event, body=caption_body(caption), caption=caption)
