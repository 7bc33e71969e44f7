"""What the service wrote down: text, word times where it gives them, and what it bills. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["TimedWord", "Transcript", "Usage", "number", "parse_transcript", "parse_usage", "time_words"]


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and its time in seconds since the audio began. `confidence` is 0 to 1 where it is known."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What is billed: seconds of audio with some models, tokens with others."""

    audio_s: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of a recording. `words` are empty where their times are not known."""

    text: str
    words: tuple[TimedWord, ...] = ()
    usage: Usage = Usage()


def parse_transcript(data: str) -> Transcript:
    """Read the answer of `/audio/transcriptions` in the formats `json` and `verbose_json`.

    Raises:
        ValueError: It is neither.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        # Not from that error, which quotes the answer.
        raise ValueError("no transcript") from None
    match answer:
        case {"text": str(text)}:
            text = text.strip()
        case _:
            raise ValueError("no transcript")
    usage = parse_usage(answer.get("usage"))
    if usage.audio_s is None and not usage.input_tokens:
        # Servers that bill nothing leave `usage` out; a verbose answer has the length of the audio.
        usage = Usage(audio_s=number(answer.get("duration")))
    return Transcript(text, time_words(text, _words(answer.get("words"))), usage)


def parse_usage(usage: object) -> Usage:
    """Read a `usage` object of either kind; nothing is known where it is neither."""
    if not isinstance(usage, Mapping):
        return Usage()
    return Usage(
        audio_s=number(usage.get("seconds")),
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
    )


def time_words(text: str, words: Sequence[TimedWord]) -> tuple[TimedWord, ...]:
    """Cut a text into timed words.

    The service times words without their punctuation. Here each word takes along what stands between it and
    the next one in the text, so that joined they are the text again.

    Args:
        text: With punctuation.
        words: As the service timed them, in the text's order.

    Returns:
        As many words, or none where one of them is not to be found in the text.
    """
    starts: list[int] = []
    at = 0
    for word in words:
        spelled = word.text.strip()
        at = text.find(spelled, at)
        if not spelled or at < 0:
            return ()
        starts.append(at)
        at += len(spelled)
    if not starts:
        return ()
    bounds = [0, *starts[1:], len(text)]
    return tuple(
        TimedWord(text[begin:end].strip(), word.start_s, word.end_s, word.confidence)
        for word, begin, end in zip(words, bounds[:-1], bounds[1:], strict=True)
    )


def _words(words: object) -> list[TimedWord]:
    """Read timed words; none where one of them is malformed, since a text with holes cannot be placed."""
    if not isinstance(words, list):
        return []
    timed: list[TimedWord] = []
    earliest_s = 0.0
    for word in words:
        if not isinstance(word, Mapping) or not isinstance(text := word.get("word"), str):
            return []
        start_s, end_s = number(word.get("start")), number(word.get("end"))
        if start_s is None or end_s is None:
            return []
        start_s = max(start_s, earliest_s)
        # Some servers give a probability as well; the service itself does not.
        confidence = number(word.get("probability"))
        timed.append(
            TimedWord(
                text, start_s, max(start_s, end_s), None if confidence is None else min(max(confidence, 0), 1)
            )
        )
        earliest_s = start_s
    return timed


def number(value: object) -> float | None:
    """Return a finite number as it is in JSON, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def _count(value: object) -> int:
    return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else 0
