"""How many words a transcript has wrong, counted by MeetEval over text in one spelling.

*WER* counts wrong words whoever they are given to: each utterance of the truth is put against the speaker's
captions where it fits best. This is the Optimal Reference Combination WER (Sklyar et al. 2022, "Multi-turn
RNN-T for streaming recognition of multi-party speech"), by MeetEval's greedy algorithm, which stays fast with
many speakers. *cpWER* counts a word that is given to the wrong speaker as wrong too: the concatenated
minimum-permutation WER (Watanabe et al. 2020, "CHiME-6 Challenge"). Both are errors per word of the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from agent.ingest.meeting import Segment
from benchmarks.normalise import spoken_words

__all__ = ["ErrorCount", "Scores", "pool", "score", "time_constrained"]

COLLAR_S = 5  # by which a word may be off in time, as is usual for meetings


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Insertions, deletions and substitutions against `words` words of the truth."""

    errors: int
    words: int

    def __add__(self, other: "ErrorCount") -> "ErrorCount":
        return ErrorCount(self.errors + other.errors, self.words + other.words)

    @property
    def rate_percent(self) -> float | None:
        """None without a word to compare with."""
        return 100 * self.errors / self.words if self.words else None


@dataclass(frozen=True, slots=True)
class Scores:
    """What one or several meetings score."""

    wer: ErrorCount
    cpwer: ErrorCount


def score(truth: Sequence[Segment], captions: Sequence[Segment]) -> Scores:
    """Compare the final captions of one meeting with what was said.

    Args:
        truth: Who said what from when to when.
        captions: The finals, each with the name of its speaker; their times only put them in order.
    """
    # MeetEval takes a second to import, and only benchmarks have it.
    from meeteval.io import SegLST
    from meeteval.wer import greedy_orc_word_error_rate
    from meeteval.wer.wer.cp import cp_word_error_rate

    reference, hypothesis = SegLST(_rows(truth)), SegLST(_rows(captions))
    if not hypothesis:  # nothing was heard: MeetEval wants a stream to compare with
        hypothesis = SegLST([{**row, "words": ""} for row in _rows(truth)])
    wer = greedy_orc_word_error_rate(reference, hypothesis)
    cpwer = cp_word_error_rate(reference, hypothesis)
    return Scores(wer=ErrorCount(wer.errors, wer.length), cpwer=ErrorCount(cpwer.errors, cpwer.length))


def time_constrained(truth: Sequence[Segment], captions: Sequence[Segment]) -> ErrorCount:
    """The time-constrained cpWER (von Neumann et al. 2023, "MeetEval"): a word counts only near its time."""
    from meeteval.io import SegLST
    from meeteval.wer.wer.time_constrained import time_constrained_minimum_permutation_word_error_rate

    if not captions:
        words = sum(len(spoken_words(segment.text)) for segment in truth)
        return ErrorCount(words, words)
    rate = time_constrained_minimum_permutation_word_error_rate(
        SegLST(_rows(truth)), SegLST(_rows(captions)), collar=COLLAR_S
    )
    return ErrorCount(rate.errors, rate.length)


def pool(scores: Sequence[Scores]) -> Scores:
    """The scores of several meetings as if they were one: errors and words are added up."""
    nothing = ErrorCount(0, 0)
    return Scores(
        wer=reduce(add, (each.wer for each in scores), nothing),
        cpwer=reduce(add, (each.cpwer for each in scores), nothing),
    )


def _rows(segments: Sequence[Segment]) -> list[dict[str, object]]:
    return [
        {
            "session_id": "meeting",
            "speaker": segment.speaker,
            "start_time": segment.start_s,
            "end_time": segment.end_s,
            "words": " ".join(spoken_words(segment.text)),
        }
        for segment in segments
    ]
