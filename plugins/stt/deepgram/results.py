"""What the service recognised, validated, and brought into the terms of the STT interface. Pure.

The SDK's types check nothing ("unchecked" models that take any JSON), so the messages are validated here.
"""

from typing import Annotated, Any, Self

from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import TimedString
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

__all__ = ["Alternative", "Recording", "Results", "speech_data"]


class _Model(BaseModel):
    # `from_attributes` reads the SDK's objects; further fields come with each release of the service.
    model_config = ConfigDict(from_attributes=True, extra="ignore", frozen=True)

    @classmethod
    def read(cls, message: Any) -> Self:
        """Validate a message of the SDK's.

        Raises:
            ValidationError: It lacks something, or something is not what it should be.
        """
        return cls.model_validate(message)


class Word(_Model):
    """One word; times are seconds since the stream or recording began."""

    word: str
    start: FiniteFloat
    end: FiniteFloat
    confidence: FiniteFloat = 0.0
    punctuated_word: str | None = None

    @property
    def text(self) -> str:
        """As it stands in the transcript."""
        return self.punctuated_word or self.word


class Alternative(_Model):
    """A transcript, empty where nothing was said. `languages` only where the service detects them."""

    transcript: str
    confidence: FiniteFloat = 0.0
    words: tuple[Word, ...] = ()
    languages: tuple[str, ...] | None = None


class Channel(_Model):
    """What was heard in one channel; the best alternative is the first."""

    alternatives: Annotated[tuple[Alternative, ...], Field(min_length=1)]

    @property
    def best(self) -> Alternative:
        return self.alternatives[0]


class _Request(_Model):
    request_id: str


class Results(_Model):
    """A transcript of the audio from `start` on, `duration` seconds long."""

    start: FiniteFloat
    duration: FiniteFloat
    channel: Channel
    metadata: _Request
    is_final: bool | None = None
    from_finalize: bool | None = None

    @property
    def first_word_s(self) -> float | None:
        """Where its words begin, None if it has none."""
        best = self.channel.best
        if not best.transcript:
            return None
        return best.words[0].start if best.words else self.start

    @property
    def end(self) -> float:
        return self.start + self.duration


class _RecordingMetadata(_Request):
    duration: FiniteFloat


class _RecordingResults(_Model):
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]


class Recording(_Model):
    """The transcript of a whole recording."""

    metadata: _RecordingMetadata
    results: _RecordingResults


def speech_data(
    heard: Alternative, *, language: str, start_s: float, end_s: float, audio_s: float, offset_s: float = 0.0
) -> stt.SpeechData:
    """Put a transcript into the terms of the STT interface.

    Args:
        heard: What was recognised.
        language: What was asked for; a detected one wins.
        start_s: Where the audio that it was recognised in begins.
        end_s: Where that ends. Words are moved into these bounds, and in order.
        audio_s: How much audio there is at all, which bounds both.
        offset_s: Added to every time of the result.
    """
    start_s = min(max(start_s, 0.0), audio_s)
    end_s = min(max(end_s, start_s), audio_s)
    words: list[TimedString] = []
    earliest_s = start_s
    for word in heard.words:
        word_start_s = min(max(word.start, earliest_s), end_s)
        word_end_s = min(max(word.end, word_start_s), end_s)
        earliest_s = word_start_s
        words.append(
            TimedString(
                word.text,
                start_time=round(offset_s + word_start_s, 3),
                end_time=round(offset_s + word_end_s, 3),
                confidence=_probability(word.confidence),
            )
        )
    return stt.SpeechData(
        language=LanguageCode(heard.languages[0] if heard.languages else language),
        text=heard.transcript.strip(),
        start_time=_time(words[0].start_time) if words else round(offset_s + start_s, 3),
        end_time=max(_time(word.end_time) for word in words) if words else round(offset_s + end_s, 3),
        confidence=_probability(heard.confidence),
        words=words,
    )


def _time(value: Any) -> float:
    return float(value)


def _probability(value: float) -> float:
    return min(max(value, 0.0), 1.0)
