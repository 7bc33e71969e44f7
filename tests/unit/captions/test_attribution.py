import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.captions.attribution import UNKNOWN, VoiceIn, attribute
from agent.values import Word


def voices(**spans: list[tuple[int, int]]) -> VoiceIn:
    """Who speaks from when to when, in milliseconds."""

    def voice_in(start_ms: int, end_ms: int) -> dict[str, float]:
        return {
            identity: float(sum(max(0, min(end_ms, b) - max(start_ms, a)) for a, b in own))
            for identity, own in spans.items()
        }

    return voice_in


def words(text: str, start_ms: int, each_ms: int = 300) -> list[Word]:
    return [
        Word(word, start_ms + i * each_ms, start_ms + (i + 1) * each_ms, 0.9)
        for i, word in enumerate(text.split())
    ]


def test_one_speaker_has_all_words():
    (run,) = attribute(words("we do", 1_000), 1_000, 1_600, voices(felix=[(900, 1_700)], nora=[]))
    assert (run.identity, run.first, run.last, run.has_overlap) == ("felix", 0, 2, False)
    assert run.confidence == 1.0


def test_utterance_over_a_change_of_speaker_is_split_between_words():
    spoken = words("two percent is fine then we agree", 0)
    runs = attribute(spoken, 0, 2_100, voices(ines=[(0, 1_200)], nora=[(1_200, 2_100)]))
    assert [(run.identity, run.first, run.last) for run in runs] == [("ines", 0, 4), ("nora", 4, 7)]
    assert (runs[0].end_ms, runs[1].start_ms) == (1_200, 1_200)


def test_backchannel_in_overlap_does_not_take_words_away():
    spoken = words("it took us eighteen minutes to notice", 0)
    runs = attribute(spoken, 0, 2_100, voices(felix=[(0, 2_100)], omar=[(900, 1_400)]))
    assert [run.identity for run in runs] == ["felix"]
    assert runs[0].has_overlap
    assert runs[0].confidence == round(2_100 / 2_600, 3)


def test_word_times_that_are_off_by_a_syllable_do_not_change_the_speaker():
    spoken = words("who looks at the alert", 0)
    runs = attribute(spoken, 0, 1_500, voices(nora=[(0, 1_350)], ines=[(1_350, 1_500)]))
    assert [run.identity for run in runs] == ["nora"]


def test_words_without_times_go_to_whom_has_the_most_voice():
    (run,) = attribute([], 0, 2_000, voices(nora=[(0, 900)], felix=[(900, 2_000)]))
    assert (run.identity, run.first, run.last) == ("felix", 0, 0)


@pytest.mark.parametrize(
    "silent", [voices(), voices(nora=[], felix=[]), voices(nora=[(0, 40)], felix=[(500, 520)])]
)
def test_words_without_any_voice_are_nobodys_rather_than_somebodys(silent):
    (run,) = attribute(words("la la", 0), 0, 600, silent)
    assert run.identity == UNKNOWN


def test_words_that_only_one_can_have_said_are_theirs_even_if_hardly_heard():
    (run,) = attribute(words("mm hmm", 0), 0, 600, voices(omar=[]))
    assert (run.identity, run.confidence) == ("omar", 0.0)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=30),
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 9_000)).map(sorted).map(tuple), max_size=4),
    ),
)
def test_runs_cover_every_word_once_and_in_order(lengths, spans):
    spoken, at = [], 0
    for gap, length in lengths:
        spoken.append(Word("w", at + gap, at + gap + length, 0.5))
        at += gap + length
    runs = attribute(spoken, 0, at, voices(**spans))
    assert [index for run in runs for index in range(run.first, run.last)] == list(range(len(spoken)))
    assert all(a.identity != b.identity for a, b in itertools.pairwise(runs))
    assert all(run.start_ms <= run.end_ms and 0 <= run.confidence <= 1 for run in runs)
