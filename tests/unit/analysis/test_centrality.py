"""How much each sentence says of the whole."""

import tracemalloc
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.centrality import centrality

MANY = 30_000  # eight hours of talk
MOST_BYTES = 100_000_000


def test_sentence_that_shares_words_with_the_others_says_more_than_one_that_shares_none():
    shares = centrality([["proxy", "renewal"], ["proxy", "friday"], ["renewal", "list"], ["weather"]])
    assert shares[0] == max(shares)
    assert shares[3] == min(shares)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=30))
def test_shares_are_positive_and_one_in_sum(sentences: list[list[str]]):
    shares = centrality(sentences)
    assert shares.shape == (len(sentences),)
    assert not sentences or shares.sum() == pytest.approx(1)
    assert (shares > 0).all()


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=30), st.randoms())
def test_order_of_words_changes_not_even_the_rounding(sentences: list[list[str]], random: Random):
    mixed = [random.sample(sentence, len(sentence)) for sentence in sentences]
    assert np.array_equal(centrality(mixed), centrality(sentences))


def test_long_session_takes_memory_by_its_words_and_not_by_pairs_of_sentences():
    words = np.random.default_rng(1).integers(0, 5_000, (MANY, 8)).astype(str).tolist()
    tracemalloc.start()
    try:
        centrality(words)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MOST_BYTES
