"""How long after it was spoken a word is seen, out of what was spoken when and what a viewer received when.

*Shown* is, for each spoken word, from the word's end to the moment when a viewer first had it, in a partial
or a final under its speaker's name. *Final* is, for each turn (a segment of the truth), from the end of its
last word to the moment when the viewer had the final with it.

Which word of a caption is which spoken word is decided like this:

1. Captions are in session time. When the session began is the median difference between when words were
   spoken and where the last revisions of all captions place them, paired by speaker and text alone. A
   caption's words are taken to fill its time evenly.
2. A caption revision can hold words that its own speaker spoke at most `TOLERANCE_S` outside its time and
   before it was received. Its words are aligned with those by edit distance; of equally good alignments the
   one nearest in time is taken. A spoken word is shown when the same word stands against it.
3. A speaker's finals are aligned with the speaker's words in the same way, but all at once. A turn's final is
   the one that holds the turn's last word or what was recognised in its place. If nothing was, it is the one
   that holds the last word that has any, unless that came before the turn was over.

Words that were never shown, and turns that never got their final, have no delay and are counted apart. A word
whose own end is interpolated counts as shown or not, but gives no delay.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from statistics import median
from typing import Any

from benchmarks.alignment import Word
from benchmarks.edit_distance import align
from benchmarks.normalise import spoken_words

__all__ = ["TOLERANCE_S", "Delays", "Received", "measure_delays", "own_share", "pool_delays"]

TOLERANCE_S = 1.0  # engines place words some tenths of a second off, at the edges of a caption more


@dataclass(frozen=True, slots=True)
class Received:
    """An event of the data channel as a viewer got it; `received_at` is an aware UTC time."""

    received_at: datetime
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delays:
    """What a meeting measured: delays in seconds, and how many things have none.

    `engine_s` is, of the same words in the same order, the part of `shown_s` until the session had the
    engine's result: the sound's way to the engine and its recognition. The rest is the caption's way to the
    viewer.
    """

    shown_s: tuple[float, ...]
    engine_s: tuple[float, ...]
    final_s: tuple[float, ...]
    words: int
    never_shown: int
    turns: int
    without_final: int


@dataclass(frozen=True, slots=True)
class _Revision:
    """One revision of a caption.

    The session made it at `made_s` and the viewer had it at `received_s`, both in meeting time; `start_s` and
    `end_s` are in session time.
    """

    caption: str
    speaker: str
    words: tuple[str, ...]
    start_s: float
    end_s: float
    is_final: bool
    made_s: float
    received_s: float

    def spoken_s(self, index: int) -> float:
        """Where the caption places the middle of a word."""
        return self.start_s + (self.end_s - self.start_s) * (index + 0.5) / len(self.words)


def measure_delays(words: Sequence[Word], log: Sequence[Received], began_at: datetime) -> Delays:
    """Compare what was spoken with what a viewer received.

    Args:
        words: Everything that was spoken, in seconds since the meeting began.
        log: Everything that the viewer received, in order.
        began_at: When the meeting began to be played; an aware UTC time.
    """
    revisions = list(_revisions(log, began_at))
    session_began_s = _session_began_s(words, revisions)
    shown_s: list[float] = []
    engine_s: list[float] = []
    final_s: list[float] = []
    was_shown = turns = 0
    for speaker, spoken in _by_speaker(words).items():
        own = [revision for revision in revisions if revision.speaker == speaker]
        for index, revision in _first_with(spoken, own, session_began_s).items():
            was_shown += 1
            if spoken[index].matched:
                shown_s.append(revision.received_s - spoken[index].end_s)
                engine_s.append(revision.made_s - spoken[index].end_s)
        finals = _finals(spoken, [revision for revision in own if revision.is_final], session_began_s)
        for turn in _turns(spoken):
            turns += 1
            if (received_s := _turn_final_s(turn, spoken, finals)) is not None:
                final_s.append(received_s - spoken[turn[-1]].end_s)
    return Delays(
        shown_s=tuple(shown_s),
        engine_s=tuple(engine_s),
        final_s=tuple(final_s),
        words=len(words),
        never_shown=len(words) - was_shown,
        turns=turns,
        without_final=turns - len(final_s),
    )


def pool_delays(measured: Sequence[Delays]) -> Delays:
    """The delays of several meetings as if they were one."""
    return Delays(
        shown_s=tuple(delay for each in measured for delay in each.shown_s),
        engine_s=tuple(delay for each in measured for delay in each.engine_s),
        final_s=tuple(delay for each in measured for delay in each.final_s),
        words=sum(each.words for each in measured),
        never_shown=sum(each.never_shown for each in measured),
        turns=sum(each.turns for each in measured),
        without_final=sum(each.without_final for each in measured),
    )


def own_share(log: Iterable[Received], *, final: bool) -> list[float]:
    """Seconds from when the session made each revision, out of an engine's event, to when the viewer had it.

    Args:
        log: What a viewer on the same machine received; the clock must be the same.
        final: Of the finals, else of the partials, which may have waited for their turn.
    """
    return [
        (received.received_at - datetime.fromisoformat(received.event["at"])).total_seconds()
        for received in log
        if received.event["kind"] == "caption" and received.event["final"] is final
    ]


def _revisions(log: Iterable[Received], began_at: datetime) -> Iterator[_Revision]:
    """The revisions with words; one without is a caption's withdrawal, and shows nothing."""
    for received in log:
        event = received.event
        if event["kind"] == "caption" and (words := spoken_words(event["text"])):
            yield _Revision(
                caption=event["id"],
                speaker=event["speaker"]["name"],
                words=tuple(words),
                start_s=event["start_ms"] / 1000,
                end_s=event["end_ms"] / 1000,
                is_final=event["final"],
                made_s=(datetime.fromisoformat(event["at"]) - began_at).total_seconds(),
                received_s=(received.received_at - began_at).total_seconds(),
            )


def _by_speaker(words: Sequence[Word]) -> dict[str, list[Word]]:
    spoken: dict[str, list[Word]] = {}
    for word in sorted(words, key=lambda word: (word.segment, word.start_s)):
        spoken.setdefault(word.speaker, []).append(word)
    return spoken


def _session_began_s(words: Sequence[Word], revisions: Sequence[_Revision]) -> float:
    """When the session began, in meeting time, by the texts alone."""
    last = {revision.caption: revision for revision in revisions}.values()
    differences = []
    for speaker, spoken in _by_speaker(words).items():
        places = _places(revision for revision in last if revision.speaker == speaker)
        against = align([word.text for word in spoken], [text for text, _, _ in places])
        for word, column in zip(spoken, against, strict=True):
            if column is not None and places[column][0] == word.text:
                differences.append(_middle_s(word) - places[column][1])
    return median(differences) if differences else 0.0


def _first_with(
    spoken: Sequence[Word], revisions: Sequence[_Revision], session_began_s: float
) -> dict[int, _Revision]:
    """For each index of a word that was shown, the first revision that has it."""
    first: dict[int, _Revision] = {}
    for revision in revisions:
        for index in _held(spoken, revision, session_began_s):
            first.setdefault(index, revision)
    return first


def _held(spoken: Sequence[Word], revision: _Revision, session_began_s: float) -> Iterator[int]:
    """The indexes of the spoken words that a caption revision has."""
    candidates = [
        index
        for index, word in enumerate(spoken)
        if word.start_s <= revision.received_s and _is_near(word, revision, session_began_s)
    ]

    def rank(row: int, column: int) -> float:
        return abs(_middle_s(spoken[candidates[row]]) - revision.spoken_s(column) - session_began_s)

    against = align([spoken[index].text for index in candidates], revision.words, rank)
    for index, column in zip(candidates, against, strict=True):
        if column is not None and revision.words[column] == spoken[index].text:
            yield index


def _turns(spoken: Sequence[Word]) -> Iterator[list[int]]:
    """The indexes of the words of each turn."""
    for _, group in groupby(enumerate(spoken), key=lambda entry: entry[1].segment):
        yield [index for index, _ in group]


def _turn_final_s(turn: Sequence[int], spoken: Sequence[Word], finals: Mapping[int, float]) -> float | None:
    """When the final of a turn was received, if it was."""
    last = next((index for index in reversed(turn) if index in finals), None)
    if last is None:
        return None
    is_whole = last == turn[-1]
    return finals[last] if is_whole or finals[last] >= spoken[turn[-1]].end_s else None


def _finals(spoken: Sequence[Word], finals: Sequence[_Revision], session_began_s: float) -> dict[int, float]:
    """For each index of a word against which a word of a final stands, when that final was received."""
    places = _places(finals)

    def rank(row: int, column: int) -> float | None:
        _, middle_s, final = places[column]
        if not _is_near(spoken[row], final, session_began_s):
            return None
        return abs(_middle_s(spoken[row]) - middle_s - session_began_s)

    against = align([word.text for word in spoken], [text for text, _, _ in places], rank)
    return {index: places[column][2].received_s for index, column in enumerate(against) if column is not None}


def _places(revisions: Iterable[_Revision]) -> list[tuple[str, float, _Revision]]:
    """The words of captions in the order in which they were spoken: text, session time, whose they are."""
    return [
        (text, revision.spoken_s(index), revision)
        for revision in sorted(revisions, key=lambda revision: revision.start_s)
        for index, text in enumerate(revision.words)
    ]


def _is_near(word: Word, revision: _Revision, session_began_s: float) -> bool:
    start_s = revision.start_s + session_began_s - TOLERANCE_S
    end_s = revision.end_s + session_began_s + TOLERANCE_S
    return word.end_s >= start_s and word.start_s <= end_s


def _middle_s(word: Word) -> float:
    return (word.start_s + word.end_s) / 2
