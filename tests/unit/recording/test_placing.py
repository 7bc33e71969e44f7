"""The laws of placing: nothing is lost or heard twice, and everything is where it was spoken."""

from dataclasses import dataclass
from math import ceil, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.recording.placing import DOUBT_MS, MAX_STRETCH_MS, Placer

RATE_HZ = 16_000
BLOCK_MS = 50
BLOCK_SAMPLES = RATE_HZ * BLOCK_MS // 1000
MAX_ERROR_MS = 20
MAX_JITTER_MS = 150
# So late at most is every fourth block, and the last before a hole: a path that is always late has no zero,
# and of a late block nobody knows whether it was spoken before the hole or after it.
PROMPT_MS = 5
TRUE_START_MS = 10_000


def audio(duration_ms: int) -> np.ndarray:
    return np.zeros(duration_ms * RATE_HZ // 1000, np.int16)


class Record:
    """Everything that a placer gave out, by the value of its samples' block."""

    def __init__(self, placer: Placer) -> None:
        self.placer = placer
        self.placed = []  # (stretch, samples before it in the stretch, samples)
        self._counts = {}

    def push(self, samples, received_ms) -> None:
        self._keep(self.placer.push(samples, received_ms))

    def flush(self) -> None:
        self._keep(self.placer.flush())

    def _keep(self, placed) -> None:
        for stretch, samples in placed:
            before = self._counts.get(stretch, 0)
            self.placed.append((stretch, before, samples))
            self._counts[stretch] = before + len(samples)

    @property
    def stretches(self) -> list:
        return list(self._counts)

    def starts_ms(self) -> dict[int, float]:
        """Where each block begins, by the number that its samples hold."""
        return {
            int(samples[0]): stretch.start_ms + 1000 * before / RATE_HZ
            for stretch, before, samples in self.placed
        }


@dataclass
class Course:
    """What happens to a track: each block's number, begin and arrival; and after which it is muted."""

    blocks: list[tuple[int, float, int]]
    muted_after: set[int]


@st.composite
def courses(draw) -> Course:
    ppm = draw(st.integers(-200, 200))
    delays_ms = draw(st.lists(st.integers(0, MAX_JITTER_MS), min_size=1, max_size=12))
    steps = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("speak"), st.integers(1, 80)),
                st.tuples(st.just("lose"), st.integers(1, 40)),
                st.tuples(st.just("mute"), st.integers(1, 5_000)),
            ),
            min_size=1,
            max_size=8,
        )
    )
    ends_ms: list[float] = []
    muted_after, lost_after = set(), set()
    spoken_ms = 0
    for kind, amount in steps:
        if kind == "mute":
            muted_after.add(len(ends_ms) - 1)
            spoken_ms += amount
        elif kind == "lose":
            lost_after.add(len(ends_ms) - 1)
            spoken_ms += amount * BLOCK_MS
        else:
            # Who speaks between two holes does so for a while, or it cannot be told where that was.
            for _ in range(max(amount, 2 * DOUBT_MS // BLOCK_MS)):
                spoken_ms += BLOCK_MS
                ends_ms.append(TRUE_START_MS + spoken_ms * (1 + ppm / 1e6))
    blocks = []
    next_ms = inf
    for number, end_ms in reversed(list(enumerate(ends_ms))):
        delay_ms = delays_ms[number % len(delays_ms)]
        is_prompt = number % 4 == 0 or number in lost_after
        arrived_ms = ceil(end_ms) + (min(delay_ms, PROMPT_MS) if is_prompt else delay_ms)
        next_ms = min(arrived_ms, next_ms)  # blocks do not overtake each other
        blocks.append((number, end_ms - BLOCK_MS * (1 + ppm / 1e6), int(next_ms)))
    return Course(blocks[::-1], muted_after)


@given(courses())
def test_whatever_happens_to_a_track_it_is_kept_once_in_order_and_in_its_place(course):
    record = Record(Placer(RATE_HZ))
    for number, _, arrived_ms in course.blocks:
        record.push(np.full(BLOCK_SAMPLES, number, np.int16), arrived_ms)
        if number in course.muted_after:
            record.flush()
    record.flush()

    assert [int(samples[0]) for _, _, samples in record.placed] == [number for number, _, _ in course.blocks]
    end_ms = 0
    for stretch in record.stretches:
        assert stretch.start_ms >= end_ms
        end_ms = stretch.start_ms + stretch.duration_ms
        assert stretch.duration_ms <= MAX_STRETCH_MS
    starts_ms = record.starts_ms()
    errors = {number: starts_ms[number] - begin_ms for number, begin_ms, _ in course.blocks}
    assert all(abs(error) <= MAX_ERROR_MS for error in errors.values()), errors


@pytest.mark.parametrize("ppm", [-200, 200])
def test_clock_that_drifts_for_twenty_minutes_stays_within_20_ms(ppm):
    record = Record(Placer(RATE_HZ))
    scale = 1 + ppm / 1e6
    blocks = range(24_000)
    for number in blocks:
        record.push(np.full(BLOCK_SAMPLES, number, np.int16), round((number + 1) * BLOCK_MS * scale) + 1_000)
    record.flush()
    starts_ms = record.starts_ms()
    assert all(
        abs(starts_ms[number] - 1_000 - number * BLOCK_MS * scale) <= MAX_ERROR_MS for number in blocks
    )
    assert len(record.stretches) == pytest.approx(20, abs=1)
    kept = sum(len(samples) for _, _, samples in record.placed)
    assert kept + record.placer.trimmed == len(blocks) * BLOCK_SAMPLES
    assert record.placer.trimmed <= len(blocks) * BLOCK_SAMPLES * max(-ppm, 0) / 1e6


def test_jitter_makes_no_new_stretch():
    record = Record(Placer(RATE_HZ))
    for number, late_ms in enumerate([0, 140, 90, 40, 0, 5, 60, 10, 3]):
        record.push(audio(BLOCK_MS), 1_000 + (number + 1) * BLOCK_MS + late_ms)
    assert [stretch.start_ms for stretch in record.stretches] == [1_000]


def test_audio_that_is_seconds_late_and_comes_at_once_is_not_taken_for_a_hole():
    record = Record(Placer(RATE_HZ))
    record.push(audio(BLOCK_MS), 1_000)
    for _ in range(60):
        record.push(audio(BLOCK_MS), 4_000)
    (stretch,) = record.stretches
    assert (stretch.start_ms, stretch.end_ms) == (950, 4_000)


def test_start_that_was_late_is_known_better_by_what_follows():
    record = Record(Placer(RATE_HZ))
    record.push(audio(BLOCK_MS), 1_150)
    stretch = record.stretches[0]
    assert stretch.start_ms == 1_100
    record.push(audio(BLOCK_MS), 1_152)
    assert stretch.start_ms == 1_052


def test_what_is_in_doubt_waits_and_after_a_hole_begins_a_stretch_in_its_place():
    record = Record(Placer(RATE_HZ))
    record.push(audio(BLOCK_MS), 1_000)
    for at_ms in range(1_250, 1_250 + DOUBT_MS, BLOCK_MS):
        record.push(audio(BLOCK_MS), at_ms)
    assert len(record.placed) == 1
    record.push(audio(BLOCK_MS), 1_250 + DOUBT_MS)
    assert [stretch.start_ms for stretch in record.stretches] == [950, 1_200]


@pytest.mark.parametrize(("arrived_ms", "starts_ms"), [(1_150, [950]), (3_000, [950, 2_950])])
def test_what_is_in_doubt_at_the_end_is_late_or_after_a_hole_by_how_late_it_is(arrived_ms, starts_ms):
    record = Record(Placer(RATE_HZ))
    record.push(audio(BLOCK_MS), 1_000)
    record.push(audio(BLOCK_MS), arrived_ms)
    record.flush()
    assert [stretch.start_ms for stretch in record.stretches] == starts_ms


def test_audio_before_the_session_began_is_placed_at_its_beginning():
    record = Record(Placer(RATE_HZ))
    record.push(audio(BLOCK_MS), 30)
    assert record.stretches[0].start_ms == 0


@given(st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 3_000)), max_size=40))
def test_blocks_of_any_length_at_any_time_are_kept_in_order_without_overlap(arrivals):
    record = Record(Placer(RATE_HZ))
    count = at_ms = 0
    for length, wait_ms in arrivals:
        at_ms += wait_ms
        record.push(np.arange(count, count + length).astype(np.int16), at_ms)
        count += length
    record.flush()
    kept = np.concatenate([samples for _, _, samples in record.placed] or [np.empty(0, np.int16)])
    assert record.placer.trimmed == 0
    assert np.array_equal(kept, np.arange(count).astype(np.int16))
    end_ms = 0
    for stretch in record.stretches:
        assert stretch.start_ms >= end_ms
        end_ms = stretch.end_ms
