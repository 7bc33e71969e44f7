"""Checks what an engine claims against the transcript: what does not hold is dropped, with its reason. Pure.

An engine's quotes only say where to look. What is stored are places in the transcript and its own words.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from rapidfuzz import fuzz

from agent.analysis.language import Language
from agent.analysis.statement import Claim, Evidence, Quote, Statement
from agent.analysis.text import Token, folded, tokens
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker

__all__ = ["Checked", "Drop", "check"]

LEAST_LIKENESS = 85.0  # of 100: a model mends punctuation and a word or two, and may not do more
LEAST_SUPPORT = 0.5  # of a claim's words of content that are in its evidence
LEXICAL = "lexical"
SIGN_BEFORE = re.compile(r"(?:[§#+−$€£¥₹₽₴]\s?|(?<!\S)-)$")  # a hyphen stands for a minus there
SIGN_AFTER = re.compile(r"\s?[%‰°$€£¥₹₽₴]")


class Drop(StrEnum):
    """Why a claim is not stored."""

    NO_QUOTE = "no_quote"
    UNKNOWN_UTTERANCE = "unknown_utterance"
    NOT_CONSECUTIVE = "not_consecutive"
    QUOTE_NOT_FOUND = "quote_not_found"
    NEGATION = "negation"
    NUMBER = "number"
    OWNER_ABSENT = "owner_absent"
    OWNER_AMBIGUOUS = "owner_ambiguous"
    DUE_NOT_SAID = "due_not_said"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Checked:
    """What holds, and how many claims were dropped, by the reason."""

    statements: tuple[Statement, ...]
    drops: Counter[Drop]


def check(claims: Iterable[Claim], transcript: Transcript, language: Language) -> Checked:
    """Keep the claims that the transcript bears out, in their order."""
    statements: list[Statement] = []
    drops: Counter[Drop] = Counter()
    for claim in claims:
        match _check(claim, transcript, language):
            case Statement() as statement:
                statements.append(statement)
            case Drop() as reason:
                drops[reason] += 1
    return Checked(tuple(statements), drops)


def _check(claim: Claim, transcript: Transcript, language: Language) -> Statement | Drop:
    if not any(quote.text.strip() for quote in claim.quotes):
        return Drop.NO_QUOTE
    evidence: list[Evidence] = []
    for quote in claim.quotes:
        match _locate(quote, transcript):
            case Drop() as reason:
                return reason
            case found:
                evidence.extend(found)
    owner: Speaker | None = None
    if claim.owner:
        match _owner(claim.owner, transcript.people):
            case Drop() as reason:
                return reason
            case owner:
                pass
    said = [token for each in evidence for token in tokens(each.text)]
    if claim.due and not _is_due(claim.due, said, evidence, transcript):
        return Drop.DUE_NOT_SAID
    if (contradiction := _contradiction(tokens(claim.text), said, language)) is not None:
        return contradiction
    return Statement(
        kind=claim.kind,
        text=claim.text.strip(),
        evidence=tuple(evidence),
        owner=owner,
        due=claim.due,
        confidence=min(max(claim.confidence, 0.0), 1.0),
        support=LEXICAL,
    )


def _locate(quote: Quote, transcript: Transcript) -> list[Evidence] | Drop:
    """Where in its utterances a quote stands, cut to whole words."""
    found = [transcript.get(id_) for id_ in quote.utterances]
    utterances = [utterance for utterance in found if utterance is not None]
    if not utterances or len(utterances) < len(found):
        return Drop.UNKNOWN_UTTERANCE
    if not transcript.are_consecutive(utterances):
        return Drop.NOT_CONSECUTIVE
    source = " ".join(utterance.text for utterance in utterances)
    wanted = " ".join(token.text for token in tokens(quote.text))
    words = tokens(source)
    # Compared as words alone: punctuation is the engine's or the model's, and nobody said it.
    plain, starts = "", []
    for word in words:
        starts.append(len(plain))
        plain += word.text + " "
    best = fuzz.partial_ratio_alignment(wanted, plain.rstrip(), score_cutoff=LEAST_LIKENESS)
    # A text that is shorter than the quote would be looked for in the quote.
    if not wanted or best is None or len(wanted) > len(plain) / (LEAST_LIKENESS / 100):
        return Drop.QUOTE_NOT_FOUND
    covered = [
        word
        for word, start in zip(words, starts, strict=True)
        if start < best.dest_end and start + len(word.text) > best.dest_start
    ]
    if not covered:
        return Drop.QUOTE_NOT_FOUND
    return list(_pieces(utterances, *_with_signs(source, covered[0].start, covered[-1].end)))


def _with_signs(source: str, start: int, end: int) -> tuple[int, int]:
    """The place of some words with the sign of a number at either end: 5 is not what was said for 5 %."""
    if source[start].isdigit() and (before := SIGN_BEFORE.search(source, 0, start)):
        start = before.start()
    if source[end - 1].isdigit() and (after := SIGN_AFTER.match(source, end)):
        end = after.end()
    return start, end


def _pieces(utterances: Sequence[Utterance], start: int, end: int) -> Iterable[Evidence]:
    """The part of each utterance that lies there in all of them, joined by spaces."""
    offset = 0
    for utterance in utterances:
        first, last = max(start - offset, 0), min(end - offset, len(utterance.text))
        if first < last:
            yield Evidence(
                utterance=utterance.id,
                start=first,
                end=last,
                speaker=utterance.speaker,
                text=utterance.text[first:last],
                start_ms=utterance.at_ms(first),
                end_ms=utterance.at_ms(last),
            )
        offset += len(utterance.text) + 1


def _owner(given: str, people: Iterable[Speaker]) -> Speaker | Drop:
    """Who is meant: by the identity, else by the whole name, else by a part of it."""
    wanted = folded(given.strip())
    everybody = list(people)
    identified = [person for person in everybody if person.identity == given]
    exact = [person for person in everybody if folded(person.name) == wanted]
    partial = [person for person in everybody if wanted in folded(person.name).split()]
    for chosen in (identified, exact, partial):
        if len(chosen) == 1:
            return chosen[0]
    return Drop.OWNER_AMBIGUOUS if exact or partial else Drop.OWNER_ABSENT


def _is_due(due: str, said: Sequence[Token], evidence: Sequence[Evidence], transcript: Transcript) -> bool:
    """Whether a date is one, or was said in the utterances that the evidence is from."""
    try:
        date.fromisoformat(due.strip())
    except ValueError:
        pass
    else:
        return True
    heard = {token.text for token in said}
    for each in evidence:
        if (utterance := transcript.get(each.utterance)) is not None:
            heard |= {token.text for token in tokens(utterance.text)}
    wanted = {token.text for token in tokens(due)}
    return bool(wanted) and wanted <= heard


def _contradiction(claimed: Sequence[Token], said: Sequence[Token], language: Language) -> Drop | None:
    """In what a claim says something else than its evidence, if it does."""
    if not language.values(claimed) <= language.values(said):
        return Drop.NUMBER
    content = language.content(claimed)
    if content and len(content & language.content(said)) < LEAST_SUPPORT * len(content):
        return Drop.UNSUPPORTED
    if language.is_negated(claimed) != language.is_negated(said):
        return Drop.NEGATION
    return None
