"""A list that is read a page at a time, each beginning where the one before ended."""

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Page"]

Item = TypeVar("Item")
Cursor = TypeVar("Cursor")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item, Cursor]):
    """Some items in order, and what to ask for the next page with; None where these are the last."""

    items: tuple[Item, ...]
    next: Cursor | None
