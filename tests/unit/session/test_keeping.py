"""A final is kept before it is shown; what cannot be kept is not shown as final."""

import asyncio
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from agent.audio.activity import WINDOW_MS
from agent.audio.floor import RING_MS
from agent.captions.protocol import encode, schema
from agent.recording.recorder import Recorder
from agent.session.announcer import SessionIdentity
from agent.session.limits import SessionLimits
from agent.session.session import USAGE_INTERVAL_S
from agent.session.source import (
    ParticipantJoined,
    ParticipantLeft,
    SpeakerRenamed,
    TrackOpened,
)
from agent.values import Event, Speaker, Track
from persistence.records import Failure, Final, Gap, Presence, Usage
from tests.support.kept import Kept
from tests.support.numbered_speech import noise
from tests.support.scripted_source import ScriptedSource, audio, silence
from tests.support.scripted_stt import ASKED, Fail, Say, ScriptedSTT, speech
from tests.support.virtual_session import Published, run_session

NORA = Speaker("nora", "Nora")
MICROPHONE = Track("mic-nora", NORA)


def talking(seconds: float, *, then_silent_s: float = 0.0) -> ScriptedSource:
    """Nora speaks without a pause."""
    samples = np.concatenate([noise(seconds), silence(then_silent_s)])
    return ScriptedSource(
        [
            (0, ParticipantJoined(NORA)),
            (0, TrackOpened(MICROPHONE)),
            *audio("mic-nora", samples, start_s=0),
        ]
    )


def one_final_each_second(seconds: int) -> ScriptedSTT:
    return ScriptedSTT(
        [Say(i + 0.5, speech(f"number {i}", start_s=i + 0.1, final=True)) for i in range(seconds)]
    )


class KeptFirst(Published):
    """Looks at each final, as it is published, whether it has been kept."""

    async def publish(self, event: Event) -> None:
        if event.caption is not None and event.caption.is_final:
            assert event.caption.id in {final.id for final in self.kept.finals}
        await super().publish(event)


def test_every_final_is_kept_before_it_is_published_and_as_it_is_published():
    published = run_session(talking(5), lambda: one_final_each_second(5), published=KeptFirst())
    assert [
        (final.id, final.revision, final.seq, final.text, final.identity, final.start_ms, final.at)
        for final in published.kept.finals
    ] == [
        (
            event.caption.id,
            event.caption.revision,
            event.seq,
            event.caption.text,
            "nora",
            event.caption.start_ms,
            event.at,
        )
        for _, event in published.events
        if event.caption and event.caption.is_final
    ]
    assert len(published.finals) == 5


class Interrupted(Kept):
    """Takes nothing until it has been asked so many times."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    async def keep(self, record: Final) -> bool:
        self.refusals -= 1
        self.takes = self.refusals < 0
        return await super().keep(record)


def test_final_that_cannot_be_kept_is_shown_as_a_partial_and_becomes_final_when_it_can():
    published = Published(kept=Interrupted(2))
    run_session(talking(6), lambda: one_final_each_second(5), published=published)
    assert [final.text for final in published.finals] == [f"number {i}" for i in range(5)]
    assert [event.seq for _, event in published.events if event.seq] == [1, 2, 3, 4, 5]
    first = [caption for caption in published.captions if caption.id == published.finals[0].id]
    assert [(caption.is_final, caption.revision) for caption in first] == [(False, 1), (True, 2)]
    assert published.kept.finals[0].revision == 2
    assert published.captions_states[:3] == [("live", None), ("degraded", "storage"), ("live", None)]


class Slow(Kept):
    """Takes everything, after a long while."""

    async def keep(self, record: Final) -> bool:
        await asyncio.sleep(20)
        return await super().keep(record)


def test_partials_and_state_do_not_wait_for_a_final_that_is_slow_to_be_kept():
    script = [
        Say(0.5, speech("first", start_s=0.1, final=True)),
        Say(2.0, speech("second", start_s=1.1)),
    ]
    published = run_session(talking(25), lambda: ScriptedSTT(script), published=Published(kept=Slow()))
    out_s = {event.caption.text: at_s for at_s, event in published.events if event.caption}
    assert out_s["second"] < 3 < 20 < out_s["first"]
    assert len([at_s for at_s, event in published.events if event.kind == "state" and at_s < 15]) > 1


def test_what_could_not_be_kept_becomes_final_after_the_last_word_where_it_can():
    published = Published(kept=Interrupted(3))
    run_session(talking(3), lambda: one_final_each_second(2), published=published)
    assert [final.text for final in published.finals] == ["number 0", "number 1"]
    assert published.report.unkept == 0


def test_what_is_never_kept_is_never_final_and_is_counted():
    published = Published(kept=Interrupted(10_000))
    run_session(talking(4), lambda: one_final_each_second(3), published=published)
    assert published.finals == []
    assert {caption.text for caption in published.captions} == {f"number {i}" for i in range(3)}
    assert published.report.finals == 0
    assert published.report.unkept == 3


def test_successor_goes_on_with_the_numbers_and_the_time_of_its_session():
    published = run_session(
        talking(3),
        lambda: one_final_each_second(2),
        identity=SessionIdentity("session-1", 2, "agent-2", offset_ms=3_600_000, first_seq=41),
    )
    assert [event.seq for _, event in published.events if event.seq] == [41, 42]
    assert [caption.id for caption in published.finals] == ["2-1", "2-2"]
    assert all(3_600_000 <= caption.start_ms < 3_603_000 for caption in published.finals)
    assert published.report.end_ms >= 3_603_000
    assert published.report.duration_ms < 60_000


def test_presence_is_kept_with_each_name_that_somebody_had():
    source = ScriptedSource(
        [
            (0, ParticipantJoined(NORA)),
            (2, SpeakerRenamed(Speaker("nora", "Nora K."))),
            (3, ParticipantJoined(Speaker("omar", "Omar"))),
            (5, ParticipantLeft("nora")),
        ]
    )
    kept = run_session(source, ScriptedSTT).kept
    newest = {(r.identity, r.joined_ms): r for r in kept.of("presence") if isinstance(r, Presence)}
    assert [(p.identity, p.name, p.joined_ms, p.left_ms) for p in newest.values()] == [
        ("nora", "Nora", 0, 2_000),
        ("nora", "Nora K.", 2_000, 5_000),
        ("omar", "Omar", 3_000, pytest.approx(5_000, abs=500)),
    ]


def test_usage_is_kept_from_time_to_time_and_at_the_end():
    published = run_session(talking(USAGE_INTERVAL_S + 5), ScriptedSTT)
    looks: dict[str, list[int]] = {}
    for record in published.kept.of("usage"):
        assert isinstance(record, Usage)
        looks.setdefault(record.identity, []).append(record.stt_ms)
    assert set(looks) == {"", "nora"}
    assert sum(stt_ms[0] for stt_ms in looks.values()) == pytest.approx(USAGE_INTERVAL_S * 1000, abs=1_000)
    assert sum(stt_ms[-1] for stt_ms in looks.values()) == published.report.sent_ms


def test_speech_that_no_engine_could_take_for_too_long_is_kept_as_a_gap():
    good = [Say(0.9, speech("one", start_s=0.1, final=True)), Fail(2.0)]
    published = run_session(
        talking(RING_MS / 1000 + 20), lambda: ScriptedSTT(good, *([Fail(0.0)] for _ in range(200)))
    )
    gaps = [record for record in published.kept.of("gap") if isinstance(record, Gap)]
    assert {(gap.reason, gap.identity) for gap in gaps} == {("engine", "nora")}
    [final] = published.finals
    assert min(gap.start_ms for gap in gaps) == pytest.approx(final.end_ms, abs=WINDOW_MS)
    assert max(gap.end_ms for gap in gaps) > RING_MS


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (SessionLimits(max_duration_s=2), "limit_duration"),
        (SessionLimits(idle_s=2), "limit_idle"),
    ],
)
def test_limit_ends_a_session_with_its_last_finals_then_the_reason_then_the_end(
    limits: SessionLimits, code: str
):
    script = [Say(ASKED, speech("last words", start_s=0.1, final=True))]
    source = talking(1 if limits.idle_s else 60, then_silent_s=60 if limits.idle_s else 0)
    published = run_session(source, lambda: ScriptedSTT(script), limits=limits)
    assert published.report.ended_by == code.removeprefix("limit_")
    assert published.report.duration_ms < 10_000
    kinds = [event.kind for _, event in published.events]
    assert [event.body["code"] for _, event in published.events if event.kind == "notice"] == [code]
    assert kinds.index("caption") < kinds.index("notice") < len(kinds) - 1
    assert (published.states[-1]["captions"], published.states[-1]["captions_reason"]) == ("off", code)
    for _, event in published.events:
        if event.kind == "notice":
            jsonschema.validate(json.loads(encode(event)), schema("notice"))


def test_too_many_people_end_a_session():
    source = ScriptedSource(
        [(i, ParticipantJoined(Speaker(f"p{i}", f"P {i}"))) for i in range(5)] + [(30, ParticipantLeft("p0"))]
    )
    published = run_session(source, ScriptedSTT, limits=SessionLimits(max_participants=3))
    assert published.report.ended_by == "participants"
    assert 3_000 <= published.report.duration_ms < 10_000


def test_recording_that_fails_is_kept_as_a_failure_once(tmp_path: Path):
    def on_a_disk_that_is_nearly_full(kept: Kept) -> Recorder:
        return Recorder(
            tmp_path, space="default", session="session-1", epoch=1, bitrate_kbps=32,
            min_free_mb=10**9, on_stem=kept.note,
        )  # fmt: skip

    published = run_session(talking(8), ScriptedSTT, new_recorder=on_a_disk_that_is_nearly_full)
    (failure,) = published.kept.of("failure")
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.code) == ("recording", "disk_low")
    assert "0 min 0 s into the session" in failure.message
    assert ("failed", "disk_low") in {
        (state["recording"], state["recording_reason"]) for state in published.states
    }
    assert published.report.unrecorded_ms > 7_000
