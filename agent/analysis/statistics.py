"""What a session was like in numbers: talk time, turns and presence of each, and of all. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.analysis.text import tokens
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker

__all__ = ["Participation", "Statistics", "Stay", "statistics"]

TURN_PAUSE_MS = 2_000  # a longer silence of a speaker, or anybody else's words, begin another turn


@dataclass(frozen=True, slots=True)
class Stay:
    """Somebody was in the room, from `joined_ms` up to `left_ms`."""

    speaker: Speaker
    joined_ms: int
    left_ms: int


@dataclass(frozen=True, slots=True)
class Participation:
    """One person's part in a session. `talk_share` is of everybody's talk time, 0 to 1."""

    speaker: Speaker
    talk_ms: int
    talk_share: float
    turns: int
    words: int
    present_ms: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """All of a session.

    `speech_ms` is when anybody spoke, `overlap_ms` when several did, `silence_ms` the rest of `duration_ms`.
    `people_at_once` is the most who were in the room at the same time.
    """

    duration_ms: int
    speech_ms: int
    overlap_ms: int
    silence_ms: int
    turns: int
    words: int
    people_at_once: int
    participations: tuple[Participation, ...]


def statistics(transcript: Transcript, stays: Iterable[Stay], duration_ms: int) -> Statistics:
    """Count what was said, and by whom.

    Args:
        transcript: All that was said.
        stays: Who was there and when; overlapping ones of one person, who came in twice, count once.
        duration_ms: Of the session.

    Returns:
        The people in it are in the order of their talk time, the longest first.
    """
    stays = list(stays)
    spoken = {
        speaker.identity: _united(
            (each.start_ms, each.end_ms) for each in transcript if each.speaker.identity == speaker.identity
        )
        for speaker in transcript.people
    }
    talked = {identity: _length(intervals) for identity, intervals in spoken.items()}
    all_talk_ms = sum(talked.values())
    present = {
        identity: _united(
            (stay.joined_ms, stay.left_ms) for stay in stays if stay.speaker.identity == identity
        )
        for identity in {stay.speaker.identity for stay in stays}
    }
    turns = _turns(list(transcript))
    names = {speaker.identity: speaker for speaker in (*(stay.speaker for stay in stays), *transcript.people)}
    participations = [
        Participation(
            speaker=speaker,
            talk_ms=talked.get(identity, 0),
            talk_share=talked.get(identity, 0) / all_talk_ms if all_talk_ms else 0.0,
            turns=turns.get(identity, 0),
            words=sum(len(tokens(each.text)) for each in transcript if each.speaker.identity == identity),
            present_ms=_length(present.get(identity, ())),
        )
        for identity, speaker in names.items()
    ]
    participations.sort(key=lambda each: (-each.talk_ms, -each.present_ms, each.speaker.identity))
    speech_ms = _length(_united(interval for intervals in spoken.values() for interval in intervals))
    return Statistics(
        duration_ms=duration_ms,
        speech_ms=speech_ms,
        overlap_ms=_at_least_two(list(spoken.values())),
        silence_ms=max(duration_ms - speech_ms, 0),
        turns=sum(turns.values()),
        words=sum(each.words for each in participations),
        people_at_once=_most_at_once(list(present.values())),
        participations=tuple(participations),
    )


_Interval = tuple[int, int]


def _united(intervals: Iterable[_Interval]) -> tuple[_Interval, ...]:
    """The same time without overlaps, in order."""
    united: list[_Interval] = []
    for start_ms, end_ms in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if united and start_ms <= united[-1][1]:
            united[-1] = (united[-1][0], max(end_ms, united[-1][1]))
        else:
            united.append((start_ms, end_ms))
    return tuple(united)


def _length(intervals: Iterable[_Interval]) -> int:
    return sum(end_ms - start_ms for start_ms, end_ms in intervals)


def _steps(each: Sequence[Sequence[_Interval]]) -> list[_Interval]:
    """By how much the number of people changes, and when; who leaves does so before others come."""
    changes = [(start_ms, 1) for intervals in each for start_ms, _ in intervals]
    changes += [(end_ms, -1) for intervals in each for _, end_ms in intervals]
    return sorted(changes)


def _at_least_two(each: Sequence[Sequence[_Interval]]) -> int:
    total = count = since_ms = 0
    for at_ms, change in _steps(each):
        if count > 1:
            total += at_ms - since_ms
        count, since_ms = count + change, at_ms
    return total


def _most_at_once(each: Sequence[Sequence[_Interval]]) -> int:
    most = count = 0
    for _, change in _steps(each):
        count += change
        most = max(most, count)
    return most


def _turns(utterances: Sequence[Utterance]) -> dict[str, int]:
    counts: dict[str, int] = {}
    holder, until_ms = "", 0
    # Who begins at the same time is told apart by what does not depend on the order of what is given.
    for utterance in sorted(utterances, key=lambda each: (each.start_ms, each.end_ms, each.speaker.identity)):
        identity = utterance.speaker.identity
        if counts and identity == holder and utterance.start_ms - until_ms <= TURN_PAUSE_MS:
            until_ms = max(until_ms, utterance.end_ms)
        else:
            counts[identity] = counts.get(identity, 0) + 1
            holder, until_ms = identity, utterance.end_ms
    return counts
