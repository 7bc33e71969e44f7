"""A session's values as the console shows them, made up for tests."""

from datetime import UTC, datetime

from agent.console.models import (
    AnalysisOut,
    EvidenceOut,
    GapOut,
    KindOut,
    SessionOut,
    SpeakerOut,
    StatementOut,
    UtteranceOut,
)

__all__ = ["ADA", "BEN", "analysis", "evidence", "session", "statement", "utterance"]

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
ADA, BEN = SpeakerOut(identity="ada", name="Ada Lovelace"), SpeakerOut(identity="ben", name="Ben")


def utterance(number: int, speaker: SpeakerOut, text: str, start_ms: int = -1) -> UtteranceOut:
    start_ms = start_ms if start_ms >= 0 else 1_000 * number
    return UtteranceOut(
        id=f"1-{number}",
        speaker=speaker,
        text=text,
        language="en",
        has_overlap=False,
        start_ms=start_ms,
        end_ms=start_ms + 900,
    )


def session(*gaps: GapOut) -> SessionOut:
    return SessionOut(
        id="s",
        room="standup",
        status="ended",
        languages=("en",),
        started_at=AT,
        ended_at=AT,
        ended_by="room_closed",
        duration_ms=60_000,
        analysis=None,
        people=(ADA, BEN),
        finals=1,
        coverage=None,
        gaps=gaps,
        recording=None,
    )


def analysis(*statements: StatementOut) -> AnalysisOut:
    return AnalysisOut(
        session="s",
        version=1,
        newest_version=1,
        scenario="meeting",
        engine="extractive",
        language="en",
        status="done",
        step="",
        created_at=AT,
        finished_at=AT,
        kinds=(
            KindOut(id="decision", title="Decisions", has_owner=False),
            KindOut(id="action", title="Actions", has_owner=True),
            KindOut(id="risk", title="Risks", has_owner=False),
        ),
        statements=statements,
        keywords=(),
        statistics=None,
        claims=len(statements),
        drops={},
        incomplete=(),
        problem="",
    )


def statement(kind: str, text: str, *evidence: EvidenceOut, owner: SpeakerOut | None = None) -> StatementOut:
    return StatementOut(
        kind=kind, text=text, owner=owner, due="", confidence=1.0, support="lexical", evidence=evidence
    )


def evidence(said: UtteranceOut, start: int, end: int) -> EvidenceOut:
    return EvidenceOut(
        utterance=said.id,
        start=start,
        end=end,
        speaker=said.speaker,
        text=said.text[start:end],
        start_ms=said.start_ms,
        end_ms=said.end_ms,
    )
