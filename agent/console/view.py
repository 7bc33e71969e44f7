"""A session as its page shows it: statements by kind, the transcript in blocks, who spoke when. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from itertools import groupby, pairwise

from agent.captions.formats import told_apart
from agent.captions.text import clean
from agent.console.models import (
    AnalysisOut,
    EvidenceOut,
    GapOut,
    SessionOut,
    SpeakerOut,
    StatementOut,
    UtteranceOut,
)
from agent.values import Speaker

__all__ = [
    "BLOCK_PAUSE_MS",
    "COLOURS",
    "Bar",
    "Block",
    "Group",
    "Item",
    "Line",
    "Person",
    "Piece",
    "Reference",
    "Silence",
    "Stretch",
    "View",
    "make",
    "people_of",
]

COLOURS = 8  # as many as the style sheet has
LANES = 8  # of the picture of who spoke when: more are too thin to see
BLOCK_PAUSE_MS = 15_000  # a longer silence is seen in the transcript
LEAST_STRETCH = 1.5  # thousandths of the picture's width: less cannot be seen
WIDTH = 1000.0
LANE_HEIGHT = 10


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody by a name that nobody else on the page has. `colour` is a number below `COLOURS`."""

    name: str
    initials: str
    colour: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some words of an utterance: those that evidence rests on have the evidence's ids in `evidence`.

    `begins` are the ids of what begins with them.
    """

    text: str
    evidence: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """An utterance."""

    id: str
    pieces: tuple[Piece, ...]
    language: str
    has_overlap: bool
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Block:
    """What one person said without anybody else in between."""

    person: Person
    lines: tuple[Line, ...]

    @property
    def start_ms(self) -> int:
        return self.lines[0].start_ms


@dataclass(frozen=True, slots=True)
class Silence:
    """What was not heard, of everybody where `person` is None."""

    person: Person | None
    reason: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Reference:
    """Evidence of a statement. `is_whole` tells that its words are the statement's own."""

    id: str
    line: str
    person: Person
    text: str
    is_whole: bool
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Item:
    """A statement."""

    text: str
    is_quoted: bool
    owner: Person | None
    due: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """All statements of a kind."""

    kind: str
    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A person's part in what was said. `width` is of the one who said most, 0 to 100."""

    person: Person
    talk_ms: int
    talk_share: float
    turns: int
    width: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Somebody speaks, in the picture of who spoke when, whose whole width is `WIDTH`."""

    colour: int
    x: float
    y: int
    width: float


@dataclass(frozen=True, slots=True)
class View:
    """All that a page or a report shows of a session beside the values that it is made from.

    `lanes_height` is that of the picture of who spoke when; `missing_ms` is the length of all gaps.
    """

    people: Mapping[str, Person]
    groups: tuple[Group, ...]
    empty_kinds: tuple[str, ...]
    transcript: tuple[Block | Silence, ...]
    bars: tuple[Bar, ...]
    stretches: tuple[Stretch, ...]
    lanes_height: int
    missing_ms: int


def people_of(speakers: Iterable[SpeakerOut]) -> dict[str, Person]:
    """Everybody by identity, in the order in which they came: the first have a colour of their own."""
    names: dict[str, str] = {}
    for speaker in speakers:
        names[speaker.identity] = speaker.name  # who changed it goes by the last one
    shown = told_apart(Speaker(identity, name) for identity, name in names.items())
    return {
        identity: Person(shown[Speaker(identity, name)], _initials(name or identity), number % COLOURS)
        for number, (identity, name) in enumerate(names.items())
    }


def make(
    session: SessionOut,
    transcript: Sequence[UtteranceOut],
    analysis: AnalysisOut | None,
    people: Mapping[str, Person] | None = None,
) -> View:
    """Put a session into the shape of its page.

    Args:
        transcript: What is shown of it, by its time.
        analysis: The newest; None where there is none.
        people: Everybody who is in these, where they have their colours already.
    """
    statements = analysis.statements if analysis is not None else ()
    references = {
        f"{number}-{place}": evidence
        for number, statement in enumerate(statements, 1)
        for place, evidence in enumerate(statement.evidence, 1)
    }
    # Those who spoke first, so that colours are given to those who are seen.
    people = people or people_of(
        [
            *(utterance.speaker for utterance in transcript),
            *session.people,
            *(evidence.speaker for evidence in references.values()),
            *(statement.owner for statement in statements if statement.owner is not None),
        ]
    )
    by_utterance: dict[str, list[tuple[str, EvidenceOut]]] = {}
    for id_, evidence in references.items():
        by_utterance.setdefault(evidence.utterance, []).append((id_, evidence))
    duration_ms = max(
        [
            session.duration_ms or 0,
            session.recording.duration_ms if session.recording else 0,
            *(each.end_ms for each in transcript),
        ]
    )
    groups = _groups(statements, analysis, people)
    return View(
        people=people,
        groups=tuple(group for group in groups if group.items),
        empty_kinds=tuple(group.title for group in groups if not group.items),
        transcript=tuple(_blocks(transcript, session.gaps, people, by_utterance)),
        bars=tuple(_bars(analysis, people)),
        stretches=_stretches(transcript, people, duration_ms),
        lanes_height=LANE_HEIGHT * min(max(len({each.speaker.identity for each in transcript}), 1), LANES),
        missing_ms=sum(max(gap.end_ms - gap.start_ms, 0) for gap in session.gaps),
    )


def _initials(name: str) -> str:
    words = [word for word in clean(name).split() if word[0].isalnum()]
    return "".join(word[0] for word in (words[:1] + words[-1:] if len(words) > 1 else words)).upper() or "?"


def _groups(
    statements: Sequence[StatementOut], analysis: AnalysisOut | None, people: Mapping[str, Person]
) -> list[Group]:
    if analysis is None:
        return []
    kinds = {kind.id: kind for kind in analysis.kinds}
    items: dict[str, list[Item]] = {kind: [] for kind in kinds}
    for number, statement in enumerate(statements, 1):
        has_owner = kinds[statement.kind].has_owner
        items[statement.kind].append(_item(number, statement, people, has_owner=has_owner))
    return [Group(kind.id, kind.title, tuple(items[kind.id])) for kind in kinds.values()]


def _item(number: int, statement: StatementOut, people: Mapping[str, Person], *, has_owner: bool) -> Item:
    references = tuple(
        Reference(
            id=f"{number}-{place}",
            line=evidence.utterance,
            person=people[evidence.speaker.identity],
            text=evidence.text,
            is_whole=_words(evidence.text) == _words(statement.text),
            start_ms=evidence.start_ms,
            end_ms=evidence.end_ms,
        )
        for place, evidence in enumerate(statement.evidence, 1)
    )
    return Item(
        text=statement.text,
        is_quoted=any(reference.is_whole for reference in references),
        owner=people[statement.owner.identity] if has_owner and statement.owner is not None else None,
        due=statement.due,
        references=references,
    )


def _words(text: str) -> str:
    return " ".join(text.split()).strip(".!?…").casefold()


def _blocks(
    transcript: Sequence[UtteranceOut],
    gaps: Sequence[GapOut],
    people: Mapping[str, Person],
    by_utterance: Mapping[str, Sequence[tuple[str, EvidenceOut]]],
) -> Iterable[Block | Silence]:
    """The transcript and what is missing in it, by time; consecutive utterances of a speaker are together."""
    silences = [
        Silence(
            # Who was never named is still somebody.
            person=people.get(gap.identity, Person(clean(gap.identity), "?", 0)) if gap.identity else None,
            reason=gap.reason,
            start_ms=gap.start_ms,
            end_ms=gap.end_ms,
        )
        for gap in gaps
    ]
    begins = sorted(silence.start_ms for silence in silences)
    said = [each for each in transcript if each.text.strip()]
    # Two are in one block if nothing is between them: a number for each block.
    numbers: list[tuple[int, UtteranceOut]] = []
    number = 0
    for before, each in pairwise([None, *said]):
        assert each is not None
        goes_on = (
            before is not None
            and before.speaker.identity == each.speaker.identity
            and each.start_ms - before.end_ms <= BLOCK_PAUSE_MS
            and bisect_right(begins, before.start_ms) == bisect_right(begins, each.start_ms)
        )
        number += not goes_on
        numbers.append((number, each))
    blocks = [
        Block(
            person=people[utterances[0].speaker.identity],
            lines=tuple(_line(each, by_utterance.get(each.id, ())) for each in utterances),
        )
        for utterances in (
            [each for _, each in group] for _, group in groupby(numbers, key=lambda pair: pair[0])
        )
    ]
    return merge(sorted(silences, key=lambda each: each.start_ms), blocks, key=lambda each: each.start_ms)


def _line(utterance: UtteranceOut, evidence: Sequence[tuple[str, EvidenceOut]]) -> Line:
    return Line(
        id=utterance.id,
        pieces=tuple(_pieces(utterance.text, evidence)),
        language=utterance.language,
        has_overlap=utterance.has_overlap,
        start_ms=utterance.start_ms,
        end_ms=utterance.end_ms,
    )


def _pieces(text: str, evidence: Sequence[tuple[str, EvidenceOut]]) -> Iterable[Piece]:
    """A text cut where evidence begins or ends; several may rest on the same words."""
    # A transcript that was corrected may be shorter than it was.
    spans = [
        (id_, min(max(each.start, 0), len(text)), min(max(each.end, 0), len(text))) for id_, each in evidence
    ]
    cuts = sorted({0, len(text), *(cut for _, start, end in spans for cut in (start, end))})
    for start, end in pairwise(cuts):
        yield Piece(
            text=text[start:end],
            evidence=tuple(id_ for id_, first, last in spans if first <= start and end <= last),
            begins=tuple(id_ for id_, first, last in spans if first == start and first < last),
        )


def _bars(analysis: AnalysisOut | None, people: Mapping[str, Person]) -> Iterable[Bar]:
    statistics = analysis.statistics if analysis is not None else None
    if statistics is None:
        return
    most_ms = max((each.talk_ms for each in statistics.participations), default=0)
    for each in statistics.participations:
        known = people.get(each.speaker.identity)
        yield Bar(
            person=known or Person(clean(each.speaker.name) or each.speaker.identity, "?", 0),
            talk_ms=each.talk_ms,
            talk_share=each.talk_share,
            turns=each.turns,
            width=round(100 * each.talk_ms / most_ms, 1) if most_ms else 0.0,
        )


def _stretches(
    transcript: Sequence[UtteranceOut], people: Mapping[str, Person], duration_ms: int
) -> tuple[Stretch, ...]:
    if not duration_ms:
        return ()
    lanes: dict[str, int] = {}
    stretches: list[Stretch] = []
    newest: dict[str, int] = {}  # by identity, the place of the last one
    for each in transcript:
        identity = each.speaker.identity
        lane = lanes.setdefault(identity, min(len(lanes), LANES - 1))
        x = WIDTH * each.start_ms / duration_ms
        end = max(WIDTH * each.end_ms / duration_ms, x + LEAST_STRETCH)
        last = stretches[newest[identity]] if identity in newest else None
        if last is not None and x - (last.x + last.width) < LEAST_STRETCH:
            # A long session has more of them than the picture has points.
            end = max(end, last.x + last.width)
            stretches[newest[identity]] = replace(last, width=round(end - last.x, 1))
            continue
        newest[identity] = len(stretches)
        colour = people[identity].colour
        stretches.append(Stretch(colour, round(x, 1), LANE_HEIGHT * lane, round(end - x, 1)))
    return tuple(stretches)
