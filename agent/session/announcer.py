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
from agent.session.lead import Lead
from agent.session.publisher import Publisher
from agent.session.store import Store
from agent.values import Caption, Event
from persistence.records import Final

__all__ = ["Announcer", "SessionIdentity"]

RETRY_S = 1.0  # a disk or a database that was away may be back
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
    a partial, and becomes final when it can. Partials and state never wait for that. Nothing is kept or
    published by a session that does not lead its room any more.
    """

    def __init__(
        self,
        publisher: Publisher,
        store: Store,
        lead: Lead,
        identity: SessionIdentity,
        *,
        partials_per_s: float,
        utc_now: Callable[[], datetime],
    ) -> None:
        self._publisher = publisher
        self._store = store
        self._lead = lead
        self._identity = identity
        self._utc_now = utc_now
        self._outbox = Outbox(partials_per_s)
        self._filled = asyncio.Event()
        self._finals: deque[Event] = deque()  # that are not kept yet
        self._finals_filled = asyncio.Event()
        self._is_stuck = False
        self._all_out = asyncio.Event()
        self._publishing = asyncio.Lock()
        self._next_seq = identity.first_seq
        self._given_up = 0

    @property
    def finals(self) -> int:
        """Finals that were kept and published."""
        return self._next_seq - self._identity.first_seq

    @property
    def last_seq(self) -> int:
        """The last number that was given, by this agent or one before."""
        return self._next_seq - 1

    @property
    def unkept(self) -> int:
        """Finals that are partials to this day: nothing could keep them, or another agent leads the room."""
        return len(self._finals) + self._given_up

    @property
    def dropped(self) -> int:
        """Events that were dropped because nothing could be published for very long."""
        return self._outbox.dropped

    def caption(self, caption: Caption, heard_at: datetime) -> None:
        """Announce a caption that the engine gave at `heard_at`."""
        event = self._event("caption", caption_body(caption), heard_at, caption)
        if not caption.is_final:
            self._put(event)
            return
        self._outbox.discard(caption.id)
        self._finals.append(event)
        if len(self._finals) > MAX_UNKEPT:
            self._finals.popleft()
            self._given_up += 1
        if self._is_stuck:
            self._put(_as_partial(event))
        self._all_out.clear()
        self._finals_filled.set()

    def state(self, body: Mapping[str, Any]) -> None:
        """Announce how the session is doing."""
        self._put(self._event("state", body, self._utc_now()))

    def notice(self, body: Mapping[str, Any]) -> None:
        """Tell the people in the room something, in a sentence."""
        self._put(self._event("notice", body, self._utc_now()))

    async def run(self) -> None:
        """Publish for ever, one event at a time."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish_finals(), name="session.publish_finals")
            tasks.create_task(self._publish_rest(), name="session.publish_rest")

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is published; whether that was so within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_out.wait()
        except TimeoutError:
            return False
        return True

    async def _publish_finals(self) -> None:
        while True:
            await self._finals_filled.wait()
            event = self._finals[0]
            assert event.caption is not None
            if self._is_stuck:
                # Viewers have seen its revision as a partial.
                event = _with_caption(event, replace(event.caption, revision=event.caption.revision + 1))
            assert event.caption is not None
            if not await self._lead.confirm():
                self._drop_finals()
                continue
            if not await self._store.keep(self._final(event.caption, event.at)):
                self._say_stuck()
                await asyncio.sleep(RETRY_S)
                continue
            self._finals.popleft()
            self._outbox.discard(event.caption.id)
            event, self._next_seq = replace(event, seq=self._next_seq), self._next_seq + 1
            await self._publish(event)
            if not self._finals:
                self._rest_finals()

    def _drop_finals(self) -> None:
        """Somebody else leads the room, and nobody has seen these as finals."""
        self._given_up += len(self._finals)
        self._finals.clear()
        self._rest_finals()

    def _rest_finals(self) -> None:
        self._is_stuck = False
        self._finals_filled.clear()
        self._settle()

    async def _publish_rest(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now_ms = round(loop.time() * 1000)
            if (event := self._outbox.get(now_ms)) is not None:
                await self._publish(event)
                continue
            self._settle()
            due_ms = self._outbox.due_ms()
            self._filled.clear()
            wait_s = None if due_ms is None else max(due_ms - now_ms, 0) / 1000
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._filled.wait()

    def _say_stuck(self) -> None:
        """Show what waits as partials, unless viewers see it already."""
        if not self._is_stuck:
            self._is_stuck = True
            for event in self._finals:
                self._put(_as_partial(event))

    async def _publish(self, event: Event) -> None:
        if not await self._lead.confirm():
            return
        async with self._publishing:
            await self._publisher.publish(event)

    def _settle(self) -> None:
        if not self._finals and self._outbox.is_empty:
            self._all_out.set()

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

    def _event(
        self, kind: str, body: Mapping[str, Any], at: datetime, caption: Caption | None = None
    ) -> Event:
        return Event(self._identity.session, self._identity.epoch, kind, at, body, None, caption)

    def _put(self, event: Event) -> None:
        self._outbox.put(event)
        self._all_out.clear()
        self._filled.set()


def _as_partial(event: Event) -> Event:
    assert event.caption is not None
    return _with_caption(event, replace(event.caption, is_final=False))


def _with_caption(event: Event, caption: Caption) -> Event:
    return replace(event, body=caption_body(caption), caption=caption)
