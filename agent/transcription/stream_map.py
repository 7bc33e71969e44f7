"""From the time of what was sent to an engine back to session time."""

from bisect import bisect_right

__all__ = ["StreamMap"]

MAX_PIECES = 4_096  # hours of turns; what is older than all of them is final long since


class StreamMap:
    """Where in the session each millisecond of a stream came from. Pure.

    The stream is made of pieces that are contiguous in it, but may lie anywhere in the session.
    """

    def __init__(self) -> None:
        self._stream_ms: list[int] = []
        self._session_ms: list[int] = []
        self.length_ms = 0

    def append(self, session_start_ms: int, duration_ms: int) -> None:
        """The next `duration_ms` of the stream began at `session_start_ms` in the session."""
        if not self._stream_ms or self.to_session(self.length_ms) != session_start_ms:
            self._stream_ms.append(self.length_ms)
            self._session_ms.append(session_start_ms)
            del self._stream_ms[:-MAX_PIECES], self._session_ms[:-MAX_PIECES]
        self.length_ms += duration_ms

    def to_session(self, stream_ms: int) -> int:
        """The session time of a stream time, 0 before anything was appended.

        A time at the seam of two pieces belongs to the later one, one past the end to the last.
        """
        if not self._stream_ms:
            return 0
        index = max(bisect_right(self._stream_ms, stream_ms) - 1, 0)
        return max(self._session_ms[index] + stream_ms - self._stream_ms[index], 0)

    def to_session_end(self, stream_ms: int) -> int:
        """The same for the end of something: at a seam it belongs to the earlier piece."""
        return self.to_session(stream_ms - 1) + 1 if stream_ms > 0 else self.to_session(0)
