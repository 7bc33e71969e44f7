"""What waits to be published: durable events in order and at once, partials no faster than viewers need."""

from collections import OrderedDict, deque

from agent.values import Event

__all__ = ["Outbox"]

MAX_PARTIALS = 64  # more captions than this are never open at once; the oldest gives way
MAX_EVENTS = 4_096  # hours of finals: this many wait only where nothing can be published at all


class Outbox:
    """Orders the events of one session for its publisher.

    Finals and other events never wait. Partials go out at most `partials_per_s` a second; until its turn
    comes a partial is replaced by the next one of the same caption, and dropped by its final.
    """

    def __init__(self, partials_per_s: float) -> None:
        self._interval_ms = round(1000 / partials_per_s)
        self._events: deque[Event] = deque()
        self._partials: OrderedDict[str, Event] = OrderedDict()
        self._next_partial_ms = 0
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Add an event; where far too many wait, the oldest is dropped and counted."""
        caption = event.caption
        if caption is not None and not caption.is_final:
            self._partials[caption.id] = event
            if len(self._partials) > MAX_PARTIALS:
                self._partials.popitem(last=False)
                self.dropped += 1
            return
        if caption is not None:
            self._partials.pop(caption.id, None)
        self._events.append(event)
        if len(self._events) > MAX_EVENTS:
            self._events.popleft()
            self.dropped += 1

    def discard(self, caption_id: str) -> None:
        """Drop the partial of a caption whose final takes another way."""
        self._partials.pop(caption_id, None)

    def get(self, now_ms: int) -> Event | None:
        """The event to publish now, if there is one."""
        if self._events:
            return self._events.popleft()
        if self._partials and now_ms >= self._next_partial_ms:
            self._next_partial_ms = now_ms + self._interval_ms
            return self._partials.popitem(last=False)[1]
        return None

    def due_ms(self) -> int | None:
        """When `get` will have something, as far as it is known now; None where nothing waits."""
        if self._events:
            return 0
        return self._next_partial_ms if self._partials else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._events and not self._partials
