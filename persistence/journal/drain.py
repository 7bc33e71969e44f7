"""Bringing what a process left behind into the database. Everything here blocks; call it in a thread."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.errors import JournalError
from persistence import sessions
from persistence.apply import Applier
from persistence.database import Database
from persistence.journal.folder import (
    JournalInfo,
    aside,
    claim,
    clean,
    journals,
    remove,
    set_aside,
)
from persistence.journal.line import Damage, Entry
from persistence.journal.reading import read_begun, read_segments, start
from persistence.records import Begun, Failure, Final

__all__ = ["DrainReport", "drain", "drain_all", "is_there", "last_seqs"]

log = structlog.get_logger(__name__)

NEVER = datetime.max.replace(tzinfo=UTC)
BATCH_RECORDS = 500  # in one transaction: some 100 ms


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What became of a journal.

    Args:
        journal: It, as it was found.
        records: How many the database has taken now, `finals` among them.
        refused: How many the database refuses for ever.
        damages: What could not be read.
        is_removed: Whether everything is in the database, and the journal is gone.
        problem: Why it is still there, in a sentence; empty where it is not.
    """

    journal: JournalInfo
    records: int = 0
    finals: int = 0
    refused: int = 0
    damages: tuple[Damage, ...] = ()
    is_removed: bool = False
    problem: str = ""


def drain_all(
    folder: Path,
    database: Database,
    *,
    room: str | None = None,
    progress: Callable[[DrainReport], None] | None = None,
) -> list[DrainReport]:
    """Drain every journal that nobody else holds, the oldest first; those that are kept aside stay there.

    Args:
        folder: Where all journals are.
        database: Where their records go.
        room: The room whose journals are meant; None for all.
        progress: Told of each journal when it is done.

    Raises:
        DatabaseError: The database is away, or is none of ours; what it has not taken stays where it is.
        JournalError: The folder cannot be read.
    """
    clean(folder)
    reports = []
    for info in _oldest_first(info for info in _in_use(folder, room) if not _is_held(info)):
        try:
            report = drain(info, database)
        except JournalError as error:
            report = DrainReport(info, problem=str(error))
        if report is not None:
            reports.append(report)
            if progress is not None:
                progress(report)
    return reports


def is_there(folder: Path, room: str) -> bool:
    """Whether a journal of this room lies there, whoever holds it.

    Raises:
        JournalError: The folder cannot be read.
    """
    return any(True for _ in _in_use(folder, room))


def last_seqs(folder: Path, room: str) -> dict[str, int]:
    """The last `seq` of each session in the journals of this room, whoever holds them.

    Raises:
        JournalError: The disk does not give them back.
    """
    found: dict[str, int] = {}
    for info in _in_use(folder, room):
        for part in read_segments(info, start(info)):
            for entry in part.entries:
                if isinstance(entry.record, Final):
                    found[info.session] = max(found.get(info.session, 0), entry.record.seq)
    return found


def drain(info: JournalInfo, database: Database) -> DrainReport | None:
    """Bring one journal into the database and remove it.

    One that has damages, or records that the database refuses, is brought over as far as it can be and then
    kept aside under another name.

    Returns:
        None where somebody else holds it, or it is gone.

    Raises:
        DatabaseError: As for `drain_all`.
        JournalError: The disk fails.
    """
    with claim(info) as ours:
        return _drain(ours, database) if ours is not None else None


def _in_use(folder: Path, room: str | None) -> Iterator[JournalInfo]:
    """The journals, of one room or of all, that are not kept aside."""
    for info in journals(folder):
        if not info.is_damaged and (room is None or ((begun := _begun(info)) and begun.room == room)):
            yield info


def _is_held(info: JournalInfo) -> bool:
    try:
        return info.is_live
    except JournalError:
        return False  # what is wrong with it is told when it is drained


def _oldest_first(found: Iterable[JournalInfo]) -> list[JournalInfo]:
    def age(info: JournalInfo) -> tuple[datetime, int]:
        begun = _begun(info)
        return begun.started_at if begun is not None else NEVER, info.epoch

    return sorted(found, key=age)


def _begun(info: JournalInfo) -> Begun | None:
    try:
        return read_begun(info)
    except JournalError:
        return None  # likewise


def _drain(info: JournalInfo, database: Database) -> DrainReport:
    if (space := _placed(info, database)) is None:
        if not info.segments:  # it was almost removed
            return _removed(DrainReport(info))
        lost = Damage(start(info), "nothing says which session this is")
        return _kept_aside(DrainReport(info, damages=(lost,)), None)
    applier = Applier(database, space, info.session, info.epoch, is_live=False)
    watermark = applier.watermark()
    drained, refused = Counter[str](), Counter[str]()
    damages: list[Damage] = []
    # Damages are looked for everywhere: an earlier try may have gone past them before the database went away.
    for found in read_segments(info, min(watermark, start(info))):
        for batch in _batches([entry for entry in found.entries if entry.end > watermark]):
            records = [entry.record for entry in batch]
            refused.update(refusal.kind for refusal in applier.apply(records, batch[-1].end))
            drained.update(record.kind for record in records)
        damages += found.damages
    applier.settle()
    drained -= refused
    report = DrainReport(info, drained.total(), drained["final"], refused.total(), tuple(damages))
    return _kept_aside(report, applier) if damages or refused else _removed(report)


def _placed(info: JournalInfo, database: Database) -> str | None:
    """See to it that the database knows a journal; tells its space, or None where nobody can."""
    begun = read_begun(info)
    if begun is None:
        with database.read() as connection:
            return sessions.space_of(connection, info.session, info.epoch)
    refused = Applier(database, begun.space, info.session, info.epoch, is_live=False).apply([begun], None)
    return begun.space if not refused else None


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    return (entries[at : at + BATCH_RECORDS] for at in range(0, len(entries), BATCH_RECORDS))


def _removed(report: DrainReport) -> DrainReport:
    info = report.journal
    try:
        remove(info.path, info.segments)
    except JournalError as error:
        return replace(report, problem=f"{error}; the database has all of it: remove it yourself")
    log.info("journal.drained", journal=info.path.name, records=report.records, finals=report.finals)
    return replace(report, is_removed=True)


def _kept_aside(report: DrainReport, applier: Applier | None) -> DrainReport:
    """Tell what could not be brought over, and keep the journal where it is not drained again."""
    info = report.journal
    lacks = []
    if report.damages:
        lacks.append(f"{len(report.damages)} damaged places, the first one in {report.damages[0]}")
    if report.refused:
        lacks.append(f"{report.refused} records that the database refuses")
    problem = (
        f"journal: {info.path.name} has {' and '.join(lacks)}; what could be read is in the database, "
        f"and the journal is kept as {aside(info.path)}"
    )
    if report.damages and applier is not None:
        applier.apply([_failure(info, problem)], None)
    set_aside(info.path)
    _log(report)  # not before: where that fails, all of this is done again and again
    return replace(report, problem=problem)


def _log(report: DrainReport) -> None:
    for damage in report.damages:
        log.error(
            "journal.damaged",
            journal=report.journal.path.name,
            segment=damage.position.segment,
            offset_bytes=damage.position.offset_bytes,
            reason=damage.reason,
        )
    if report.refused:
        log.error("journal.refused", journal=report.journal.path.name, records=report.refused)


def _failure(info: JournalInfo, problem: str) -> Failure:
    return Failure(
        id=f"journal-{info.session}-{info.epoch}",
        stage="journal",
        code="damaged",
        message=problem,
        at=datetime.now(UTC),
    )
