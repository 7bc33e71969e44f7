from hypothesis import given
from hypothesis import strategies as st

from benchmarks.edit_distance import align

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=7)


def edits(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein's distance by its definition."""
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    return min(
        edits(reference[1:], hypothesis[1:]) + (reference[0] != hypothesis[0]),
        edits(reference[1:], hypothesis) + 1,
        edits(reference, hypothesis[1:]) + 1,
    )


def test_equal_words_are_put_against_each_other_around_errors() -> None:
    reference = ["we", "do", "but", "the", "proxy", "was", "added", "by", "hand"]
    hypothesis = ["we", "but", "the", "proxies", "was", "added", "uh", "by", "hand"]

    assert align(reference, hypothesis) == [0, None, 1, 2, 3, 4, 5, 7, 8]


def test_nothing_against_nothing() -> None:
    assert align([], ["a"]) == []
    assert align(["a"], []) == [None]


@given(WORDS, WORDS)
def test_no_alignment_has_fewer_edits(reference: list[str], hypothesis: list[str]) -> None:
    against = align(reference, hypothesis)

    pairs = [(row, column) for row, column in enumerate(against) if column is not None]
    substitutions = sum(reference[row] != hypothesis[column] for row, column in pairs)
    unpaired = len(reference) + len(hypothesis) - 2 * len(pairs)
    assert [column for _, column in pairs] == sorted({column for _, column in pairs})
    assert substitutions + unpaired == edits(reference, hypothesis)


def test_rank_decides_between_equally_good_places() -> None:
    reference = ["yes", "no", "yes"]

    assert align(reference, ["yes"], rank=lambda row, _: row) == [0, None, None]
    assert align(reference, ["yes"], rank=lambda row, _: -row) == [None, None, 0]


def test_rank_never_costs_an_edit() -> None:
    assert align(["yes", "no"], ["yes", "no"], rank=lambda row, _: 1000.0) == [0, 1]


def test_a_forbidden_pair_is_never_made() -> None:
    assert align(["yes", "yes"], ["yes"], rank=lambda row, _: None if row == 1 else 0.0) == [0, None]
    assert align(["yes"], ["yes"], rank=lambda row, column: None) == [None]
