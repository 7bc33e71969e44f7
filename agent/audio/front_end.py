"""From the tracks of a room to the one stream that is recognised, and to who spoke when."""

from collections.abc import Callable

from agent.audio.activity import VoiceActivityDetector, VoiceDetector
from agent.audio.mix import Mixer
from agent.audio.resample import Resampler
from agent.audio.timeline import Timeline
from agent.values import Block, Samples, Voice

__all__ = ["FrontEnd"]


class FrontEnd:
    """Timeline, voice activity and mix of one session. Not for use by two threads at a time."""

    def __init__(self, new_detector: Callable[[], VoiceActivityDetector]) -> None:
        self._new_detector = new_detector
        self._timeline = Timeline()
        self._mixer = Mixer()
        self._resamplers: dict[str, Resampler] = {}
        self._detectors: dict[str, VoiceDetector] = {}

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
        self._timeline.open(track_id)
        self._resamplers[track_id] = Resampler(sample_rate_hz)
        self._detectors[track_id] = VoiceDetector(self._new_detector())

    def close(self, track_id: str) -> None:
        """A track was muted or is gone."""
        self._timeline.close(track_id)
        self._resamplers.pop(track_id, None)
        self._detectors.pop(track_id, None)

    def push(self, track_id: str, samples: Samples, received_ms: int) -> list[Voice]:
        """Take the samples of a track that have arrived since the last call; what is not open is ignored.

        Args:
            samples: `int16` of shape `(samples,)` at the track's rate.
            received_ms: Session time at which the last of them arrived.

        Returns:
            The voice in the windows that they complete.
        """
        if track_id not in self._resamplers:
            return []
        samples = self._resamplers[track_id].push(samples)
        block = self._timeline.place(track_id, samples, received_ms)
        if block is None:
            return []
        self._mixer.add(block)
        return self._detectors[track_id].measure(block)

    def take(self) -> Block | None:
        """The next stretch of the sum, as far as nothing more is waited for."""
        return self._take(self._timeline.ready_ms())

    def drain(self) -> Block | None:
        """All that is left of the sum, at the end."""
        return self._take(self._timeline.end_ms())

    def _take(self, until_ms: int) -> Block | None:
        self._timeline.take(until_ms)
        return self._mixer.take(until_ms)
