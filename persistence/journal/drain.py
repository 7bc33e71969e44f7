"""Bringing what a process left behind into the database. Everything here blocks; call it in a thread."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from persistence.position import Position
from persistence.records import Begun, Failure

__all__ = ["DrainReport", "drain", "drain_all", "is_there"]

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
        torn: Where the last line begins, if it was never wholly written.
        is_removed: Whether everything is in the database, and the journal is gone.
        problem: Why it is still there, in a sentence; empty where it is not.
    """

    journal: JournalInfo
    records: int = 0
    finals: int = 0
    refused: int = 0
    damages: tuple[Damage, ...] = ()
    torn: Position | None = None
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
    reports = []
    for info in _oldest_first(folder, room):
        try:
            report = drain(info, database)
        except JournalError as error:
            report = DrainReport(info, problem=str(error))
            log.error("journal.not_drained", journal=info.path.name, problem=report.problem)
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
    return bool(_oldest_first(folder, room))


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


def _oldest_first(folder: Path, room: str | None) -> list[JournalInfo]:
    clean(folder)
    found = [(_begun(info), info) for info in journals(folder) if not info.is_damaged]
    if room is not None:
        found = [(begun, info) for begun, info in found if begun is not None and begun.room == room]
    found.sort(key=lambda item: (item[0].started_at if item[0] else NEVER, item[1].epoch))
    return [info for _, info in found]


def _begun(info: JournalInfo) -> Begun | None:
    try:
        return read_begun(info)
    except JournalError:
        return None  # what is wrong with it is told when it is drained


def _drain(info: JournalInfo, database: Database) -> DrainReport:
    applier = Applier(database, info.session, info.epoch, is_live=False)
    if (begun := read_begun(info)) is not None:
        applier.apply([begun], None)
    with database.read() as connection:
        placed = sessions.placement(connection, info.session, info.epoch)
    if placed is None and info.segments:
        lost = Damage(start(info), "nothing says which session this is")
        return _kept_aside(DrainReport(info, damages=(lost,)), None)
    watermark = placed.watermark if placed is not None else start(info)
    drained, refused = Counter[str](), Counter[str]()
    damages: list[Damage] = []
    torn = None
    # Damages are looked for everywhere: an earlier try may have gone past them before the database went away.
    for found in read_segments(info, min(watermark, start(info))):
        for batch in _batches([entry for entry in found.entries if entry.end > watermark]):
            records = [entry.record for entry in batch]
            refused.update(refusal.kind for refusal in applier.apply(records, batch[-1].end))
            drained.update(record.kind for record in records)
        damages += found.damages
        torn = found.torn
    applier.settle()
    drained -= refused
    report = DrainReport(info, drained.total(), drained["final"], refused.total(), tuple(damages), torn)
    return _kept_aside(report, applier) if damages or refused else _removed(report)


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    return (entries[at : at + BATCH_RECORDS] for at in range(0, len(entries), BATCH_RECORDS))


def _removed(report: DrainReport) -> DrainReport:
    info = report.journal
    try:
        remove(info.path, info.segments)
    except JournalError as error:
        problem = f"{error}; the database has all of it: remove it yourself"
        log.warning("journal.not_removed", journal=info.path.name, problem=problem)
        return replace(report, problem=problem)
    log.info("journal.drained", journal=info.path.name, records=report.records, finals=report.finals)
    return replace(report, is_removed=True)


def _kept_aside(report: DrainReport, applier: Applier | None) -> DrainReport:
    """Tell what could not be brought over, and keep the journal where it is not drained again."""
    info = report.journal
    for damage in report.damages:
        log.error(
            "journal.damaged",
            journal=info.path.name,
            segment=damage.position.segment,
            offset_bytes=damage.position.offset_bytes,
            reason=damage.reason,
        )
    if report.refused:
        log.error("journal.refused", journal=info.path.name, records=report.refused)
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
    return replace(report, problem=problem)


def _failure(info: JournalInfo, problem: str) -> Failure:
    return Failure(
        id=f"journal-{info.session}-{info.epoch}",
        stage="journal",
        code="damaged",
        message=problem,
        at=datetime.now(UTC),
    )
