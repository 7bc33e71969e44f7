"""Transcripts in the terms of livekit-agents. Pure."""

from __future__ import annotations

from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import TimedString

from plugins.stt.openai.transcript import Transcript, Usage
from plugins.stt.traits import FLUSHED

__all__ = ["answered", "interim", "recognition_usage", "speech_data"]

Kind = stt.SpeechEventType


def speech_data(
    language: LanguageCode, transcript: Transcript, *, start_s: float, end_s: float
) -> stt.SpeechData:
    """Place a transcript in a stream. `start_s` and `end_s` are where its audio is."""
    words: list[TimedString] = []
    for word in transcript.words:
        # Models place words by attention, now and then behind the end of what they heard.
        word_start_s = min(start_s + word.start_s, end_s)
        word_end_s = min(max(start_s + word.end_s, word_start_s), end_s)
        timed = TimedString(word.text, start_time=round(word_start_s, 3), end_time=round(word_end_s, 3))
        if word.confidence is not None:
            timed.confidence = word.confidence
        words.append(timed)
    known = [word.confidence for word in transcript.words if word.confidence is not None]
    return stt.SpeechData(
        language=language,
        text=transcript.text,
        start_time=round(start_s, 3),
        end_time=round(end_s, 3),
        confidence=sum(known) / len(known) if known else 0.0,
        words=words,
    )


def recognition_usage(usage: Usage, *, sent_s: float) -> stt.RecognitionUsage:
    """Return what is billed. Models that bill tokens do not say how long the audio was; `sent_s` does."""
    return stt.RecognitionUsage(
        audio_duration=sent_s if usage.audio_s is None else usage.audio_s,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
    )


def interim(request_id: str, data: stt.SpeechData) -> stt.SpeechEvent:
    """What is known of a turn so far."""
    return stt.SpeechEvent(type=Kind.INTERIM_TRANSCRIPT, request_id=request_id, alternatives=[data])


def answered(
    request_id: str, data: stt.SpeechData, usage: stt.RecognitionUsage | None
) -> list[stt.SpeechEvent]:
    """All that ends a turn: its final unless that is empty, what it costs, and that its flush is answered."""
    events: list[stt.SpeechEvent] = []
    if data.text:
        events.append(stt.SpeechEvent(type=Kind.FINAL_TRANSCRIPT, request_id=request_id, alternatives=[data]))
    if usage is not None:
        events.append(
            stt.SpeechEvent(type=Kind.RECOGNITION_USAGE, request_id=request_id, recognition_usage=usage)
        )
    events.append(stt.SpeechEvent(type=Kind.END_OF_SPEECH, request_id=FLUSHED))
    return events
