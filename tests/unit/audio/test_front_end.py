"""From the tracks of a room to voices and signals. Voice is where a track is not quiet: what is heard in real
speech is a matter of the detector, which is not what is tested here."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, Window
from agent.audio.bleed import Bleed, Echo
from agent.audio.front_end import Closed, FrontEnd, Opened, Signal
from agent.audio.mix import MIX_TRACK
from agent.audio.turns import START_WINDOWS
from agent.ingest.meeting import load_meeting
from agent.values import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Samples
from tests.support.copied_speech import later, levelled, recorded
from tests.support.meetings import INCIDENT_REVIEW

VOICE_RMS = 200
BLOCK_MS = 50


class Loudness:
    """Takes what is not quiet for voice."""

    def predict(self, pcm: Samples) -> float:
        return float(np.sqrt(np.mean(np.square(pcm.astype(float)))) > VOICE_RMS)

    def reset(self) -> None:
        """There is nothing to forget."""


class Heard:
    """Everything that a front end gave, in order."""

    def __init__(self, front_end: FrontEnd) -> None:
        self.front_end = front_end
        self.voices: dict[str, list[Window]] = defaultdict(list)
        self.signals: list[Signal] = []

    def take(self) -> None:
        self._add(*self.front_end.take())

    def drain(self) -> None:
        self._add(*self.front_end.drain())

    def _add(self, voices: list[Window], signals: list[Signal]) -> None:
        for window in voices:
            self.voices[window.track_id].append(window)
        self.signals += signals

    def of(self, kind: type, track_id: str) -> list:
        return [
            signal
            for signal in self.signals
            if isinstance(signal, kind)
            and (signal.window if isinstance(signal, Bleed) else signal).track_id == track_id
        ]

    def spoken_ms(self, track_id: str) -> set[int]:
        """Starts of the windows that are given on as this track's own voice."""
        echoed_ms = [echo.since_ms for echo in self.of(Echo, track_id)]
        return {
            window.start_ms
            for window in self.of(Window, track_id)
            if window.probability and not any(window.start_ms >= since_ms for since_ms in echoed_ms)
        }


def hear(*, is_sum: bool = False, start_ms: int = 0, **tracks: Samples) -> Heard:
    """All tracks in blocks of 50 ms as they arrive, to the end."""
    heard = Heard(FrontEnd(Loudness, is_sum=is_sum))
    size = BLOCK_MS * SAMPLES_PER_MS
    for track_id in tracks:
        heard.front_end.open(track_id, SAMPLE_RATE_HZ)
    for block in range(-(-max(len(samples) for samples in tracks.values()) // size)):
        for track_id, samples in tracks.items():
            if len(part := samples[block * size : (block + 1) * size]):
                heard.front_end.push(track_id, part, start_ms + (block + 1) * BLOCK_MS)
        heard.take()
    heard.drain()
    return heard


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), np.int16)


def noise(seconds: float, seed: int = 1) -> Samples:
    return np.random.default_rng(seed).normal(0, 3_000, round(seconds * SAMPLE_RATE_HZ)).astype(np.int16)


def samples_of(windows: list[Window]) -> Samples:
    return np.concatenate([window.samples for window in windows])


@pytest.fixture(scope="module")
def felix() -> Samples:
    """4 s in which he speaks, with the pauses of speech."""
    return load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, start_s=10.4, end_s=14.4).tracks[
        "Felix"
    ]


@pytest.fixture(scope="module")
def nora() -> Samples:
    return load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, start_s=1, end_s=5).tracks["Nora"]


def test_track_is_opened_before_its_first_window_and_closed_after_its_last(felix):
    heard = hear(a=felix, b=quiet(4))
    for track_id in "ab":
        own = [
            signal
            for signal in heard.signals
            if not isinstance(signal, Bleed) and signal.track_id == track_id
        ]
        assert own[0] == Opened(track_id)
        assert own[-1] == Closed(track_id)
        assert all(isinstance(signal, Window) for signal in own[1:-1])


def test_every_sample_is_in_one_window_and_the_last_window_is_filled_up(felix):
    heard = hear(a=felix[: 3 * WINDOW_SAMPLES + 100])
    windows = heard.of(Window, "a")
    assert [window.start_ms for window in windows] == [0, 32, 64, 96]
    assert np.array_equal(samples_of(windows)[: 3 * WINDOW_SAMPLES + 96], felix[: 3 * WINDOW_SAMPLES + 96])
    assert not samples_of(windows)[3 * WINDOW_SAMPLES + 100 :].any()


def test_voices_and_signals_are_the_same_windows_where_nobody_is_heard_twice(felix, nora):
    heard = hear(a=felix, b=nora)
    for track_id, samples in (("a", felix), ("b", nora)):
        assert heard.of(Window, track_id) == heard.voices[track_id]
        assert np.array_equal(samples_of(heard.voices[track_id])[: len(samples)], samples)
        assert heard.of(Bleed, track_id) == []
    assert heard.of(Echo, "a") == heard.of(Echo, "b") == []


@pytest.mark.parametrize("by_db", [10, 20, 30])
@pytest.mark.parametrize("by_ms", [50, 121, 250])
def test_voice_in_a_second_track_is_nobodys_there_and_its_owners_loses_nothing(felix, by_db, by_ms):
    heard = hear(a=felix, b=recorded(levelled(later(felix, by_ms), -by_db)))
    alone = hear(a=felix)
    assert heard.spoken_ms("a") == alone.spoken_ms("a")
    assert len(heard.spoken_ms("b")) < START_WINDOWS, "enough for a turn"
    assert heard.of(Bleed, "a") == []


def test_bleed_is_silence_in_the_log_of_voices_and_keeps_its_sound(felix):
    copy = recorded(levelled(later(felix, 121), -10))
    heard = hear(a=felix, b=copy)
    bleeds = heard.of(Bleed, "b")
    assert bleeds
    assert {bleed.of_track_id for bleed in bleeds} == {"a"}
    marked_ms = {bleed.window.start_ms for bleed in bleeds}
    assert {window.probability for window in heard.voices["b"] if window.start_ms in marked_ms} == {0.0}
    assert any(bleed.window.probability for bleed in bleeds)
    assert np.array_equal(samples_of(heard.voices["b"])[: len(copy)], copy)


def test_each_window_comes_once_and_in_order_also_where_some_are_held(felix, nora):
    both = np.clip(nora.astype(np.int32) + recorded(levelled(later(felix, 80), -15)), -32_768, 32_767).astype(
        np.int16
    )
    heard = hear(a=felix, b=both, c=recorded(levelled(later(felix, 200), -20)))
    for track_id in "abc":
        windows = [
            signal.window if isinstance(signal, Bleed) else signal
            for signal in heard.signals
            if isinstance(signal, Window | Bleed)
            and (signal.window if isinstance(signal, Bleed) else signal).track_id == track_id
        ]
        starts = [window.start_ms for window in windows]
        assert starts == sorted(set(starts)) == list(range(0, 4_000, WINDOW_MS))
        assert [window.start_ms for window in heard.voices[track_id]] == starts


def test_sum_has_one_track_that_always_speaks_and_the_voices_of_all(felix, nora):
    heard = hear(is_sum=True, a=felix, b=nora)
    assert heard.signals[0] == Opened(MIX_TRACK)
    assert heard.signals[-1] == Closed(MIX_TRACK)
    windows = [signal for signal in heard.signals if isinstance(signal, Window)]
    assert {(window.track_id, window.probability) for window in windows} == {(MIX_TRACK, 1.0)}
    total = felix.astype(np.int32) + nora
    unlimited = np.abs(total) < 20_000
    assert np.array_equal(samples_of(windows)[: len(total)][unlimited], total[unlimited])
    assert set(heard.voices) == {"a", "b"}
    assert all(not isinstance(signal, Bleed | Echo) for signal in heard.signals)


def test_voices_under_a_sum_know_bleed_as_well(felix):
    heard = hear(is_sum=True, a=felix, b=recorded(levelled(later(felix, 121), -15)))
    voiced = {track: sum(window.probability for window in heard.voices[track]) for track in "ab"}
    assert voiced["b"] < 0.05 * voiced["a"]


def test_track_at_another_rate_is_heard_at_sixteen_kilohertz(felix):
    heard = Heard(FrontEnd(Loudness, is_sum=False))
    heard.front_end.open("a", 48_000)
    heard.front_end.push("a", np.repeat(felix, 3), 4_000)
    heard.drain()
    assert len(heard.of(Window, "a")) == pytest.approx(4_000 / WINDOW_MS, abs=2)


def test_what_is_not_open_is_ignored(felix):
    heard = Heard(FrontEnd(Loudness, is_sum=False))
    heard.front_end.push("a", felix, 4_000)
    heard.front_end.close("a")
    heard.take()
    heard.drain()
    assert (heard.signals, heard.voices) == ([], {})


def test_track_that_stops_in_mid_speech_gives_all_it_had_when_it_is_closed():
    """Also what was held to be compared, and the window that was not complete."""
    heard = Heard(FrontEnd(Loudness, is_sum=False))
    for track_id in "ab":
        heard.front_end.open(track_id, SAMPLE_RATE_HZ)
    for at_ms in range(BLOCK_MS, 301, BLOCK_MS):
        for track_id, seed in (("a", 1), ("b", 2)):
            size = BLOCK_MS * SAMPLES_PER_MS
            heard.front_end.push(track_id, noise(0.3, seed)[:size], at_ms)
    heard.front_end.close("b")
    heard.take()
    assert heard.signals[-1] == Closed("b")
    assert [window.start_ms for window in heard.of(Window, "b")] == list(range(0, 300, WINDOW_MS))


def test_track_that_falls_silent_without_a_word_holds_nobody_up(felix, nora):
    heard = Heard(FrontEnd(Loudness, is_sum=False))
    for track_id in "ab":
        heard.front_end.open(track_id, SAMPLE_RATE_HZ)
    size = BLOCK_MS * SAMPLES_PER_MS
    for block in range(80):
        heard.front_end.push("a", felix[block * size : (block + 1) * size], (block + 1) * BLOCK_MS)
        if block < 20:
            heard.front_end.push("b", nora[block * size : (block + 1) * size], (block + 1) * BLOCK_MS)
        heard.take()
    assert heard.of(Window, "a")[-1].end_ms > 3_500
    assert heard.of(Window, "b")[-1].end_ms > 900, "what it had said is still held"


def test_track_that_opens_again_begins_anew():
    heard = Heard(FrontEnd(Loudness, is_sum=False))
    for start_ms in (0, 5_000):
        heard.front_end.open("a", SAMPLE_RATE_HZ)
        heard.front_end.push("a", noise(0.16), start_ms + 160)
        heard.take()
    heard.drain()
    kinds = [type(signal) for signal in heard.signals]
    assert kinds == [Opened, *[Window] * 5, Closed, Opened, *[Window] * 5, Closed]
    assert [window.start_ms for window in heard.of(Window, "a")][5] == 5_000


def test_drain_gives_everything_once_and_twice_nothing():
    heard = Heard(FrontEnd(Loudness, is_sum=False))
    heard.front_end.open("a", SAMPLE_RATE_HZ)
    heard.front_end.push("a", noise(0.1), 100)
    heard.drain()
    count = len(heard.signals)
    heard.drain()
    assert len(heard.signals) == count


moves = st.lists(
    st.tuples(
        st.sampled_from(["open", "close", "push"]),
        st.integers(0, 4),
        st.integers(1, 2_000),
        st.integers(0, 400),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(moves, st.booleans())
def test_tracks_that_come_and_go_anyhow_give_each_window_once_in_order_while_they_are_open(moves, is_sum):
    """Whatever is opened twice, closed unopened, late, early or cut to pieces."""
    heard = Heard(FrontEnd(Loudness, is_sum=is_sum))
    now_ms = 0
    sound = noise(0.2)
    for kind, number, count, wait_ms in moves:
        track_id = f"track-{number}"
        now_ms += wait_ms
        match kind:
            case "open":
                heard.front_end.open(track_id, SAMPLE_RATE_HZ)
            case "close":
                heard.front_end.close(track_id)
            case "push":
                heard.front_end.push(track_id, sound[:count], now_ms)
        heard.take()
    heard.drain()
    open_tracks: set[str] = set()
    ends_ms: dict[str, int] = {}
    for signal in heard.signals:
        match signal:
            case Opened():
                assert signal.track_id not in open_tracks
                open_tracks.add(signal.track_id)
            case Closed():
                open_tracks.remove(signal.track_id)
            case Window() | Bleed():
                window = signal.window if isinstance(signal, Bleed) else signal
                assert window.track_id in open_tracks
                # A window that was filled up at a hole may end after the next one begins.
                assert window.start_ms > ends_ms.get(window.track_id, 0) - WINDOW_MS
                ends_ms[window.track_id] = window.end_ms
            case Echo():
                assert signal.track_id in open_tracks
    assert open_tracks == set()
    if not is_sum:
        signalled = [signal for signal in heard.signals if isinstance(signal, Window | Bleed)]
        assert len(signalled) == sum(len(windows) for windows in heard.voices.values())


def test_fifty_tracks_that_come_and_go_leave_nothing_behind():
    front_end = FrontEnd(Loudness, is_sum=False)
    for number in range(100):
        track_id = f"track-{number % 50}"
        front_end.open(track_id, SAMPLE_RATE_HZ)
        front_end.push(track_id, noise(0.1, number), 100 * (number + 1))
        front_end.take()
        if number >= 3:
            front_end.close(f"track-{(number - 3) % 50}")
    front_end.drain()
    kept = [vars(front_end)[name] for name in ("_resamplers", "_detectors", "_voices", "_signals")]
    assert [len(each) for each in kept] == [0, 0, 0, 0]
    assert len(front_end._gate._tracks) == 0
