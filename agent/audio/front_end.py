"""From the tracks of a room to what is recognised, and to who spoke when."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.audio.activity import VoiceActivityDetector, VoiceDetector, Window
from agent.audio.bleed import Bleed, BleedGate, Echo
from agent.audio.mix import MIX_TRACK, Mixer
from agent.audio.resample import Resampler
from agent.audio.timeline import Timeline
from agent.values import Samples

__all__ = ["Closed", "FrontEnd", "Opened", "Signal"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A track can be heard from now on."""

    track_id: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A track was muted or is gone."""

    track_id: str


Signal = Window | Bleed | Opened | Closed | Echo


class FrontEnd:
    """Timeline, voice activity, bleed and, for a sum, the mix of one session. Not for two threads at a time.

    Args:
        new_detector: Makes a voice activity detector for a track.
        is_sum: Whether the sum of all tracks is recognised, as one track that always speaks.
    """

    def __init__(self, new_detector: Callable[[], VoiceActivityDetector], *, is_sum: bool) -> None:
        self._new_detector = new_detector
        self._timeline = Timeline()
        self._resamplers: dict[str, Resampler] = {}
        self._detectors: dict[str, VoiceDetector] = {}
        self._gate = BleedGate()
        self._mixer = Mixer() if is_sum else None
        self._mix_detector = VoiceDetector(_AlwaysVoice())
        self._signals: list[Signal] = [Opened(MIX_TRACK)] if is_sum else []
        self._voices: list[Window] = []

    @property
    def moved_ms(self) -> int:
        """Milliseconds by which late audio was moved up, over all tracks."""
        return self._timeline.moved_ms

    @property
    def trimmed_ms(self) -> int:
        """Milliseconds of audio that were cut because a track ran ahead of time, over all tracks."""
        return self._timeline.trimmed_ms

    def open(self, track_id: str, sample_rate_hz: int) -> None:
        """A track can be heard from now on, at this rate."""
        self.close(track_id)
        self._timeline.open(track_id)
        self._pass_on(self._gate.open(track_id))
        self._resamplers[track_id] = Resampler(sample_rate_hz)
        self._detectors[track_id] = VoiceDetector(self._new_detector())
        self._signal(Opened(track_id))

    def close(self, track_id: str) -> None:
        """A track was muted or is gone."""
        if self._resamplers.pop(track_id, None) is None:
            return
        for window in self._detectors.pop(track_id).finish(track_id):
            self._pass_on(self._gate.push(window))
        self._timeline.close(track_id)
        self._pass_on(self._gate.close(track_id))
        self._signal(Closed(track_id))

    def push(self, track_id: str, samples: Samples, received_ms: int) -> None:
        """Take the samples of a track that have arrived since the last call; what is not open is ignored.

        Args:
            track_id: Whose.
            samples: `int16` of shape `(samples,)` at the track's rate.
            received_ms: Session time at which the last of them arrived.
        """
        if track_id not in self._resamplers:
            return
        samples = self._resamplers[track_id].push(samples)
        block = self._timeline.place(track_id, samples, received_ms)
        if block is None:
            return
        if self._mixer is not None:
            self._mixer.add(block)
        for window in self._detectors[track_id].detect(block):
            self._pass_on(self._gate.push(window))

    def take(self) -> tuple[list[Window], list[Signal]]:
        """What was found since the last call: everybody's windows, and what is to be recognised."""
        return self._take(self._timeline.ready_ms())

    def drain(self) -> tuple[list[Window], list[Signal]]:
        """The same at the end: nothing more comes of any track."""
        for track_id in list(self._resamplers):
            self.close(track_id)
        self._pass_on(self._gate.flush())
        voices, signals = self._take(self._timeline.end_ms())
        if self._mixer is not None:
            signals += [*self._mix_detector.finish(MIX_TRACK), Closed(MIX_TRACK)]
        return voices, signals

    def _take(self, until_ms: int) -> tuple[list[Window], list[Signal]]:
        self._timeline.take(until_ms)
        if self._mixer is not None and (mix := self._mixer.take(until_ms)) is not None:
            self._signals += self._mix_detector.detect(mix)
        voices, self._voices = self._voices, []
        signals, self._signals = self._signals, []
        return voices, signals

    def _pass_on(self, passed: Sequence[Window | Bleed | Echo]) -> None:
        for each in passed:
            match each:
                case Window():
                    self._voices.append(each)
                case Bleed():
                    # What a loudspeaker says is not its owner's talk.
                    self._voices.append(replace(each.window, probability=0.0))
            self._signal(each)

    def _signal(self, signal: Signal) -> None:
        if self._mixer is None:
            self._signals.append(signal)


class _AlwaysVoice:
    """Takes everything for voice."""

    def predict(self, pcm: Samples) -> float:
        return 1.0

    def reset(self) -> None:
        """There is nothing to forget."""
