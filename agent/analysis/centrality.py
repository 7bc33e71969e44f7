"""How much each sentence of a text says of the whole. Pure.

Source: LexRank (Erkan and Radev 2004), continuous: the stationary distribution of a walk from sentence to
sentence, each step as likely as the two are alike, by the cosine of their tf-idf vectors.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

__all__ = ["centrality"]

DAMPING = 0.85
ROUNDS = 50  # it has converged to a thousandth long before
LEAST_SUM = 1e-9  # of likenesses: less is what rounding leaves of none


def centrality(sentences: Sequence[Collection[str]]) -> NDArray[np.float64]:
    """Rate sentences by their words of content.

    Args:
        sentences: The words of each, in any order.

    Returns:
        Shape (sentences,): each one's share, 1 in sum; empty for none.
    """
    count = len(sentences)
    if not count:
        return np.empty(0)
    frequencies = Counter(word for sentence in sentences for word in set(sentence))
    # Sums are rounded by the order of what is added, and that of a set is another one in each process.
    places = {word: place for place, word in enumerate(sorted(frequencies))}
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for number, sentence in enumerate(sentences):
        for word, times in sorted(Counter(sentence).items()):
            rows.append(number)
            columns.append(places[word])
            weights.append(times * log(1 + count / frequencies[word]))
    row, column = np.array(rows, dtype=np.intp), np.array(columns, dtype=np.intp)
    weight = np.array(weights)
    lengths = np.sqrt(np.bincount(row, weight**2, count))
    weight /= lengths[row]
    is_something = lengths > 0  # each is like itself by 1, which does not count

    def likeness(walkers: NDArray[np.float64]) -> NDArray[np.float64]:
        """What comes to each sentence from all others; the matrix of all pairs is never made."""
        by_word = np.bincount(column, weight * walkers[row], len(places) or 1)
        return np.bincount(row, weight * by_word[column], count) - is_something * walkers

    sums = likeness(np.ones(count))
    is_alike = sums > LEAST_SUM
    shares = np.full(count, 1.0 / count)
    for _ in range(ROUNDS):
        moving = np.where(is_alike, shares / np.where(is_alike, sums, 1.0), 0.0)
        # From a sentence that is like no other the walk goes anywhere.
        anywhere = shares[~is_alike].sum() / count
        shares = (1 - DAMPING) / count + DAMPING * (likeness(moving) + anywhere)
    return shares
