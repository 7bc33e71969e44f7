import pytest

from agent.ingest.meeting import Segment
from benchmarks.scoring import ErrorCount, Scores, pool, score

pytest.importorskip("meeteval", reason="MeetEval is in the dependency group bench")

TRUTH = [
    Segment("Nora", "Who looks at the alert?", 0.0, 2.0),
    Segment("Ines", "I will lower it to two percent.", 1.5, 4.0),
    Segment("Nora", "Good.", 4.5, 5.0),
]


def test_a_transcript_in_another_spelling_has_no_errors() -> None:
    captions = [
        Segment("Nora", "who looks at the alert", 0.1, 1.9),
        Segment("Ines", "I'll lower it to 2%.", 1.6, 4.1),
        Segment("Nora", "Good", 4.5, 5.0),
    ]

    assert score(TRUTH, captions) == Scores(wer=ErrorCount(0, 13), cpwer=ErrorCount(0, 13))


def test_a_wrong_word_counts_in_both_rates() -> None:
    captions = [
        Segment("Nora", "Who looks at the aloud?", 0.1, 1.9),
        Segment("Ines", "I will lower it to two percent.", 1.6, 4.1),
        Segment("Nora", "Good", 4.5, 5.0),
    ]

    assert score(TRUTH, captions) == Scores(wer=ErrorCount(1, 13), cpwer=ErrorCount(1, 13))


def test_a_right_word_under_the_wrong_name_counts_in_cpwer_alone() -> None:
    captions = [
        Segment("Nora", "Who looks at the alert?", 0.1, 1.9),
        Segment("Ines", "I will lower it to two percent. Good.", 1.6, 5.0),
    ]

    # It is missing from the one and too much in the other.
    assert score(TRUTH, captions) == Scores(wer=ErrorCount(0, 13), cpwer=ErrorCount(2, 13))


def test_silence_scores_every_word_as_missing() -> None:
    assert score(TRUTH, []) == Scores(wer=ErrorCount(13, 13), cpwer=ErrorCount(13, 13))


def test_several_meetings_are_pooled_by_words() -> None:
    one = Scores(wer=ErrorCount(1, 10), cpwer=ErrorCount(2, 10))
    other = Scores(wer=ErrorCount(0, 30), cpwer=ErrorCount(4, 30))

    pooled = pool([one, other])

    assert pooled == Scores(wer=ErrorCount(1, 40), cpwer=ErrorCount(6, 40))
    assert pooled.wer.rate_percent == 2.5
    assert ErrorCount(3, 0).rate_percent is None
