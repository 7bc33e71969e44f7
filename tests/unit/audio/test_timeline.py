import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.audio.timeline import MAX_LEAD_MS, MAX_WAIT_MS, MOST_LEAD_MS, QUIET, Timeline
from agent.values import SAMPLES_PER_MS


def audio(duration_ms: int, value: int = 1) -> np.ndarray:
    return np.full(duration_ms * SAMPLES_PER_MS, value, np.int16)


def opened(*tracks: str) -> Timeline:
    timeline = Timeline()
    for track in tracks:
        timeline.open(track)
    return timeline


def test_first_block_is_placed_by_its_arrival():
    block = opened("a").place("a", audio(50), received_ms=1_000)
    assert (block.start_ms, block.end_ms) == (950, 1_000)


def test_jitter_of_arrival_does_not_move_the_blocks_of_a_track():
    timeline = opened("a")
    starts = [timeline.place("a", audio(50), at).start_ms for at in (1_000, 1_081, 1_102, 1_160)]
    assert starts == [950, 1_000, 1_050, 1_100]


def test_late_block_is_moved_behind_what_was_taken_and_loses_nothing():
    timeline = opened("a", "b")
    timeline.place("a", audio(50), 1_000)
    timeline.place("b", audio(50), 1_000)
    for at in range(1_050, 2_000, 50):
        timeline.place("b", audio(50), at)
    timeline.take(timeline.ready_ms())
    # A second of it arrives at once, as after a stall.
    late = timeline.place("a", audio(1_000, QUIET), 2_000)
    assert late.start_ms == 1_950 - MAX_WAIT_MS
    assert late.end_ms - late.start_ms == 1_000
    assert timeline.moved_ms == late.start_ms - 1_000
    assert timeline.trimmed_ms == 0


def test_track_that_runs_ahead_of_its_arrival_is_brought_back_in_a_pause():
    timeline = opened("a")
    blocks = [timeline.place("a", audio(50, QUIET), 1_000) for _ in range(10)]
    assert max(block.end_ms for block in blocks) == 1_450
    assert timeline.trimmed_ms == 0
    pause = timeline.place("a", audio(500, 0), 1_450)
    assert timeline.trimmed_ms == 500 - MAX_LEAD_MS
    assert pause.end_ms == 1_450 + MAX_LEAD_MS


def test_track_that_never_pauses_does_not_run_ahead_for_ever():
    timeline = opened("a")
    for _ in range(100):
        timeline.place("a", audio(50, QUIET), 1_000)
    assert timeline.end_ms() <= 1_000 + MOST_LEAD_MS


def test_hole_in_the_only_track_is_no_delay():
    timeline = opened("a")
    timeline.place("a", audio(50), 1_000)
    timeline.take(timeline.ready_ms())
    assert timeline.place("a", audio(50), 11_000).start_ms == 10_950


def test_closing_every_track_leaves_nothing_waiting():
    """Else a later block would be mixed behind a stretch of silence as long as the break."""
    timeline = opened("a", "b")
    timeline.place("a", audio(80), 1_030)
    timeline.place("b", audio(50), 1_000)
    timeline.close("a")
    timeline.close("b")
    assert timeline.ready_ms() == 1_030


def test_stalled_track_does_not_hold_the_others_back():
    timeline = opened("stalled", "b")
    timeline.place("stalled", audio(50), 1_000)
    timeline.place("b", audio(50), 1_000)
    assert timeline.ready_ms() == 1_000
    for at in range(1_050, 3_000, 50):
        timeline.place("b", audio(50), at)
    assert timeline.ready_ms() == 2_950 - MAX_WAIT_MS


def test_closed_and_unknown_tracks_are_ignored():
    timeline = opened("a")
    timeline.close("a")
    assert timeline.place("a", audio(50), 1_000) is None
    assert timeline.place("nobody", audio(50), 1_000) is None


def test_track_that_was_muted_is_placed_by_its_arrival_again():
    timeline = opened("a")
    timeline.place("a", audio(50), 1_000)
    timeline.close("a")
    timeline.open("a")
    assert timeline.place("a", audio(50), 9_000).start_ms == 8_950


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=40))
def test_blocks_of_any_length_are_gapless_and_keep_every_sample_but_a_rest(lengths):
    timeline = opened("a")
    received, placed, end_ms = 0, [], None
    for length in lengths:
        received += length
        # Arrivals are never earlier than the audio itself.
        at_ms = 10_000 + -(-received // SAMPLES_PER_MS)
        block = timeline.place("a", np.arange(received - length, received).astype(np.int16), at_ms)
        if block is not None:
            assert end_ms is None or block.start_ms == end_ms
            end_ms = block.end_ms
            placed.append(block.samples)
    kept = np.concatenate(placed) if placed else np.empty(0, np.int16)
    assert len(kept) == received // SAMPLES_PER_MS * SAMPLES_PER_MS
    assert np.array_equal(kept, np.arange(len(kept)).astype(np.int16))
