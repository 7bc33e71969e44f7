"""Bleed: one voice in two tracks, as by a loudspeaker or a second laptop, of which only the stronger speaks.

Two tracks are compared over up to 0.4 s. Both are whitened: the spectrum of each frame of 64 ms is flattened
between 200 Hz and 3.8 kHz, a softened phase transform (GCC-PHAT: Knapp and Carter, 1976), so that one vowel
from two mouths has little in common, while a quiet, reverberant copy keeps a sharp peak in the correlation of
the two. That peak, over all lags, tells whether a copy is there. Whether it is all that is there is told by
the frames as they came, laid upon each other at that lag: by the share of the energy that is coherent, in six
bands. Somebody's own voice over the bleed takes the energy, and the share falls; echoes of a room take less.

Measured on six tracks of synthetic speech, with voice found by Silero. A copy has 50, 121 or 250 ms of delay,
noise 30 dB below it, and 0.4 s of reverberation, as loud as the direct sound where nothing else is said:

| what | windows with voice | of these wrong |
|---|---|---|
| copy at -10, -20, -30 dB; also with the direct sound 3 dB above reverberation | 11 650 | 0.1 % left as own |
| through Opus at 24 kbit/s, with gain that moves by 4 dB either way and 50 ppm of drift | 1 976 | 0.1 % |
| placed or arriving 200 ms off; placed 200 ms before a master 150 ms late | 7 798 | 0.1 %, 48 echoes |
| noise only 10 dB below the copy | 1 967 | 3 % |
| 0.6 s of reverberation, 5 dB above the direct sound: -10, -20, -30 dB | 4 945 | 14, 1, 1 % |
| as loud as the original, direct sound 3 dB above the reverberation, or equal | 4 016 | 0.2, 2.5 % |
| the originals of these | 35 049 | 0 marked |
| all pairs of different people who talk at once, in eight positions | 46 152 | 0 marked |
| own voice 10, 6, 0 dB above a copy at -10 dB | 301 | 5, 10, 27 % marked |
| two who talk at once, each 20, 12, 6 dB down in the other's microphone | 1 967 | 2, 5, 13 % marked |

Of those who talk at once 1.7 % of the windows were held, for 0.12 s on average and 0.35 s at most.

The peak of two different voices is 0.08 (median), 0.12 (99 %) and 0.16 at most over 384 ms, and 0.11, 0.17,
0.24 over 192 ms; that of a copy in a room is 0.3 to 0.7. The coherent share of a copy is 0.7 to 0.9, and 0.25
to 0.7 in much reverberation; with an own voice that is 6 dB louder it is 0.2 to 0.4, with 10 dB 0.1 to 0.3.

To compare two tracks costs 0.1 ms, and 0.3 ms more once for each of them. That makes 10 us a window where one
talks, 0.1 ms a window for a voice and its bleed, and 0.3 ms a window where twelve or more talk at once.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, Window
from agent.values import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Samples

__all__ = ["HOLD_MS", "STALL_MS", "Bleed", "BleedGate", "Echo"]

VOICE_BEGINS = 0.5  # as the floor has it, so that no turn begins before the gate has looked
VOICE_ENDS = 0.35
PAUSE_MS = 96  # so much quiet ends what is held or is bleed: what comes next may be another voice
HANGOVER_MS = 500  # so much ends an own voice; as a turn's, so that none is held back in its middle

HOLD_MS = 384  # nothing is held longer; twelve windows tell a copy from a chance likeness
FIRST_LOOK_MS = 192  # a clear copy is found in half of that
OWN_LOOK_MS = 256  # what is clearly no copy by now need not wait for the rest
LOOK_MS = 64  # between looks at what is held
BLEED_LOOK_MS = 96  # between looks at bleed, which nobody waits for
RECHECK_MS = 384  # how often an own voice is compared again: each part of it once
CONFIRM_MS = 192  # and then once more, as one look may meet a moment in which it was weak
MAX_LEAD_MS = 200  # by which bleed may be placed before its master
LAST_MS = 192  # the newest bleed is still held: an own voice over it shows after a few windows
STALL_MS = 600  # of any other track; one that is held and comes no more is decided without the rest
SAME_BEGIN_MS = 300  # by which voice detection may find the two begins apart

MAX_LAG_MS = 512  # 250 ms of air, buffers and codecs, 200 ms of placing, either way, and something over
NEAR_MS = 4  # clocks that drift by 100 ppm take 40 s for it
KEEP_MS = 1_280  # the lag, what is held, and tracks whose audio comes 400 ms before the others'
MAX_RIVALS = 11  # of more voices at once the loudest are compared, which bounds the work
MAX_LEFT = 4  # closed tracks whose last words may still come back; with KEEP_MS it bounds the memory

FRAME = 2 * WINDOW_SAMPLES
# What a small loudspeaker and a far microphone keep of a voice.
BAND_EDGES_HZ = (200, 500, 900, 1_400, 2_000, 2_800, 3_800)
WHITE_PER_MS = SAMPLES_PER_MS // 2  # the whitened signal has half the rate
WHITE_WINDOW = WINDOW_MS * WHITE_PER_MS
FFT_SIZE = 13_824  # 2^9 * 27, enough for KEEP_MS and HOLD_MS without wrapping
WHITENING = 0.8  # power of the magnitude that is divided out: 1 makes noise between words as loud as they are
QUANTIZATION = 0.29 * math.sqrt(WINDOW_SAMPLES)  # magnitude of int16 rounding in a windowed frame

COPY_PEAK = 0.2  # over HOLD_MS; shorter stretches need more, as chance gives more
NO_PEAK = 0.14  # chance gives less over 0.26 s nearly always, and a copy more
STAYS = 0.75  # what is bleed already stays so with less
LEAST_ENERGY = 0.35  # of the most: a stretch that lies half in silence cannot match by a few samples
LEAST_OVERLAP_MS = 128  # of the two, where one is not there yet
# A quiet copy may be reverberant. One that is nearly as loud must be clean, else it is likelier somebody who
# speaks over the bleed.
QUIET_DB, QUIET_SHARE = -18.0, 0.25
LOUD_DB, LOUD_SHARE = -8.0, 0.42
EQUAL_DB = 3.0  # within it the earlier one speaks
RISE_DB = 5.0  # bleed that suddenly is so much louder has somebody speaking over it

Waveform = NDArray[np.float32]
Spectra = NDArray[np.complexfloating[Any, Any]]

_BINS = WINDOW_SAMPLES // 2 + 1
_EDGES = np.round(np.array(BAND_EDGES_HZ) * FRAME / SAMPLE_RATE_HZ).astype(np.intp)
# Speech falls by some 6 dB an octave; without this the lowest band would decide alone.
_TILT = (np.array(BAND_EDGES_HZ[:-1]) + np.array(BAND_EDGES_HZ[1:])).astype(np.float32)
_TAPER = np.sqrt(np.hanning(FRAME + 1)[:-1]).astype(np.float32)
_WHITE_TAPER = np.sqrt(np.hanning(WINDOW_SAMPLES + 1)[:-1]).astype(np.float32)
_IN_BAND = np.zeros(_BINS, np.float32)
_IN_BAND[_EDGES[0] : _EDGES[-1]] = 1.0


@dataclass(frozen=True, slots=True)
class Bleed:
    """A window whose voice is not its track's own: nobody speaks there."""

    window: Window
    of_track_id: str


@dataclass(frozen=True, slots=True)
class Echo:
    """What a track has passed since `since_ms` was another track's voice.

    It comes `lag_ms` later than there, negative where it was placed before it, and is `level_db` louder,
    which is negative or small.
    """

    track_id: str
    of_track_id: str
    since_ms: int
    lag_ms: int
    level_db: float


@dataclass(frozen=True, slots=True)
class _Match:
    """How a stretch of one track is found in another track.

    `peak` is the correlation of the two, whitened, at the best lag, and `share` the coherent part of the
    energy there, of whichever track has less. The stretch is `lag_ms` later and `level_db` louder.
    """

    duration_ms: int
    peak: float = 0.0
    lag_ms: int = 0
    level_db: float = 0.0
    share: float = 0.0

    @property
    def may_be_copy(self) -> bool:
        return self.peak >= STAYS * self._least_peak

    @property
    def _least_peak(self) -> float:
        return COPY_PEAK * math.sqrt(HOLD_MS / self.duration_ms)

    @property
    def is_lesser(self) -> bool:
        """Whether of two copies the stretch is the one that is not heard: the weaker, else the later."""
        return self.lag_ms >= 0 if abs(self.level_db) <= EQUAL_DB else self.level_db < 0

    def is_copy(self, leniency: float = 1.0) -> bool:
        """Whether the two are one voice, and little else."""
        least = np.interp(-abs(self.level_db), (QUIET_DB, LOUD_DB), (QUIET_SHARE, LOUD_SHARE))
        return self.peak >= leniency * self._least_peak and self.share >= leniency * float(least)

    def reversed(self) -> "_Match":
        """The same, seen from the other track."""
        return replace(self, lag_ms=-self.lag_ms, level_db=-self.level_db)


def _spectra(samples: Samples) -> Spectra:
    """Spectra of frames of 64 ms, one each 32 ms, up to half of their band."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::WINDOW_SAMPLES]
    return np.fft.rfft(frames * _TAPER, axis=1)[:, :_BINS]


def _band_powers(spectra: Spectra) -> Waveform:
    powers = np.square(spectra.real) + np.square(spectra.imag)
    return np.add.reduceat(powers, _EDGES, axis=1)[:, :-1] + np.float32(QUANTIZATION**2)


class _History:
    """The last second of a track, as it came and whitened. What is missing is silence."""

    def __init__(self) -> None:
        self.end_ms = 0
        self._raw: Samples = np.zeros(KEEP_MS * SAMPLES_PER_MS, np.int16)
        self._white: Waveform = np.zeros(KEEP_MS * WHITE_PER_MS, np.float32)
        self._fresh = 0  # windows that are not whitened yet: nobody may ever ask
        self._energy: NDArray[np.float64] | None = None
        self._scale: tuple[int, Waveform] | None = None
        self._spectrum: Spectra | None = None
        self._part_spectrum: tuple[tuple[int, int, int], Spectra] | None = None

    @property
    def start_ms(self) -> int:
        return self.end_ms - KEEP_MS

    def add(self, window: Window) -> None:
        hole_ms = window.start_ms - self.end_ms
        if hole_ms:
            self.white()
        # A window that was filled up at a hole may end after the next one begins.
        self._shift(WINDOW_MS + hole_ms if -WINDOW_MS < hole_ms < KEEP_MS - WINDOW_MS else KEEP_MS)
        self._raw[-WINDOW_SAMPLES:] = window.samples
        self._fresh = min(self._fresh + 1, KEEP_MS // WINDOW_MS - 1)
        self._energy = self._scale = self._spectrum = None
        self.end_ms = window.end_ms

    def white(self) -> Waveform:
        """What is kept, whitened and at half the rate. Its newest 32 ms are there by half."""
        if self._fresh:
            # Each window lies in two frames; the later one comes with the next window.
            spectra = _spectra(self._raw[-(self._fresh + 1) * WINDOW_SAMPLES :])
            flat = spectra * (_IN_BAND / (np.abs(spectra) + np.float32(QUANTIZATION)) ** WHITENING)
            frames = np.fft.irfft(flat, WINDOW_SAMPLES, axis=1) * _WHITE_TAPER
            white = self._white[-(self._fresh + 1) * WHITE_WINDOW :]
            white[:-WHITE_WINDOW] += frames[:, :WHITE_WINDOW].ravel()
            white[WHITE_WINDOW:] += frames[:, WHITE_WINDOW:].ravel()
            self._fresh = 0
        return self._white

    def energy(self) -> NDArray[np.float64]:
        """The energy before each whitened sample, and on through HOLD_MS of silence."""
        if self._energy is None:
            kept = len(self._white)
            energy = np.zeros(kept + HOLD_MS * WHITE_PER_MS + 1)
            np.cumsum(np.square(self.white()), out=energy[1 : kept + 1])
            energy[kept + 1 :] = energy[kept]
            self._energy = energy
        return self._energy

    def scale(self, length: int) -> Waveform:
        """One over the magnitude of each stretch of so many whitened samples, by where it begins."""
        if self._scale is None or self._scale[0] != length:
            energy = self.energy()
            energies = (energy[length:] - energy[:-length])[: len(self._white)]
            least = max(LEAST_ENERGY * float(energies.max()), 1.0)
            self._scale = length, (1 / np.sqrt(np.maximum(energies, least))).astype(np.float32)
        return self._scale[1]

    def spectrum(self) -> Spectra:
        """Of all that is kept, whitened. Computed once for all that it is compared with."""
        if self._spectrum is None:
            self._spectrum = np.fft.rfft(self.white(), FFT_SIZE)
        return self._spectrum

    def part_spectrum(self, begin: int, end: int) -> Spectra:
        """Conjugate, of whitened samples by their number."""
        key = (self.end_ms, begin, end)
        if self._part_spectrum is None or self._part_spectrum[0] != key:
            self._part_spectrum = key, np.conj(np.fft.rfft(self.white()[begin:end], FFT_SIZE))
        return self._part_spectrum[1]

    def raw(self, begin: int, count: int) -> Samples:
        """Samples as they came, by their number in what is kept."""
        return self._raw[begin : begin + count]

    def level(self) -> float:
        """Mean magnitude of the newest audio."""
        return float(np.abs(self._raw[-HOLD_MS * SAMPLES_PER_MS :: 4].astype(np.float32)).mean())

    def _shift(self, by_ms: int) -> None:
        for kept, per_ms in ((self._raw, SAMPLES_PER_MS), (self._white, WHITE_PER_MS)):
            count = by_ms * per_ms
            kept[: len(kept) - count] = kept[count:]
            kept[-count:] = 0


def _compare(
    one: _History, start_ms: int, end_ms: int, other: _History, *, near_ms: int | None = None
) -> _Match:
    """Look for a stretch of one track in another, at all lags, or only near one."""
    nothing = _Match(end_ms - start_ms)
    kept = KEEP_MS * WHITE_PER_MS
    ours_at = (start_ms - one.start_ms) * WHITE_PER_MS
    length = (end_ms - start_ms) * WHITE_PER_MS
    unmoved = (start_ms - other.start_ms) * WHITE_PER_MS  # where it begins in the other at no lag
    middle_ms, reach_ms = (0, MAX_LAG_MS) if near_ms is None else (near_ms, NEAR_MS)
    first = max(unmoved - (middle_ms + reach_ms) * WHITE_PER_MS, 0)
    last = min(unmoved - (middle_ms - reach_ms) * WHITE_PER_MS, kept - LEAST_OVERLAP_MS * WHITE_PER_MS)
    if first >= last:
        return nothing
    energy = one.energy()
    part_energy = float(energy[ours_at + length] - energy[ours_at])
    if part_energy <= 0:
        return nothing
    if near_ms is None:
        product = one.part_spectrum(ours_at, ours_at + length) * other.spectrum()
        correlation = np.fft.irfft(product, FFT_SIZE)[first:last]
    else:
        theirs = other.white()[first : last + length - 1]
        theirs = np.pad(theirs, (0, last - first + length - 1 - len(theirs)))
        correlation = np.correlate(theirs, one.white()[ours_at : ours_at + length])
    correlation = correlation * other.scale(length)[first:last]
    best = int(np.argmax(correlation))
    match = replace(nothing, peak=float(correlation[best]) / math.sqrt(part_energy))
    if not match.may_be_copy:
        return match
    # Both as they came, in frames that lie alike, as far as both are there.
    begin = first + best
    count = min(length, kept - begin) // WHITE_WINDOW * WINDOW_SAMPLES
    ours = _spectra(one.raw(ours_at * SAMPLES_PER_MS // WHITE_PER_MS, count))
    others = _spectra(other.raw(begin * SAMPLES_PER_MS // WHITE_PER_MS, count))
    our_powers, their_powers = _band_powers(ours), _band_powers(others)
    cross = np.add.reduceat(np.real(ours * np.conj(others)), _EDGES, axis=1)[:, :-1]
    coherence = np.maximum(cross, 0) / np.sqrt(our_powers * their_powers)
    shares = [float(np.average(coherence, weights=powers * _TILT)) for powers in (our_powers, their_powers)]
    return replace(
        match,
        lag_ms=round((unmoved - begin) / WHITE_PER_MS),
        level_db=10 * math.log10(float(our_powers.sum()) / float(their_powers.sum())),
        share=min(shares),
    )


class _State(Enum):
    SILENT = auto()
    HELD = auto()  # has voice, and it is not decided whose
    OWN = auto()
    BLEED = auto()


@dataclass(slots=True, eq=False)
class _Track:
    id: str
    history: _History = field(default_factory=_History)
    state: _State = _State.SILENT
    held: deque[Window] = field(default_factory=deque)
    since_ms: int = 0  # begin of its stretch of voice, of the last one where it is silent
    voiced_ms: deque[int] = field(default_factory=lambda: deque([-KEEP_MS], 2 * HOLD_MS // WINDOW_MS))
    checked_ms: int = 0  # up to here the stretch was compared, and is its own
    suspected_ms: int | None = None  # since when the last look found its voice to be bleed after all
    next_look_ms: int = 0
    master: str | None = None  # whose voice the stretch is, where it is bleed
    lag_ms: int = 0  # behind its master
    level_db: float = 0.0  # above its master
    stalled_ms: dict[str, int] = field(default_factory=dict)  # what others sent since its own last window

    @property
    def end_ms(self) -> int:
        return self.history.end_ms

    @property
    def quiet_ms(self) -> int:
        return self.end_ms - self.voiced_ms[-1]

    def hear(self, window: Window) -> None:
        self.history.add(window)
        self.stalled_ms.clear()
        if window.probability >= (VOICE_BEGINS if self.state is _State.SILENT else VOICE_ENDS):
            self.voiced_ms.append(window.end_ms)

    def begin(self, state: _State, start_ms: int) -> None:
        self.state = state
        self.since_ms = self.checked_ms = start_ms
        self.suspected_ms = None
        self.master = None
        self.next_look_ms = start_ms + FIRST_LOOK_MS if state is _State.HELD else self.end_ms + RECHECK_MS

    def follow(self, match: _Match, master: "_Track") -> None:
        self.master, self.lag_ms, self.level_db = master.id, match.lag_ms, match.level_db

    def goes_on(self, match: _Match, master: "_Track") -> bool:
        """Whether bleed does, as is easier to tell than whether it began."""
        has_risen = match.level_db > self.level_db + RISE_DB
        if not match.is_copy(1.0 if has_risen else STAYS):
            return False
        self.follow(match, master)
        return True

    def release(self, until_ms: int | None = None) -> Iterator[Window | Bleed]:
        """Give on what is held and ends by a session time, as what the track is now."""
        bleed_of = self.master if self.state is _State.BLEED else None
        while self.held and (until_ms is None or self.held[0].end_ms <= until_ms):
            window = self.held.popleft()
            yield window if bleed_of is None else Bleed(window, bleed_of)


def _masters(matches: Iterable[tuple[_Match, _Track]]) -> list[tuple[_Match, _Track]]:
    """Those whose voice it is, the strongest first."""
    masters = [(match, other) for match, other in matches if match.is_copy() and match.is_lesser]
    return sorted(masters, key=lambda master: master[0].level_db)


class BleedGate:
    """Stands between voice detection and the floor, and tells which voice is another track's.

    A voice that begins while no other track has one, nor had one in the last MAX_LAG_MS, passes at once. Any
    other is held until it is decided, HOLD_MS of its own audio at most, and then passes at once as well.
    While others speak it is compared again each RECHECK_MS; two looks in a row make it bleed. Bleed is
    compared all the time, and held a little, so that a voice of its own is not cut at its begin. What is no
    voice passes as it comes, but never before what is held.

    What is kept of a track is KEEP_MS of audio, 0.4 MB with its spectra, and HOLD_MS of windows.
    """

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._left: deque[_Track] = deque(maxlen=MAX_LEFT)

    def open(self, track_id: str) -> list[Window | Bleed | Echo]:
        """A track can be heard from now on. Opening it twice begins it anew."""
        passed = self.close(track_id)
        self._tracks[track_id] = _Track(track_id)
        return passed

    def close(self, track_id: str) -> list[Window | Bleed | Echo]:
        """A track was muted or is gone: what is held of it is decided by what is there."""
        track = self._tracks.get(track_id)
        if track is None:
            return []
        passed = list(self._settle(track))
        del self._tracks[track_id]
        self._left.append(track)
        return passed

    def push(self, window: Window) -> list[Window | Bleed | Echo]:
        """Take the next window of a track. A track that is not open is not compared.

        Returns:
            What is decided by now, of any track, in order within each. A window comes out once, as it was or
            as `Bleed`; an `Echo` tells that windows which passed before were bleed.
        """
        track = self._tracks.get(window.track_id)
        if track is None:
            return [window]
        return [*self._take(track, window), *self._end_stalls(track)]

    def flush(self) -> list[Window | Bleed | Echo]:
        """Decide all that is held, at the end."""
        return [passed for track in self._tracks.values() for passed in self._settle(track)]

    def _take(self, track: _Track, window: Window) -> Iterator[Window | Bleed | Echo]:
        hole_ms = window.start_ms - track.end_ms
        if not -WINDOW_MS < hole_ms < PAUSE_MS:
            yield from self._settle(track)
            if track.state is not _State.OWN or not 0 < hole_ms < HANGOVER_MS:
                track.state = _State.SILENT
        track.hear(window)
        if track.state is _State.SILENT and track.quiet_ms == 0:
            is_alone = not self._rivals(track, window.start_ms)
            track.begin(_State.OWN if is_alone else _State.HELD, window.start_ms)
        if track.state in (_State.SILENT, _State.OWN):
            yield window
        else:
            track.held.append(window)
        match track.state:
            case _State.HELD:
                yield from self._watch_held(track)
            case _State.OWN:
                yield from self._watch_own(track)
            case _State.BLEED:
                yield from self._watch_bleed(track)

    def _end_stalls(self, track: _Track) -> Iterator[Window | Bleed | Echo]:
        """Decide what has not come on while this track did."""
        for other in self._tracks.values():
            if other.held and other is not track:
                stalled_ms = other.stalled_ms.get(track.id, 0) + WINDOW_MS
                other.stalled_ms[track.id] = stalled_ms
                if stalled_ms >= STALL_MS:
                    yield from self._settle(other)

    def _settle(self, track: _Track) -> Iterator[Window | Bleed | Echo]:
        if track.state is _State.HELD:
            yield from self._decide(track, is_last=True)
        yield from track.release()

    def _watch_held(self, track: _Track) -> Iterator[Window | Bleed | Echo]:
        is_last = track.end_ms - track.since_ms >= HOLD_MS or track.quiet_ms >= PAUSE_MS
        if is_last or track.end_ms >= track.next_look_ms:
            track.next_look_ms = track.end_ms + LOOK_MS
            yield from self._decide(track, is_last=is_last)

    def _decide(self, track: _Track, *, is_last: bool) -> Iterator[Window | Bleed | Echo]:
        matches = list(self._look(track, track.end_ms, self._rivals(track, track.since_ms)))
        if masters := _masters(matches):
            yield from self._turn_to_bleed(track, *masters[0], since_ms=track.since_ms)
            return
        copies = [(match.reversed(), rival) for match, rival in matches if match.is_copy()]
        for match, rival in copies:
            begin_ms = track.since_ms + match.lag_ms
            # Who has spoken for longer has looks of its own: it may have a voice of its own besides.
            if rival.since_ms >= begin_ms - SAME_BEGIN_MS:
                yield from self._turn_to_bleed(rival, match, track, since_ms=begin_ms)
        is_clear = track.end_ms - track.since_ms >= OWN_LOOK_MS and all(
            match.peak < NO_PEAK and rival.end_ms >= track.end_ms - WINDOW_MS for match, rival in matches
        )
        if copies or is_last or is_clear:
            track.state = _State.OWN
            track.next_look_ms = track.end_ms + RECHECK_MS
            yield from track.release()

    def _watch_own(self, track: _Track) -> Iterator[Window | Bleed | Echo]:
        if track.quiet_ms >= HANGOVER_MS:
            track.state = _State.SILENT
            return
        is_due = track.end_ms >= track.next_look_ms and not track.quiet_ms
        is_over = track.suspected_ms is not None and track.quiet_ms >= PAUSE_MS
        if not is_due and not is_over:
            return
        least = track.history.level() * 10 ** (-EQUAL_DB / 20)
        rivals = self._rivals(track, track.end_ms - HOLD_MS)
        rivals = [rival for rival in rivals if rival.history.level() >= least]
        # Bleed that was placed before its master, or comes before it, is found when both are there.
        known_ms = min((rival.end_ms for rival in rivals), default=track.end_ms)
        until_ms = max(min(track.end_ms, known_ms) - MAX_LEAD_MS, track.end_ms - HOLD_MS)
        masters = _masters(self._look(track, until_ms, rivals))
        if not masters:
            track.suspected_ms = None
            track.checked_ms = max(track.checked_ms, until_ms)
            track.next_look_ms = track.end_ms + RECHECK_MS
        elif track.suspected_ms is None:
            track.suspected_ms = until_ms - HOLD_MS // 2
            track.next_look_ms = track.end_ms + CONFIRM_MS
        else:
            yield from self._turn_to_bleed(track, *masters[0], since_ms=track.suspected_ms)

    def _watch_bleed(self, track: _Track) -> Iterator[Window | Bleed | Echo]:
        if track.quiet_ms >= PAUSE_MS:
            yield from track.release()
            track.state = _State.SILENT
        elif track.end_ms >= track.next_look_ms:
            track.next_look_ms = track.end_ms + BLEED_LOOK_MS
            masters = [other for other in self._everyone() if other.id == track.master]
            # Where the master's audio comes later than its bleed, the two can only be compared so far.
            known_ms = max((master.end_ms + track.lag_ms for master in masters), default=track.end_ms)
            until_ms = max(min(track.end_ms, known_ms), track.end_ms - HOLD_MS)
            voiced_ms = WINDOW_MS * sum(until_ms - LAST_MS < at_ms <= until_ms for at_ms in track.voiced_ms)
            if voiced_ms >= PAUSE_MS and not self._is_still_bleed(track, masters, until_ms):
                track.begin(_State.OWN, track.held[0].start_ms)
                yield from track.release()
            else:
                yield from track.release(max(until_ms - LAST_MS, track.end_ms - HOLD_MS + BLEED_LOOK_MS))

    def _is_still_bleed(self, track: _Track, masters: list[_Track], until_ms: int) -> bool:
        if until_ms - track.since_ms < FIRST_LOOK_MS:
            return True
        start_ms = max(track.since_ms, until_ms - HOLD_MS)
        for master in masters:
            match = _compare(track.history, start_ms, until_ms, master.history, near_ms=track.lag_ms)
            if track.goes_on(match, master):
                return True
        # A loudspeaker may go on with somebody else's voice.
        rivals = self._rivals(track, until_ms - HOLD_MS)
        return any(track.goes_on(match, rival) for match, rival in self._look(track, until_ms, rivals))

    def _turn_to_bleed(
        self, track: _Track, match: _Match, master: _Track, *, since_ms: int
    ) -> Iterator[Window | Bleed | Echo]:
        if track.state is not _State.HELD:
            since_ms = max(since_ms, track.checked_ms)
            if since_ms - track.since_ms <= SAME_BEGIN_MS:
                since_ms = track.since_ms
            yield Echo(track.id, master.id, since_ms, match.lag_ms, match.level_db)
        track.follow(match, master)
        if track.state is not _State.SILENT:
            track.state = _State.BLEED
            track.next_look_ms = track.end_ms + BLEED_LOOK_MS
            yield from track.release(track.end_ms - LAST_MS)

    def _look(
        self, track: _Track, until_ms: int, others: Iterable[_Track]
    ) -> Iterator[tuple[_Match, _Track]]:
        """Compare the newest of a track's stretch, as far as it is there by a session time, with others."""
        start_ms = max(track.since_ms, until_ms - HOLD_MS)
        if until_ms - start_ms >= LEAST_OVERLAP_MS:
            for other in others:
                yield _compare(track.history, start_ms, until_ms, other.history), other

    def _everyone(self) -> Iterator[_Track]:
        yield from self._tracks.values()
        yield from self._left

    def _rivals(self, track: _Track, start_ms: int) -> list[_Track]:
        """Who else may have the voice that a track has from a session time on. Bleed has none to give."""
        rivals = [
            other
            for other in self._everyone()
            if other.id != track.id  # it may have been here before
            and other.master is None
            and other.voiced_ms[-1] > start_ms - MAX_LAG_MS
            and other.since_ms < track.end_ms + MAX_LAG_MS
        ]
        if len(rivals) > MAX_RIVALS:
            rivals.sort(key=lambda rival: rival.history.level(), reverse=True)
        return rivals[:MAX_RIVALS]
