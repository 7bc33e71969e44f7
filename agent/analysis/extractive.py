"""An analysis without a model: sentences that say most of the whole, and those with cue phrases. Pure.

Each claim is words of one utterance, so it has its evidence by construction; it is checked like any other.
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
MOST_ALIKE = 0.5  # of the words of two statements of a kind: beyond it they are the same
ANSWERS = 4  # utterances after a proposal in which somebody may agree to it


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
        "highlight": _highlights,
    }
    claims: list[Claim] = []
    for kind in kinds:
        if (find := finders.get(kind)) is not None:
            found = _distinct(find(said, transcript, language))
            claims += [_claim(kind, sentence, owner, language) for sentence, owner in found]
    return claims


_Found = tuple[_Sentence, Speaker | None]


def _sentences(transcript: Transcript, language: Language) -> Iterator[_Sentence]:
    for place, utterance in enumerate(transcript):
        for span in sentences(utterance.text):
            words = tokens(utterance.text[span.start : span.end])
            yield _Sentence(place, utterance, span, language.content(words))


def _decisions(said: Sequence[_Sentence], transcript: Transcript, language: Language) -> Iterator[_Found]:
    for index, sentence in enumerate(said):
        if sentence.is_question or len(sentence.content) < LEAST_CONTENT:
            continue
        is_agreed_proposal = language.cue("proposal", sentence.folded) and _is_agreed(said, index, language)
        if is_agreed_proposal or language.cue("decision", sentence.folded):
            yield sentence, None


def _is_agreed(said: Sequence[_Sentence], index: int, language: Language) -> bool:
    """Whether somebody else agrees to a proposal soon, and nobody says no to it before."""
    proposal = said[index]
    for answer in islice(said, index + 1, None):
        if answer.place > proposal.place + ANSWERS:
            return False
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
        if language.cue("idle", sentence.folded):
            continue
        if language.cue("commitment", sentence.folded) and not sentence.is_question:
            # "I can add it. I will have that done by Friday." is one promise.
            while index < len(said) and _goes_on(sentence, said[index], language):
                sentence = _joined(sentence, said[index], language)
                index += 1
            if len(sentence.content) >= LEAST_CONTENT:
                yield sentence, sentence.utterance.speaker
        elif len(sentence.content) >= LEAST_CONTENT:
            owner = _named(sentence, transcript)
            if language.cue("request", sentence.folded):
                yield sentence, owner or _next_speaker(said, index, sentence)
            elif owner is not None and not sentence.is_question and language.cue("due", sentence.folded):
                yield sentence, owner


def _goes_on(first: _Sentence, second: _Sentence, language: Language) -> bool:
    return (
        second.place == first.place
        and not second.is_question
        and language.cue("commitment", second.folded) is not None
    )


def _joined(first: _Sentence, second: _Sentence, language: Language) -> _Sentence:
    span = Span(first.span.start, second.span.end)
    return _Sentence(first.place, first.utterance, span, first.content | second.content)


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
    for index, sentence in enumerate(said):
        if len(sentence.content) < LEAST_CONTENT:
            continue
        is_asked_in_vain = sentence.is_question and all(
            later.is_question for later in islice(said, index + 1, index + 2)
        )
        if is_asked_in_vain or (not sentence.is_question and language.cue("question", sentence.folded)):
            yield sentence, None


def _risks(said: Sequence[_Sentence], transcript: Transcript, language: Language) -> Iterator[_Found]:
    for sentence in said:
        if len(sentence.content) >= LEAST_CONTENT and language.cue("risk", sentence.folded):
            yield sentence, None


def _highlights(said: Sequence[_Sentence], transcript: Transcript, language: Language) -> Iterator[_Found]:
    rated = sorted(
        zip(centrality([sentence.content for sentence in said]), range(len(said)), strict=True),
        key=lambda each: (-each[0], each[1]),
    )
    chosen: list[int] = []
    for _, index in rated:
        if len(chosen) >= min(round(sqrt(len(said))), MOST_HIGHLIGHTS):
            break
        sentence = said[index]
        if sentence.is_question or len(sentence.content) < HIGHLIGHT_CONTENT:
            continue
        if not any(_are_alike(sentence, said[other]) for other in chosen):
            chosen.append(index)
    for index in sorted(chosen):
        yield said[index], None


def _distinct(found: Iterable[_Found]) -> Iterator[_Found]:
    """Without what was said before in other words of the same kind, for the same owner."""
    kept: list[_Found] = []
    for sentence, owner in found:
        if not any(owner == other and _are_alike(sentence, earlier) for earlier, other in kept):
            kept.append((sentence, owner))
            yield sentence, owner


def _are_alike(first: _Sentence, second: _Sentence) -> bool:
    smaller = min(len(first.content), len(second.content))
    return smaller > 0 and len(first.content & second.content) > MOST_ALIKE * smaller


def _claim(kind: str, sentence: _Sentence, owner: Speaker | None, language: Language) -> Claim:
    due: re.Match[str] | None = language.cue("due", sentence.folded) if kind == "action" else None
    return Claim(
        kind=kind,
        text=sentence.text,
        quotes=(Quote((sentence.utterance.id,), sentence.text),),
        owner=owner.name if owner is not None else "",
        due=due.group(1) if due is not None else "",
    )
