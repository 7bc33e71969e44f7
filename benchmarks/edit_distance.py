"""Which word of one text stands for which word of another: Levenshtein's alignment."""

from collections.abc import Callable, Sequence

__all__ = ["align"]

_PAIR, _DELETION, _INSERTION = 0, 1, 2


def align(
    reference: Sequence[str],
    hypothesis: Sequence[str],
    rank: Callable[[int, int], float | None] = lambda _reference, _hypothesis: 0.0,
) -> list[int | None]:
    """Put each reference word against a hypothesis word, or against nothing, with the fewest edits.

    Args:
        reference: The words that were said.
        hypothesis: The words that were recognised.
        rank: Of a reference index and a hypothesis index. None forbids to put the two against each other.
            Among the alignments with the fewest edits, one with the smallest sum of ranks is taken.

    Returns:
        For each reference word the index of the word against it, rising; the two may differ (a substitution).
        None is a deletion.
    """
    # A cost is (edits, sum of ranks), compared in this order.
    above = [(column, 0.0) for column in range(len(hypothesis) + 1)]
    steps = []
    for row, said in enumerate(reference):
        costs = [(row + 1, 0.0)]
        row_steps = bytearray(len(hypothesis))
        for column, recognised in enumerate(hypothesis):
            edits, ranks = above[column + 1]
            best, step = (edits + 1, ranks), _DELETION
            edits, ranks = costs[column]
            if (edits + 1, ranks) < best:
                best, step = (edits + 1, ranks), _INSERTION
            if (pair_rank := rank(row, column)) is not None:
                edits, ranks = above[column]
                pair = (edits + (said != recognised), ranks + pair_rank)
                if pair <= best:
                    best, step = pair, _PAIR
            costs.append(best)
            row_steps[column] = step
        steps.append(row_steps)
        above = costs
    return _trace_back(steps, len(hypothesis))


def _trace_back(steps: Sequence[bytearray], columns: int) -> list[int | None]:
    against: list[int | None] = [None] * len(steps)
    row, column = len(steps), columns
    while row and column:
        step = steps[row - 1][column - 1]
        row -= step != _INSERTION
        column -= step != _DELETION
        if step == _PAIR:
            against[row] = column
    return against
