"""Recorded speech, copied as a loudspeaker and a microphone would. What was spoken where is known, so voice
detection is not needed here: voice is where the clean track is not quiet."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, Window
from agent.audio.bleed import HOLD_MS, STALL_MS, Bleed, BleedGate, Echo
from agent.ingest.meeting import load_meeting
from agent.values import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Samples
from tests.support.copied_speech import later, levelled, recorded
from tests.support.meetings import INCIDENT_REVIEW

VOICE_RMS = 200


@pytest.fixture(scope="module")
def meeting() -> dict[str, Samples]:
    """The speakers' tracks at 16 kHz."""
    return dict(load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ).tracks)


@pytest.fixture(scope="module")
def felix(meeting) -> Samples:
    """7 s in which he speaks, with the pauses of speech."""
    return cut(meeting["Felix"], 10.2, 17.2)


@pytest.fixture(scope="module")
def nora(meeting) -> Samples:
    return cut(meeting["Nora"], 1.0, 8.0)


def cut(samples: Samples, start_s: float, end_s: float) -> Samples:
    return samples[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]


def in_a_room(samples: NDArray, t60_s: float = 0.4, direct_db: float = 0.0, seed: int = 1) -> NDArray:
    """Reverberation that decays by 60 dB in a time, with the direct sound so much above it."""
    count = int(t60_s * SAMPLE_RATE_HZ)
    response = np.random.default_rng(seed).standard_normal(count)
    response *= 10 ** (-3 * np.arange(count) / count)
    response[: 2 * SAMPLES_PER_MS] = 0
    response *= 10 ** (-direct_db / 20) / np.linalg.norm(response)
    response[0] = 1
    response /= np.linalg.norm(response)
    size = len(samples) + count
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def through_opus(samples: Samples, bit_rate: int) -> Samples:
    """Coded and decoded again; the codec's delay stays in."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=bit_rate)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    file.seek(0)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    with av.open(file) as container:
        decoded = [
            part.to_ndarray()[0] for heard in container.decode(audio=0) for part in resampler.resample(heard)
        ]
    return np.concatenate(decoded)[: len(samples)]


def has_voice(samples: NDArray) -> NDArray[np.bool_]:
    """Of each window."""
    windows = len(samples) // WINDOW_SAMPLES
    shaped = samples[: windows * WINDOW_SAMPLES].astype(float).reshape(windows, WINDOW_SAMPLES)
    return np.sqrt(np.mean(np.square(shaped), axis=1)) > VOICE_RMS


def as_windows(
    track_id: str, samples: Samples, clean: NDArray | None = None, start_ms: int = 0
) -> list[Window]:
    voices = has_voice(samples if clean is None else clean)
    return [
        Window(
            track_id,
            start_ms + index * WINDOW_MS,
            samples[index * WINDOW_SAMPLES : (index + 1) * WINDOW_SAMPLES],
            float(voice),
        )
        for index, voice in enumerate(voices)
    ]


@dataclass
class Played:
    """What came out of a gate, and when: `held_ms` is by how much later than it came."""

    windows: dict[str, list[Window]] = field(default_factory=lambda: defaultdict(list))
    bleed_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    echoes: list[Echo] = field(default_factory=list)
    held_ms: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _bleed: set[tuple[str, int]] = field(default_factory=set)

    def add(self, passed: list[Window | Bleed | Echo], now_ms: int, late_ms: dict[str, int]) -> None:
        for one in passed:
            if isinstance(one, Echo):
                self.echoes.append(one)
                self._bleed |= {
                    (window.track_id, window.start_ms)
                    for window in self.windows[one.track_id]
                    if window.start_ms >= one.since_ms
                }
                continue
            window = window_in(one)
            self.windows[window.track_id].append(window)
            self.held_ms[window.track_id].append(now_ms - window.end_ms - late_ms.get(window.track_id, 0))
            if isinstance(one, Bleed):
                self.bleed_of[window.track_id].add(one.of_track_id)
                self._bleed.add((window.track_id, window.start_ms))

    def spoken(self, track_id: str) -> list[int]:
        """Starts of the windows with voice that are left as the track's own."""
        return [
            window.start_ms
            for window in self.windows[track_id]
            if window.probability and (track_id, window.start_ms) not in self._bleed
        ]

    def own_share(self, track_id: str) -> float:
        return len(self.spoken(track_id)) / sum(bool(window.probability) for window in self.windows[track_id])


def window_in(passed: Window | Bleed) -> Window:
    return passed.window if isinstance(passed, Bleed) else passed


def play(*tracks: list[Window], late_ms: dict[str, int] | None = None) -> Played:
    """Push the windows of all tracks as they come: when they are complete, or so much later."""
    late_ms = late_ms or {}
    gate, played = BleedGate(), Played()
    for windows in tracks:
        played.add(gate.open(windows[0].track_id), 0, late_ms)
    arrivals = sorted(
        (window.end_ms + late_ms.get(window.track_id, 0), window.track_id, window)
        for windows in map(_by_time, tracks)
        for window in windows
    )
    for now_ms, _, window in arrivals:
        played.add(gate.push(window), now_ms, late_ms)
    played.add(gate.flush(), arrivals[-1][0], late_ms)
    return played


def _by_time(windows: list[Window]) -> Iterator[Window]:
    return iter(sorted(windows, key=lambda window: window.start_ms))


def test_lone_voice_passes_at_once(felix):
    played = play(as_windows("a", felix), as_windows("b", np.zeros_like(felix)))
    assert played.own_share("a") == 1
    assert set(played.held_ms["a"] + played.held_ms["b"]) == {0}


def test_people_who_take_turns_pass_at_once(felix, nora):
    pause = np.zeros(SAMPLE_RATE_HZ, np.int16)
    first, second = cut(felix, 0.2, 2.2), cut(nora, 0, 2)
    played = play(
        as_windows("a", np.concatenate((first, pause, np.zeros_like(second)))),
        as_windows("b", np.concatenate((np.zeros_like(first), pause, second)), start_ms=13),
    )
    assert set(played.held_ms["a"] + played.held_ms["b"]) == {0}
    assert played.own_share("a") == played.own_share("b") == 1


@pytest.mark.parametrize("level_db", [-10, -20, -30])
@pytest.mark.parametrize("delay_ms", [50.4, 121.3, 250])
def test_quiet_copy_in_a_room_is_bleed(felix, level_db, delay_ms):
    copy = recorded(levelled(in_a_room(later(felix, delay_ms)), level_db))
    played = play(as_windows("a", felix), as_windows("b", copy, later(felix, delay_ms), start_ms=7))
    assert played.own_share("b") <= 0.02
    assert played.own_share("a") == 1
    assert played.bleed_of == {"b": {"a"}}


@pytest.mark.parametrize("placed_ms", [-200, 200])
def test_copy_is_bleed_wherever_its_track_was_placed(felix, placed_ms):
    copy = recorded(levelled(in_a_room(later(felix, 120)), -15))
    played = play(as_windows("a", felix), as_windows("b", copy, later(felix, 120), start_ms=placed_ms))
    assert played.own_share("b") <= 0.02
    assert played.own_share("a") == 1


def test_gain_control_drift_and_a_codec_do_not_hide_a_copy(felix):
    moments = np.arange(len(felix))
    drifted = np.interp(moments * (1 + 50e-6), moments, later(felix, 180))
    gain_db = 4 * np.sin(2 * np.pi * moments / (3 * SAMPLE_RATE_HZ)) - 16
    copy = through_opus(recorded(levelled(in_a_room(drifted), gain_db)), 24_000)
    played = play(as_windows("a", through_opus(felix, 32_000), felix), as_windows("b", copy, drifted))
    assert played.own_share("b") <= 0.02
    assert played.own_share("a") == 1


@pytest.mark.parametrize("shift_ms", [-90, -30, 0, 40, 110])
def test_two_who_say_the_same_at_once_are_two(meeting, shift_ms):
    """ "One percent may be noisy" and "Two percent is fine with me", each by another person."""
    one, two = cut(meeting["Felix"], 50.2, 52.2), cut(meeting["Ines"], 54.3, 56.3)
    played = play(as_windows("a", one), as_windows("b", two, start_ms=shift_ms))
    assert played.own_share("a") == played.own_share("b") == 1
    assert not played.echoes


# Who says a word where, in seconds, from its first sound to its last.
BACKCHANNELS = (
    ("Felix", 18.86, 19.24),  # "Yes"
    ("Omar", 23.72, 24.30),  # "Right"
    ("Nora", 43.49, 44.12),  # "Good"
    ("Greta", 77.66, 78.20),  # "Fine"
    ("Ines", 100.71, 101.24),  # "Okay"
)
SAME_WORDS = (
    (("Felix", 50.52, 51.09), ("Ines", 50.79, 51.36)),  # "One percent"
    (("Felix", 52.86, 53.43), ("Ines", 54.64, 55.32)),  # "Two percent"
    (("Felix", 52.86, 53.43), ("Nora", 59.53, 60.12)),
    (("Ines", 54.64, 55.32), ("Nora", 59.53, 60.12)),
    (("Ines", 54.64, 54.84), ("Nora", 59.53, 59.71)),  # "Two"
    (("Felix", 19.49, 20.26), ("Ines", 17.69, 18.42)),  # "Of all orders"
)


@pytest.mark.parametrize("pair", [*combinations(BACKCHANNELS, 2), *SAME_WORDS])
@pytest.mark.parametrize("levels_db", [(0, 0), (-6, 0), (0, -6)])
@pytest.mark.parametrize("shift_ms", [0, 60, 150])
def test_one_short_word_of_two_people_at_once_is_two(meeting, pair, levels_db, shift_ms):
    """ "Yes" and "Right", or the same word twice: in voices of their own, as loud, or one 6 dB louder."""
    words = []
    for (speaker, start_s, end_s), level_db in zip(pair, levels_db, strict=True):
        word = cut(meeting[speaker], start_s, end_s).astype(float)
        word *= 10 * VOICE_RMS / np.sqrt(np.mean(np.square(word)))
        words.append(np.pad(levelled(word, level_db), (0, SAMPLE_RATE_HZ // 2)))
    one, two = words
    played = play(
        as_windows("a", recorded(one), one, start_ms=200),
        as_windows("b", recorded(two), two, start_ms=200 + shift_ms),
    )
    assert played.own_share("a") == played.own_share("b") == 1
    assert not played.echoes


@pytest.mark.parametrize("speed", [0.93, 1.06])
def test_word_said_at_once_in_another_voice_is_nobodys_copy(meeting, speed):
    """ "Yes", and the same by a smaller or larger mouth."""
    yes = np.pad(cut(meeting["Felix"], 18.8, 19.3), (SAMPLE_RATE_HZ // 5, SAMPLE_RATE_HZ))
    other = np.interp(np.arange(len(yes)) * speed, np.arange(len(yes)), yes)
    played = play(as_windows("a", yes), as_windows("b", recorded(other), other))
    assert played.own_share("a") == played.own_share("b") == 1


def test_backchannels_over_another_voice_are_held_shortly_and_stay(meeting):
    felix, omar = cut(meeting["Felix"], 18.5, 25), cut(meeting["Omar"], 18.5, 25)
    played = play(as_windows("a", felix), as_windows("b", omar))
    assert played.own_share("a") == played.own_share("b") == 1
    assert set(played.held_ms["a"]) == {0}
    assert 0 < max(played.held_ms["b"]) <= HOLD_MS - WINDOW_MS


@pytest.mark.parametrize("level_db", [-10, -20, -30])
def test_own_voice_over_the_bleed_passes(meeting, nora, level_db):
    own = np.zeros(len(nora))
    own[3 * SAMPLE_RATE_HZ : 5 * SAMPLE_RATE_HZ] = cut(meeting["Omar"], 38, 40)
    bleed = levelled(in_a_room(later(nora, 120), direct_db=3), level_db)
    played = play(as_windows("a", nora), as_windows("b", recorded(bleed + own), later(nora, 120) + own))
    spoken = set(played.spoken("b"))
    own_starts = np.flatnonzero(has_voice(own)) * WINDOW_MS
    assert np.mean([start_ms in spoken for start_ms in own_starts]) >= 0.95
    assert not any(start_ms < 2_900 for start_ms in spoken)
    assert played.own_share("a") == 1


def test_own_word_and_then_the_loudspeaker_without_a_pause(meeting, nora):
    begin, end = int(0.6 * SAMPLE_RATE_HZ), int(1.05 * SAMPLE_RATE_HZ)
    word, heard = np.zeros(len(nora)), later(nora, 150)
    word[begin:end] = cut(meeting["Felix"], 18.85, 19.3)
    heard[:end] = 0
    bleed = levelled(in_a_room(heard), -20)
    played = play(as_windows("a", nora), as_windows("b", recorded(bleed + word), heard + word))
    (echo,) = played.echoes
    assert (echo.track_id, echo.of_track_id) == ("b", "a")
    assert echo.lag_ms == pytest.approx(150, abs=5)
    assert echo.level_db == pytest.approx(-20, abs=4)
    starts = np.flatnonzero(has_voice(word)) * WINDOW_MS
    assert set(starts) <= set(played.spoken("b"))
    assert max(played.spoken("b")) < 1_500


def test_weaker_track_that_was_placed_first_is_withdrawn(felix):
    copy = recorded(levelled(in_a_room(later(felix, 60)), -20))
    played = play(
        as_windows("a", felix, start_ms=1_000), as_windows("b", copy, later(felix, 60), start_ms=820)
    )
    first = played.echoes[0]
    assert (first.track_id, first.of_track_id) == ("b", "a")
    assert first.since_ms == min(window.start_ms for window in played.windows["b"] if window.probability)
    assert first.lag_ms == pytest.approx(-120, abs=5)
    assert first.level_db == pytest.approx(-20, abs=6)
    assert played.own_share("b") == 0
    assert played.own_share("a") == 1


def test_of_two_tracks_as_loud_the_earlier_speaks(felix):
    copy = recorded(levelled(later(felix, 90), 2))
    played = play(as_windows("a", felix), as_windows("b", copy, later(felix, 90)))
    assert (played.own_share("a"), played.own_share("b")) == (1, 0)


def test_louder_copy_speaks_although_it_is_later(felix):
    quiet = recorded(levelled(felix, -12))
    played = play(as_windows("a", quiet, felix), as_windows("b", later(felix, 90)))
    assert played.own_share("a") <= 0.02
    assert played.own_share("b") == 1


def test_of_three_tracks_with_one_voice_one_speaks(felix):
    far = recorded(levelled(in_a_room(later(felix, 130)), -12))
    farther = recorded(levelled(in_a_room(later(felix, 190), seed=3), -22))
    played = play(
        as_windows("a", far, later(felix, 130), start_ms=5),
        as_windows("b", farther, later(felix, 190), start_ms=11),
        as_windows("c", felix),
    )
    assert played.own_share("c") == 1
    assert played.own_share("a") <= 0.02
    assert played.own_share("b") <= 0.02


def test_loudspeaker_that_goes_on_with_another_voice_stays_bleed(felix, nora):
    """Two people far away, one after the other without a pause, both heard in a third one's microphone."""
    first, second = felix.copy(), nora.copy()
    half = len(felix) // 2
    first[half:], second[:half] = 0, 0
    bleed = levelled(in_a_room(later(first + second, 140)), -18)
    played = play(
        as_windows("a", first),
        as_windows("b", second, start_ms=3),
        as_windows("c", recorded(bleed), later(first + second, 140)),
    )
    assert played.own_share("c") <= 0.05
    assert played.own_share("a") == played.own_share("b") == 1
    assert played.bleed_of == {"c": {"a", "b"}}


def test_last_word_of_someone_who_mutes_comes_back_as_bleed(felix):
    spoken = cut(felix, 0, 1.5)
    echoed = recorded(levelled(in_a_room(later(np.pad(spoken, (0, SAMPLE_RATE_HZ)), 240)), -15))
    original = as_windows("a", spoken)
    gate, played = BleedGate(), Played()
    gate.open("a")
    gate.open("b")
    for index, window in enumerate(as_windows("b", echoed, later(np.pad(spoken, (0, SAMPLE_RATE_HZ)), 240))):
        if index < len(original):
            played.add(gate.push(original[index]), window.end_ms, {})
        elif index == len(original):
            played.add(gate.close("a"), window.end_ms, {})
        played.add(gate.push(window), window.end_ms, {})
    played.add(gate.flush(), 0, {})
    assert played.own_share("b") == 0


def test_track_that_stalls_while_it_is_held_is_decided_without_the_rest(felix, nora):
    gate = BleedGate()
    gate.open("a")
    gate.open("b")
    voiced = int(np.flatnonzero(has_voice(felix))[0])
    talk = as_windows("a", felix)[voiced:]
    for window in talk[:10]:
        gate.push(window)
    held = Window("b", talk[9].end_ms, cut(nora, 0.5, 0.532), 1.0)
    assert gate.push(held) == []
    passed = [gate.push(window) for window in talk[10 : 11 + STALL_MS // WINDOW_MS]]
    assert [one for some in passed for one in some if one is held]


def test_track_that_is_not_open_passes_and_is_not_compared(felix):
    gate = BleedGate()
    for window in as_windows("a", felix)[:20]:
        assert gate.push(window) == [window]
    assert gate.close("a") == []
    assert gate.flush() == []


def test_fifty_voices_at_once_hold_no_more_than_their_bound(meeting):
    noise = np.random.default_rng(4).normal(0, 3_000, (50, SAMPLE_RATE_HZ)).astype(np.int16)
    tracks = [as_windows(str(index), samples, start_ms=index) for index, samples in enumerate(noise)]
    played = play(*tracks)
    assert all(len(played.windows[str(index)]) == len(tracks[index]) for index in range(50))
    assert max(max(held_ms) for held_ms in played.held_ms.values()) < HOLD_MS
    assert not played.echoes


# One voice and two others, for scripts in which any track may have any of them at any level.
SOURCES = np.random.default_rng(5).normal(0, 2_000, (3, 6 * SAMPLE_RATE_HZ))


@dataclass(frozen=True)
class Stretch:
    """Windows of a track in a row, after a hole."""

    hole_ms: int
    voices: list[float]
    source: int
    level_db: int
    begins_anew: bool


stretches = st.builds(
    Stretch,
    hole_ms=st.sampled_from([0, 0, -20, 5, 40, 130, 700, 3_000]),
    voices=st.lists(st.sampled_from([0.0, 0.4, 0.9, 0.9, 0.9]), min_size=1, max_size=30),
    source=st.integers(0, 2),
    level_db=st.sampled_from([0, -6, -20]),
    begins_anew=st.booleans(),
)


def script_of(track_id: str, start_ms: int, script: list[Stretch]) -> Iterator[Window | None]:
    """The windows of a track; None where it is closed and opened again."""
    at_ms = start_ms
    for stretch in script:
        if stretch.begins_anew:
            yield None
        at_ms += stretch.hole_ms
        for voice in stretch.voices:
            begin = at_ms * SAMPLES_PER_MS % (5 * SAMPLE_RATE_HZ)
            samples = levelled(SOURCES[stretch.source, begin : begin + WINDOW_SAMPLES], stretch.level_db)
            yield Window(track_id, at_ms, samples.astype(np.int16), voice)
            at_ms += WINDOW_MS


@settings(max_examples=40)
@given(
    scripts=st.lists(
        st.tuples(st.integers(0, 250), st.lists(stretches, min_size=1, max_size=4)), min_size=1, max_size=4
    ),
    order=st.randoms(use_true_random=False),
)
def test_every_window_comes_out_once_in_order_and_in_time(scripts, order):
    gate = BleedGate()
    pending = {str(index): script_of(str(index), *script) for index, script in enumerate(scripts)}
    pushed: dict[str, list[Window]] = {track_id: [] for track_id in pending}
    passed: dict[str, list[Window]] = {track_id: [] for track_id in pending}
    since_own: dict[str, Counter[str]] = {track_id: Counter() for track_id in pending}

    def take(given: list[Window | Bleed | Echo]) -> None:
        for one in given:
            if isinstance(one, Echo):
                assert one.track_id != one.of_track_id
            else:
                window = window_in(one)
                passed[window.track_id].append(window)

    for track_id in pending:
        take(gate.open(track_id))
    while pending:
        track_id = order.choice(list(pending))
        window = next(pending[track_id], ...)
        if window is ...:
            del pending[track_id]
            continue
        if window is None:
            take(gate.open(track_id))
            assert len(passed[track_id]) == len(pushed[track_id])
            continue
        pushed[track_id].append(window)
        take(gate.push(window))
        since_own[track_id].clear()
        for other, windows in pushed.items():
            if other != track_id:
                since_own[other][track_id] += WINDOW_MS
            if held := windows[len(passed[other]) :]:
                assert windows[-1].end_ms - held[0].start_ms < HOLD_MS
                assert since_own[other][track_id] < STALL_MS
    take(gate.flush())
    assert all(
        one is other
        for track_id, windows in pushed.items()
        for one, other in zip(passed[track_id], windows, strict=True)
    )


@settings(max_examples=25)
@given(
    start_ms=st.integers(0, 500), script=st.lists(stretches, min_size=1, max_size=5), others=st.integers(0, 2)
)
def test_who_alone_has_voice_is_never_held(start_ms, script, others):
    gate = BleedGate()
    for track_id in map(str, range(others + 1)):
        gate.open(track_id)
    quiet = np.zeros(WINDOW_SAMPLES, np.int16)
    for window in script_of("0", start_ms, script):
        if window is None:
            gate.open("0")
            continue
        assert gate.push(window) == [window]
        for other in map(str, range(1, others + 1)):
            silence = Window(other, window.start_ms + 9, quiet, 0.1)
            assert gate.push(silence) == [silence]
