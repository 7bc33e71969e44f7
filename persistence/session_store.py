"""Where one live session keeps its records: its journal first, and from there the database."""

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, Self

import structlog

from agent.errors import DatabaseError, JournalError
from agent.values import Storage
from persistence.apply import Applier
from persistence.database_thread import DatabaseThread
from persistence.journal.writer import Journal
from persistence.limited_thread import LimitedThread
from persistence.position import Position
from persistence.records import Begun, Final, Record

__all__ = ["SessionStore"]

log = structlog.get_logger(__name__)

BATCH_INTERVAL_S = 0.3  # between two writes to the database
MAX_BATCH_RECORDS = 1_000  # what has waited for the database goes in at 3000 a second
SIGN_OF_LIFE_S = 10.0  # to the database, while nothing is said
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 5.0
CALL_TIMEOUT_S = 15.0  # of the database: longer than its own limits, by which a call ends as a rule
APPEND_TIMEOUT_S = 1.0  # it takes microseconds; a disk that stands still counts as one that is full
SYNC_TIMEOUT_S = 10.0
CREATE_TIMEOUT_S = 2.0
DIRECT_TIMEOUT_S = 2.0  # for a final that only the database can keep: viewers wait for it
JOURNAL_RETRY_S = 1.0  # a disk that was full may have room again
MAX_NOTES = 10_000  # hours of comings and goings while neither disk nor database take anything
DIRECT_NOTES = 500  # of these with a final that viewers wait for
CLOSE_TIMEOUT_S = 5.0  # for the rest to reach the database; what does not is brought over by the worker


class SessionStore:
    """The records of one epoch of a session, in the order in which they were given.

    The journal takes them at once; a writer follows it and brings them into the database, a batch at a time.
    While the journal takes nothing, they go to the database directly. Nothing here blocks the event loop.
    Use it as an async context manager, which ends when all is where it can be.

    Args:
        begun: The first record.
        new_journal: Makes the journal. Called in a thread, and again later where it raises a JournalError.
        database: For this session alone; closed at the end.
        sync: Whether the journal is on the disk before `keep` returns, or soon afterwards.
        sync_interval_s: How soon.
        prepare: Called in the database's thread before the first batch; again where it raises something.
    """

    def __init__(
        self,
        begun: Begun,
        new_journal: Callable[[], Journal],
        database: DatabaseThread,
        *,
        sync: Literal["interval", "each"],
        sync_interval_s: float,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._begun = begun
        self._prepare = prepare
        self._new_journal = new_journal
        self._database = database
        self._applier = Applier(database.database, begun.space, begun.session, begun.epoch)
        self._syncs_each = sync == "each"
        self._sync_after_s = sync_interval_s / 2  # the sync itself takes a while
        self._journal: Journal | None = None
        self._journal_due_s = 0.0
        self._journal_takes = True
        self._database_takes = not begun.is_provisional
        self._sync_problem = ""
        self._is_refused = False
        self._notes: list[Record] = []
        self._appending = asyncio.Lock()
        self._unsynced = asyncio.Event()
        self._watermark = Position(1, 0)
        self._written_s = float("-inf")
        self._running: list[asyncio.Task[None]] = []
        # Neither a slow sync nor a slow database may hold up an append.
        self._append_thread = LimitedThread("journal-append")
        self._sync_thread = LimitedThread("journal-sync")
        self.dropped_notes = 0

    @property
    def storage(self) -> Storage:
        """Where what is said now is safe."""
        if self._journal_takes:
            return Storage.DATABASE if self._database_takes else Storage.JOURNAL
        return Storage.DATABASE_ONLY if self._database_takes else Storage.NOWHERE

    def note(self, record: Record) -> None:
        """Keep a record that nobody waits for; within a second it is safe, where anything is."""
        if len(self._notes) < MAX_NOTES:
            self._notes.append(record)
        else:
            self.dropped_notes += 1

    async def keep(self, record: Final) -> bool:
        """Keep a final before viewers see it, after all that was noted before; tells whether it is safe."""
        async with self._appending:
            return await self._secure(record)

    async def __aenter__(self) -> Self:
        await self._open_journal()
        self._running = [
            asyncio.create_task(self._sync(), name="store.sync"),
            asyncio.create_task(self._write(), name="store.write"),
        ]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)
        is_applied = await self._bring_over_rest()
        if (journal := self._journal) is not None:
            close = partial(journal.close, is_applied=is_applied, is_refused=self._is_refused)
            try:
                await self._append_thread.call(close, SYNC_TIMEOUT_S)
            except (JournalError, TimeoutError) as error:
                log.warning("journal.not_closed", problem=str(error) or "the disk stands still")
        if not is_applied:
            log.warning("store.left_to_worker", journal=journal is not None, notes=len(self._notes))
        self._database.close()
        self._append_thread.close()
        self._sync_thread.close()

    # --- Into the journal ---------------------------------------------------------------------------------

    async def _secure(self, *finals: Final) -> bool:
        """Bring what was noted, and finals after it, to where a crash cannot take them.

        That is the journal, or else the database; a long list of notes goes there in portions.
        """
        notes = self._notes.copy()
        is_safe = True
        try:
            await self._append([*notes, *finals])
            self._tell_journal(None)
        except JournalError as error:
            self._tell_journal(error)
            del notes[DIRECT_NOTES:]
            apply = partial(self._applier.apply, [self._begun, *notes, *finals], None)
            try:
                refused = await self._database.call(apply, DIRECT_TIMEOUT_S)
            except DatabaseError as error:
                self._tell_database(error)
                return False
            self._tell_database(None)
            is_safe = all(refusal.place <= len(notes) for refusal in refused)
        del self._notes[: len(notes)]
        return is_safe

    async def _append(self, records: Sequence[Record]) -> None:
        journal = self._journal or await self._open_journal()
        if journal is None:
            raise JournalError("there is no journal")
        try:
            await self._append_thread.call(partial(journal.append, records), APPEND_TIMEOUT_S)
            if self._syncs_each:
                await self._sync_thread.call(journal.sync, SYNC_TIMEOUT_S)
        except TimeoutError:
            raise JournalError(f"journal: {journal.path} cannot be written: the disk stands still") from None
        self._unsynced.set()

    async def _open_journal(self) -> Journal | None:
        now_s = asyncio.get_running_loop().time()
        if self._journal is None and now_s >= self._journal_due_s:
            self._journal_due_s = now_s + JOURNAL_RETRY_S
            try:
                await self._append_thread.call(self._create_journal, CREATE_TIMEOUT_S)
            except JournalError as error:
                self._tell_journal(error)
            except TimeoutError:
                self._tell_journal(JournalError("journal: it cannot be made: the disk stands still"))
        return self._journal

    def _create_journal(self) -> None:
        """Runs in a thread: one that comes back too late for its caller has made it all the same."""
        self._journal = self._new_journal()

    async def _sync(self) -> None:
        """Sync what was appended a little later, together with what came meanwhile."""
        wait_s = self._sync_after_s
        while True:
            await self._unsynced.wait()
            await asyncio.sleep(wait_s)
            if (journal := self._journal) is None:
                continue
            self._unsynced.clear()
            try:
                await self._sync_thread.call(journal.sync, SYNC_TIMEOUT_S)
            except Exception as error:  # noqa: BLE001  whatever it is, it is to be synced
                self._tell_sync(str(error) or "the disk stands still")
                self._unsynced.set()
                wait_s = JOURNAL_RETRY_S
            else:
                self._tell_sync("")
                wait_s = self._sync_after_s

    # --- Into the database --------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Follow the journal into the database."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                await self._write_batch()
            except Exception as error:  # noqa: BLE001  whatever it is, what was said is to be written down
                self._tell_database(error)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
            else:
                backoff_s = FIRST_BACKOFF_S
                await asyncio.sleep(BATCH_INTERVAL_S)

    async def _write_batch(self) -> None:
        """Bring the next records over, or give a sign of life where there have been none for long."""
        if self._notes:
            async with self._appending:
                await self._secure()
        loop = asyncio.get_running_loop()
        if self._has_more():
            await self._database.call(self._bring_over, CALL_TIMEOUT_S)
        elif loop.time() - self._written_s >= SIGN_OF_LIFE_S:
            await self._database.call(partial(self._applier.apply, [self._begun], None), CALL_TIMEOUT_S)
        else:
            return
        self._tell_database(None)
        self._written_s = loop.time()

    def _has_more(self) -> bool:
        return self._journal is not None and self._watermark < self._journal.end

    def _bring_over(self) -> None:
        """Runs in the database's thread."""
        assert self._journal is not None
        if self._prepare is not None:
            self._prepare()
            self._prepare = None
        stretch = self._journal.read(self._watermark, max_records=MAX_BATCH_RECORDS)
        for damage in stretch.damages:
            log.error("journal.damaged", place=str(damage))
        if self._applier.apply(stretch.records, stretch.end) or stretch.damages:
            self._is_refused = True
        self._watermark = stretch.end
        if not self._is_refused:  # else the journal alone has something
            self._journal.forget_before(stretch.end)

    async def _bring_over_rest(self) -> bool:
        """Write what is left, within a limit; tells whether everything is in the database."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._notes or self._has_more():
                    await self._write_batch()
                    if self._notes:
                        return False  # neither the journal nor the database takes them
                await self._database.call(self._applier.settle, CALL_TIMEOUT_S)
                return True
        except TimeoutError:
            return False
        except Exception as error:  # noqa: BLE001  as above; the worker brings over the rest
            self._tell_database(error)
            return False

    # --- What is said of it -------------------------------------------------------------------------------

    def _tell_journal(self, error: JournalError | None) -> None:
        if self._journal_takes and error is not None:
            log.error("journal.takes_nothing", problem=str(error))
        elif not self._journal_takes and error is None:
            log.info("journal.takes_again")
        self._journal_takes = error is None

    def _tell_sync(self, problem: str) -> None:
        """A power cut could take what is not synced; a crash cannot."""
        if problem and not self._sync_problem:
            log.error("journal.not_synced", problem=problem)
        elif self._sync_problem and not problem:
            log.info("journal.synced_again")
        self._sync_problem = problem

    def _tell_database(self, error: Exception | None) -> None:
        if self._database_takes and isinstance(error, DatabaseError | JournalError):
            log.warning("database.away", problem=str(error))
        elif self._database_takes and error is not None:
            log.error("store.write_failed", exc_info=error)
        elif not self._database_takes and error is None:
            log.info("database.back")
        self._database_takes = error is None
