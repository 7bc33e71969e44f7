"""Runs of analyses: which sessions want one, how far one is, and what it came to.

Every function takes a connection, as those of `persistence.sessions` do.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, insert, select, update

from agent.analysis.statement import Evidence, Statement
from agent.values import Speaker
from persistence.clock import clock
from persistence.rows import ANALYSIS, EVIDENCE, PROCESSING_ERROR, SESSION, STATEMENT, UTTERANCE
from persistence.tables import AnalysisStatus, SessionStatus

__all__ = [
    "Run",
    "Wanting",
    "begin",
    "fail",
    "finish",
    "get",
    "locked",
    "newest",
    "newest_done",
    "newest_of",
    "problem",
    "retry",
    "spoken_language",
    "statements",
    "step",
    "store",
    "take_over",
    "unfinished",
    "wanting",
]

STAGE = "analysis"  # of a ProcessingError


@dataclass(frozen=True, slots=True)
class Wanting:
    """A session that has ended, and of whose end no run is. `analysed` is the newest version there is."""

    space_id: str
    session_id: str
    ended_at: datetime
    analysed: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an analysis, as the table has it."""

    id: str
    space_id: str
    session_id: str
    version: int
    scenario: str
    scenario_version: int
    engine: str
    language: str
    status: str
    step: str
    attempt: int
    session_ended_at: datetime
    created_at: datetime
    finished_at: datetime | None
    incomplete: Sequence[str]
    statistics: Mapping[str, Any]
    keywords: Sequence[str]
    claims: int
    drops: Mapping[str, int]


def wanting(connection: Connection, *, limit: int, heard_since: datetime | None = None) -> list[Wanting]:
    """The sessions of all spaces that want to be analysed, those first that were heard last.

    Args:
        limit: At most so many.
        heard_since: Look only at those that were heard of since, which an index finds.
    """
    mine = and_(ANALYSIS.c.space_id == SESSION.c.space_id, ANALYSIS.c.session_id == SESSION.c.id)
    of_this_end = select(ANALYSIS.c.id).where(mine, ANALYSIS.c.session_ended_at == SESSION.c.ended_at)
    version = select(func.coalesce(func.max(ANALYSIS.c.version), 0)).where(mine).scalar_subquery()
    query = (
        select(SESSION.c.space_id, SESSION.c.id, SESSION.c.ended_at, version)
        .where(
            SESSION.c.status == SessionStatus.ENDED, SESSION.c.ended_at.is_not(None), ~of_this_end.exists()
        )
        .order_by(SESSION.c.heard_at.desc())
        .limit(limit)
    )
    if heard_since is not None:
        query = query.where(SESSION.c.heard_at >= heard_since)
    return [Wanting(*row) for row in connection.execute(query)]


def begin(
    connection: Connection,
    wants: Wanting,
    *,
    scenario: str,
    scenario_version: int,
    engine: str,
    language: str,
    first_step: str = "",
) -> str:
    """Write down that a session is to be analysed; gives the run's id.

    Raises:
        DatabaseError: On leaving the transaction: somebody else has done so.
    """
    run_id = uuid.uuid4().hex
    connection.execute(
        insert(ANALYSIS).values(
            id=run_id,
            space_id=wants.space_id,
            session_id=wants.session_id,
            version=wants.analysed + 1,
            scenario=scenario,
            scenario_version=scenario_version,
            engine=engine,
            language=language,
            status=AnalysisStatus.PENDING,
            step=first_step,
            attempt=1,
            session_ended_at=wants.ended_at,
            created_at=clock(connection),
            incomplete=[],
            statistics={},
            keywords=[],
            claims=0,
            drops={},
        )
    )
    return run_id


def unfinished(connection: Connection, *, limit: int) -> list[Run]:
    """The runs of all spaces that are to go on, those of the sessions that ended last first."""
    query = (
        _runs()
        .where(ANALYSIS.c.finished_at.is_(None))
        .order_by(ANALYSIS.c.session_ended_at.desc())
        .limit(limit)
    )
    return [_run(row) for row in connection.execute(query)]


def get(connection: Connection, run_id: str) -> Run | None:
    """A run of any space by its id, for the analyst."""
    row = connection.execute(_runs().where(ANALYSIS.c.id == run_id)).one_or_none()
    return None if row is None else _run(row)


def locked(connection: Connection, run_id: str) -> Run | None:
    """The same, for whoever is about to write: nobody else changes it until the transaction ends."""
    row = connection.execute(_runs().where(ANALYSIS.c.id == run_id).with_for_update()).one_or_none()
    return None if row is None else _run(row)


def newest(connection: Connection, space: str, session_id: str) -> Run | None:
    """The newest run of a session."""
    return newest_of(connection, space, [session_id]).get(session_id)


def newest_done(connection: Connection, space: str, session_id: str) -> Run | None:
    """The newest run of a session that is done: one that was begun since may go on, or have failed."""
    query = (
        _runs()
        .where(
            ANALYSIS.c.space_id == space,
            ANALYSIS.c.session_id == session_id,
            ANALYSIS.c.status == AnalysisStatus.DONE,
        )
        .order_by(ANALYSIS.c.version.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _run(row)


def newest_of(connection: Connection, space: str, session_ids: Collection[str]) -> dict[str, Run]:
    """The newest run of each of some sessions that has one."""
    query = (
        _runs()
        .where(ANALYSIS.c.space_id == space, ANALYSIS.c.session_id.in_(session_ids))
        .order_by(ANALYSIS.c.version)
    )
    return {run.session_id: run for run in map(_run, connection.execute(query))}


def statements(connection: Connection, space: str, run_id: str) -> list[Statement]:
    """What a run says, in its order."""
    evidence: dict[int, list[Evidence]] = {}
    for row in connection.execute(
        select(EVIDENCE)
        .where(EVIDENCE.c.space_id == space, EVIDENCE.c.analysis_id == run_id)
        .order_by(EVIDENCE.c.statement, EVIDENCE.c.number)
    ):
        evidence.setdefault(row.statement, []).append(
            Evidence(
                utterance=row.utterance,
                start=row.start_offset,
                end=row.end_offset,
                speaker=Speaker(row.identity, row.name),
                text=row.text,
                start_ms=row.start_ms,
                end_ms=row.end_ms,
            )
        )
    rows = connection.execute(
        select(STATEMENT)
        .where(STATEMENT.c.space_id == space, STATEMENT.c.analysis_id == run_id)
        .order_by(STATEMENT.c.number)
    )
    return [
        Statement(
            kind=row.kind,
            text=row.text,
            evidence=tuple(evidence.get(row.number, ())),
            owner=Speaker(row.owner_identity, row.owner_name) if row.owner_identity else None,
            due=row.due,
            confidence=row.confidence,
            support=row.support,
        )
        for row in rows
    ]


def spoken_language(connection: Connection, space: str, session_id: str) -> str | None:
    """The language in which most was said; None where nothing was."""
    length = func.sum(func.length(UTTERANCE.c.text))
    found = connection.execute(
        select(UTTERANCE.c.language)
        .where(
            UTTERANCE.c.space_id == space, UTTERANCE.c.session_id == session_id, UTTERANCE.c.language != ""
        )
        .group_by(UTTERANCE.c.language)
        .order_by(length.desc(), UTTERANCE.c.language)
        .limit(1)
    ).scalar_one_or_none()
    return None if found is None else str(found)


def step(connection: Connection, run_id: str, name: str) -> None:
    """A step of a run begins."""
    connection.execute(
        update(ANALYSIS)
        .where(ANALYSIS.c.id == run_id)
        # A run that goes on after all, though it was taken for failed, is one that is to be finished.
        .values(status=AnalysisStatus.RUNNING, step=name, finished_at=None)
    )


def store(
    connection: Connection,
    run: Run,
    found: Sequence[Statement],
    *,
    claims: int,
    drops: Mapping[str, int],
    statistics: Mapping[str, Any],
    keywords: Sequence[str],
) -> None:
    """Write down what a run came to, in the place of what it had before. Idempotent."""
    for table in (EVIDENCE, STATEMENT):
        connection.execute(delete(table).where(table.c.analysis_id == run.id))
    connection.execute(
        update(ANALYSIS)
        .where(ANALYSIS.c.id == run.id)
        .values(claims=claims, drops=dict(drops), statistics=dict(statistics), keywords=list(keywords))
    )
    its = {"analysis_id": run.id, "space_id": run.space_id}
    rows = [
        {
            **its,
            "number": number,
            "kind": statement.kind,
            "text": statement.text,
            "owner_identity": statement.owner.identity if statement.owner else "",
            "owner_name": statement.owner.name if statement.owner else "",
            "due": statement.due,
            "confidence": statement.confidence,
            "support": statement.support,
        }
        for number, statement in enumerate(found, 1)
    ]
    pieces = [
        {
            **its,
            "statement": number,
            "number": place,
            "utterance": each.utterance,
            "start_offset": each.start,
            "end_offset": each.end,
            "identity": each.speaker.identity,
            "name": each.speaker.name,
            "text": each.text,
            "start_ms": each.start_ms,
            "end_ms": each.end_ms,
        }
        for number, statement in enumerate(found, 1)
        for place, each in enumerate(statement.evidence, 1)
    ]
    for table, values in ((STATEMENT, rows), (EVIDENCE, pieces)):
        if values:
            connection.execute(insert(table), values)


def finish(connection: Connection, run_id: str, incomplete: Collection[str]) -> None:
    """A run is done, without what `incomplete` names. Idempotent."""
    connection.execute(
        update(ANALYSIS)
        .where(ANALYSIS.c.id == run_id)
        .values(
            status=AnalysisStatus.DONE,
            step="",
            incomplete=sorted(set(incomplete)),
            finished_at=func.coalesce(ANALYSIS.c.finished_at, clock(connection)),
        )
    )


def fail(connection: Connection, run: Run, code: str, message: str) -> None:
    """A step of a run has failed for good; an admin is told, once an attempt.

    Args:
        code: What kind of failure, for programs.
        message: One sentence without a word that somebody said.
    """
    connection.execute(
        update(ANALYSIS)
        .where(ANALYSIS.c.id == run.id)
        .values(status=AnalysisStatus.FAILED, finished_at=clock(connection))
    )
    error_id = _error_id(run)
    known = select(PROCESSING_ERROR.c.id).where(PROCESSING_ERROR.c.id == error_id)
    if connection.execute(known).first() is None:
        connection.execute(
            insert(PROCESSING_ERROR).values(
                id=error_id,
                space_id=run.space_id,
                session_id=run.session_id,
                stage=STAGE,
                code=code,
                message=message,
                at=clock(connection),
                is_read=False,
            )
        )


def problem(connection: Connection, run: Run) -> str:
    """Why a run has failed, as `fail` was told; empty where it has not."""
    if run.status != AnalysisStatus.FAILED:
        return ""
    message = connection.execute(
        select(PROCESSING_ERROR.c.message).where(
            PROCESSING_ERROR.c.space_id == run.space_id, PROCESSING_ERROR.c.id == _error_id(run)
        )
    ).scalar_one_or_none()
    return message or ""


def retry(connection: Connection, run: Run) -> bool:
    """Have a run that failed, or had to do without something, tried again from its first step.

    Returns:
        Whether it was either.
    """
    again = [AnalysisStatus.FAILED, *([AnalysisStatus.DONE] if run.incomplete else [])]
    return _begin_again(connection, run, ANALYSIS.c.status.in_(again))


def take_over(connection: Connection, run: Run) -> bool:
    """Have a run that goes on tried again from its first step, since who does it is gone.

    Returns:
        Whether it still went on, in the same attempt.
    """
    return _begin_again(
        connection, run, and_(ANALYSIS.c.finished_at.is_(None), ANALYSIS.c.attempt == run.attempt)
    )


def _begin_again(connection: Connection, run: Run, condition: ColumnElement[bool]) -> bool:
    begun = connection.execute(
        update(ANALYSIS)
        .where(ANALYSIS.c.id == run.id, ANALYSIS.c.space_id == run.space_id, condition)
        .values(status=AnalysisStatus.PENDING, step="", attempt=ANALYSIS.c.attempt + 1, finished_at=None)
    )
    return begun.rowcount > 0


def _error_id(run: Run) -> str:
    return f"{run.id}-{run.attempt}"


def _runs() -> Select[Any]:
    return select(*(ANALYSIS.c[field.name] for field in fields(Run)))


def _run(row: Row[Any]) -> Run:
    return Run(**row._mapping)
