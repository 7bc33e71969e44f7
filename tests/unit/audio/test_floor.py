"""Who is given to the speech engine, and when."""

from math import inf

import pytest

from agent.audio.activity import WINDOW_MS
from agent.audio.floor import MAX_WAIT_MS, RING_MS, Feed, Floor, Flush, Pause, WholeTurn
from agent.audio.turns import CUT_PAUSE_MS, LONG_MS
from tests.support.speech_windows import VOICE, in_time, starts_ms, windows_of


def opened(lanes, *tracks):
    floor = Floor(lanes)
    for track in tracks:
        floor.open(track)
    return floor


def speak(floor, *tracks):
    """Push what is said, and let each lane take all that it is given; gives that, in order."""
    given_out = []
    for window in in_time(*tracks):
        floor.push(window)
        floor.advance(window.end_ms)
        given_out += [(lane, item) for lane in range(4) for item in floor.take(lane, inf)]
    return given_out


def tracks_in_order(given_out):
    order = []
    for _, item in given_out:
        if isinstance(item, Feed) and item.track_id not in order[-1:]:
            order.append(item.track_id)
    return order


def reasons(floor):
    return {(decision.turn, decision.reason) for decision in floor.decisions() if decision.kind == "over"}


def test_lone_speaker_passes_through_as_they_speak():
    floor = opened(1, "a")
    begun_ms = None
    for window in windows_of("a", [(320, 1_600)], 3_000):
        floor.push(window)
        if any(isinstance(item, Feed) for item in floor.take(0, inf)) and begun_ms is None:
            begun_ms = window.end_ms
    assert begun_ms == 320 + 3 * WINDOW_MS


def test_pause_is_told_once_before_the_turn_is_flushed():
    floor = opened(1, "a")
    items = [item for _, item in speak(floor, windows_of("a", [(320, 1_600)], 3_000))]
    assert [type(item) for item in items if not isinstance(item, Feed)] == [Pause, Flush]


def test_who_speaks_meanwhile_comes_next_and_loses_no_word():
    floor = opened(1, "a", "b")
    a = windows_of("a", [(0, 2_560)], 6_016)
    b = windows_of("b", [(1_600, 3_200)], 6_016)
    given_out = speak(floor, a, b)
    assert tracks_in_order(given_out) == ["a", "b"]
    sent = {item.track_id: [] for _, item in given_out if isinstance(item, Feed)}
    for _, item in given_out:
        if isinstance(item, Feed):
            sent[item.track_id] += starts_ms(item)
    for track, windows in (("a", a), ("b", b)):
        said = [window.start_ms for window in windows if window.probability == VOICE]
        assert set(said) <= set(sent[track])
        assert sent[track] == sorted(set(sent[track]))


def test_holder_hands_over_sooner_where_somebody_waits():
    a = windows_of("a", [(0, 1_600), (1_920, 3_200)], 6_016)  # a pause of 320 ms
    alone = opened(1, "a")
    speak(alone, a)
    assert len(reasons(alone)) == 1
    contested = opened(1, "a", "b")
    given_out = speak(contested, a, windows_of("b", [(1_280, 3_200)], 6_016))
    assert tracks_in_order(given_out) == ["a", "b", "a"]


def test_holder_who_hardly_pauses_yields_once_somebody_has_waited_long():
    pause_ms = CUT_PAUSE_MS // WINDOW_MS * WINDOW_MS + WINDOW_MS
    early_ms, late_ms = 1_600, 1_600 + MAX_WAIT_MS + 640
    spoken = [(0, early_ms), (early_ms + pause_ms, late_ms), (late_ms + pause_ms, 6_400)]
    floor = opened(1, "a", "b")
    given_out = speak(floor, windows_of("a", spoken, 9_024), windows_of("b", [(1_280, 2_240)], 9_024))
    flushes = [item.turn for _, item in given_out if isinstance(item, Flush)]
    assert tracks_in_order(given_out) == ["a", "b", "a"]
    first = next(item for _, item in given_out if isinstance(item, Feed) and item.turn == flushes[1])
    assert first.track_id == "b"


def test_long_turn_is_cut_at_its_first_short_pause():
    pause_ms = CUT_PAUSE_MS // WINDOW_MS * WINDOW_MS + WINDOW_MS
    spoken = [(0, 3_200), (3_200 + pause_ms, 6_656), (6_656 + pause_ms, 9_024)]
    floor = opened(1, "a")
    speak(floor, windows_of("a", spoken, 10_016))
    cuts = [
        decision.end_ms
        for decision in floor.decisions()
        if decision.kind == "over" and decision.reason == "cut"
    ]
    assert cuts == [6_656 + pause_ms]  # with the silence up to there
    assert cuts[0] > LONG_MS


def test_two_lanes_take_two_who_speak_at_once_and_a_third_waits():
    floor = opened(2, "a", "b", "c")
    given_out = speak(
        floor, *(windows_of(track, [(at, 3_200)], 6_016) for track, at in (("a", 0), ("b", 320), ("c", 640)))
    )
    lanes = {item.track_id: lane for lane, item in given_out if isinstance(item, Feed)}
    assert sorted((lanes["a"], lanes["b"])) == [0, 1]
    assert {decision.track_id for decision in floor.decisions() if decision.kind == "waits"} == {"c"}


def test_waiting_turn_that_is_over_can_be_taken_as_a_whole_and_is_not_sent_again():
    floor = opened(1, "a", "b")
    wholes: list[WholeTurn] = []
    sent = set()
    for window in in_time(windows_of("a", [(0, 6_400)], 9_024), windows_of("b", [(640, 1_600)], 9_024)):
        floor.push(window)
        sent |= {item.track_id for item in floor.take(0, inf) if isinstance(item, Feed)}
        if whole := floor.take_whole():
            wholes.append(whole)
            assert window.end_ms < 2_400, "not as soon as it was over"
    assert [whole.track_id for whole in wholes] == ["b"]
    assert sent == {"a"}
    floor.put_back(wholes[0].turn, may_be_taken=False)
    assert floor.take_whole() is None
    assert [item.track_id for item in floor.take(0, inf) if isinstance(item, Feed)] == ["b"]


def test_lane_that_is_lost_is_given_everything_again_that_has_no_text():
    floor = opened(1, "a")
    windows = windows_of("a", [(0, 1_600), (3_200, 4_800)], 9_024)
    before = [item for _, item in speak(floor, windows)]
    first, second = [item.turn for item in before if isinstance(item, Flush)]
    floor.settle(first)
    floor.rewind(0)
    again = floor.take(0, inf)
    assert {item.turn for item in again} == {second}
    assert _samples(again) == _samples(item for item in before if item.turn == second)


def test_text_of_the_beginning_is_not_asked_for_again():
    floor = opened(1, "a")
    before = [item for _, item in speak(floor, windows_of("a", [(0, 3_200)], 6_016))]
    turn = before[-1].turn
    floor.settle_until(turn, 1_600)
    floor.rewind(0)
    again = [item for item in floor.take(0, inf) if isinstance(item, Feed)]
    assert again[0].start_ms == 1_600


def test_budget_bounds_what_a_lane_is_given():
    floor = opened(1, "a")
    for window in windows_of("a", [(0, 3_200)], 6_016):
        floor.push(window)
    taken = floor.take(0, 100)
    assert 100 <= sum(len(item.samples) for item in taken) / 16 < 100 + WINDOW_MS
    assert floor.has_more(0)
    assert not [item for item in floor.take(0, 0) if isinstance(item, Feed)]


def test_what_waits_for_too_long_is_dropped_and_said():
    floor = opened(1, "a")
    for window in windows_of("a", [(0, 3_200)], 6_016):
        floor.push(window)
    floor.advance(RING_MS + 1_600)
    dropped = [decision for decision in floor.decisions() if decision.kind == "dropped"]
    assert [(decision.start_ms, decision.reason) for decision in dropped] == [(0, "backlog")]
    assert 1_500 < dropped[0].end_ms <= 1_600
    floor.advance(RING_MS + 10_000)
    assert floor.is_idle
    assert floor.dropped_ms["backlog"] == pytest.approx(VOICE * 3_200, abs=200)


def test_stalled_track_ends_its_turn_and_lets_the_next_one_speak():
    floor = opened(1, "a", "b")
    a, b = windows_of("a", [(0, 9_000)], 1_600), windows_of("b", [(640, 9_000)], 4_000)
    assert tracks_in_order(speak(floor, a, b)) == ["a", "b"]


def test_withdrawn_turn_is_ended_where_it_is_and_its_voice_counted():
    floor = opened(1, "a", "b")
    items = [item for _, item in speak(floor, windows_of("a", [(0, 9_000)], 1_600))]
    turn = items[0].turn
    floor.withdraw("a", 0, "bleed")
    assert floor.is_withdrawn(turn)
    assert [type(item) for item in floor.take(0, inf)] == [Flush]
    floor.settle(turn)
    assert floor.is_idle
    assert floor.dropped_ms["bleed"] == pytest.approx(VOICE * len(_samples(items)) * WINDOW_MS, rel=0.01)


def test_fewer_lanes_put_back_who_was_not_begun():
    floor = opened(2, "a", "b")
    for window in in_time(windows_of("a", [(0, 3_200)], 3_200), windows_of("b", [(320, 3_200)], 3_200)):
        floor.push(window)
    floor.take(0, inf)
    floor.set_lanes(1)
    assert floor.take(1, inf) == []
    floor.close("a")
    assert "b" in {item.track_id for item in floor.take(0, inf) if isinstance(item, Feed)}


def _samples(items) -> list[int]:
    return [start for item in items if isinstance(item, Feed) for start in starts_ms(item)]
