"""What jobs left behind when they died: it is brought into the database, and their sessions are ended."""

import asyncio
from functools import partial

import structlog

from agent.config import Settings
from agent.errors import DatabaseError, JournalError, LiveKitError, RecordingError
from agent.recording.segment import measure
from agent.room.dispatch import Rooms
from persistence import schema
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.journal.drain import drain_all
from persistence.journal.folder import journals
from persistence.sessions import Lost, end_lost, sweep_candidates
from persistence.stems import OpenStem, close_stem, open_stems

__all__ = ["Recovery", "settle_database"]

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 2.0
LOST_AFTER_S = 60.0  # a job gives a sign of life every ten seconds, and a successor may take as long to come
SETTLE_TIMEOUT_S = 60.0  # what takes longer is gone on with at the next look
CALL_TIMEOUT_S = 15.0
MAX_STEMS = 100  # are closed in one go
CRASH = "crash"  # what cut a segment short whose job died


def settle_database(settings: Settings, database: Database) -> None:
    """Make sure of the tables, or make them where the settings say so. It blocks.

    Raises:
        DatabaseAwayError: The database cannot be used for now.
        DatabaseError: It is none that we can work with.
    """
    if settings.database.upgrade_at_start:
        schema.upgrade(database)
    else:
        schema.check(database)


class Recovery:
    """Looks after this worker's disk, and after sessions that nobody hears any more, as long as it runs.

    Nothing tells reliably that a job has died. What it held does: its journal can be locked by us then.
    """

    def __init__(self, settings: Settings, rooms: Rooms) -> None:
        self._settings = settings
        self._rooms = rooms
        self._database = Database(settings.database_url, connections=settings.database.connections)
        self._thread = DatabaseThread(self._database)
        self._is_ready = False
        self._problem = ""

    async def run(self) -> None:
        """Look again and again, for ever."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_INTERVAL_S)
        finally:
            self._thread.close()

    async def look(self) -> None:
        """Drain what nobody writes any more, complete its audio, and end sessions whose room is gone."""
        try:
            await self._thread.call(self._settle_disk, SETTLE_TIMEOUT_S)
            await self._sweep()
        except (DatabaseError, JournalError, LiveKitError, OSError) as error:
            self._tell(str(error))
        else:
            self._tell("")

    def _settle_disk(self) -> None:
        if not self._is_ready:
            settle_database(self._settings, self._database)
            self._is_ready = True
        drain_all(self._settings.journal_dir, self._database)
        # Looked at before the database: who begins in between has no open segment there yet.
        there = journals(self._settings.journal_dir)
        live = {(journal.session, journal.epoch) for journal in there if not journal.is_damaged}
        with self._database.read() as connection:
            stems = open_stems(connection, self._settings.worker_name, live, limit=MAX_STEMS)
        for stem in stems:
            self._complete(stem)

    def _complete(self, stem: OpenStem) -> None:
        path = self._settings.stems_dir / stem.path
        try:
            duration_ms, size_bytes, ended_by = measure(path), path.stat().st_size, CRASH
        except (RecordingError, OSError) as error:
            log.warning(
                "stem.unreadable", session=stem.session_id, path=stem.path, error=type(error).__name__
            )
            duration_ms, size_bytes, ended_by = 0, 0, "unreadable"
        with self._database.write() as connection:
            close_stem(connection, stem, duration_ms=duration_ms, size_bytes=size_bytes, ended_by=ended_by)

    async def _sweep(self) -> None:
        lost = await self._thread.call(self._lost, CALL_TIMEOUT_S)
        if not lost:
            return
        open_sids = await self._rooms.open_sids(sorted({session.room for session in lost}))
        for session in lost:
            # A room that is still open is without its agent, but its session is not over.
            if not open_sids.isdisjoint(session.sids):
                continue
            if await self._thread.call(partial(self._end, session), CALL_TIMEOUT_S):
                log.info("session.lost", session=session.id, room=session.room)

    def _lost(self) -> list[Lost]:
        with self._database.read() as connection:
            return sweep_candidates(connection, LOST_AFTER_S)

    def _end(self, session: Lost) -> bool:
        with self._database.write() as connection:
            return end_lost(connection, session.id, session.heard_at)

    def _tell(self, problem: str) -> None:
        """Say what keeps us from it once, and again when it is something else."""
        if problem and problem != self._problem:
            log.warning("recovery.waits", problem=problem)
        elif self._problem and not problem:
            log.info("recovery.goes_on")
        self._problem = problem
