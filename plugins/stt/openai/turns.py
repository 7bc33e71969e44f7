"""Which answer belongs to which turn. Pure.

A turn is the audio between two flushes. The service makes an item of each, names the items in the order of
the commits, and may finish them in any order; here they leave in the order of the flushes. Some models write
while audio still comes in: then the item is known by its first text, before it is committed.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from plugins.stt.openai.transcript import Usage

__all__ = ["Turn", "Turns"]


@dataclass(slots=True, eq=False)
class Turn:
    """One turn. `start` and `end` are samples of the stream, `end` excluded.

    `text` is what is known so far, the whole once the turn `is_answered`. `usage` is None where nothing is
    billed. `item_id` is a guess until the turn `is_named`. `shown` is the text that was last given out.
    """

    id: str
    start: int
    end: int
    text: str = ""
    usage: Usage | None = None
    is_committed: bool = False
    is_answered: bool = False
    item_id: str | None = None
    is_named: bool = False
    shown: str = ""

    @property
    def awaits_item(self) -> bool:
        """Whether the service has been asked to make an item of it, and has not said that it did."""
        return self.is_committed and not self.is_named and not self.is_answered


class Turns:
    """The turns that have not been answered, oldest first; the last one may still go on."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()
        # Those that are answered stay, so that nothing said of them later is taken for another turn's.
        self._items: dict[str, Turn] = {}
        self._ids = (f"turn_{number}" for number in itertools.count(1))
        self._position = 0

    @property
    def is_open(self) -> bool:
        """Whether audio came since the last flush."""
        return bool(self._turns) and not self._turns[-1].is_committed

    @property
    def is_idle(self) -> bool:
        """Whether all that came has been flushed and answered."""
        return not self._turns

    def hear(self, samples: int) -> None:
        """Take note of audio that is sent."""
        if not self.is_open:
            self._turns.append(Turn(next(self._ids), self._position, self._position))
        self._position += samples
        self._turns[-1].end = self._position

    def commit(self) -> Turn:
        """End the turn that is open, and return it."""
        assert self.is_open
        turn = self._turns[-1]
        turn.is_committed = True
        return turn

    def name(self, item_id: str) -> None:
        """Take note that the service made an item of the next turn that was committed."""
        known = self._items.get(item_id)
        turn = next((turn for turn in self._turns if turn.awaits_item), None)
        if turn is None or (known is not None and (known.is_named or known.is_answered)):
            return
        if turn.item_id != item_id:
            # What was written under another name was not this turn's.
            turn.text = ""
            self._items.pop(turn.item_id or "", None)
            self._items[item_id] = turn
        turn.item_id, turn.is_named = item_id, True

    def extend(self, item_id: str, text: str) -> None:
        """Add to the text of an item. One that was not named yet is the first turn's without an item."""
        if item_id not in self._items:
            turn = next((turn for turn in self._turns if turn.item_id is None and not turn.is_answered), None)
            if turn is None:
                return
            turn.item_id = item_id
            self._items[item_id] = turn
        turn = self._items[item_id]
        if not turn.is_answered:
            turn.text += text

    def answer(self, item_id: str, text: str, usage: Usage | None) -> bool:
        """Take the whole text of an item; say whether anybody was waiting for it."""
        turn = self._items.get(item_id)
        if turn is None or turn.is_answered or not turn.is_committed:
            return False
        turn.text, turn.usage, turn.is_answered = text, usage, True
        return True

    def refuse(self, turn_id: str | None) -> bool:
        """Answer a turn that became no item with nothing: the one named, or the first that may be meant."""
        for turn in self._turns:
            if turn.awaits_item and turn_id in (turn.id, None):
                turn.text, turn.is_answered = "", True
                return True
        return False

    def forget_items(self) -> None:
        """Take note that a new session begins, with items of its own."""
        self._items.clear()

    def take(self) -> Iterator[Turn]:
        """Give each turn whose time has come: answered ones, then the next if its text has changed."""
        while self._turns and self._turns[0].is_answered:
            yield self._turns.popleft()
        if self._turns and (turn := self._turns[0]).text.strip() not in ("", turn.shown):
            turn.shown = turn.text.strip()
            yield turn
