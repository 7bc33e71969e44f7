"""Laws of the floor: no speech is lost or doubled, whatever happens, and nobody waits longer than needed."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, Window
from agent.audio.floor import HAND_OVER_MS, MAX_WAIT_MS, RING_MS, Decision, Feed, Floor, Flush
from agent.audio.turns import CUT_PAUSE_MS, HANGOVER_MS, LONG_MS, LONGEST_MS
from tests.support.speech_windows import VOICE, starts_ms, windows_of

MOST_LANES = 3
MOST_TRACKS = 50
ADVANCE_MS = 8 * WINDOW_MS  # what is too old is looked for less often than audio comes
SAMPLES = np.zeros(WINDOW_SAMPLES, np.int16)

Moment = tuple[str, int]  # a window, by its track and start


@dataclass
class Track:
    """What one person says over and over, and by how many windows it arrives late."""

    id: str
    has_voice: list[bool]
    heard: int = 0  # windows
    late: int = 0
    is_open: bool = True
    is_bleed: bool = False

    def skip_to(self, count: int) -> None:
        self.heard = max(self.heard, count)

    def hear_next(self) -> Window:
        has_voice = self.has_voice[self.heard % len(self.has_voice)]
        self.heard += 1
        return Window(self.id, (self.heard - 1) * WINDOW_MS, SAMPLES, VOICE if has_voice else 0.0)


@dataclass
class Attempt:
    """What was sent of a turn to one stream, or as a whole, and has no text yet."""

    lane: int | None
    sent: list[Moment] = field(default_factory=list)


tracks = st.integers(0, MOST_TRACKS - 1)
lanes = st.integers(0, MOST_LANES - 1)
rhythms = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=4)


class Conversation(RuleBasedStateMachine):
    """People who talk, come and go, and engines that take, answer, break and come back, in any order."""

    @initialize(
        rhythms=st.lists(rhythms, min_size=1, max_size=4),
        count=st.one_of(st.integers(1, 3), st.integers(1, MOST_TRACKS)),
        lanes=st.integers(1, MOST_LANES),
    )
    def begin(self, rhythms: list[list[tuple[int, int]]], count: int, lanes: int) -> None:
        self.floor = Floor(lanes)
        self.now = 0  # in windows
        self.tracks: list[Track] = []
        for number in range(count):
            rhythm = rhythms[number % len(rhythms)]
            has_voice = [is_voice for pair in rhythm for is_voice in (True,) * pair[0] + (False,) * pair[1]]
            offset = 7 * number % len(has_voice)  # else all with one rhythm would talk in unison
            self.tracks.append(Track(f"track-{number}", has_voice[offset:] + has_voice[:offset]))
            self.floor.open(self.tracks[-1].id)
        self.spoken: set[Moment] = set()
        self.bleed: set[Moment] = set()
        self.attempts: dict[int, Attempt] = {}
        self.owed: list[deque[int]] = [deque() for _ in range(MOST_LANES)]  # turns that were flushed
        self.wholes: deque[int] = deque()
        self.settled: Counter[Moment] = Counter()
        self.withdrawn: set[int] = set()

    def track(self, number: int) -> Track:
        return self.tracks[number % len(self.tracks)]

    @rule(count=st.integers(1, 40), taken_ms=st.sampled_from([0, WINDOW_MS, 2 * WINDOW_MS]))
    def time_passes(self, count: int, taken_ms: int) -> None:
        for _ in range(count):
            self.now += 1
            for track in self.tracks:
                while track.is_open and track.heard < self.now - track.late:
                    self._push(track)
            self.floor.advance(self.now * WINDOW_MS)
            for lane in range(MOST_LANES):
                self._take(lane, taken_ms)

    @rule(seconds=st.sampled_from([1, 10, 80]))
    def nothing_arrives(self, seconds: int) -> None:
        self.now += seconds * 1000 // WINDOW_MS
        for track in self.tracks:
            track.skip_to(self.now - track.late)
        self.floor.advance(self.now * WINDOW_MS)

    @rule(number=tracks, windows=st.integers(0, 70))
    def track_is_late(self, number: int, windows: int) -> None:
        """By more than before, so that it pauses, or by less, so that much of it comes at once."""
        self.track(number).late = windows

    @rule(number=tracks, is_bleed=st.booleans())
    def track_is_bleed(self, number: int, is_bleed: bool) -> None:
        self.track(number).is_bleed = is_bleed

    @rule(number=tracks)
    def track_stops(self, number: int) -> None:
        """Without a word about it."""
        self.track(number).is_open = False

    @rule(number=tracks)
    def track_closes(self, number: int) -> None:
        self.track(number).is_open = False
        self.floor.close(self.track(number).id)

    @rule(number=tracks)
    def track_opens(self, number: int) -> None:
        track = self.track(number)
        track.is_open = True
        track.skip_to(self.now - track.late)
        self.floor.open(track.id)

    @rule(number=tracks, since_ms=st.integers(0, 5_000))
    def track_was_bleed(self, number: int, since_ms: int) -> None:
        self._note_decisions()
        self.floor.withdraw(self.track(number).id, self.now * WINDOW_MS - since_ms, "bleed")
        for turn in self._note_decisions():
            self.withdrawn.add(turn)
            self.attempts.pop(turn, None)

    @rule(lanes=st.integers(1, MOST_LANES))
    def engine_changes(self, lanes: int) -> None:
        self.floor.set_lanes(lanes)

    @rule(lane=lanes, most_ms=st.sampled_from([0, WINDOW_MS, 100, 1_000, inf]))
    def stream_takes(self, lane: int, most_ms: float) -> None:
        self._take(lane, most_ms)

    @rule(lane=lanes)
    def stream_answers(self, lane: int) -> None:
        if self.owed[lane]:
            self._settle(self.owed[lane].popleft())

    @rule(lane=lanes, windows=st.integers(1, 60))
    def stream_answers_a_beginning(self, lane: int, windows: int) -> None:
        for turn, attempt in self.attempts.items():
            if attempt.lane == lane and attempt.sent:
                until_ms = attempt.sent[:windows][-1][1] + WINDOW_MS
                self.floor.settle_until(turn, until_ms)
                self.settled.update(attempt.sent[:windows])
                del attempt.sent[:windows]
                return

    @rule(lane=lanes, is_given_up=st.booleans())
    def stream_breaks(self, lane: int, is_given_up: bool) -> None:
        self.floor.rewind(lane)
        self.owed[lane].clear()
        lost = [turn for turn, attempt in self.attempts.items() if attempt.lane == lane]
        for turn in lost:
            del self.attempts[turn]
        if lost and is_given_up:
            self.floor.drop(lost[0], "engine")

    @rule()
    def engine_works(self) -> None:
        self.floor.forgive()

    @rule()
    def whole_turn_is_taken(self) -> None:
        if (whole := self.floor.take_whole()) is not None:
            self.wholes.append(whole.turn)
            for feed in whole.feeds:
                self._send(feed, None)

    @precondition(lambda self: self.wholes)
    @rule(is_answered=st.booleans(), may_be_taken=st.booleans())
    def whole_turn_is_answered_or_put_back(self, is_answered: bool, may_be_taken: bool) -> None:
        turn = self.wholes.popleft()
        if is_answered:
            self._settle(turn)
        else:
            self.attempts.pop(turn, None)
            self.floor.put_back(turn, may_be_taken=may_be_taken)

    def teardown(self) -> None:
        for track in self.tracks:
            self.floor.close(track.id)
        while self.wholes:
            self._settle(self.wholes.popleft())
        for lane in range(MOST_LANES):
            self._take(lane, inf)
            while self.owed[lane]:
                self._settle(self.owed[lane].popleft())
        assert self.floor.is_idle
        assert set(self.settled.values()) <= {1}
        lost = len(self.spoken - self.settled.keys()) + len(self.bleed)
        assert sum(self.floor.dropped_ms.values()) == pytest.approx(lost * VOICE * WINDOW_MS)
        self._note_decisions()

    def _note_decisions(self) -> set[int]:
        """Turns of which audio was dropped since the last call, each time for a reason that is counted."""
        dropped = [decision for decision in self.floor.decisions() if decision.kind == "dropped"]
        assert {decision.reason for decision in dropped} <= {"backlog", "bleed", "engine"}
        return {decision.turn for decision in dropped}

    def _push(self, track: Track) -> None:
        window = track.hear_next()
        if window.probability:
            (self.bleed if track.is_bleed else self.spoken).add((track.id, window.start_ms))
        if track.is_bleed:
            self.floor.push_bleed(window)
        else:
            self.floor.push(window)

    def _take(self, lane: int, most_ms: float) -> None:
        for item in self.floor.take(lane, most_ms):
            if isinstance(item, Feed):
                self._send(item, lane)
            elif isinstance(item, Flush):
                self.owed[lane].append(item.turn)

    def _send(self, feed: Feed, lane: int | None) -> None:
        assert feed.turn not in self.withdrawn
        attempt = self.attempts.setdefault(feed.turn, Attempt(lane))
        assert attempt.lane == lane, "one turn was sent to two streams"
        attempt.sent += [(feed.track_id, start_ms) for start_ms in starts_ms(feed)]
        assert attempt.sent == sorted(set(attempt.sent))

    def _settle(self, turn: int) -> None:
        self.floor.settle(turn)
        if (attempt := self.attempts.pop(turn, None)) is not None:
            self.settled.update(attempt.sent)


def test_every_window_of_speech_is_settled_once_or_counted_as_dropped() -> None:
    """What has to be sent again counts for the attempt that was answered."""
    run_state_machine_as_test(Conversation, settings=settings(max_examples=150, stateful_step_count=40))


@dataclass
class Turn:
    """What became of a turn, and when: session time as it was heard, real time as it was decided."""

    track_id: str
    start_ms: int
    begun_ms: int
    held_ms: float = inf
    over_ms: float = inf
    end_ms: int = 0
    reason: str = ""  # of its end
    settled_ms: float = inf
    given: list[tuple[int, int]] = field(default_factory=list)  # when, and up to where

    def given_until_ms(self, now_ms: int) -> int:
        return max((end_ms for at_ms, end_ms in self.given if at_ms <= now_ms), default=self.start_ms)


def note(turns: dict[int, Turn], decisions: Iterable[Decision]) -> None:
    for decision in decisions:
        match decision.kind:
            case "begins":
                turns[decision.turn] = Turn(decision.track_id, decision.start_ms, decision.at_ms)
            case "holds":
                turns[decision.turn].held_ms = decision.at_ms
            case "over":
                turns[decision.turn].over_ms = decision.at_ms
                turns[decision.turn].end_ms = decision.end_ms
                turns[decision.turn].reason = decision.reason
            case "settled":
                turns[decision.turn].settled_ms = decision.at_ms


def latest_end_ms(turn: Turn, waiting: Turn, pauses: list[tuple[int, float]]) -> float:
    """By when a turn is over, by the floor's rules, while another one waits."""
    if turn.over_ms <= waiting.begun_ms:
        return turn.end_ms
    ends_ms: list[float] = [turn.start_ms + LONGEST_MS]
    for start_ms, end_ms in pauses:
        if start_ms < turn.begun_ms:
            continue
        if start_ms > min(ends_ms):
            break
        least = [start_ms + HANGOVER_MS]
        if start_ms > turn.start_ms + LONG_MS:
            least.append(start_ms + CUT_PAUSE_MS)
        if turn.held_ms <= waiting.begun_ms:
            least.append(max(start_ms + HAND_OVER_MS, waiting.begun_ms + WINDOW_MS))
            least.append(max(start_ms + CUT_PAUSE_MS, waiting.start_ms + MAX_WAIT_MS))
        ends_ms += [at_ms for each in least if (at_ms := ceil(each / WINDOW_MS) * WINDOW_MS) <= end_ms]
    return min(ends_ms)


talks = st.lists(
    st.tuples(
        st.sampled_from([160, 480, 1_600, 3_200, 9_600, 32_000]),  # of voice
        st.sampled_from([96, 160, 192, 256, 384, 512, 3_200, 16_000]),  # of a pause
    ),
    min_size=1,
    max_size=4,
)


def spoken_of(talk: list[tuple[int, int]], begin_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """Spans of a talk that is repeated."""
    spoken, at_ms = [], begin_ms
    while True:
        for voice_ms, pause_ms in talk:
            if at_ms >= until_ms:
                return spoken
            spoken.append((at_ms, at_ms + voice_ms))
            at_ms += voice_ms + pause_ms


@settings(max_examples=20)
@given(
    talks=st.lists(talks, min_size=2, max_size=4),
    begins=st.lists(st.integers(0, 100), min_size=4, max_size=4),
    lanes=st.integers(1, 2),
    most_ms=st.sampled_from([WINDOW_MS, 2 * WINDOW_MS, inf]),
)
def test_no_turn_waits_for_longer_than_those_before_it_may_take(talks, begins, lanes, most_ms):
    """Who takes in real time, or faster, has taken so much after as much time.

    No lane is idle while somebody waits, and only those who began before are given one. Each of them takes it
    for what they had not been given when the turn began, and for what they may go on to say: up to the first
    pause that hands over, after MAX_WAIT_MS or LONG_MS a cut, or LONGEST_MS.
    """
    spoken = {
        f"track-{number}": spoken_of(talk, begin * WINDOW_MS, 60_000)
        for number, (talk, begin) in enumerate(zip(talks, begins, strict=False))
    }
    until_ms = max(spans[-1][1] for spans in spoken.values()) + HANGOVER_MS + WINDOW_MS
    floor = Floor(lanes)
    for track_id in spoken:
        floor.open(track_id)
    turns: dict[int, Turn] = {}

    def take(now_ms: int) -> None:
        if now_ms % ADVANCE_MS == 0:
            floor.advance(now_ms)
        given = [item for lane in range(lanes) for item in floor.take(lane, most_ms)]
        note(turns, floor.decisions())
        for item in given:
            if isinstance(item, Feed):
                turns[item.turn].given.append((now_ms, starts_ms(item)[-1] + WINDOW_MS))
            elif isinstance(item, Flush):
                floor.settle(item.turn)

    now_ms = 0
    windows = [windows_of(track_id, spans, until_ms) for track_id, spans in spoken.items()]
    for heard in zip(*windows, strict=True):
        for window in heard:
            floor.push(window)
        now_ms = heard[0].end_ms
        take(now_ms)
    for _ in range(len(windows) * len(windows[0])):
        if floor.is_idle:
            break
        take(now_ms := now_ms + WINDOW_MS)
    assert floor.is_idle

    pauses = {
        track_id: [*((end, start) for (_, end), (start, _) in pairwise(spans)), (spans[-1][1], inf)]
        for track_id, spans in spoken.items()
    }
    for turn in turns.values():
        if turn.reason != "longest":
            start_ms, end_ms = max(pause for pause in pauses[turn.track_id] if pause[0] <= turn.end_ms)
            assert end_ms - start_ms >= CUT_PAUSE_MS
        if not turn.given:
            assert now_ms - turn.start_ms > RING_MS
            continue
        ahead = [
            other
            for other in turns.values()
            if other is not turn
            and other.settled_ms > turn.begun_ms
            and (other.start_ms <= turn.start_ms or other.held_ms <= turn.begun_ms)
        ]
        ahead_ms = sum(
            max(latest_end_ms(other, turn, pauses[other.track_id]) - other.given_until_ms(turn.begun_ms), 0)
            for other in ahead
        )
        assert turn.given[0][0] - turn.begun_ms <= ahead_ms / lanes + WINDOW_MS
