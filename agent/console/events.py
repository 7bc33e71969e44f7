"""Following a session while it goes on: its captions as Server-Sent Events."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from agent.console.following import Following, Viewers
from agent.console.models import UtteranceOut
from agent.console.problems import problem
from agent.console.store import Store
from agent.errors import DatabaseAwayError
from persistence.api_keys import ApiKey
from persistence.transcripts import FinalCursor

__all__ = ["MAX_SINCE_MS", "EventStream"]

MAX_SINCE_MS = 2**53 - 1  # what a number of JavaScript holds
HEARTBEAT_S = 15.0  # proxies give up a connection on which nothing comes for 30 s or more
RETRY_MS = 2_000  # when a browser connects again
FULL_AFTER_S = 30
# Who connects again is told so much again: the words of an engine that was away are up to 75 s old, and what
# a dead agent left in its journal comes when its worker is back.
AGAIN_MS = 600_000


class EventStream(StreamingResponse):
    """The captions of a session, each as a `final` event, and `ended` at the end.

    It begins with what was said so far. It stops without `ended` where the session was merged into another
    one, the key was revoked, somebody reads too slowly or the server ends: the browser connects again, and is
    told why, or is sent the last minutes before it left again.

    Args:
        viewers: Has it look for what is new; where they are too many it answers 503.
        store: Asked in a thread.
        key: What is known of the key; None where it is worth nothing any more.
        space: Whose session it is.
        session_id: Which one, not one that was merged.
        since_ms: Leave out what began before, in session time.
        last_id: The id of the last event that somebody had who connects again; empty for others. One that is
            none of this session is left out of account.
    """

    def __init__(
        self,
        viewers: Viewers,
        store: Store,
        key: Callable[[], Awaitable[ApiKey | None]],
        space: str,
        session_id: str,
        *,
        since_ms: int = 0,
        last_id: str = "",
    ) -> None:
        self._viewers = viewers
        self._store = store
        self._key = key
        self._space = space
        self._session_id = session_id
        had_ms = _had_ms(last_id, session_id)
        self._since_ms = max(since_ms, had_ms - AGAIN_MS)
        self._had_ms = had_ms  # the newest beginning of an utterance that they have
        super().__init__(self._events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._viewers.is_full:
            full = problem(503, "Too many follow sessions.", {"Retry-After": str(FULL_AFTER_S)})
            await full(scope, receive, send)
            return
        async with self._viewers.follow(self._space, self._session_id) as following:
            self._reader = _Reader(self._store, following, self._space, self._session_id, self._since_ms)
            await super().__call__(scope, receive, send)

    async def _events(self) -> AsyncIterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        reader, following = self._reader, self._reader.following
        sent_at_s = time.monotonic()
        while True:
            looks = following.looks
            is_up_to_date = False
            try:
                if await self._key() is None:
                    return
                said = await reader.read()
                is_up_to_date = reader.is_up_to_date
            except DatabaseAwayError:
                said = []  # it comes back, and nothing is left out then
            if said is None:
                return
            if said:
                sent_at_s = time.monotonic()
                yield "".join(map(self._final, said))
                continue
            if is_up_to_date and following.is_over:
                yield _event("ended", json.dumps({"session": self._session_id}))
                return
            if time.monotonic() - sent_at_s >= HEARTBEAT_S:
                sent_at_s = time.monotonic()
                yield ": heartbeat\n\n"
            if not await following.has_looked(looks, HEARTBEAT_S):
                return

    def _final(self, utterance: UtteranceOut) -> str:
        self._had_ms = max(self._had_ms, utterance.start_ms)
        return f"id: {self._had_ms}-{self._session_id}\n{_event('final', utterance.model_dump_json())}"


class _Reader:
    """Reads a session for one viewer: first what is there, then what is new.

    Attributes:
        is_up_to_date: Whether all was read that was found.
    """

    def __init__(
        self, store: Store, following: Following, space: str, session_id: str, since_ms: int
    ) -> None:
        self.following = following
        self.is_up_to_date = False
        self._store = store
        self._space = space
        self._session_id = session_id
        self._since_ms = since_ms
        self._place: FinalCursor | None = FinalCursor(since_ms, 0, 0)
        self._change: int | None = None
        # What was read of what is there, by its id, as long as it may be found to be new as well.
        self._revisions: dict[str, int] = {}
        self._read_at = 0

    async def read(self) -> list[UtteranceOut] | None:
        """Some of what was not read yet; None where some of it is forgotten already.

        Raises:
            DatabaseAwayError: The database is away; try again.
        """
        if not self.following.looks:
            return []  # what it finds later is new to it, so that nothing is lost between the two
        if self._change is None:
            self._change = self.following.newest
        while self._place is not None:
            said, self._place = await run_in_threadpool(
                self._store.said, self._space, self._session_id, self._place
            )
            self._revisions |= {each.utterance.id: each.revision for each in said}
            self._read_at = self.following.looks
            if said:
                return [each.utterance for each in said]
        changes = self.following.changes(self._change)
        if changes is None:
            return None
        self._change = self.following.newest
        self.is_up_to_date = True
        new = [
            each.utterance
            for each in changes
            if each.utterance.start_ms >= self._since_ms
            and each.revision > self._revisions.get(each.utterance.id, 0)
        ]
        # A look may have been under way when the last of it was read; the one after it finds nothing of that.
        if self.following.looks >= self._read_at + 2:
            self._revisions.clear()
        return new


def _had_ms(last_id: str, session_id: str) -> int:
    """The session time in the id of an event; 0 if it is none of this session."""
    time_ms, _, session = last_id.partition("-")
    is_ours = session == session_id and time_ms.isascii() and time_ms.isdecimal()
    return min(int(time_ms), MAX_SINCE_MS) if is_ours and len(time_ms) <= len(str(MAX_SINCE_MS)) else 0


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
