"""What an analysis says, before and after its evidence was checked. Pure."""

from dataclasses import dataclass

from agent.values import Speaker

__all__ = ["Claim", "Evidence", "Quote", "Statement"]


@dataclass(frozen=True, slots=True)
class Quote:
    """Where a claim says that it is from: words in one utterance, or in consecutive ones of one speaker."""

    utterances: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What an engine says of a session: nothing of it is taken on trust.

    Attributes:
        kind: Of the scenario's kinds: decision, action, question, risk, highlight, …
        text: What it says, in a sentence.
        quotes: What it is from.
        owner: Who is to do it, by identity or by name; empty where nobody is named.
        due: Until when, in words of the transcript or as an ISO 8601 date; empty without one.
        confidence: The engine's own, 0 to 1.
    """

    kind: str
    text: str
    quotes: tuple[Quote, ...]
    owner: str = ""
    due: str = ""
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Words of the transcript: characters `start` to `end` of an utterance, and about when they were said."""

    utterance: str
    start: int
    end: int
    speaker: Speaker
    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A claim whose evidence was found and says it. `support` names how the latter was judged."""

    kind: str
    text: str
    evidence: tuple[Evidence, ...]
    owner: Speaker | None
    due: str
    confidence: float
    support: str
