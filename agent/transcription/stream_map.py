"""From the time of what was sent to an engine back to session time, and to whose turn it was."""

from bisect import bisect_right
from dataclasses import dataclass

__all__ = ["Piece", "StreamMap"]

MAX_PIECES = 4_096  # hours of turns; what is older than all of them is final long since


@dataclass(slots=True)
class Piece:
    """A stretch of the stream: a turn's audio that is contiguous in the session."""

    turn: int
    track_id: str
    stream_ms: int
    session_ms: int
    duration_ms: int


class StreamMap:
    """Where in the session each millisecond of a stream came from. Pure.

    The stream is made of pieces that are contiguous in it, but may lie anywhere in the session.
    """

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._starts_ms: list[int] = []
        self.length_ms = 0

    def append(self, turn: int, track_id: str, session_start_ms: int, duration_ms: int) -> None:
        """The next `duration_ms` of the stream are a turn's, and began there in the session."""
        last = self._pieces[-1] if self._pieces else None
        if last and last.turn == turn and last.session_ms + last.duration_ms == session_start_ms:
            last.duration_ms += duration_ms
        else:
            self._pieces.append(Piece(turn, track_id, self.length_ms, session_start_ms, duration_ms))
            self._starts_ms.append(self.length_ms)
            del self._pieces[:-MAX_PIECES], self._starts_ms[:-MAX_PIECES]
        self.length_ms += duration_ms

    def piece_at(self, stream_ms: float) -> Piece | None:
        """The piece that a stream time lies in, or the nearest; None before anything was appended.

        A time at the seam of two pieces belongs to the later one.
        """
        if not self._pieces:
            return None
        return self._pieces[max(bisect_right(self._starts_ms, stream_ms) - 1, 0)]

    def span_of(self, turn: int) -> tuple[int, int]:
        """From when to when a turn's audio is in the session; an empty span at 0 where there is none."""
        own = [piece for piece in self._pieces if piece.turn == turn]
        if not own:
            return 0, 0
        return own[0].session_ms, own[-1].session_ms + own[-1].duration_ms

    def to_session(self, stream_ms: int, within: int | None = None) -> int:
        """The session time of a stream time, 0 before anything was appended.

        Args:
            stream_ms: One past the end belongs to the last piece.
            within: The number of a turn out of which the answer may not lie.
        """
        piece = self.piece_at(stream_ms)
        if piece is not None and within is not None and piece.turn != within:
            own = [each for each in self._pieces if each.turn == within]
            if own:
                piece = own[0] if stream_ms < own[0].stream_ms else own[-1]
        if piece is None:
            return 0
        offset_ms = min(max(stream_ms - piece.stream_ms, 0), piece.duration_ms)
        return piece.session_ms + offset_ms

    def to_session_end(self, stream_ms: int, within: int | None = None) -> int:
        """The same for the end of something: at a seam it belongs to the earlier piece."""
        return self.to_session(stream_ms - 1, within) + 1 if stream_ms > 0 else self.to_session(0, within)
