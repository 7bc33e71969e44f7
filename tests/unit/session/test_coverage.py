"""How much of what was heard is in final captions."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.session.coverage import MARGIN_MS, Coverage, VoiceIn


def voices(**spoken_ms: Sequence[tuple[int, int]]) -> VoiceIn:
    """Who spoke from when to when, without a doubt."""

    def voice_in(start_ms: int, end_ms: int) -> Mapping[str, float]:
        return {
            who: float(sum(max(min(end_ms, end) - max(start_ms, begin), 0) for begin, end in spans))
            for who, spans in spoken_ms.items()
        }

    return voice_in


NORA = voices(nora=[(0, 10_000)])


def test_session_without_speech_is_covered():
    assert Coverage().share == 1.0
    silent = Coverage()
    silent.end(1, 0, 5_000, "nora", voices(nora=[]))
    assert silent.share == 1.0


def test_turn_that_goes_on_is_not_counted_yet():
    coverage = Coverage()
    coverage.final(1, "nora", 0, 2_000)
    assert (coverage.share, coverage.covered_ms()) == (1.0, {})


def test_turn_with_all_its_words_is_covered():
    coverage = Coverage()
    coverage.final(1, "nora", 0, 4_000)
    coverage.final(1, "nora", 4_200, 10_000)
    coverage.end(1, 0, 10_000, "nora", NORA)
    assert coverage.share == 1.0
    assert coverage.covered_ms() == {"nora": 10_000}


def test_turn_of_which_half_has_words_is_covered_by_half():
    coverage = Coverage()
    coverage.final(1, "nora", 0, 5_000)
    coverage.end(1, 0, 10_000, "nora", NORA)
    assert coverage.share == pytest.approx((5_000 + MARGIN_MS) / 10_000)


def test_turn_without_a_word_is_not_covered_and_lowers_the_share_of_all():
    coverage = Coverage()
    coverage.final(1, "nora", 0, 10_000)
    coverage.end(1, 0, 10_000, "nora", NORA)
    coverage.end(2, 0, 10_000, "omar", voices(omar=[(0, 10_000)]))
    assert coverage.share == 0.5
    assert coverage.covered_ms() == {"nora": 10_000}


def test_finals_over_each_other_cover_once():
    coverage = Coverage()
    for _ in range(3):
        coverage.final(1, "nora", 0, 5_000)
    coverage.final(1, "nora", 2_000, 4_000)
    coverage.end(1, 0, 10_000, "nora", NORA)
    assert coverage.covered_ms() == {"nora": 5_000 + MARGIN_MS}


def test_final_covers_nothing_outside_its_turn():
    coverage = Coverage()
    coverage.final(1, "nora", 2_000, 60_000)
    coverage.end(1, 2_000, 4_000, "nora", NORA)
    assert coverage.covered_ms() == {"nora": 2_000}
    assert coverage.share == 1.0


def test_who_spoke_meanwhile_has_a_turn_of_their_own():
    both = voices(nora=[(0, 4_000)], omar=[(1_000, 3_000)])
    coverage = Coverage()
    coverage.final(1, "nora", 0, 4_000)
    coverage.end(1, 0, 4_000, "nora", both)
    assert coverage.share == 1.0
    coverage.end(2, 1_000, 3_000, "omar", both)
    assert coverage.share == pytest.approx(4_000 / 6_000)


def test_of_a_sum_all_who_spoke_are_counted():
    both = voices(nora=[(0, 4_000)], omar=[(4_000, 8_000)])
    coverage = Coverage()
    coverage.final(1, "nora", 0, 4_000)
    coverage.end(1, 0, 8_000, None, both)
    assert coverage.share == 0.5
    assert coverage.covered_ms() == {"nora": 4_000}


def test_speech_in_a_turn_without_a_final_is_heard_and_not_covered():
    coverage = Coverage()
    coverage.final(1, "nora", 0, 5_000)
    coverage.end(1, 0, 5_000, "nora", NORA)
    coverage.end(2, 5_000, 10_000, "nora", NORA)
    assert coverage.share == pytest.approx(0.5, abs=MARGIN_MS / 10_000)


def test_turn_that_was_somebody_elses_voice_counts_nothing():
    coverage = Coverage()
    coverage.final(1, "nora", 0, 5_000)
    coverage.forget(1)
    assert coverage.share == 1.0
    assert coverage.covered_ms() == {}


spans = st.tuples(st.integers(0, 20_000), st.integers(0, 5_000)).map(lambda pair: (pair[0], sum(pair)))
people = st.sampled_from(["nora", "omar"])


@given(
    turns=st.lists(st.tuples(spans, people, st.lists(st.tuples(people, spans), max_size=4)), max_size=6),
    is_sum=st.booleans(),
)
def test_share_is_one_of_what_was_heard_and_nobody_has_more_covered_than_heard(turns, is_sum):
    """Wherever the finals lie, under whatever names."""
    voice_in = voices(nora=[(0, 8_000), (9_000, 30_000)], omar=[(4_000, 12_000)])
    coverage = Coverage()
    heard_ms = {"nora": 0.0, "omar": 0.0}
    for number, ((start_ms, end_ms), who, finals) in enumerate(turns):
        for name, (begin, finish) in finals:
            if is_sum or name == who:
                coverage.final(number, name, begin, finish)
        coverage.end(number, start_ms, end_ms, None if is_sum else who, voice_in)
        for name, voice_ms in voice_in(start_ms, end_ms).items():
            heard_ms[name] += voice_ms if is_sum or name == who else 0.0
    assert 0.0 <= coverage.share <= 1.0
    for who, covered_ms in coverage.covered_ms().items():
        assert covered_ms <= heard_ms[who] + 1e-6
