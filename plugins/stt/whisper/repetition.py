"""Repetition: the sign that a decoder fell into a loop."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

__all__ = ["count_before_loop", "has_loop"]

# Whisper's own threshold (Radford et al. 2022): text of speech compresses less than this.
COMPRESSION_RATIO_LIMIT = 2.4
# zlib misses a short text that is said twice; people seldom say four words twice in one breath.
REPEATED_WORDS = 4
# In a partial, the same one to three words in immediate succession this often are a loop.
LOOP_ROUNDS = 3


def has_loop(words: Sequence[str]) -> bool:
    """Say whether a text looks like a loop: by its zlib ratio, or four words that occur twice."""
    data = "".join(words).encode()
    if len(data) / len(zlib.compress(data)) > COMPRESSION_RATIO_LIMIT:
        return True
    plain = [_plain(word) for word in words]
    runs = [tuple(plain[at : at + REPEATED_WORDS]) for at in range(len(plain) - REPEATED_WORDS + 1)]
    return len(set(runs)) < len(runs)


def count_before_loop(words: Sequence[str]) -> int:
    """Return how many leading words there are before the first round of any loop is over.

    A loop is the same words, up to `REPEATED_WORDS` and more, said again at once; fewer words than
    that must occur `LOOP_ROUNDS` times, because people do say "no, no".
    """
    plain = [_plain(word) for word in words]
    kept = len(plain)
    for start in range(len(plain)):
        for period in range(1, (len(plain) - start) // 2 + 1):
            rounds = 2 if period >= REPEATED_WORDS else LOOP_ROUNDS
            unit = plain[start : start + period]
            if plain[start : start + rounds * period] == unit * rounds:
                kept = min(kept, start + period)
    return kept


def _plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())
