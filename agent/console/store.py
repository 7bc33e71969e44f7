"""What the API and the pages show, read from the database. Everything here blocks; call it in a thread.

Every method takes the space of who asks, and knows nothing of what lies in another one. A session that was
merged is shown as the one that it became.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from agent.analysis.scenario import Scenario
from agent.analysis.statement import Evidence, Statement
from agent.config import Settings
from agent.console import cursor
from agent.console.models import (
    AnalysisOut,
    AnalysisSummary,
    EvidenceOut,
    GapOut,
    KindOut,
    RecordingOut,
    SessionOut,
    SessionPage,
    SessionSummaryOut,
    SpeakerOut,
    StatementOut,
    StatisticsOut,
    TranscriptPage,
    UtteranceOut,
)
from agent.values import Speaker
from persistence import analyses, catalogue, commands, renderings, transcripts
from persistence.analyses import Run
from persistence.catalogue import SessionDetail, SessionSummary
from persistence.database import Database
from persistence.records import Final
from persistence.tables import AnalysisStatus, SessionStatus
from persistence.transcripts import FinalCursor

__all__ = [
    "DEFAULT_SESSIONS",
    "DEFAULT_UTTERANCES",
    "MAX_SESSIONS",
    "MAX_UTTERANCES",
    "Latest",
    "News",
    "Revised",
    "Store",
]

DEFAULT_SESSIONS = 50  # of a page
MAX_SESSIONS = 200
DEFAULT_UTTERANCES = 500
MAX_UTTERANCES = 2_000  # about 600 kB of JSON


@dataclass(frozen=True, slots=True)
class Revised:
    """An utterance, and which revision of it this is."""

    utterance: UtteranceOut
    revision: int


@dataclass(frozen=True, slots=True)
class Latest:
    """What was said last in a session.

    Attributes:
        utterances: By their time.
        speakers: Everybody who spoke in the session, in the order in which they did first.
        is_cut: Whether something was said before.
    """

    utterances: tuple[UtteranceOut, ...]
    speakers: tuple[SpeakerOut, ...]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class News:
    """What somebody who follows a session does not have yet.

    Attributes:
        session_id: Which session it is by now: another one where it was merged.
        utterances: By their time.
        has_ended: Whether the session is over.
        is_complete: Whether nothing more can come.
    """

    session_id: str
    utterances: tuple[Revised, ...]
    has_ended: bool
    is_complete: bool


class Store:
    """Sessions and what was made of them, as the values that the API answers.

    Args:
        database: Where they are.
        settings: Say where audio lies.
        scenarios: By their ids: they name the kinds of statements. A kind that none of them names is shown
            by its id.
    """

    def __init__(self, database: Database, settings: Settings, scenarios: Mapping[str, Scenario]) -> None:
        self._database = database
        self._renderings_dir = settings.renderings_dir
        self._scenarios = scenarios

    def sessions(
        self, space: str, after: str | None = None, limit: int = DEFAULT_SESSIONS, room: str | None = None
    ) -> SessionPage:
        """Some sessions, the newest first.

        Args:
            after: What the page before gave as `next`.
            limit: At most so many, 1 to `MAX_SESSIONS`.
            room: Of this one alone.

        Raises:
            InputError: The cursor is none of ours.
        """
        place = None if after is None else cursor.to_sessions(after)
        with self._database.read() as connection:
            page = catalogue.list_sessions(connection, space, after=place, limit=limit, room=room)
            runs = analyses.newest_of(connection, space, [summary.id for summary in page.items])
        return SessionPage(
            sessions=tuple(_summary(summary, runs.get(summary.id)) for summary in page.items),
            next=None if page.next is None else cursor.of_sessions(page.next),
        )

    def session(self, space: str, session_id: str) -> SessionOut | None:
        """All about a session but what was said; None if there is none."""
        with self._database.read() as connection:
            detail = catalogue.get_session(connection, space, session_id)
            if detail is None:
                return None
            run = analyses.newest(connection, space, detail.summary.id)
            rendering = renderings.get(connection, space, detail.summary.id)
        recording = None
        if rendering is not None and self._file(rendering.path) is not None:
            recording = RecordingOut(
                url=f"/api/v1/sessions/{detail.summary.id}/recording",
                media_type=rendering.media_type,
                duration_ms=rendering.duration_ms,
                size_bytes=rendering.size_bytes,
            )
        return SessionOut(
            **dict(_summary(detail.summary, run)),
            people=_people(detail),
            finals=detail.finals,
            coverage=_coverage(detail),
            gaps=tuple(
                GapOut(start_ms=gap.start_ms, end_ms=gap.end_ms, identity=gap.identity, reason=gap.reason)
                for gap in detail.gaps
            ),
            recording=recording,
        )

    def transcript(
        self, space: str, session_id: str, after: str | None = None, limit: int = DEFAULT_UTTERANCES
    ) -> TranscriptPage | None:
        """Some of what was said in a session, by its time; None if there is no such session.

        Args:
            after: What the page before gave as `next`.
            limit: At most so many, 1 to `MAX_UTTERANCES`.

        Raises:
            InputError: The cursor is none of ours.
        """
        place = None if after is None else cursor.to_finals(after)
        with self._database.read() as connection:
            found = _found(connection, space, session_id)
            if found is None:
                return None
            page = transcripts.finals(connection, space, found, after=place, limit=limit)
        return TranscriptPage(
            utterances=tuple(map(_utterance, page.items)),
            next=None if page.next is None else cursor.of_finals(page.next),
        )

    def latest(self, space: str, session_id: str, limit: int) -> Latest | None:
        """What was said last in a session; None if there is no such session.

        Args:
            limit: At most so many utterances.
        """
        with self._database.read() as connection:
            found = _found(connection, space, session_id)
            if found is None:
                return None
            finals = transcripts.newest(connection, space, found, limit=limit + 1)
            # After the words, so that nobody who speaks meanwhile is missing here.
            speakers = transcripts.speakers(connection, space, found)
        return Latest(
            utterances=tuple(map(_utterance, finals[-limit:])),
            speakers=tuple(map(_speaker, speakers)),
            is_cut=len(finals) > limit,
        )

    def analysis(self, space: str, session_id: str) -> AnalysisOut | None:
        """The newest analysis of a session; None if it has none, or is none.

        As long as the newest run has nothing to say, it says what the newest says that is done.
        """
        with self._database.read() as connection:
            found = _found(connection, space, session_id)
            newest = None if found is None else analyses.newest(connection, space, found)
            if found is None or newest is None:
                return None
            run = newest
            # One that failed at its last step, or is tried again, has its statements already.
            if run.status != AnalysisStatus.DONE and not run.statistics:
                run = analyses.newest_done(connection, space, found) or newest
            statements = analyses.statements(connection, space, run.id)
            problem = analyses.problem(connection, newest)
        return AnalysisOut(
            session=run.session_id,
            version=run.version,
            newest_version=newest.version,
            scenario=run.scenario,
            engine=run.engine,
            language=run.language,
            status=AnalysisStatus(newest.status).value,
            step=newest.step,
            created_at=run.created_at,
            finished_at=run.finished_at,
            kinds=self._kinds(run, statements),
            statements=tuple(map(_statement, statements)),
            keywords=tuple(run.keywords),
            statistics=StatisticsOut.model_validate(run.statistics) if run.statistics else None,
            claims=run.claims,
            drops=dict(run.drops),
            incomplete=tuple(run.incomplete),
            problem=problem,
        )

    def recording(self, space: str, session_id: str) -> tuple[Path, str] | None:
        """The file with everybody's audio, and its media type; None if there is none."""
        with self._database.read() as connection:
            found = _found(connection, space, session_id)
            rendering = None if found is None else renderings.get(connection, space, found)
        path = None if rendering is None else self._file(rendering.path)
        return None if rendering is None or path is None else (path, rendering.media_type)

    def retry(self, space: str, session_id: str) -> bool | None:
        """Have the newest analysis of a session tried again.

        Returns:
            Whether it had failed, or lacked something; None if the session has none, or is none.
        """
        with self._database.write() as connection:
            found = _found(connection, space, session_id)
            run = None if found is None else analyses.newest(connection, space, found)
            return None if run is None else analyses.retry(connection, run)

    def resolve(self, space: str, session_id: str) -> str | None:
        """The session that an id means, which is another one where it was merged; None if there is none."""
        with self._database.read() as connection:
            return _found(connection, space, session_id)

    def said(
        self, space: str, session_id: str, after: FinalCursor
    ) -> tuple[tuple[Revised, ...], FinalCursor | None]:
        """Some of what was said in a session, by its time, and where the rest begins; None at the end.

        Args:
            session_id: Not one that was merged.
            after: Where to begin.
        """
        with self._database.read() as connection:
            page = transcripts.finals(connection, space, session_id, after=after, limit=MAX_UTTERANCES)
        return tuple(map(_revised, page.items)), page.next

    def revisions(self, space: str, session_id: str) -> dict[str, int]:
        """The revision of each utterance of a session, by its id.

        Args:
            session_id: Not one that was merged.
        """
        with self._database.read() as connection:
            return transcripts.revisions(connection, space, session_id)

    def news(self, space: str, session_id: str, seen: Mapping[str, int]) -> News | None:
        """What was said in a session beyond what somebody has; None if there is no such session.

        Args:
            seen: The revision of each utterance that they have, by its id.

        Returns:
            At most `MAX_UTTERANCES`; who gets so many asks again.
        """
        with self._database.read() as connection:
            found = _found(connection, space, session_id)
            if found is None:
                return None
            finals = transcripts.unseen(connection, space, found, seen, limit=MAX_UTTERANCES)
            return News(
                session_id=found,
                utterances=tuple(map(_revised, finals)),
                has_ended=catalogue.has_ended(connection, space, found),
                is_complete=(
                    len(finals) < MAX_UTTERANCES
                    and commands.ended_by(connection, space, found) is not None
                    and catalogue.is_complete(connection, space, found)
                ),
            )

    def _file(self, path: str) -> Path | None:
        """A file in the folder of renderings; None for what is not there, or leads out of it."""
        folder = self._renderings_dir.resolve()
        file = (folder / path).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None

    def _kinds(self, run: Run, statements: Sequence[Statement]) -> tuple[KindOut, ...]:
        """The kinds of the scenario, and those of statements that it does not have."""
        scenario = self._scenarios.get(run.scenario)
        kinds: dict[str, KindOut] = {
            kind.id: KindOut(id=kind.id, title=kind.title, has_owner=kind.has_owner)
            for kind in (scenario.kinds if scenario else ())
        }
        for kind in (statement.kind for statement in statements):
            # A scenario may have changed since, or be gone: what the statements have is shown all the same.
            kinds.setdefault(kind, KindOut(id=kind, title=kind.capitalize(), has_owner=True))
        return tuple(kinds.values())


def _found(connection: Connection, space: str, session_id: str) -> str | None:
    return catalogue.resolve(connection, space, session_id)


def _summary(summary: SessionSummary, run: Run | None) -> SessionSummaryOut:
    ended_at = summary.ended_at
    return SessionSummaryOut(
        id=summary.id,
        room=summary.room,
        status=SessionStatus(summary.status).value,
        languages=summary.languages,
        started_at=summary.started_at,
        ended_at=ended_at,
        ended_by=summary.ended_by,
        duration_ms=(
            None
            if ended_at is None
            else max(round((ended_at - summary.started_at).total_seconds() * 1000), 0)
        ),
        analysis=(
            None
            if run is None
            else AnalysisSummary(status=AnalysisStatus(run.status).value, step=run.step, version=run.version)
        ),
    )


def _people(detail: SessionDetail) -> tuple[SpeakerOut, ...]:
    """Who was there, in the order in which they came; by the name that they had last."""
    names = {presence.identity: presence.name for presence in detail.presences}
    return tuple(SpeakerOut(identity=identity, name=name) for identity, name in names.items())


def _coverage(detail: SessionDetail) -> float | None:
    speech_ms = sum(usage.speech_ms for usage in detail.usage)
    covered_ms = sum(usage.covered_ms for usage in detail.usage)
    return min(covered_ms / speech_ms, 1.0) if speech_ms else None


def _utterance(final: Final) -> UtteranceOut:
    return UtteranceOut(
        id=final.id,
        speaker=SpeakerOut(identity=final.identity, name=final.name),
        text=final.text,
        language=final.language,
        has_overlap=final.has_overlap,
        start_ms=final.start_ms,
        end_ms=final.end_ms,
    )


def _revised(final: Final) -> Revised:
    return Revised(_utterance(final), final.revision)


def _statement(statement: Statement) -> StatementOut:
    return StatementOut(
        kind=statement.kind,
        text=statement.text,
        owner=None if statement.owner is None else _speaker(statement.owner),
        due=statement.due,
        confidence=statement.confidence,
        support=statement.support,
        evidence=tuple(map(_evidence, statement.evidence)),
    )


def _evidence(evidence: Evidence) -> EvidenceOut:
    return EvidenceOut(
        utterance=evidence.utterance,
        start=evidence.start,
        end=evidence.end,
        speaker=_speaker(evidence.speaker),
        text=evidence.text,
        start_ms=evidence.start_ms,
        end_ms=evidence.end_ms,
    )


def _speaker(speaker: Speaker) -> SpeakerOut:
    return SpeakerOut(identity=speaker.identity, name=speaker.name)
