"""A session that leads its room only for a while, under virtual time: it hands over, or is superseded."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
import pytest

from agent.ingest.meeting import load_meeting
from agent.session.session import HANDED_OVER, PAUSE_MS, PAUSE_PATIENCE_S, SUPERSEDED, Session
from agent.session.source import ParticipantJoined, SourceEvent, TrackOpened
from agent.values import SAMPLE_RATE_HZ, Samples, Speaker, Track
from persistence.records import Gap
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.scripted_source import ScriptedSource, audio, silence
from tests.support.scripted_stt import Say, ScriptedSTT, speech
from tests.support.virtual_session import run_session
from tests.support.virtual_time import VirtualTimeLoop

NORA = Speaker("nora", "Nora")
MICROPHONE = Track("mic-nora", NORA)


class Led:
    """Who leads: this session, from and until some second; before that, nobody can say."""

    def __init__(self, *, from_s: float = 0.0, until_s: float = float("inf")) -> None:
        self._from_s = from_s
        self._until_s = until_s

    async def confirm(self) -> bool:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._from_s - loop.time())
        return loop.time() < self._until_s


def talking(samples: Samples) -> ScriptedSource:
    opened: list[tuple[float, SourceEvent]] = [(0, ParticipantJoined(NORA)), (0, TrackOpened(MICROPHONE))]
    return ScriptedSource([*opened, *audio("mic-nora", samples, start_s=0)], ends=False)


def a_second_each(count: int) -> ScriptedSTT:
    return ScriptedSTT([Say(i + 0.9, speech(f"number {i}", start_s=i, final=True)) for i in range(count)])


def after(
    seconds: float, act: Callable[[Session], Awaitable[object]]
) -> Callable[[Session], Awaitable[None]]:
    async def begin(session: Session) -> None:
        await asyncio.sleep(seconds)
        await act(session)

    return begin


async def supersede(session: Session) -> None:
    session.end(SUPERSEDED)


def words() -> Samples:
    """Somebody who speaks without a pause."""
    samples = load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, end_s=30).tracks["Nora"]
    loud = np.abs(samples.astype(np.float32)) > 300
    voiced = samples[np.convolve(loud, np.ones(1600), "same") > 0]
    return np.tile(voiced, -(-30 * SAMPLE_RATE_HZ // len(voiced)))


def test_agent_hands_over_in_a_pause_so_that_no_word_is_cut():
    spoken = words()[: 4 * SAMPLE_RATE_HZ]
    source = talking(np.concatenate([spoken, silence(20)]))
    published = run_session(source, ScriptedSTT, begin=after(1.0, Session.hand_over))
    assert published.report.ended_by == HANDED_OVER
    ended_s = published.report.end_ms / 1000
    assert 4 < ended_s < 4 + 4 * PAUSE_MS / 1000 + 1


def test_hand_over_waits_only_so_long_for_a_pause():
    published = run_session(talking(words()), ScriptedSTT, begin=after(1.0, Session.hand_over))
    assert published.report.ended_by == HANDED_OVER
    assert PAUSE_PATIENCE_S <= published.report.end_ms / 1000 < PAUSE_PATIENCE_S + 3


def test_agent_that_hands_over_gives_out_its_last_words_and_does_not_say_that_captions_have_ended():
    last = [Say(99, speech("last words", start_s=0.5, final=True))]
    published = run_session(
        talking(silence(20)), lambda: ScriptedSTT(last), begin=after(2.0, Session.hand_over)
    )
    assert [caption.text for caption in published.finals] == ["last words"]
    assert [final.text for final in published.kept.finals] == ["last words"]
    assert {state["captions"] for state in published.states} == {"live"}
    assert published.kept.of("ended") == []


def test_viewers_learn_that_the_agent_leaves_and_the_session_goes_on():
    end = after(2.0, lambda session: _end(session, "job_ended"))
    published = run_session(talking(silence(20)), ScriptedSTT, begin=end)
    last = published.states[-1]
    assert (last["captions"], last["captions_reason"]) == ("off", "agent_leaves")
    assert published.kept.of("ended") == []


def test_where_an_agent_stops_hearing_is_told_while_its_last_words_are_on_their_way():
    told: list[int] = []

    async def hand_over(session: Session) -> None:
        telling = asyncio.create_task(session.until_ending())
        await asyncio.sleep(2.0)
        await session.hand_over()
        told.append(await telling)

    published = run_session(talking(silence(20)), ScriptedSTT, begin=hand_over)
    assert told == [pytest.approx(2_000, abs=100)]
    # Everything that was received by then, and nothing after it.
    assert published.report.sent_ms == pytest.approx(told[0], abs=100)


def test_superseded_session_neither_keeps_nor_publishes_what_its_successor_has_heard():
    published = run_session(
        talking(silence(20)),
        lambda: a_second_each(10),
        lead=Led(until_s=3.5),
        begin=after(6.0, supersede),
    )
    assert [caption.text for caption in published.finals] == ["number 0", "number 1", "number 2"]
    assert [final.text for final in published.kept.finals] == ["number 0", "number 1", "number 2"]
    assert all(at_s < 3.6 for at_s, _ in published.events)
    assert published.report.ended_by == SUPERSEDED
    assert published.report.unkept >= 2
    assert published.kept.of("ended") == []


def test_superseded_session_leaves_at_once_instead_of_waiting_for_its_engine():
    last = [Say(99, speech("last words", start_s=0.5, final=True))]
    published = run_session(
        talking(silence(20)), lambda: ScriptedSTT(last), lead=Led(until_s=2.0), begin=after(2.0, supersede)
    )
    assert published.finals == []
    assert published.report.duration_ms < 4_000


def test_nothing_is_published_while_nobody_can_say_who_leads_and_nothing_is_lost_by_that():
    published = run_session(
        talking(silence(12)), lambda: a_second_each(5), lead=Led(from_s=4.0), begin=after(10.0, supersede)
    )
    assert [caption.text for caption in published.finals] == [f"number {i}" for i in range(5)]
    assert all(at_s >= 4.0 for at_s, _ in published.events)


@pytest.mark.parametrize(("leads", "gaps"), [(True, 1), (False, 0)])
def test_process_that_stood_still_says_what_it_has_not_heard_unless_somebody_else_has(leads: bool, gaps: int):
    async def stand_still(session: Session) -> None:
        await asyncio.sleep(5.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.stand_still(15.0)
        await asyncio.sleep(1.0)
        session.end("asked")

    lead = Led() if leads else Led(until_s=5.0)
    published = run_session(talking(silence(40)), ScriptedSTT, lead=lead, begin=stand_still)
    found = [record for record in published.kept.of("gap") if isinstance(record, Gap)]
    assert [gap.reason for gap in found] == ["agent_paused"] * gaps
    for gap in found:
        assert gap.start_ms == pytest.approx(5_000, abs=300)
        assert gap.end_ms == pytest.approx(20_000, abs=300)


def test_reason_of_whoever_ends_a_session_is_kept():
    end = after(2.0, lambda session: _end(session, "api"))
    published = run_session(talking(silence(20)), partial(ScriptedSTT), begin=end)
    (ended,) = published.kept.of("ended")
    assert (ended.reason, ended.end_ms) == ("api", pytest.approx(2_000, abs=100))


async def _end(session: Session, reason: str) -> None:
    session.end(reason)
