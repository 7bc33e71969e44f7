"""A session that leads its room only for a while, under virtual time: it hands over, or is superseded."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np
import pytest
from livekit.local_inference import VAD

from agent.audio.activity import WINDOW_MS
from agent.audio.turns import TAIL_MS
from agent.ingest.meeting import load_meeting
from agent.session.session import (
    HANDED_OVER,
    JOB_ENDED,
    PAUSE_MS,
    PAUSE_PATIENCE_S,
    SUPERSEDED,
    Session,
)
from agent.session.source import ParticipantJoined, SourceEvent, TrackOpened
from agent.values import SAMPLE_RATE_HZ, Samples, Speaker, Track
from persistence.records import Gap
from plugins.stt.traits import Traits
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.numbered_speech import NumberSTT, assert_none_twice, heard, noise, numbered, said
from tests.support.scripted_source import ScriptedSource, audio, silence
from tests.support.scripted_stt import ASKED, Say, ScriptedSTT, speech
from tests.support.transcribing import PLAIN
from tests.support.virtual_session import Published, run_session
from tests.support.virtual_time import VirtualTimeLoop

NORA = Speaker("nora", "Nora")
MICROPHONE = Track("mic-nora", NORA)


class Led:
    """Who leads: this session, from and until some second; before that, nobody can say."""

    def __init__(self, *, from_s: float = 0.0, until_s: float = inf) -> None:
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


def ending(reason: str) -> Callable[[Session], Awaitable[None]]:
    async def end(session: Session) -> None:
        session.end(reason)

    return end


def words() -> Samples:
    """Somebody who speaks without a pause, in real words."""
    samples = load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, end_s=30).tracks["Nora"]
    loud = np.abs(samples.astype(np.float32)) > 300
    voiced = samples[np.convolve(loud, np.ones(1600), "same") > 0]
    return np.tile(voiced, -(-30 * SAMPLE_RATE_HZ // len(voiced)))


def test_agent_hands_over_in_a_pause_so_that_no_word_is_cut():
    spoken = words()[: 4 * SAMPLE_RATE_HZ]
    source = talking(np.concatenate([spoken, silence(20)]))
    published = run_session(source, ScriptedSTT, new_detector=VAD, begin=after(1.0, Session.hand_over))
    assert published.report.ended_by == HANDED_OVER
    ended_s = published.report.end_ms / 1000
    assert 4 < ended_s < 4 + 4 * PAUSE_MS / 1000 + 1


def test_hand_over_waits_only_so_long_for_a_pause():
    published = run_session(
        talking(words()), ScriptedSTT, new_detector=VAD, begin=after(1.0, Session.hand_over)
    )
    assert published.report.ended_by == HANDED_OVER
    assert PAUSE_PATIENCE_S <= published.report.end_ms / 1000 < PAUSE_PATIENCE_S + 3


def test_agent_that_hands_over_gives_out_its_last_words_and_does_not_say_that_captions_have_ended():
    last = [Say(ASKED, speech("last words", start_s=0.5, final=True))]
    source = talking(np.concatenate([noise(1.9), silence(20)]))
    published = run_session(source, lambda: ScriptedSTT(last), begin=after(2.0, Session.hand_over))
    assert [caption.text for caption in published.finals] == ["last words"]
    assert [final.text for final in published.kept.finals] == ["last words"]
    assert {state["captions"] for state in published.states} == {"live"}
    assert published.kept.of("ended") == []


# --- While somebody waits for the floor

# Nora does not pause for as long as a hand-over waits, and so Omar waits.
ENDLESS = {"nora": numbered(1, [(0.5, 40)], 40), "omar": numbered(2, [(10, 40)], 40)}
# All pause, and the engine still has to get what two of them have said meanwhile. Later they go on.
BACKLOG = {
    "nora": numbered(1, [(0.5, 5), (7, 20)], 20),
    "omar": numbered(2, [(1, 5), (7, 20)], 20),
    "ines": numbered(3, [(2, 5)], 20),
}
SLOW = replace(PLAIN, burst_rate=1.5)
OVERLAPS = pytest.mark.parametrize(
    ("tracks", "traits", "asked_s"),
    [(ENDLESS, PLAIN, 12.0), (BACKLOG, SLOW, 4.0)],
    ids=["endless", "backlog"],
)


def overlapping(tracks: dict[str, Samples]) -> ScriptedSource:
    script: list[tuple[float, SourceEvent]] = []
    for who, samples in tracks.items():
        opened = Track(f"mic-{who}", Speaker(who, who.title()))
        script += [(0, TrackOpened(opened)), *audio(opened.id, samples, start_s=0, block_ms=WINDOW_MS)]
    return ScriptedSource(script, ends=False)


def waiting(published: Published, at_s: float) -> set[str]:
    """Who was seen to wait then."""
    newest = {
        event.caption.id: event.caption
        for then_s, event in published.events
        if event.caption is not None and then_s <= at_s
    }
    return {caption.speaker.identity for caption in newest.values() if caption.is_waiting}


@OVERLAPS
@pytest.mark.parametrize("leave", [Session.hand_over, ending(JOB_ENDED)], ids=["hand_over", "job_ended"])
def test_who_waits_for_the_floor_when_an_agent_leaves_gets_their_words_before_it_is_gone(
    leave: Callable[[Session], Awaitable[object]], tracks: dict[str, Samples], traits: Traits, asked_s: float
):
    """The lease moves when the session is over; the successor goes on at the cut."""
    cuts_ms: list[int] = []

    async def begin(session: Session) -> None:
        await asyncio.sleep(asked_s)
        await leave(session)
        cuts_ms.append(await session.until_ending())

    published = run_session(overlapping(tracks), NumberSTT, traits=traits, begin=begin)
    [cut_ms] = cuts_ms
    assert waiting(published, cut_ms / 1000)
    for who, samples in tracks.items():
        words = heard(published.finals, who)
        # What arrives in the instant of the cut may be heard by both.
        assert set(said(samples, cut_ms - WINDOW_MS)) <= set(words) <= set(said(samples, cut_ms + WINDOW_MS))
        assert_none_twice(words)
        assert heard(published.kept.finals, who) == words
    assert published.kept.of("gap") == []
    assert waiting(published, inf) == set()


@OVERLAPS
def test_superseded_session_leaves_those_who_wait_for_the_floor_to_its_successor(
    tracks: dict[str, Samples], traits: Traits, asked_s: float
):
    published = run_session(
        overlapping(tracks),
        NumberSTT,
        traits=traits,
        lead=Led(until_s=asked_s),
        begin=after(asked_s, ending(SUPERSEDED)),
    )
    assert waiting(published, asked_s)
    assert all(at_s <= asked_s for at_s, _ in published.events)
    assert published.kept.of("gap") == [], "its successor has heard it"
    assert published.report.duration_ms < (asked_s + 2) * 1000


def test_viewers_learn_that_the_agent_leaves_and_the_session_goes_on():
    end = after(2.0, ending(JOB_ENDED))
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

    source = talking(np.concatenate([noise(1.5), silence(0.7), noise(10)]))
    published = run_session(source, ScriptedSTT, begin=hand_over)
    assert told == [pytest.approx(2_000, abs=100)]
    # What was said by then, with a little silence, and nothing after it.
    assert published.report.sent_ms == pytest.approx(1_500 + TAIL_MS, abs=50)


def test_superseded_session_neither_keeps_nor_publishes_what_its_successor_has_heard():
    published = run_session(
        talking(noise(20)),
        lambda: a_second_each(10),
        lead=Led(until_s=3.5),
        begin=after(6.0, ending(SUPERSEDED)),
    )
    assert [caption.text for caption in published.finals] == ["number 0", "number 1", "number 2"]
    assert [final.text for final in published.kept.finals] == ["number 0", "number 1", "number 2"]
    assert all(at_s < 3.6 for at_s, _ in published.events)
    assert published.report.ended_by == SUPERSEDED
    assert published.report.unkept >= 2
    assert published.kept.of("ended") == []


def test_superseded_session_leaves_at_once_instead_of_waiting_for_its_engine():
    last = [Say(ASKED, speech("last words", start_s=0.5, final=True))]
    published = run_session(
        talking(noise(20)),
        lambda: ScriptedSTT(last),
        lead=Led(until_s=2.0),
        begin=after(2.0, ending(SUPERSEDED)),
    )
    assert published.finals == []
    assert published.report.duration_ms < 4_000


def test_nothing_is_published_while_nobody_can_say_who_leads_and_nothing_is_lost_by_that():
    published = run_session(
        talking(noise(12)),
        lambda: a_second_each(5),
        lead=Led(from_s=4.0),
        begin=after(10.0, ending(SUPERSEDED)),
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
    end = after(2.0, ending("api"))
    published = run_session(talking(silence(20)), partial(ScriptedSTT), begin=end)
    (ended,) = published.kept.of("ended")
    assert (ended.reason, ended.end_ms) == ("api", pytest.approx(2_000, abs=100))
