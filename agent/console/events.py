"""Following a session while it goes on: its captions as Server-Sent Events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from agent.console.models import UtteranceOut
from agent.console.problems import problem
from agent.console.store import MAX_UTTERANCES, News, Store
from agent.errors import DatabaseAwayError
from persistence.api_keys import ApiKey

__all__ = ["EventStream", "Viewers"]

MAX_VIEWERS = 100  # each asks the database once a second, which takes some milliseconds
POLL_S = 1.0
HEARTBEAT_S = 15.0  # proxies give up a connection on which nothing comes for 30 s or more
SETTLE_S = 30.0  # after the end, for what is still on its way from the agent's journal
RETRY_MS = 2_000  # when a browser connects again
FULL_AFTER_S = 30


class Viewers:
    """How many follow sessions, and when they are to stop."""

    def __init__(self) -> None:
        self.count = 0
        self._closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self.count >= MAX_VIEWERS

    def close(self) -> None:
        """End all streams; browsers connect again. Idempotent."""
        self._closing.set()

    async def has_closed_after(self, seconds: float) -> bool:
        """Wait so long, or until the end, and tell which it was."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return False
        return True


class EventStream(StreamingResponse):
    """The captions of a session, each as a `final` event, and `ended` at the end.

    It begins with all that was said so far, and tells each utterance once in each revision: whoever connects
    again knows what they have by its id. It stops without `ended` where the session was merged into another
    one, the key was revoked or the server ends: the browser connects again, and is told why.

    Args:
        viewers: Counts it; where they are too many it answers 503.
        store: Asked in a thread.
        key: What is known of the key; None where it is worth nothing any more. Asked in a thread.
        space: Whose session it is.
        session_id: Which one, not one that was merged.
    """

    def __init__(
        self, viewers: Viewers, store: Store, key: Callable[[], ApiKey | None], space: str, session_id: str
    ) -> None:
        self._viewers = viewers
        self._store = store
        self._key = key
        self._space = space
        self._session_id = session_id
        super().__init__(self._events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._viewers.is_full:
            full = problem(503, "Too many follow sessions.", {"Retry-After": str(FULL_AFTER_S)})
            await full(scope, receive, send)
            return
        self._viewers.count += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._viewers.count -= 1

    async def _events(self) -> AsyncIterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        seen: dict[str, int] = {}
        sent_at_s = time.monotonic()
        ended_at_s: float | None = None
        while True:
            try:
                news = await run_in_threadpool(self._look, seen)
            except DatabaseAwayError:
                pass  # it comes back, and nothing is left out then
            else:
                if news is None or news.session_id != self._session_id:
                    return
                for utterance, revision in news.utterances:
                    seen[utterance.id] = revision
                if news.utterances:
                    sent_at_s = time.monotonic()
                    yield "".join(_final(utterance) for utterance, _ in news.utterances)
                if len(news.utterances) >= MAX_UTTERANCES:
                    continue
                ended_at_s = (ended_at_s or time.monotonic()) if news.has_ended else None
                is_over = ended_at_s is not None and time.monotonic() - ended_at_s >= SETTLE_S
                if news.is_complete or is_over:
                    yield _event("ended", json.dumps({"session": self._session_id}))
                    return
            if time.monotonic() - sent_at_s >= HEARTBEAT_S:
                sent_at_s = time.monotonic()
                yield ": heartbeat\n\n"
            if await self._viewers.has_closed_after(POLL_S):
                return

    def _look(self, seen: dict[str, int]) -> News | None:
        return None if self._key() is None else self._store.news(self._space, self._session_id, seen)


def _final(utterance: UtteranceOut) -> str:
    return _event("final", utterance.model_dump_json())


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
