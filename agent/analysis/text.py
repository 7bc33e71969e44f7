"""Text as words and sentences with their places. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Span", "Token", "folded", "sentences", "tokens"]

# A number with its separators, or letters with apostrophes and hyphens between them.
_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['\u2019\-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'»”’)]*(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a text, from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Token:
    """A word or number, folded, and where it stands."""

    text: str
    start: int
    end: int


def folded(text: str) -> str:
    """The same text for comparisons, as long as before: small letters, one kind of apostrophe."""
    return "".join(
        small if len(small := character.lower()) == 1 else character
        for character in text.replace("\u2019", "'")
    )


def tokens(text: str) -> list[Token]:
    """Its words and numbers, in order."""
    return [Token(match.group(), match.start(), match.end()) for match in _WORD.finditer(folded(text))]


def sentences(text: str) -> Iterator[Span]:
    """Its sentences without the space around them; a text without an end is one."""
    start = 0
    for end in (*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)):
        piece = text[start:end]
        if stripped := piece.strip():
            begin = start + piece.index(stripped)
            yield Span(begin, begin + len(stripped))
        start = end
