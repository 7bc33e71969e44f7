"""A turn that turns out to be somebody else's voice, from some moment on or from its beginning."""

from math import inf

import pytest

from agent.audio.activity import WINDOW_MS, Window
from agent.audio.floor import Feed, Floor, Flush
from tests.support.speech_windows import VOICE, starts_ms, windows_of

OWN_MS = 1_600
BLEED_FROM_MS = 1_920


def spoken() -> list[Window]:
    """Somebody's own words, and then, within the hang-over, the voice of another through their microphone."""
    return windows_of("a", [(320, OWN_MS), (BLEED_FROM_MS, 3_200)], 3_200)


def floor_that_heard(windows: list[Window], *, is_sent: bool) -> Floor:
    floor = Floor(1)
    floor.open("a")
    if not is_sent:  # somebody else has the lane
        floor.open("b")
        for window in windows_of("b", [(0, 9_000)], 320):
            floor.push(window)
    for window in windows:
        floor.push(window)
        floor.take(0, inf)
    return floor


@pytest.mark.parametrize("is_sent", [True, False])
def test_own_words_before_the_bleed_are_sent_as_a_turn_of_their_own(is_sent):
    windows = spoken()
    floor = floor_that_heard(windows, is_sent=is_sent)
    floor.withdraw("a", BLEED_FROM_MS, "bleed")
    if not is_sent:
        floor.close("b")
    sent: dict[int, list[int]] = {}
    for _ in range(10):
        for item in floor.take(0, inf):
            if isinstance(item, Feed) and item.track_id == "a":
                sent.setdefault(item.turn, []).extend(starts_ms(item))
            elif isinstance(item, Flush):
                floor.settle(item.turn)
    [(turn, starts)] = sent.items()
    own = {window.start_ms for window in windows if window.probability == VOICE and window.end_ms <= OWN_MS}
    assert own <= set(starts)
    assert max(starts) + WINDOW_MS <= BLEED_FROM_MS
    assert not floor.is_withdrawn(turn)
    assert floor.is_idle
    bled_ms = sum(window.voice_ms for window in windows if window.start_ms >= BLEED_FROM_MS)
    assert floor.dropped_ms["bleed"] == pytest.approx(bled_ms, abs=WINDOW_MS)


def test_what_had_its_text_already_is_not_sent_again():
    floor = floor_that_heard(spoken(), is_sent=True)
    [turn] = {decision.turn for decision in floor.decisions()}
    floor.settle_until(turn, OWN_MS + WINDOW_MS)
    floor.withdraw("a", BLEED_FROM_MS, "bleed")
    assert [type(item) for item in floor.take(0, inf)] == [Flush]
    floor.settle(turn)
    assert floor.is_idle
