"""A recognised word, as the local engine's parts hand it to each other."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Word"]


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a hypothesis.

    `text` is written as the model writes it: with a leading space where the language separates
    words by spaces, so that joining the texts gives the sentence. Times are seconds since the first
    sample of the utterance, `confidence` is the geometric mean of the probabilities of `tokens`.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    tokens: tuple[int, ...]
