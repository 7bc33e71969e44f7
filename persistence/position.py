"""A place in a journal."""

from dataclasses import dataclass

__all__ = ["Position"]


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A place in a journal: which of its files, counted from 1, and how many bytes into it."""

    segment: int
    offset_bytes: int
