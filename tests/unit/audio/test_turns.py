"""When one person's turn begins and ends."""

import itertools
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, Window
from agent.audio.floor import HAND_OVER_MS
from agent.audio.turns import (
    CUT_PAUSE_MS,
    HANGOVER_MS,
    LONGEST_MS,
    LOOK_BACK_MS,
    PRE_ROLL_MS,
    QUIET_WINDOWS,
    SEEK_MS,
    TAIL_MS,
    Began,
    Over,
    Paused,
    Spoke,
    TurnDetector,
)
from tests.support.speech_windows import SILENCE, VOICE, windows_of


def signals_of(windows, pause_ms=HANGOVER_MS):
    detector = TurnDetector()
    signals = [signal for window in windows for signal in detector.push(window, pause_ms)]
    return signals + detector.stop()


def kinds(signals):
    return [kind for kind, _ in itertools.groupby(type(signal) for signal in signals)]


def sent(signals):
    return [signal.window for signal in signals if isinstance(signal, Spoke)]


def test_turn_has_what_was_said_with_a_little_before_and_after_it():
    signals = signals_of(windows_of("a", [(960, 2_016)], 4_000))
    assert kinds(signals) == [Began, Spoke, Paused, Over]
    begin_ms, end_ms = sent(signals)[0].start_ms, sent(signals)[-1].end_ms
    assert (
        0 <= 960 - begin_ms - PRE_ROLL_MS < WINDOW_MS
        or begin_ms == 960 - PRE_ROLL_MS // WINDOW_MS * WINDOW_MS
    )
    assert TAIL_MS - WINDOW_MS < end_ms - 2_016 <= TAIL_MS
    assert signals[0] == Began(begin_ms)
    assert signals[-1] == Over(2_016, "pause")


def test_click_is_no_turn_and_is_counted():
    detector = TurnDetector()
    signals = [
        s for window in windows_of("a", [(960, 1_024)], 2_000) for s in detector.push(window, HANGOVER_MS)
    ]
    assert signals == []
    assert detector.unused_voice_ms == pytest.approx(2 * VOICE * WINDOW_MS)


def test_silence_within_a_turn_is_sent_only_when_speech_goes_on():
    signals = signals_of(windows_of("a", [(320, 1_280), (1_664, 2_624)], 4_000))
    assert [type(signal) for signal in signals].count(Began) == 1
    starts_ms = [window.start_ms for window in sent(signals)]
    assert starts_ms == list(range(starts_ms[0], starts_ms[-1] + 1, WINDOW_MS))


@pytest.mark.parametrize("pause_ms", [HANGOVER_MS, 250, CUT_PAUSE_MS])
def test_pause_of_the_wanted_length_ends_a_turn_and_a_shorter_one_does_not(pause_ms):
    shorter = pause_ms // WINDOW_MS * WINDOW_MS - WINDOW_MS
    longer = -(-pause_ms // WINDOW_MS) * WINDOW_MS
    for silence_ms, turns in ((shorter, 1), (longer, 2)):
        spoken = [(320, 1_280), (1_280 + silence_ms, 2_560 + silence_ms)]
        signals = signals_of(windows_of("a", spoken, 4_000), pause_ms)
        assert sum(isinstance(signal, Began) for signal in signals) == turns


def test_who_never_pauses_is_cut_at_a_moment_quieter_than_all_before():
    quiet_ms = 24_000
    windows = [
        Window(
            "a", at_ms, np.full(WINDOW_SAMPLES, 30 if 0 <= at_ms - quiet_ms < 200 else 3_000, np.int16), VOICE
        )
        for at_ms in range(0, 40_000, WINDOW_MS)
    ]
    over = next(signal for signal in signals_of(windows) if isinstance(signal, Over))
    assert over.reason == "longest"
    assert quiet_ms <= over.end_ms <= quiet_ms + 250


def test_no_turn_is_longer_than_engines_hear_at_once():
    windows = [
        Window("a", at, np.full(WINDOW_SAMPLES, at % 7, np.int16), VOICE)
        for at in range(0, 90_000, WINDOW_MS)
    ]
    signals = signals_of(windows)
    begins = [signal.start_ms for signal in signals if isinstance(signal, Began)]
    overs = [signal.end_ms for signal in signals if isinstance(signal, Over)]
    assert all(
        SEEK_MS <= end - begin <= LONGEST_MS + WINDOW_MS
        for begin, end in zip(begins, overs[:-1], strict=False)
    )
    assert [window.start_ms for window in sent(signals)] == [window.start_ms for window in windows]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from([3, 30, 150, 900]), st.sampled_from([1, 3, 4, 5, 8, 16, 40])),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.sampled_from([HANGOVER_MS, HAND_OVER_MS, CUT_PAUSE_MS]), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 1_000)),
)
def test_turn_of_a_minute_is_cut_only_at_a_pause_or_late_where_it_is_quietest(talk, pauses_ms, seed):
    """Windows of voice and of silence by turns, as much silence as ends a turn by the second, and levels.

    Without a pause a turn ends, from 20 s on, with the first moment of 160 ms that is quieter than all others
    in the eight seconds up to it, and at 28 s if there is none.
    """
    count = 60_000 // WINDOW_MS
    has_voice = [is_voice for voice, pause in talk for is_voice in (True,) * voice + (False,) * pause]
    has_voice = (has_voice * (count // len(has_voice) + 1))[:count]
    levels = np.full(count, 50) if seed is None else np.random.default_rng(seed).integers(20, 100, count)
    moments = np.convolve(np.square(levels), np.ones(QUIET_WINDOWS, np.int64))[:count]  # by their last window

    def is_quietest(last: int) -> bool:
        first = last + 1 - LOOK_BACK_MS // WINDOW_MS + QUIET_WINDOWS - 1
        return bool(moments[last] < moments[first:last].min())

    detector = TurnDetector()
    begin_ms = 0
    for index in range(count):
        samples = np.full(WINDOW_SAMPLES, levels[index], np.int16)
        window = Window("a", index * WINDOW_MS, samples, VOICE if has_voice[index] else SILENCE)
        for signal in detector.push(window, pauses_ms[window.start_ms // 1_000 % len(pauses_ms)]):
            if isinstance(signal, Began):
                begin_ms = signal.start_ms
            if not isinstance(signal, Over):
                continue
            end, end_ms = signal.end_ms // WINDOW_MS, signal.end_ms
            if signal.reason == "longest":
                assert SEEK_MS <= end_ms - begin_ms <= LONGEST_MS
                assert end_ms - begin_ms == LONGEST_MS or is_quietest(end - 1)
                first = (begin_ms + SEEK_MS) // WINDOW_MS - 1
                assert not any(is_quietest(last) for last in range(first, end - 1))
            else:
                assert not any(has_voice[end : end + ceil(CUT_PAUSE_MS / WINDOW_MS)])
                assert signal.reason == "cut" or not any(has_voice[end : end + HANGOVER_MS // WINDOW_MS])
        assert not detector.is_open or window.end_ms - begin_ms < LONGEST_MS


def test_track_that_goes_away_in_mid_word_ends_its_turn():
    signals = signals_of(windows_of("a", [(320, 9_000)], 1_600))
    assert signals[-1] == Over(1_600, "gone")


def test_hole_longer_than_a_pause_ends_the_turn_and_a_short_one_does_not():
    before = windows_of("a", [(0, 1_600)], 1_600)
    for hole_ms, turns in ((320, 1), (640, 2)):
        after = windows_of("a", [(0, 9_000)], 1_600 + hole_ms + 1_600, start_ms=1_600 + hole_ms)
        signals = signals_of(before + after)
        assert sum(isinstance(signal, Began) for signal in signals) == turns


@given(
    st.lists(st.sampled_from([VOICE, 0.4, SILENCE]), max_size=300),
    st.sampled_from([HANGOVER_MS, 250, CUT_PAUSE_MS]),
)
def test_every_window_of_voice_is_sent_once_in_order_or_counted(voices, pause_ms):
    windows = [
        Window("a", index * WINDOW_MS, np.zeros(WINDOW_SAMPLES, np.int16), voice)
        for index, voice in enumerate(voices)
    ]
    detector = TurnDetector()
    signals = [signal for window in windows for signal in detector.push(window, pause_ms)] + detector.stop()
    starts_ms = [window.start_ms for window in sent(signals)]
    assert starts_ms == sorted(set(starts_ms))
    in_voice_ms = sum(window.voice_ms for window in windows if window.probability == VOICE)
    sent_ms = sum(window.voice_ms for window in sent(signals) if window.probability == VOICE)
    assert sent_ms + detector.unused_voice_ms == pytest.approx(in_voice_ms)
    open_turns = 0
    for signal in signals:
        open_turns += isinstance(signal, Began) - isinstance(signal, Over)
        assert open_turns in (0, 1)
        assert not isinstance(signal, Spoke) or open_turns == 1
    assert open_turns == 0
