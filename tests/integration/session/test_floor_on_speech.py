"""The floor beside a stream for each participant, on real speech with the real engine under virtual time.

The cuts of incident_review are those in which somebody begins while somebody else speaks: a backchannel, an
interruption, an answer that comes early.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from livekit.agents import stt
from livekit.local_inference import VAD

from agent.config import load_settings
from agent.ingest.meeting import Meeting, Segment, load_meeting
from agent.ingest.recorded import RecordedSource
from agent.session.announcer import SessionIdentity
from agent.session.limits import SessionLimits
from agent.session.session import Session
from agent.transcription.engine import Engine
from agent.transcription.transcriber import Transcriber
from agent.values import SAMPLE_RATE_HZ, Caption, Samples
from plugins.stt import load_engine
from plugins.stt.traits import Traits, traits_of
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.overlap import overlapping
from tests.support.virtual_session import INFERENCE_S, Published
from tests.support.virtual_time import run_virtual

CUTS = {
    "question": (15.5, 20.0),
    "right": (22.5, 27.4),
    "objection": (30.0, 34.5),
    "offer": (33.5, 43.4),
    "two_in_a_row": (46.0, 55.0),
    "early_answer": (62.0, 68.8),
    "two_answers": (75.5, 78.3),
    "risk": (77.3, 90.2),
    "promise": (87.5, 92.0),
    "okay": (99.5, 102.0),
}
EDGE_S = 0.3  # words are placed to so much


@dataclass(frozen=True)
class Compared:
    """What came of one cut: from one session on the floor, and from one for each participant."""

    meeting: Meeting
    floor: Published
    streams: Sequence[Published]

    @property
    def overlapping(self) -> list[Segment]:
        """What somebody began to say while somebody else spoke, as far as all of it is in the cut."""
        return [
            segment
            for segment in overlapping(self.meeting.segments)
            if segment.start_s >= 0 and segment.end_s <= self.meeting.duration_s
        ]

    @property
    def streams_finals(self) -> list[Caption]:
        return [final for published in self.streams for final in published.finals]


@pytest.fixture(scope="module")
def engine() -> stt.STT[Any]:
    whisper = load_engine("whisper", load_settings().stt)
    whisper.prewarm()
    return whisper


@pytest.fixture(scope="module", params=CUTS)
def compared(engine: stt.STT[Any], request: pytest.FixtureRequest) -> Compared:
    start_s, end_s = CUTS[request.param]
    meeting = load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, start_s=start_s, end_s=end_s)
    floor = traits_of("whisper", engine)
    one_track = replace(floor, finalizes=False, acknowledges=False, recognizes=False, live_turns=1)
    return Compared(
        meeting,
        hear(engine, floor, meeting.tracks)[0],
        hear(engine, one_track, *({name: samples} for name, samples in meeting.tracks.items())),
    )


def hear(engine: stt.STT[Any], traits: Traits, *groups: Mapping[str, Samples]) -> list[Published]:
    """A session for each group of tracks, all at once and with one engine."""

    async def one(tracks: Mapping[str, Samples]) -> Published:
        published = Published()
        session = Session(
            RecordedSource(tracks),
            published,
            Transcriber([Engine("whisper", engine, traits)]),
            published.kept,
            None,
            SessionIdentity("session-1", 1, "agent-1"),
            limits=SessionLimits(),
            languages=["en"],
            new_detector=VAD,
            partials_per_s=4.0,
        )
        published.report = await session.run()
        return published

    async def main() -> list[Published]:
        return await asyncio.gather(*(one(tracks) for tracks in groups))

    return run_virtual(main(), charge=_charge)


def _charge(function: Callable[..., Any], _took_s: float) -> float:
    return 0.0 if getattr(function, "__name__", "") == "_process" else INFERENCE_S


def words_of(text: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z0-9']+", text.lower()))


def said_in(finals: Sequence[Caption], segment: Segment) -> list[Caption]:
    """What is in a segment, under its speaker's name."""
    return [
        final
        for final in finals
        if final.speaker.name == segment.speaker
        and segment.start_s - EDGE_S <= (final.start_ms + final.end_ms) / 2_000 <= segment.end_s + EDGE_S
    ]


def found(finals: Sequence[Caption], segment: Segment) -> int:
    """How many words of a segment are there."""
    heard = words_of(" ".join(final.text for final in said_in(finals, segment)))
    return (heard & words_of(segment.text)).total()


def test_all_that_is_begun_while_another_speaks_is_in_a_cut():
    meeting = load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ)
    in_a_cut = [
        segment
        for segment in overlapping(meeting.segments)
        if any(start_s <= segment.start_s and segment.end_s <= end_s for start_s, end_s in CUTS.values())
    ]
    assert in_a_cut == overlapping(meeting.segments)
    assert len(in_a_cut) == 12


def test_who_speaks_while_another_speaks_is_heard_by_the_floor_as_by_a_stream_of_their_own(
    compared: Compared,
):
    assert compared.overlapping
    for segment in compared.overlapping:
        alone = said_in(compared.streams_finals, segment)
        assert bool(said_in(compared.floor.finals, segment)) >= bool(alone), segment
        assert found(compared.floor.finals, segment) >= found(compared.streams_finals, segment), segment


def test_each_caption_is_under_the_name_of_somebody_who_spoke_then(compared: Compared):
    assert compared.floor.finals
    for final in compared.floor.finals:
        middle_s = (final.start_ms + final.end_ms) / 2_000
        assert any(
            segment.speaker == final.speaker.name
            and segment.start_s - EDGE_S <= middle_s <= segment.end_s + EDGE_S
            for segment in compared.meeting.segments
        ), final


def test_nothing_is_captioned_twice_or_left_waiting(compared: Compared):
    newest = {caption.id: caption for caption in compared.floor.captions}
    assert not [caption for caption in newest.values() if caption.is_waiting]
    for segment in compared.overlapping:
        heard = words_of(" ".join(final.text for final in said_in(compared.floor.finals, segment)))
        assert heard.total() <= words_of(segment.text).total() + 1
    assert compared.floor.kept.of("gap") == []


def test_all_speech_is_covered(compared: Compared):
    assert compared.floor.report.coverage >= 0.95


def test_same_recording_gives_the_same_events_at_the_same_times(engine: stt.STT[Any]):
    """Where somebody waits, is shown waiting, and is recognised on the side."""
    start_s, end_s = CUTS["right"]
    meeting = load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, start_s=start_s, end_s=end_s)
    one_lane = replace(traits_of("whisper", engine), live_turns=1)
    first, second = (hear(engine, one_lane, meeting.tracks)[0] for _ in range(2))
    assert any(caption.is_waiting for caption in first.captions)
    assert first.comparable() == second.comparable()
