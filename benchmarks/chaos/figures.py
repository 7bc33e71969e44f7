"""The figures of a run, each with its target, from what was observed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.keeping import Outcome
from benchmarks.chaos.observations import (
    Fault,
    HandOver,
    Watched,
    overlaps_s,
    recovered_after_s,
    silences_s,
    without_leader_s,
)
from benchmarks.distribution import percentile
from benchmarks.report import Figure

__all__ = ["Observed", "figures", "is_silent_for_long"]

LONGEST_SILENCE_S = 10.0
LONGEST_OVERLAP_S = 1.0
MOST_BEHIND_MS = 1_000
# By kind of fault: percentile and bound of the time until somebody hears again.
RECOVERED_WITHIN_S: Mapping[str, Sequence[tuple[int, float | None]]] = {
    "job": ((50, 0.6), (95, 2.0), (100, None)),
    "worker": ((50, None), (100, 5.0)),
    "up": ((50, None), (100, 10.0)),
    "server": ((50, None), (100, None)),
    "pause": ((50, None), (100, None)),
}
HANDED_OVER = ("drain", "reconnect")
WITHOUT_LOSS = "drain"  # a full reconnect itself has no audio for a moment
# Audio gets its time when a block of 50 ms arrives, in two processes with a clock each.
RESOLUTION_MS = 50


@dataclass(frozen=True, slots=True)
class Observed:
    """All that was seen; `done` and `unrecovered` count tries by kind."""

    done: Mapping[str, int]
    unrecovered: Mapping[str, int]
    outcome: Outcome
    watched: Sequence[Watched]
    faults: Sequence[Fault]
    handovers: Sequence[HandOver]
    undrained: int = 0
    kinds: Sequence[str] = field(default=())


def figures(observed: Observed) -> Iterator[Figure]:
    """What is printed, in its order."""
    for kind in observed.kinds:
        yield Figure(f"{kind}_tries", observed.done.get(kind, 0), "")
        yield _none(f"{kind}_unrecovered", observed.unrecovered.get(kind, 0))
    yield from _of_finals(observed.outcome, observed.undrained)
    yield from _of_rooms(observed)
    for kind, bounds in RECOVERED_WITHIN_S.items():
        if kind in observed.kinds:
            gaps_s = list(recovered_after_s(fault for fault in observed.faults if fault.kind == kind))
            for percent, bound_s in bounds:
                yield _at(f"{kind}_gap", gaps_s, percent, "s", bound_s)
    for kind in HANDED_OVER:
        if kind in observed.kinds:
            yield from _of_handovers(observed, kind)
    for percent in (50, 95, 100):
        bound_ms = MOST_BEHIND_MS if percent == 100 else None
        yield _at("audio_behind_kill", observed.outcome.behind_ms, percent, "ms", bound_ms)


def is_silent_for_long(room: Watched) -> bool:
    """Whether a room had no agent for longer than it may."""
    return max(silences_s(room), default=0.0) > LONGEST_SILENCE_S


def _of_finals(outcome: Outcome, undrained: int) -> Iterator[Figure]:
    yield Figure("finals_seen", outcome.finals, "", "> 0", outcome.finals > 0)
    yield _none("finals_lost", len(outcome.lost))
    yield _none("finals_changed", len(outcome.changed))
    yield _none("finals_twice", len(outcome.twice))
    yield _none("seq_repeated", len(outcome.seq_repeated))
    yield _none("seq_falling", len(outcome.seq_falling))
    yield _none("seq_missing", outcome.seq_missing)
    yield Figure("seq_skipped", outcome.seq_skipped, "")
    yield Figure("seq_unseen", outcome.seq_unseen, "")
    yield _none("rooms_with_two_sessions", len(outcome.split))
    yield _none("segments_unplayable", len(outcome.unplayable))
    yield _none("workers_not_drained", undrained)


def _of_rooms(observed: Observed) -> Iterator[Figure]:
    silences = {
        kind: [s for room in observed.watched if room.kind == kind for s in silences_s(room)]
        for kind in observed.kinds
    }
    long = sum(silence > LONGEST_SILENCE_S for each in silences.values() for silence in each)
    yield _none(f"rooms_without_agent_{LONGEST_SILENCE_S:g}_s", long)
    for kind, each in silences.items():
        yield _at(f"{kind}_silence", each, 100, "s", LONGEST_SILENCE_S)
    overlaps = [overlap for room in observed.watched for overlap in overlaps_s(room.events)]
    too_long = sum(overlap > LONGEST_OVERLAP_S for overlap in overlaps)
    yield _none(f"rooms_with_two_agents_{LONGEST_OVERLAP_S:g}_s", too_long)
    yield Figure("two_agents_max", round(max(overlaps, default=0.0), 3), "s")


def _of_handovers(observed: Observed, kind: str) -> Iterator[Figure]:
    handovers = [each for each in observed.handovers if each.kind == kind]
    yield Figure(f"{kind}_handovers", len(handovers), "", "> 0", bool(handovers))
    holes_ms = [hole for of_kind, hole in observed.outcome.holes_ms if of_kind == kind]
    unheard_ms = [hole if hole > RESOLUTION_MS else 0 for hole in holes_ms]
    yield _at(f"{kind}_hole", holes_ms, 100, "ms", None)
    yield _at(f"{kind}_unheard", unheard_ms, 50, "ms", None)
    yield _at(f"{kind}_unheard", unheard_ms, 100, "ms", 0 if kind == WITHOUT_LOSS else None)
    without_ms = [round(each * 1000) for each in without_leader_s(handovers)]
    for percent in (50, 100):
        yield _at(f"{kind}_without_leader", without_ms, percent, "ms", None)


def _none(name: str, count: int) -> Figure:
    return Figure(name, count, "", "0", not count)


def _at(name: str, values: Sequence[float], percent: int, unit: str, bound: float | None) -> Figure:
    """One percentile, the highest one as the maximum; without a value a bound is neither held nor broken."""
    value = percentile(values, percent)
    return Figure(
        f"{name}_{'max' if percent == 100 else f'p{percent}'}",
        None if value is None else round(value, 2),
        unit,
        None if bound is None else f"<= {bound:g}",
        None if bound is None or value is None else value <= bound,
    )
