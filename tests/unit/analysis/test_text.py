"""Words and sentences keep their places."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.text import folded, sentences, tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don\u2019t know.", ["i", "don't", "know"]),
        ("At 9:10, 2.5 % of 1,000 failed", ["at", "9:10", "2.5", "of", "1,000", "failed"]),
        ("On-call, п'ять об'єктів", ["on-call", "п'ять", "об'єктів"]),
        ("...", []),
    ],
)
def test_words_are_folded(text, words):
    assert [token.text for token in tokens(text)] == words


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Good. Who looks at it? Ines", ["Good.", "Who looks at it?", "Ines"]),
        ("It costs 2.5 euros. Fine!", ["It costs 2.5 euros.", "Fine!"]),
        ('He said "no." And left…', ['He said "no."', "And left…"]),
        ("  ", []),
    ],
)
def test_sentences_end_where_a_mark_is_followed_by_space(text, pieces):
    assert [text[span.start : span.end] for span in sentences(text)] == pieces


@given(st.text(max_size=300))
def test_places_are_those_of_the_text(text):
    assert len(folded(text)) == len(text)
    for token in tokens(text):
        assert folded(text)[token.start : token.end] == token.text
    spans = list(sentences(text))
    assert all(first.end <= second.start for first, second in pairwise(spans))
    assert "".join("".join(text[span.start : span.end] for span in spans).split()) == "".join(text.split())
