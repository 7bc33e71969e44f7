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
from persistence.sessions import Lost, end_lost, settle_orphans, sweep_candidates
from persistence.stems import OpenStem, close_stem, open_stems

__all__ = ["Recovery", "settle_database"]

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 2.0
LOST_AFTER_S = 60.0  # a job gives a sign of life every ten seconds, and a successor may take as long to come
SETTLE_TIMEOUT_S = 60.0  # what takes longer is gone on with at the next look
CALL_TIMEOUT_S = 15.0
MAX_STEMS = 100  # are closed in one go
CRASH = "crash"  # what cut a segment short whose job died
MISSING = "missing"  # a segment whose file is gone


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

    def __init__(self, settings: Settings, worker: str, rooms: Rooms) -> None:
        self._settings = settings
        self._worker = worker
        self._rooms = rooms
        self._database = Database.of(settings)
        self._thread = DatabaseThread(self._database)
        self._is_ready = False
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Look again and again, for ever."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_INTERVAL_S)
        finally:
            self.close()

    def close(self) -> None:
        """Look no more. Idempotent."""
        self._thread.close()

    async def look(self) -> None:
        """Drain what nobody writes any more, complete its audio, and end sessions whose room is gone."""
        for part, look in (("what jobs left", self._look_at_disk), ("lost sessions", self._sweep)):
            try:
                await look()
            except (DatabaseError, JournalError, LiveKitError, OSError) as error:
                self._tell(part, str(error))
            except Exception as error:
                # A fault of ours in one part is no reason to stop looking after the rest.
                if self._tell(part, type(error).__name__):
                    log.exception("recovery.failed", part=part)
            else:
                self._tell(part, "")

    async def _look_at_disk(self) -> None:
        await self._thread.call(self._settle_disk, SETTLE_TIMEOUT_S)

    def _settle_disk(self) -> None:
        if not self._is_ready:
            settle_database(self._settings, self._database)
            self._is_ready = True
        folder = self._settings.journal_dir
        for report in drain_all(folder, self._database):
            self._tell(report.journal.path.name, report.problem)
        with self._database.write() as connection:
            # Read when writers wait for us: whoever begins after this is too young to be an orphan.
            there = {(info.session, info.epoch) for info in journals(folder) if not info.is_damaged}
            settle_orphans(connection, self._worker, there, older_than_s=LOST_AFTER_S)
        with self._database.read() as connection:
            stems = open_stems(connection, self._worker, limit=MAX_STEMS)
        for stem in stems:
            self._complete(stem)

    def _complete(self, stem: OpenStem) -> None:
        path = self._settings.stems_dir / stem.path
        try:
            duration_ms, size_bytes, ended_by = measure(path), path.stat().st_size, CRASH
        except (RecordingError, OSError) as error:
            if path.exists() or not self._settings.stems_dir.is_dir():
                self._tell(stem.path, f"{stem.path} cannot be read: {error}")
                return  # a disk that fails, or is not mounted yet
            duration_ms, size_bytes, ended_by = 0, 0, MISSING
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

    def _tell(self, part: str, problem: str) -> bool:
        """Say a problem once, and when it is over; tells whether it is a new one."""
        if problem == self._problems.get(part, ""):
            return False
        if problem:
            log.warning("recovery.waits", part=part, problem=problem)
            self._problems[part] = problem
        else:
            log.info("recovery.goes_on", part=part)
            del self._problems[part]
        return bool(problem)
