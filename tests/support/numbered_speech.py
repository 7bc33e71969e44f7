"""Speech by loudness: noise whose windows have numbers, a detector that finds it, an engine that reads it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from livekit.agents import APIConnectionError, APIConnectOptions, NotGivenOr, stt
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, TimedString
from livekit.agents.utils import AudioBuffer

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES
from agent.captions.assembler import MAX_TEXT_CHARS
from agent.values import SAMPLE_RATE_HZ, Caption, Samples
from persistence.records import Final
from plugins.stt.traits import FLUSHED
from tests.support.scripted_source import silence

__all__ = ["Loudness", "NumberSTT", "assert_none_twice", "heard", "noise", "numbered", "said"]

ANSWER_S = 0.2
CLOSE_S = 0.02
VOICE_RMS = 200
NOISE_RMS = 3_000


class Loudness:
    """Takes what is not quiet for voice, a hum as well."""

    def predict(self, pcm: Samples) -> float:
        return float(np.sqrt(np.mean(np.square(pcm.astype(float)))) > VOICE_RMS)

    def reset(self) -> None:
        """There is nothing to forget."""


def noise(seconds: float) -> Samples:
    """Somebody who speaks without a pause, the same each time."""
    generator = np.random.default_rng(7)
    return generator.normal(0, NOISE_RMS, round(seconds * SAMPLE_RATE_HZ)).astype(np.int16)


def numbered(seed: int, spoken_s: Sequence[tuple[float, float]], until_s: float) -> Samples:
    """Noise where somebody speaks; the first sample of each window of it tells its number, from 1 on."""
    samples = silence(until_s)
    samples = samples[: len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES]
    generator = np.random.default_rng(seed)
    windows = samples.reshape(-1, WINDOW_SAMPLES)
    for number, window in enumerate(windows):
        if any(begin <= number * WINDOW_MS / 1000 < end for begin, end in spoken_s):
            window[:] = generator.normal(0, NOISE_RMS, WINDOW_SAMPLES)
            window[window == 0] = 1
            window[0] = number + 1
        else:
            window[0] = 0
    return samples


def said(samples: Samples, until_ms: float = float("inf")) -> list[int]:
    """The numbers of the windows in which somebody speaks, of those that are over by then."""
    numbers = [int(value) for value in samples[::WINDOW_SAMPLES] if value]
    return [number for number in numbers if number * WINDOW_MS <= until_ms]


def heard(finals: Sequence[Caption | Final], who: str) -> list[int]:
    """The numbers in somebody's finals, as published or as kept."""
    text = ""
    for final in finals:
        if (final.identity if isinstance(final, Final) else final.speaker.identity) == who:
            # A text that is too long for a caption goes on in the next one.
            text += final.text + ("" if len(final.text) == MAX_TEXT_CHARS else " ")
    return [int(word) for word in text.split()]


def assert_none_twice(words: Sequence[int]) -> None:
    assert not [word for word, count in Counter(words).items() if count > 1], "words came twice"


class NumberSTT(stt.STT[Any]):
    """The final of a turn is the first sample of each window that is not 0, each a word with its time.

    A test may have it refuse everything for a while, or answer without having heard anything.
    """

    def __init__(self) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=True, aligned_transcript="word", manual_flush=True
            )
        )
        self.refuses = False
        self.is_deaf = False
        self.longest_s = 0.0

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "NumberStream":
        self.see_health()
        return NumberStream(stt=self, conn_options=conn_options)

    async def _recognize_impl(
        self, buffer: AudioBuffer, *, language: NotGivenOr[str], conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        self.see_health()
        await asyncio.sleep(ANSWER_S)
        frame = buffer[0] if isinstance(buffer, list) else buffer
        return self.transcript(np.frombuffer(frame.data, np.int16), 0.0)

    def see_health(self) -> None:
        if self.refuses:
            raise APIConnectionError("refused")

    def transcript(self, samples: Samples, begin_s: float) -> stt.SpeechEvent:
        self.longest_s = max(self.longest_s, len(samples) / SAMPLE_RATE_HZ)
        if self.is_deaf:
            return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[])
        window_s = WINDOW_MS / 1000
        words = [
            TimedString(
                str(value), start_time=begin_s + at * window_s, end_time=begin_s + (at + 1) * window_s
            )
            for at, value in enumerate(samples[::WINDOW_SAMPLES])
            if value
        ]
        data = stt.SpeechData(
            language="en",  # type: ignore[arg-type]
            text=" ".join(words),
            start_time=float(words[0].start_time) if words else 0.0,
            end_time=float(words[-1].end_time) if words else 0.0,
            words=list(words),
        )
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data])


class NumberStream(stt.RecognizeStream):
    """Answers each flush; breaks while its engine refuses."""

    _stt: NumberSTT

    async def _run(self) -> None:
        turn: list[Samples] = []
        begin_s = heard_s = 0.0
        async for item in self._input_ch:
            self._stt.see_health()
            if not isinstance(item, self._FlushSentinel):
                turn.append(np.frombuffer(item.data, np.int16))
                heard_s += item.duration
            elif turn:
                await asyncio.sleep(ANSWER_S)
                self._event_ch.send_nowait(self._stt.transcript(np.concatenate(turn), begin_s))
                self._event_ch.send_nowait(
                    stt.SpeechEvent(stt.SpeechEventType.END_OF_SPEECH, request_id=FLUSHED)
                )
                turn, begin_s = [], heard_s
        await asyncio.sleep(CLOSE_S)
