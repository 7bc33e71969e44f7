"""What an outage has cost, from what was said and what was told when. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from agent.transcription.engine import EngineDown, EngineUp, Missed
from agent.values import Heard, Word
from benchmarks.outage.faults import FAILOVER, UNDISTURBED
from benchmarks.outage.run import Session
from benchmarks.outage.talk import Spoken, number_of
from benchmarks.report import Figure

__all__ = ["LATE_S", "Cost", "cost_of", "explain", "figures"]

LATE_S = 10.0  # after its end; a long turn has its first final about 6 s after its first word
PLACED_WITHIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Cost:
    """What one outage has cost; times are None where there was nothing of the kind.

    Attributes:
        said: Words, all of them; `lost` have no final.
        untold: Of those lost, those of which the room was not told that they are missing.
        twice: Finals with a word that another one has told.
        misplaced: Words under another name, or at another time than they were said.
        late: Words whose final came late, those lost left out.
        slowest_s: The longest time from a word to its final.
        lasted_s: From the beginning of the outage to its end.
        first_final_s: From the end of the outage to the first final after it; where another engine takes
            over, from its beginning.
        caught_up_s: From there until all that was said before was told.
        down_s: From the beginning of the outage until the room was told, and `up_s` from its end.
        false_ups: How often the room was told during the outage that it is over.
    """

    said: int
    lost: int
    untold: int
    twice: int
    misplaced: int
    late: int
    slowest_s: float | None
    lasted_s: float
    first_final_s: float | None
    caught_up_s: float | None
    down_s: float | None
    up_s: float | None
    false_ups: int


def cost_of(session: Session) -> Cost:
    """Compare what was told with what was said."""
    words = session.talk.words
    finals = [(at_s, told) for at_s, told in session.told if isinstance(told, Heard) and told.is_final]
    missed = [told for _, told in session.told if isinstance(told, Missed)]
    since_s = session.began_s if session.plan.kind == FAILOVER else session.ended_s
    told_s, twice, misplaced = _told(finals, words)
    lost = [word for number, word in words.items() if number not in told_s]
    waits_s = [at_s - words[number].end_s for number, at_s in told_s.items()]
    owed_s = [at_s for number, at_s in told_s.items() if words[number].end_s <= since_s]
    finals_s = [at_s for at_s, final in finals if final.text]
    downs_s = [at_s for at_s, told in session.told if isinstance(told, EngineDown)]
    ups_s = [at_s for at_s, told in session.told if isinstance(told, EngineUp)]
    return Cost(
        said=len(words),
        lost=len(lost),
        untold=sum(not _is_missed(word, missed) for word in lost),
        twice=len(twice),
        misplaced=len(misplaced),
        late=sum(wait_s > LATE_S for wait_s in waits_s),
        slowest_s=max(waits_s, default=None),
        lasted_s=session.ended_s - session.began_s,
        first_final_s=_after(since_s, finals_s),
        caught_up_s=max(max(owed_s) - since_s, 0.0) if owed_s else None,
        down_s=_after(session.began_s, downs_s),
        up_s=_after(session.ended_s, ups_s),
        false_ups=sum(session.began_s < up_s < session.ended_s for up_s in ups_s),
    )


def figures(sessions: Sequence[Session]) -> Iterator[Figure]:
    """What is printed, in its order: of sessions with the same plan the sum, or the longest time."""
    costs: dict[str, list[Cost]] = {}
    for session in sessions:
        costs.setdefault(session.plan.name, []).append(cost_of(session))
    kinds = {session.plan.name: session.plan.kind for session in sessions}
    for name, of_plan in costs.items():
        yield Figure(f"{name}_words", sum(cost.said for cost in of_plan), "")
        yield _none(f"{name}_words_lost", sum(cost.lost for cost in of_plan))
        yield _none(f"{name}_words_lost_untold", sum(cost.untold for cost in of_plan))
        yield _none(f"{name}_words_misplaced", sum(cost.misplaced for cost in of_plan))
        yield _none(f"{name}_finals_twice", sum(cost.twice for cost in of_plan))
        late = sum(cost.late for cost in of_plan)
        is_never_late = kinds[name] in (FAILOVER, UNDISTURBED)
        yield _none(f"{name}_words_late", late) if is_never_late else Figure(f"{name}_words_late", late, "")
        yield _longest(f"{name}_slowest_word", [cost.slowest_s for cost in of_plan])
        if kinds[name] != UNDISTURBED:
            yield _longest(f"{name}_outage", [cost.lasted_s for cost in of_plan])
            yield _longest(f"{name}_first_final", [cost.first_final_s for cost in of_plan])
            yield _longest(f"{name}_caught_up", [cost.caught_up_s for cost in of_plan])
            yield _longest(f"{name}_down_told", [cost.down_s for cost in of_plan])
            yield _longest(f"{name}_up_told", [cost.up_s for cost in of_plan])
            yield _none(f"{name}_up_told_falsely", sum(cost.false_ups for cost in of_plan))
    yield _none("sessions_hanging", sum(not session.has_finished for session in sessions))
    late_ms = max((session.late_steps_s for session in sessions), default=0.0) * 1000
    yield Figure("audio_late_max", round(late_ms), "ms")


def explain(session: Session) -> Iterator[str]:
    """What of a session was lost, told twice or misplaced, and when."""
    words = session.talk.words
    finals = [(at_s, told) for at_s, told in session.told if isinstance(told, Heard) and told.is_final]
    told_s, twice, misplaced = _told(finals, words)
    for track_id, times in groupby(
        sorted((word.track_id, word.start_s) for number, word in words.items() if number not in told_s),
        key=lambda lost: lost[0],
    ):
        starts_s = [start_s for _, start_s in times]
        yield f"lost: {len(starts_s)} words of {track_id}, {starts_s[0]:.2f} to {starts_s[-1]:.2f} s"
    for at_s, final in twice:
        yield f"twice: {final.track_id}, {final.start_ms} to {final.end_ms} ms, told at {at_s:.2f} s"
    for final, heard in misplaced:
        word = words[number_of(heard.text)]
        yield (
            f"misplaced: {word.track_id} {word.start_s:.3f} s, told as {final.track_id} {heard.start_ms} ms "
            f"in turn {final.turn}, {final.start_ms} to {final.end_ms} ms"
        )


def _told(
    finals: Sequence[tuple[float, Heard]], words: Mapping[int, Spoken]
) -> tuple[dict[int, float], list[tuple[float, Heard]], list[tuple[Heard, Word]]]:
    """When each word was first told rightly, which finals told one again, and which words are misplaced."""
    told_s: dict[int, float] = {}
    seen: set[int] = set()
    twice: list[tuple[float, Heard]] = []
    misplaced: list[tuple[Heard, Word]] = []
    for at_s, final in finals:
        numbers = Counter(number_of(word.text) for word in final.words)
        if numbers.total() > len(numbers) or not seen.isdisjoint(numbers):
            twice.append((at_s, final))
        seen.update(numbers)
        for heard in final.words:
            # The silence around what was said has numbers too, and may be told or not.
            if (word := words.get(number := number_of(heard.text))) is None:
                continue
            is_near = abs(heard.start_ms / 1000 - word.start_s) <= PLACED_WITHIN_S
            if final.track_id == word.track_id and is_near:
                told_s.setdefault(number, at_s)
            else:
                misplaced.append((final, heard))
    return told_s, twice, misplaced


def _is_missed(word: Spoken, missed: Sequence[Missed]) -> bool:
    middle_ms = (word.start_s + word.end_s) * 1000 / 2
    return any(each.track_id == word.track_id and each.start_ms <= middle_ms < each.end_ms for each in missed)


def _after(since_s: float, times_s: Sequence[float]) -> float | None:
    """How long it took until the first of some times, in order."""
    return next((at_s - since_s for at_s in times_s if at_s >= since_s), None)


def _none(name: str, count: int) -> Figure:
    return Figure(name, count, "", "0", not count)


def _longest(name: str, values_s: Sequence[float | None]) -> Figure:
    known_s = [value_s for value_s in values_s if value_s is not None]
    return Figure(name, round(max(known_s), 2) if known_s else None, "s")
