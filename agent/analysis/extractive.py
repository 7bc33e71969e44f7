"""An analysis without a model: sentences that say most of the whole, and those with cue phrases. Pure.

Each claim is words of the transcript, so it has its evidence by construction; it is checked like any other.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import sqrt

from agent.analysis.centrality import centrality
from agent.analysis.language import Language
from agent.analysis.statement import Claim, Quote
from agent.analysis.text import Span, folded, sentences, tokens
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker

__all__ = ["ENGINE", "extract"]

ENGINE = "extractive"

LEAST_CONTENT = 2  # words of content: less says nothing on its own
HIGHLIGHT_CONTENT = 4
MOST_HIGHLIGHTS = 12
WITH_NUMBER = 2.0  # how much more a sentence with a number says: it tells a fact (Fattah and Ren 2009)
MOST_ALIKE = 0.5  # of the words of two statements of a kind: beyond it they are the same
ANSWERS = 4  # utterances after a proposal or a question in which somebody may answer it
TOLD_CONTENT = 6  # words of content: who says so many at once has told what was asked, and not only agreed


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence, or several in a row, of the utterance at `place` in the transcript."""

    place: int
    utterance: Utterance
    span: Span
    content: frozenset[str]

    @property
    def text(self) -> str:
        return self.utterance.text[self.span.start : self.span.end]

    @property
    def folded(self) -> str:
        return folded(self.text)

    @property
    def is_question(self) -> bool:
        return self.text.rstrip("\"'»”’)").endswith("?")


def extract(transcript: Transcript, language: Language, kinds: Sequence[str]) -> list[Claim]:
    """Find statements in a transcript.

    Args:
        transcript: All of it.
        language: What its words are looked up in.
        kinds: Those that are wanted, of highlight, decision, action, question and risk; others are not found.

    Returns:
        Claims in the order of the transcript, by kind.
    """
    said = list(_sentences(transcript, language))
    finders = {
        "decision": _decisions,
        "action": _actions,
        "question": _questions,
        "risk": _risks,
    }
    found = {
        kind: list(_distinct(find(said, transcript, language)))
        for kind, find in finders.items()
        if kind in kinds
    }
    if "highlight" in kinds:
        stated = [each for those in found.values() for each in those]
        found["highlight"] = list(_highlights(said, stated, language))
    return [_claim(kind, each, language) for kind in kinds for each in found.get(kind, ())]


@dataclass(frozen=True, slots=True)
class _Found:
    """What says something of a kind. `about` is what it refers to, where its own words do not name that."""

    sentence: _Sentence
    owner: Speaker | None = None
    about: _Sentence | None = None


def _sentences(transcript: Transcript, language: Language) -> Iterator[_Sentence]:
    for place, utterance in enumerate(transcript):
        for span in sentences(utterance.text):
            words = tokens(utterance.text[span.start : span.end])
            yield _Sentence(place, utterance, span, language.content(words))


def _soon(said: Sequence[_Sentence], index: int, sentence: _Sentence) -> Iterator[_Sentence]:
    """What is said from `index` on, as long as it may be an answer to a sentence."""
    for later in islice(said, index, None):
        if later.place > sentence.place + ANSWERS:
            return
        yield later


def _decisions(said: Sequence[_Sentence], transcript: Transcript, language: Language) -> Iterator[_Found]:
    for index, sentence in enumerate(said):
        if _decides(sentence, language) or (
            _tells(sentence)
            and language.cue("proposal", sentence.folded)
            and _is_agreed(said, index, language)
            # Where the decision is told in words of its own, these are it.
            and not any(
                _decides(later, language) and later.content & sentence.content
                for later in _soon(said, index + 1, sentence)
            )
        ):
            yield _Found(sentence)


def _tells(sentence: _Sentence) -> bool:
    return not sentence.is_question and len(sentence.content) >= LEAST_CONTENT


def _decides(sentence: _Sentence, language: Language) -> bool:
    return _tells(sentence) and language.cue("decision", sentence.folded) is not None


def _is_agreed(said: Sequence[_Sentence], index: int, language: Language) -> bool:
    """Whether somebody else agrees to a proposal soon, and nobody says no to it before."""
    proposal = said[index]
    for answer in _soon(said, index + 1, proposal):
        if answer.utterance.speaker == proposal.utterance.speaker or answer.is_question:
            continue
        if language.cue("agreement", answer.folded):
            return True
        if language.is_negated(tokens(answer.text)):
            return False
    return False


def _actions(said: Sequence[_Sentence], transcript: Transcript, language: Language) -> Iterator[_Found]:
    index = 0
    while index < len(said):
        sentence = said[index]
        index += 1
        if _promises(sentence, language):
            about = _referred(said, index - 1, language)
            # "I can add it. I will have that done by Friday." is one promise.
            while index < len(said) and said[index].place == sentence.place:
                if not _promises(said[index], language):
                    break
                sentence = _joined(sentence, said[index])
                index += 1
            if len(sentence.content) >= LEAST_CONTENT:
                yield _Found(sentence, sentence.utterance.speaker, about)
        elif len(sentence.content) >= LEAST_CONTENT and not language.cue("idle", sentence.folded):
            owner = _named(sentence, transcript)
            is_due = language.cue("due", sentence.folded) is not None
            if language.cue("request", sentence.folded):
                owner = owner or _next_speaker(said, index, sentence)
                if is_due or not _is_told(said, index, sentence, owner, language):
                    yield _Found(sentence, owner)
            elif owner is not None and is_due and not sentence.is_question:
                yield _Found(sentence, owner)


def _promises(sentence: _Sentence, language: Language) -> bool:
    return (
        not sentence.is_question
        and language.cue("commitment", sentence.folded) is not None
        and language.cue("idle", sentence.folded) is None
    )


def _joined(first: _Sentence, second: _Sentence) -> _Sentence:
    span = Span(first.span.start, second.span.end)
    return _Sentence(first.place, first.utterance, span, first.content | second.content)


def _referred(said: Sequence[_Sentence], index: int, language: Language) -> _Sentence | None:
    """What somebody else said before that "I can check that" is about, from where it can be understood."""
    promise = said[index]
    if language.cue("refers", promise.folded) is None:
        return None
    place = next((at for at in range(index - 1, -1, -1) if len(said[at].content) >= LEAST_CONTENT), None)
    if place is None or not promise.place - ANSWERS <= said[place].place < promise.place:
        return None
    about = said[place]
    while (
        place > 0 and said[place - 1].place == about.place and language.cue("continues", said[place].folded)
    ):
        place -= 1
        about = _joined(said[place], about)
    return about


def _is_told(
    said: Sequence[_Sentence], index: int, asked: _Sentence, owner: Speaker | None, language: Language
) -> bool:
    """Whether somebody was asked to tell something, and did so at once: nothing is left to be done."""
    answers = [later for later in _soon(said, index, asked) if later.place > asked.place]
    own = [answer for answer in answers if answer.utterance.speaker == owner]
    first = [answer for answer in own if answer.place == own[0].place]
    content = frozenset[str]().union(*(answer.content for answer in first))
    return len(content) >= TOLD_CONTENT and not any(_promises(answer, language) for answer in first)


def _named(sentence: _Sentence, transcript: Transcript) -> Speaker | None:
    """Who is spoken to, or of, at the beginning of a sentence."""
    first = [token.text for token in tokens(sentence.text)[:1]]
    return next((who for who in transcript.people if first and folded(who.name).split()[:1] == first), None)


def _next_speaker(said: Sequence[_Sentence], index: int, sentence: _Sentence) -> Speaker | None:
    for later in islice(said, index, None):
        if later.place > sentence.place:
            speaker = later.utterance.speaker
            return speaker if speaker != sentence.utterance.speaker else None
    return None


def _questions(said: Sequence[_Sentence], transcript: Transcript, language: Language) -> Iterator[_Found]:
    """Those that are left open: said to be, or not answered by anybody."""
    index = 0
    while index < len(said):
        sentence = said[index]
        index += 1
        if sentence.is_question:
            is_open = not _is_answered(said, index, sentence)
        elif is_open := language.cue("question", sentence.folded) is not None:
            # "We do not know why. Let us keep that open." is one question.
            while index < len(said) and said[index].place == sentence.place:
                if said[index].is_question or not language.cue("question", said[index].folded):
                    break
                sentence = _joined(sentence, said[index])
                index += 1
            is_open = not _is_taken_on(said, index, sentence, language)
        if is_open and len(sentence.content) >= LEAST_CONTENT:
            yield _Found(sentence)


def _is_answered(said: Sequence[_Sentence], index: int, question: _Sentence) -> bool:
    """Whether somebody else soon says something that is no question."""
    return any(
        not later.is_question and later.utterance.speaker != question.utterance.speaker
        for later in _soon(said, index, question)
    )


def _is_taken_on(said: Sequence[_Sentence], index: int, question: _Sentence, language: Language) -> bool:
    """Whether the next one to speak promises something: that is an action then, and no open question."""
    return any(
        later.place == question.place + 1 and _promises(later, language)
        for later in _soon(said, index, question)
    )


def _risks(said: Sequence[_Sentence], transcript: Transcript, language: Language) -> Iterator[_Found]:
    for sentence in said:
        if len(sentence.content) >= LEAST_CONTENT and language.cue("risk", sentence.folded):
            yield _Found(sentence)


def _highlights(said: Sequence[_Sentence], stated: Sequence[_Found], language: Language) -> Iterator[_Found]:
    """The sentences that say most of the whole, without those that a claim of another kind has."""
    shares = centrality([sentence.content for sentence in said])
    weights = [
        share * (WITH_NUMBER if language.values(tokens(sentence.text)) else 1.0)
        for sentence, share in zip(said, shares, strict=True)
    ]
    rated = sorted(range(len(said)), key=lambda index: (-weights[index], index))
    chosen: list[int] = []
    for index in rated:
        if len(chosen) >= min(round(sqrt(len(said))), MOST_HIGHLIGHTS):
            break
        sentence = said[index]
        if sentence.is_question or len(sentence.content) < HIGHLIGHT_CONTENT:
            continue
        if language.cue("request", sentence.folded) or any(_has(each, sentence) for each in stated):
            continue
        if not any(_are_alike(sentence, said[other]) for other in chosen):
            chosen.append(index)
    for index in sorted(chosen):
        yield _Found(said[index])


def _has(found: _Found, sentence: _Sentence) -> bool:
    return any(
        part.place == sentence.place
        and part.span.start <= sentence.span.start
        and sentence.span.end <= part.span.end
        for part in (found.sentence, found.about)
        if part is not None
    )


def _distinct(found: Iterable[_Found]) -> Iterator[_Found]:
    """Without what was said before in other words of the same kind, for the same owner."""
    kept: list[_Found] = []
    for each in found:
        if not any(each.owner == other.owner and _are_alike(each.sentence, other.sentence) for other in kept):
            kept.append(each)
            yield each


def _are_alike(first: _Sentence, second: _Sentence) -> bool:
    smaller = min(len(first.content), len(second.content))
    return smaller > 0 and len(first.content & second.content) > MOST_ALIKE * smaller


def _claim(kind: str, found: _Found, language: Language) -> Claim:
    due: re.Match[str] | None = language.cue("due", found.sentence.folded) if kind == "action" else None
    parts = [part for part in (found.about, found.sentence) if part is not None]
    return Claim(
        kind=kind,
        text=" ".join(part.text for part in parts),
        quotes=tuple(Quote((part.utterance.id,), part.text) for part in parts),
        owner=found.owner.identity if found.owner is not None else "",
        due=due.group(1) if due is not None else "",
    )
