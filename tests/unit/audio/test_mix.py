import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from agent.audio.mix import FULL_SCALE, KNEE, Mixer, soft_limit
from agent.values import SAMPLES_PER_MS, Block

totals = stnp.arrays(np.int32, st.integers(0, 200), elements=st.integers(-400_000, 400_000))


@given(totals)
def test_limiter_stays_within_full_scale_and_keeps_the_order_of_samples(total):
    limited = soft_limit(total)
    assert limited.dtype == np.int16
    assert limited.shape == total.shape
    assert np.all(np.abs(limited.astype(int)) <= FULL_SCALE)
    order = np.argsort(total, kind="stable")
    assert np.all(np.diff(limited[order].astype(int)) >= 0)


@given(stnp.arrays(np.int32, 50, elements=st.integers(-int(KNEE), int(KNEE))))
def test_limiter_leaves_a_lone_voice_as_it_is(total):
    assert np.array_equal(soft_limit(total), total)


def block(track: str, start_ms: int, value: int, duration_ms: int = 50) -> Block:
    return Block(track, start_ms, np.full(duration_ms * SAMPLES_PER_MS, value, np.int16))


def test_tracks_are_added_where_they_overlap():
    mixer = Mixer()
    mixer.add(block("a", 100, 10))
    mixer.add(block("b", 125, 5))
    mix = mixer.take(175)
    assert mix.start_ms == 100
    assert mix.samples[:: 25 * SAMPLES_PER_MS].tolist() == [10, 15, 5]


def test_mix_begins_with_the_first_block_not_with_the_session():
    mixer = Mixer()
    mixer.add(block("a", 3_600_000, 1))
    assert mixer.take(3_600_050).start_ms == 3_600_000


def test_taking_what_is_not_there_yet_gives_none():
    mixer = Mixer()
    assert mixer.take(1_000) is None
    mixer.add(block("a", 2_000, 1))
    assert mixer.take(1_000) is None
    assert mixer.take(2_000) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(1, 60), st.integers(-300, 300)), min_size=1, max_size=20
    ),
    st.lists(st.integers(0, 500), max_size=10),
)
def test_mixing_conserves_samples_whatever_is_taken_when(blocks, takes):
    """The sum over time of the mix is the sum over time of all blocks: nothing lost, nothing twice."""
    mixer = Mixer()
    taken_ms, mixed, given_total = 0, 0, 0
    schedule = sorted(blocks)
    for until in sorted(takes):
        while schedule and schedule[0][0] <= until:
            start, duration, value = schedule.pop(0)
            mixer.add(block("a", max(start, taken_ms), value, duration))
            given_total += value * duration * SAMPLES_PER_MS
        taken_ms = max(taken_ms, until)
        if (mix := mixer.take(taken_ms)) is not None:
            mixed += int(mix.samples.astype(int).sum())
    for start, duration, value in schedule:
        mixer.add(block("a", max(start, taken_ms), value, duration))
        given_total += value * duration * SAMPLES_PER_MS
    if (mix := mixer.take(10_000)) is not None:
        mixed += int(mix.samples.astype(int).sum())
    assert mixed == given_total
