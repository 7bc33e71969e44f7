"""What is new in the sessions that somebody follows: the database is asked once for all who follow one."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

from starlette.concurrency import run_in_threadpool

from agent.console.store import MAX_UTTERANCES, News, Revised, Store
from agent.errors import DatabaseAwayError

__all__ = ["Following", "Viewers"]

MAX_VIEWERS = 100  # and so of sessions, each of which asks the database once a second for some milliseconds
POLL_S = 1.0
SETTLE_S = 30.0  # after the end, for what is still on its way from the agent's journal
MAX_CHANGES = (
    2 * MAX_UTTERANCES
)  # what two looks may find: some 2 MB, and a viewer has a second for each look


class Following:
    """A session that somebody follows. A task looks for what is new in it, from `start` to `aclose`.

    Attributes:
        viewers: How many follow it.
        looks: How often the task has looked, without those times when the database was away.
        newest: The number of the newest change; they are counted from 1.
        is_over: Whether the session has ended, and nothing is to come any more.
        has_stopped: Whether there will be no further look.
    """

    def __init__(self, store: Store, space: str, session_id: str) -> None:
        self.viewers = 0
        self.looks = 0
        self.newest = 0
        self.is_over = False
        self.has_stopped = False
        self._store = store
        self._space = space
        self._session_id = session_id
        self._seen: dict[str, int] | None = None  # the revision of each utterance, by its id
        self._changes: deque[Revised] = deque(maxlen=MAX_CHANGES)
        self._ended_at_s: float | None = None
        self._failure: Exception | None = None
        self._looked = asyncio.Event()  # another one for each look
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look. What is there already is no change."""
        self._task = asyncio.create_task(self._run(), name="console.following")

    def stop(self) -> None:
        """Tell everybody who waits that there will be no further look. Idempotent."""
        self.has_stopped = True
        self._tell()

    async def aclose(self) -> None:
        """End the task; nobody waits for a query that is under way."""
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def has_looked(self, looks: int, limit_s: float) -> bool:
        """Wait until it has looked more often than so, or the time is over.

        Returns:
            False where there will be no further look: the session was merged into another one, or the server
            ends.

        Raises:
            DatabaseError: A look failed, and not because the database is away.
        """
        try:
            async with asyncio.timeout(limit_s):
                while self.looks <= looks and not self.has_stopped:
                    await self._looked.wait()
        except TimeoutError:
            pass
        if self._failure is not None:
            raise self._failure
        return not self.has_stopped

    def changes(self, after: int) -> list[Revised] | None:
        """What is new or corrected since a change, by its number; None if some of it is forgotten already."""
        forgotten = self.newest - len(self._changes)
        return None if after < forgotten else list(islice(self._changes, after - forgotten, None))

    async def _run(self) -> None:
        try:
            while not self.has_stopped:
                try:
                    news = await run_in_threadpool(self._look)
                except DatabaseAwayError:
                    pass  # it comes back, and nothing is left out then
                else:
                    self._take(news)
                    self._tell()
                await asyncio.sleep(POLL_S)
        except Exception as error:  # noqa: BLE001  of whatever kind: it is for those who wait
            self._failure = error
            self.stop()

    def _look(self) -> News | None:
        if self._seen is None:
            self._seen = self._store.revisions(self._space, self._session_id)
        return self._store.news(self._space, self._session_id, self._seen)

    def _take(self, news: News | None) -> None:
        if news is None or news.session_id != self._session_id or self._seen is None:
            self.has_stopped = True
            return
        for change in news.utterances:
            self._seen[change.utterance.id] = change.revision
        self._changes.extend(news.utterances)
        self.newest += len(news.utterances)
        self._ended_at_s = (self._ended_at_s or time.monotonic()) if news.has_ended else None
        has_settled = self._ended_at_s is not None and time.monotonic() - self._ended_at_s >= SETTLE_S
        self.is_over = news.is_complete or (has_settled and len(news.utterances) < MAX_UTTERANCES)
        self.looks += 1

    def _tell(self) -> None:
        self._looked.set()
        self._looked = asyncio.Event()


class Viewers:
    """Who follows sessions, and when they are to stop.

    Args:
        store: Asked in threads.
    """

    def __init__(self, store: Store) -> None:
        self.count = 0
        self._store = store
        self._sessions: dict[tuple[str, str], Following] = {}
        self._has_closed = False

    @property
    def is_full(self) -> bool:
        return self.count >= MAX_VIEWERS

    def close(self) -> None:
        """End all streams; browsers connect again. Idempotent."""
        self._has_closed = True
        for following in self._sessions.values():
            following.stop()

    @asynccontextmanager
    async def follow(self, space: str, session_id: str) -> AsyncIterator[Following]:
        """Follow a session, together with all who do; what is looked for ends with the last of them.

        Args:
            space: Whose session it is.
            session_id: Which one, not one that was merged.
        """
        place = (space, session_id)
        following = self._sessions.get(place)
        if following is None or following.has_stopped:
            following = self._sessions[place] = Following(self._store, space, session_id)
            if self._has_closed:
                following.stop()
            else:
                following.start()
        self.count += 1
        following.viewers += 1
        try:
            yield following
        finally:
            self.count -= 1
            following.viewers -= 1
            if not following.viewers:
                if self._sessions.get(place) is following:
                    del self._sessions[place]
                await following.aclose()
