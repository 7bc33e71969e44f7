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
    places = {word: place for place, word in enumerate(frequencies)}
    vectors = np.zeros((count, max(len(places), 1)))
    for row, sentence in enumerate(sentences):
        for word in sentence:
            vectors[row, places[word]] += log(1 + count / frequencies[word])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1.0)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, 0.0)
    sums = likeness.sum(axis=1, keepdims=True)
    # From a sentence that is like no other the walk goes anywhere.
    steps = np.where(sums > 0, likeness / np.where(sums > 0, sums, 1.0), 1.0 / count)
    shares = np.full(count, 1.0 / count)
    for _ in range(ROUNDS):
        shares = (1 - DAMPING) / count + DAMPING * (shares @ steps)
    return shares
