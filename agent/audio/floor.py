"""The floor: who of all that speak is given to the speech engine, and when.

Each track's speech is cut into turns. A turn that holds one of the *lanes*, the streams of the engine,
passes through as it is spoken; who speaks meanwhile waits, is kept, and comes next. So each stretch of a
stream is one person's, and speech that overlaps costs no words. Nothing is sent between turns.

A turn's audio is kept until it is settled, that is, until its text is there. Whatever breaks before can put
it back to wait once more.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from math import ceil, inf
from typing import Literal

import numpy as np

from agent.audio.activity import WINDOW_MS, Window
from agent.audio.turns import (
    CUT_PAUSE_MS,
    HANGOVER_MS,
    LONG_MS,
    Began,
    Over,
    Paused,
    Spoke,
    TurnDetector,
)
from agent.values import Samples

__all__ = ["RING_MS", "WITHDRAWN", "Decision", "Feed", "Floor", "Flush", "Pause", "WholeTurn"]

HAND_OVER_MS = 250  # of silence end a turn when somebody waits
MAX_WAIT_MS = 2_000  # then a holder yields at the first pause
RING_MS = 75_000  # how long audio without a text is kept: an outage of a minute, noticed and mended
WITHDRAWN = "withdrawn"  # the reason of decisions about a turn that was somebody else's voice
MIN_VOICE_MS = 100.0  # less is the edge of a turn, whose words are there
LATE_MS = 1_000  # a track that gives nothing for so long is silent; bleed holds it back for up to 600

Kind = Literal["begins", "waits", "holds", "over", "rejoins", "settled", "dropped"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of a turn at `at_ms`, and why: enough to tell from a log how a stream came about.

    Attributes:
        kind: `begins`; `waits`, since no lane is free; `holds` a lane; is `over`; `rejoins` those who wait,
            since it has to be sent once more; is `settled`; audio of it is `dropped`.
        start_ms: Where in the session what it is about begins, and `end_ms` where it ends.
        lane: Which, where one matters.
    """

    at_ms: int
    kind: Kind
    turn: int
    track_id: str
    start_ms: int
    end_ms: int
    reason: str = ""
    lane: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """The next audio for a stream: a turn's samples, contiguous in the session from `start_ms` on."""

    turn: int
    track_id: str
    start_ms: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class Pause:
    """The speaker of the turn is silent for now: it may be over in a moment."""

    turn: int


@dataclass(frozen=True, slots=True)
class Flush:
    """All of a turn was sent: its final is due."""

    turn: int


@dataclass(frozen=True, slots=True, eq=False)
class WholeTurn:
    """A turn that is over and never held a lane; its pieces need not be contiguous."""

    turn: int
    track_id: str
    feeds: tuple[Feed, ...]

    @property
    def samples(self) -> Samples:
        return np.concatenate([feed.samples for feed in self.feeds])


class _Turn:
    """One person's stretch of speech, and where its audio is on its way."""

    def __init__(self, number: int, track_id: str, start_ms: int) -> None:
        self.number = number
        self.track_id = track_id
        self.start_ms = start_ms
        self.end_ms = start_ms
        self.windows: deque[Window] = deque()
        self.sent = 0  # of the windows; those that are settled are gone from both
        self.has_begun = False  # a stream has some of it
        self.lane: int | None = None
        self.is_over = False
        self.is_pausing = False
        self.is_taken = False  # as a whole
        self.may_be_taken = True
        self.is_demoted = False
        self.is_withdrawn = False

    @property
    def is_waiting(self) -> bool:
        return self.lane is None and not self.is_taken

    def add(self, window: Window) -> None:
        self.windows.append(window)
        self.end_ms = window.end_ms
        self.is_pausing = False

    def rewind(self) -> None:
        self.lane, self.sent, self.has_begun, self.is_taken = None, 0, False, False

    def take(self, count: int) -> Iterator[Feed]:
        """The next windows, those that follow each other in one piece."""
        chosen = list(islice(self.windows, self.sent, self.sent + count))
        self.sent += len(chosen)
        self.has_begun |= bool(chosen)
        first = 0
        for index in range(1, len(chosen) + 1):
            if index == len(chosen) or chosen[index].start_ms != chosen[index - 1].end_ms:
                samples = np.concatenate([window.samples for window in chosen[first:index]])
                yield Feed(self.number, self.track_id, chosen[first].start_ms, samples)
                first = index


class Floor:
    """Who speaks to the engine. Time is session time, and comes with what is pushed or is told.

    Args:
        lanes: How many turns the engine takes at once.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._detectors: dict[str, TurnDetector] = {}
        self._heard_ms: dict[str, int] = {}
        self._open: dict[str, _Turn] = {}  # by track
        self._turns: dict[int, _Turn] = {}  # by number, the oldest first; until they are settled
        self._holders: dict[int, _Turn] = {}  # by lane
        self._last_number = 0
        self._now_ms = 0
        self._decisions: list[Decision] = []
        self.dropped_ms: dict[str, float] = {}

    @property
    def waited_ms(self) -> int:
        """For how long the oldest audio has waited that nobody has been given yet."""
        return max(
            (
                self._now_ms - turn.windows[turn.sent].start_ms
                for turn in self._turns.values()
                if not turn.is_taken and turn.sent < len(turn.windows)
            ),
            default=0,
        )

    @property
    def is_idle(self) -> bool:
        """Whether all turns are over and settled."""
        return not self._turns

    @property
    def has_decisions(self) -> bool:
        """Whether anything was decided since `decisions` was called."""
        return bool(self._decisions)

    @property
    def is_sent(self) -> bool:
        """Whether nobody speaks, and all that was said was taken."""
        return not self._open and all(turn.sent == len(turn.windows) for turn in self._turns.values())

    def has_holder(self, lane: int) -> bool:
        """Whether a lane is somebody's."""
        self._grant()
        return lane in self._holders

    def has_more(self, lane: int) -> bool:
        """Whether there is audio for a lane that it has not been given."""
        turn = self._holders.get(lane)
        return turn is not None and turn.sent < len(turn.windows)

    def is_withdrawn(self, number: int) -> bool:
        """Whether nobody is to hear what an engine makes of a turn."""
        turn = self._turns.get(number)
        return turn is not None and turn.is_withdrawn

    def set_lanes(self, lanes: int) -> None:
        """Another engine takes more turns at once, or fewer. Who is being sent on a lane keeps it."""
        self._lanes = lanes
        for lane, turn in list(self._holders.items()):
            if lane >= lanes and not turn.has_begun:
                del self._holders[lane]
                self.put_back(turn.number)
        self._grant()

    def open(self, track_id: str) -> None:
        """A track can be heard. Opening it twice begins it anew."""
        self.close(track_id)
        self._detectors[track_id] = TurnDetector()

    def close(self, track_id: str) -> None:
        """A track was muted or is gone: what was said in it stays."""
        if (detector := self._detectors.pop(track_id, None)) is not None:
            self._follow(track_id, detector.stop())
            self._count_voice("too_short", detector.unused_voice_ms)
        self._heard_ms.pop(track_id, None)

    def push(self, window: Window) -> None:
        """Take the next window of an open track; one of any other is ignored."""
        self._hear(window)

    def push_bleed(self, window: Window) -> None:
        """The next window of an open track holds somebody else's voice: it is taken for silence."""
        if window.track_id in self._detectors:
            self._count("bleed", [window])
        self._hear(replace(window, probability=0.0))

    def _hear(self, window: Window) -> None:
        if (detector := self._detectors.get(window.track_id)) is None:
            return
        self._now_ms = max(self._now_ms, window.end_ms)
        self._heard_ms[window.track_id] = window.end_ms
        self._follow(window.track_id, detector.push(window, self._pause_ms(window.track_id)))

    def advance(self, now_ms: int) -> None:
        """It is `now_ms`: turns of tracks that give nothing any more end, and what is too old is dropped."""
        self._now_ms = max(self._now_ms, now_ms)
        for track_id, detector in self._detectors.items():
            if detector.is_open and self._now_ms - self._heard_ms[track_id] > LATE_MS:
                self._follow(track_id, detector.wait(self._now_ms - LATE_MS, self._pause_ms(track_id)))
        for turn in [turn for turn in self._turns.values() if turn.sent < len(turn.windows)]:
            self._drop_old(turn)

    def take(self, lane: int, most_ms: float) -> list[Feed | Pause | Flush]:
        """What a lane is given next, at most `most_ms` of audio, rounded up to a window.

        After a `Flush` the lane is the next one's, whose audio may follow at once.
        """
        given: list[Feed | Pause | Flush] = []
        self._grant()
        while (turn := self._holders.get(lane)) is not None:
            before = turn.sent
            given += turn.take(len(turn.windows) if most_ms == inf else max(ceil(most_ms / WINDOW_MS), 0))
            most_ms -= (turn.sent - before) * WINDOW_MS
            if turn.sent < len(turn.windows):
                break
            if not turn.is_over:
                if turn.is_pausing:
                    turn.is_pausing = False
                    given.append(Pause(turn.number))
                break
            given.append(Flush(turn.number))
            del self._holders[lane]
            self._grant()
        return given

    def take_whole(self) -> WholeTurn | None:
        """The turn that has waited longest of those that are over, to be recognised on its own."""
        for turn in self._waiting():
            if turn.is_over and turn.may_be_taken and turn.windows:
                turn.is_taken = True
                return WholeTurn(turn.number, turn.track_id, tuple(turn.take(len(turn.windows))))
        return None

    def settle(self, number: int) -> None:
        """The text of a turn that was sent is there, or there is none: its audio is not needed any more."""
        if (turn := self._turns.get(number)) is not None:
            self._forget(turn)
            self._decide("settled", turn, WITHDRAWN if turn.is_withdrawn else "")

    def settle_until(self, number: int, until_ms: int) -> None:
        """The text of the beginning of a turn is there: only the rest would be sent once more."""
        if (turn := self._turns.get(number)) is not None:
            while turn.sent and turn.windows[0].end_ms <= until_ms:
                turn.windows.popleft()
                turn.sent -= 1

    def rewind(self, lane: int) -> None:
        """What was sent to a lane and is not settled is lost there: it waits once more.

        The first of it may be what broke the stream. It lets the others go first, until an engine is found
        to work.
        """
        self._holders.pop(lane, None)
        lost = [turn for turn in self._turns.values() if turn.lane == lane]
        if lost:
            self.forgive()
            lost[0].is_demoted = True
        for turn in lost:
            self.put_back(turn.number)

    def forgive(self) -> None:
        """An engine works: turns go in their order again."""
        for turn in self._turns.values():
            turn.is_demoted = False

    def put_back(self, number: int, *, may_be_taken: bool = True) -> None:
        """A turn has to be sent once more, in pieces if it may not be taken as a whole again."""
        if (turn := self._turns.get(number)) is None:
            return
        turn.rewind()
        turn.may_be_taken = may_be_taken
        if turn.is_withdrawn or (turn.is_over and not turn.windows):
            self.settle(number)
        else:
            self._decide("rejoins", turn)

    def drop(self, number: int, reason: str) -> None:
        """The audio of a turn so far will not be recognised."""
        if (turn := self._turns.get(number)) is not None and turn.windows:
            self._drop(turn, len(turn.windows), reason)

    def give_up(self, reason: str) -> None:
        """Nothing more will be recognised: drop all speech that has no text, and settle all turns."""
        for turn in list(self._turns.values()):
            has_speech = sum(window.voice_ms for window in turn.windows) >= MIN_VOICE_MS
            if has_speech and not turn.is_withdrawn:
                self._drop(turn, len(turn.windows), reason)
            self.settle(turn.number)

    def withdraw(self, track_id: str, since_ms: int, reason: str) -> None:
        """What was taken for speech of this track since then is nobody's.

        What was said before in the same turn, and has no text yet, becomes a turn of its own: a stream that
        has begun with both cannot tell them apart.
        """
        gone = [
            turn
            for turn in self._turns.values()
            if turn.track_id == track_id and turn.end_ms > since_ms and not turn.is_withdrawn
        ]
        for turn in gone:
            if self._open.get(track_id) is turn:
                del self._open[track_id]
                self._detectors[track_id].abandon()
            own = [window for window in turn.windows if window.end_ms <= since_ms]
            self._count(reason, islice(turn.windows, len(own), None))
            self._decide("dropped", turn, reason)
            turn.is_withdrawn = turn.is_over = True
            if turn.has_begun:
                # A stream has its beginning: it is flushed there, and nobody hears what comes of it.
                turn.windows = deque(islice(turn.windows, turn.sent))
            else:
                self._forget(turn)
            if own:
                self._begin_again(track_id, own)

    def decisions(self) -> list[Decision]:
        """What was decided since the last call."""
        taken, self._decisions = self._decisions, []
        return taken

    def _follow(self, track_id: str, signals: list[Began | Spoke | Paused | Over]) -> None:
        for signal in signals:
            match signal:
                case Began():
                    self._begin(track_id, signal.start_ms)
                case Spoke():
                    self._open[track_id].add(signal.window)
                case Paused():
                    self._open[track_id].is_pausing = True
                case Over():
                    turn = self._open.pop(track_id)
                    turn.is_over = True
                    self._decide("over", turn, signal.reason)

    def _begin(self, track_id: str, start_ms: int) -> None:
        self._last_number += 1
        turn = _Turn(self._last_number, track_id, start_ms)
        self._open[track_id] = self._turns[turn.number] = turn
        self._decide("begins", turn)
        self._grant()
        if turn.lane is None:
            self._decide("waits", turn)

    def _begin_again(self, track_id: str, windows: Sequence[Window]) -> None:
        """The part of a withdrawn turn that is its speaker's: over, and sent as a turn of its own."""
        if sum(window.voice_ms for window in windows) < MIN_VOICE_MS:
            self._count("too_short", windows)
            return
        self._last_number += 1
        turn = _Turn(self._last_number, track_id, windows[0].start_ms)
        self._turns[turn.number] = turn
        for window in windows:
            turn.add(window)
        turn.is_over = True
        self._decide("begins", turn, "withdrawn")
        self._grant()
        if turn.lane is None:
            self._decide("waits", turn)
        self._decide("over", turn, "bleed")

    def _waiting(self) -> Iterator[_Turn]:
        """Who waits, the longest first; the turn on which the last stream broke behind all others."""
        waiting = (turn for turn in self._turns.values() if turn.is_waiting)
        return iter(sorted(waiting, key=lambda turn: (turn.is_demoted, turn.start_ms)))

    def _grant(self) -> None:
        for lane in range(self._lanes):
            if lane not in self._holders:
                if (turn := next(self._waiting(), None)) is None:
                    return
                turn.lane = lane
                self._holders[lane] = turn
                self._decide("holds", turn)

    def _pause_ms(self, track_id: str) -> int:
        """How long a pause ends the turn of a track."""
        if (turn := self._open.get(track_id)) is None:
            return HANGOVER_MS
        pause_ms = HANGOVER_MS
        if turn.lane is not None and (first := next(self._waiting(), None)) is not None:
            has_waited_long = self._now_ms - first.start_ms >= MAX_WAIT_MS
            pause_ms = CUT_PAUSE_MS if has_waited_long else HAND_OVER_MS
        if turn.end_ms - turn.start_ms > LONG_MS:
            pause_ms = CUT_PAUSE_MS
        return pause_ms

    def _drop_old(self, turn: _Turn) -> None:
        """Drop what has waited for too long; what was sent stays, for its text may still come."""
        if turn.sent:
            return
        oldest_ms = self._now_ms - RING_MS
        old = sum(1 for _ in takewhile(lambda window: window.end_ms < oldest_ms, turn.windows))
        if old:
            self._drop(turn, old, "backlog")

    def _drop(self, turn: _Turn, count: int, reason: str) -> None:
        """Drop the first windows of a turn, whether they were sent or not."""
        dropped = [turn.windows.popleft() for _ in range(count)]
        turn.sent = max(turn.sent - count, 0)
        self._count(reason, dropped)
        self._decide("dropped", turn, reason, dropped[0].start_ms, dropped[-1].end_ms)
        if turn.is_over and not turn.windows:
            self.settle(turn.number)

    def _forget(self, turn: _Turn) -> None:
        del self._turns[turn.number]
        if turn.lane is not None and self._holders.get(turn.lane) is turn:
            del self._holders[turn.lane]

    def _count(self, reason: str, windows: Iterable[Window]) -> None:
        self._count_voice(reason, sum(window.voice_ms for window in windows))

    def _count_voice(self, reason: str, voice_ms: float) -> None:
        if voice_ms:
            self.dropped_ms[reason] = self.dropped_ms.get(reason, 0.0) + voice_ms

    def _decide(
        self,
        kind: Kind,
        turn: _Turn,
        reason: str = "",
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> None:
        self._decisions.append(
            Decision(
                at_ms=self._now_ms,
                kind=kind,
                turn=turn.number,
                track_id=turn.track_id,
                start_ms=turn.start_ms if start_ms is None else start_ms,
                end_ms=turn.end_ms if end_ms is None else end_ms,
                reason=reason,
                lane=turn.lane,
            )
        )
