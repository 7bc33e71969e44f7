"""What viewers saw, what was kept and what was done to the agents; and what follows from that.

Pure: wall times are seconds as `time.time()` gives them, session times are milliseconds.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = [
    "OVERLAP_MS",
    "Audio",
    "Caption",
    "Fault",
    "HandOver",
    "Seen",
    "SeqFaults",
    "Watched",
    "hole_ms",
    "overlaps_s",
    "recovered_after_s",
    "said_twice",
    "seq_faults",
    "silences_s",
    "without_leader_s",
]


# A successor hears the block that its predecessor heard last, and two processes place the same audio
# up to a block apart. An engine that says something every 0.2 s has a word even there.
OVERLAP_MS = 100


@dataclass(frozen=True, slots=True)
class Caption:
    """A final, as a viewer got it or as the database has it."""

    session: str
    epoch: int
    id: str
    seq: int
    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that a viewer got; `final` is what it carried, if it was one."""

    received_s: float
    session: str
    epoch: int
    final: Caption | None = None


@dataclass(slots=True)
class Watched:
    """A room, and what its viewer got. In its `spans` somebody spoke and the viewer was connected."""

    name: str
    kind: str
    events: list[Seen] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was done to the agent that led an epoch; its successor heard at `heard_s`, if that is known.

    `is_over` is false where nobody had come when the patience of the benchmark was at its end. `is_kill`
    tells whether the agent was killed by it.
    """

    kind: str
    room: str
    at_s: float
    session: str = ""
    epoch: int = 0
    heard_s: float | None = None
    is_over: bool = True
    is_kill: bool = False


@dataclass(frozen=True, slots=True)
class HandOver:
    """An agent was relieved: the next one leads since `led_s`, and it left at `left_s`."""

    kind: str
    room: str
    session: str
    epoch: int
    next_epoch: int
    left_s: float | None
    led_s: float


@dataclass(frozen=True, slots=True)
class Audio:
    """A segment of somebody's audio that was kept."""

    session: str
    epoch: int
    start_ms: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class SeqFaults:
    """What is wrong with the numbers of finals: the same twice, a lower one after a higher, a hole.

    `missing` counts numbers in a hole within an epoch. `skipped` are those between two epochs: an agent that
    cannot know what the one before has given begins beyond what it may have.
    """

    repeated: Sequence[Caption]
    falling: Sequence[Caption]
    missing: int
    skipped: int = 0


def silences_s(room: Watched) -> Iterator[float]:
    """How long nothing came from any agent, again and again, while somebody spoke and somebody read."""
    times = sorted(event.received_s for event in room.events)
    for start_s, end_s in room.spans:
        within = [start_s, *(time_s for time_s in times if start_s < time_s < end_s), end_s]
        yield from (after - before for before, after in pairwise(within))


def overlaps_s(events: Iterable[Seen]) -> Iterator[float]:
    """For how long two agents published in a room at once, for each two that did."""
    spans: dict[tuple[str, int], tuple[float, float]] = {}
    for event in events:
        leader = event.session, event.epoch
        first_s, last_s = spans.get(leader, (event.received_s, event.received_s))
        spans[leader] = min(first_s, event.received_s), max(last_s, event.received_s)
    in_order = sorted(spans.values())
    for index, (_, last_s) in enumerate(in_order):
        for first_s, other_last_s in in_order[index + 1 :]:
            if first_s < last_s:
                yield min(last_s, other_last_s) - first_s


def seq_faults(finals: Iterable[Caption]) -> SeqFaults:
    """Check the numbers of finals in the order in which they came."""
    by_session: dict[str, list[Caption]] = defaultdict(list)
    for final in finals:
        by_session[final.session].append(final)
    repeated, falling, missing, skipped = [], [], 0, 0
    for each in by_session.values():
        numbers: set[int] = set()
        for final in each:
            if final.seq in numbers:
                repeated.append(final)
            numbers.add(final.seq)
        falling += [after for before, after in pairwise(each) if after.seq < before.seq]
        for before, after in pairwise(sorted(each, key=lambda final: final.seq)):
            hole = max(after.seq - before.seq - 1, 0)
            if before.epoch == after.epoch:
                missing += hole
            else:
                skipped += hole
    return SeqFaults(repeated, falling, missing, skipped)


def said_twice(finals: Iterable[Caption]) -> Sequence[Caption]:
    """Finals whose text the session has already, or that begin well within what earlier epochs covered."""
    found = []
    by_session: dict[str, list[Caption]] = defaultdict(list)
    for final in finals:
        by_session[final.session].append(final)
    for each in by_session.values():
        texts: Counter[str] = Counter()
        covered_ms = end_ms = epoch = 0
        for final in sorted(each, key=lambda final: (final.epoch, final.start_ms)):
            if final.epoch != epoch:
                covered_ms, epoch = end_ms, final.epoch
            end_ms = max(end_ms, final.end_ms)
            texts[final.text] += 1
            if final.start_ms < covered_ms - OVERLAP_MS or texts[final.text] > 1:
                found.append(final)
    return found


def hole_ms(audio: Iterable[Audio], session: str, epoch: int, next_epoch: int) -> int | None:
    """What the audio of a session lacks between two epochs; None where one of them has none.

    Below 0 they overlap.
    """
    by_epoch: dict[int, list[Audio]] = defaultdict(list)
    for each in audio:
        if each.session == session and each.duration_ms:
            by_epoch[each.epoch].append(each)
    if not (by_epoch[epoch] and by_epoch[next_epoch]):
        return None
    end_ms = max(each.start_ms + each.duration_ms for each in by_epoch[epoch])
    return min(each.start_ms for each in by_epoch[next_epoch]) - end_ms


def recovered_after_s(faults: Iterable[Fault]) -> Iterator[float]:
    """How long after each fault somebody heard again, where it is known."""
    return (fault.heard_s - fault.at_s for fault in faults if fault.heard_s is not None)


def without_leader_s(handovers: Iterable[HandOver]) -> Iterator[float]:
    """For how long nobody led, in each hand-over of which it is known."""
    return (max(each.led_s - each.left_s, 0.0) for each in handovers if each.left_s is not None)
