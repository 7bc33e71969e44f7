"""What the API answers, and what pages show: the same values."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AnalysisOut",
    "AnalysisSummary",
    "EvidenceOut",
    "GapOut",
    "KindOut",
    "ParticipationOut",
    "RecordingOut",
    "SessionOut",
    "SessionPage",
    "SessionSummaryOut",
    "SpeakerOut",
    "StatementOut",
    "StatisticsOut",
    "TranscriptPage",
    "UtteranceOut",
]


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SpeakerOut(_Out):
    identity: str
    name: str


class AnalysisSummary(_Out):
    """How far the newest analysis of a session is. `step` is the one that runs, or failed."""

    status: Literal["pending", "running", "done", "failed"]
    step: str
    version: int


class SessionSummaryOut(_Out):
    """A session in a list. `duration_ms` is None as long as it goes on."""

    id: str
    room: str
    status: Literal["created", "live", "ended"]
    languages: tuple[str, ...]
    started_at: datetime
    ended_at: datetime | None
    ended_by: str
    duration_ms: int | None
    analysis: AnalysisSummary | None


class SessionPage(_Out):
    """Some sessions, the newest first; `next` asks for those before, and is None at the end."""

    sessions: tuple[SessionSummaryOut, ...]
    next: str | None


class GapOut(_Out):
    """What was not heard, or not turned into text: of everybody where `identity` is empty."""

    start_ms: int
    end_ms: int
    identity: str
    reason: str


class RecordingOut(_Out):
    """Everybody's audio in one file; session time 0 is its beginning."""

    url: str
    media_type: str
    duration_ms: int
    size_bytes: int


class SessionOut(SessionSummaryOut):
    """All about a session but what was said. `coverage` is the share of the speech that is in captions."""

    people: tuple[SpeakerOut, ...]
    finals: int
    coverage: float | None
    gaps: tuple[GapOut, ...]
    recording: RecordingOut | None


class UtteranceOut(_Out):
    """What somebody said, as viewers saw it. Times are session time."""

    id: str
    speaker: SpeakerOut
    text: str
    language: str
    has_overlap: bool
    start_ms: int
    end_ms: int


class TranscriptPage(_Out):
    """Some of what was said, by its time; `next` asks for what follows, and is None at the end."""

    utterances: tuple[UtteranceOut, ...]
    next: str | None


class ParticipationOut(_Out):
    speaker: SpeakerOut
    talk_ms: int
    talk_share: float = Field(ge=0, le=1)
    turns: int
    words: int
    present_ms: int


class StatisticsOut(_Out):
    duration_ms: int
    speech_ms: int
    overlap_ms: int
    silence_ms: int
    turns: int
    words: int
    people_at_once: int
    participations: tuple[ParticipationOut, ...]


class EvidenceOut(_Out):
    """The words that a statement rests on: characters `start` to `end` of an utterance."""

    utterance: str
    start: int
    end: int
    speaker: SpeakerOut
    text: str
    start_ms: int
    end_ms: int


class StatementOut(_Out):
    """What the analysis says. `support` names how it was judged that the evidence says so."""

    kind: str
    text: str
    owner: SpeakerOut | None
    due: str
    confidence: float
    support: str
    evidence: tuple[EvidenceOut, ...]


class KindOut(_Out):
    """A kind of statement, by the name that the scenario gives it.

    `has_owner` tells that somebody is to do what it says.
    """

    id: str
    title: str
    has_owner: bool


class AnalysisOut(_Out):
    """The newest analysis of a session.

    While a newer one is made, or where that failed, what the one before says stands: `version` is the one
    whose statements these are, `newest_version` the one whose `status`, `step` and `problem` these are.
    `claims` is how many statements the engine made, and `drops` how many of them did not hold, by the reason.
    `incomplete` names what was missing. `problem` says why it failed, where it did.
    """

    session: str
    version: int
    newest_version: int
    scenario: str
    engine: str
    language: str
    status: Literal["pending", "running", "done", "failed"]
    step: str
    created_at: datetime
    finished_at: datetime | None
    kinds: tuple[KindOut, ...]
    statements: tuple[StatementOut, ...]
    keywords: tuple[str, ...]
    statistics: StatisticsOut | None
    claims: int
    drops: dict[str, int]
    incomplete: tuple[str, ...]
    problem: str
