"""What an engine said, placed in the session: whose words, and when."""

from collections.abc import Sequence
from math import isfinite

from livekit.agents import stt

from agent.transcription.stream_map import Piece, StreamMap
from agent.values import Heard, Word

__all__ = ["place", "span_s"]


def span_s(data: stt.SpeechData) -> tuple[float, float] | None:
    """From when to when in its stream an engine places this; None where it says nothing of sense."""
    start_s, end_s = _number(data.start_time), _number(data.end_time)
    return (start_s, end_s) if start_s is not None and end_s is not None and start_s < end_s else None


def place(data: stt.SpeechData, piece: Piece, stream: StreamMap, utterance: int, *, is_final: bool) -> Heard:
    """From the time of a stream to session time.

    Args:
        data: What the engine said; its times may lie anywhere.
        piece: Of the turn whose words these are; no time is placed outside that turn.
        stream: Where the stream's audio came from.
        utterance: Its number.
        is_final: Whether this is the utterance's last state.
    """
    words = tuple(_words(data, piece.turn, stream))
    if words:
        start_ms, end_ms = words[0].start_ms, words[-1].end_ms
    elif (span := span_s(data)) is not None:
        start_ms = stream.to_session(_ms(span[0]), piece.turn)
        end_ms = stream.to_session_end(_ms(span[1]), piece.turn)
    else:
        start_ms, end_ms = stream.span_of(piece.turn)
    stable = _number((data.metadata or {}).get("stable_words")) or 0
    return Heard(
        utterance=utterance,
        is_final=is_final,
        text=data.text if isinstance(data.text, str) else "",
        start_ms=start_ms,
        end_ms=max(start_ms, end_ms),
        language=str(data.language),
        confidence=min(max(_number(data.confidence) or 0.0, 0.0), 1.0),
        words=words,
        stable_words=len(words) if is_final else min(int(stable), len(words)),
        turn=piece.turn,
        track_id=piece.track_id,
    )


def _words(data: stt.SpeechData, turn: int, stream: StreamMap) -> Sequence[Word]:
    words = []
    for word in data.words or ():
        # Some engines give words as plain text, without times.
        start_s, end_s = (_number(getattr(word, name, None)) for name in ("start_time", "end_time"))
        if start_s is None or end_s is None:
            return ()
        start_ms = stream.to_session(_ms(start_s), turn)
        end_ms = max(start_ms, stream.to_session_end(_ms(end_s), turn))
        words.append(Word(str(word), start_ms, end_ms, _number(getattr(word, "confidence", None)) or 0.0))
    return words


def _number(value: object) -> float | None:
    """What an engine gives as a number, unless it is none."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _ms(stream_s: float) -> int:
    return round(stream_s * 1000)
