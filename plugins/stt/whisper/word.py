"""A word as the local engine decoded it, before anybody knows whose it is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DecodedWord"]


@dataclass(frozen=True, slots=True)
class DecodedWord:
    """One word of a hypothesis.

    `text` is as the model writes it: with a leading space where the language separates words by
    spaces, so that the joined texts are the sentence. Times are seconds since the first sample of
    the audio that was decoded. `confidence` is the mean probability of `tokens`, 0 to 1.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    tokens: tuple[int, ...]
