"""What a session does around its engine, under virtual time."""

import pytest
from livekit.local_inference import VAD

from agent.audio.activity import WINDOW_MS
from agent.ingest.meeting import load_meeting
from agent.session.session import FINISH_TIMEOUT_S, STATE_INTERVAL_S
from agent.session.source import (
    HeardAgain,
    ParticipantJoined,
    ParticipantLeft,
    SpeakerRenamed,
    TrackClosed,
    TrackMuted,
    TrackOpened,
    TrackUnmuted,
    Unheard,
    UnheardReason,
)
from agent.values import Event, Speaker, Track
from plugins.stt.traits import Traits
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.numbered_speech import noise
from tests.support.scripted_source import ScriptedSource, audio, silence
from tests.support.scripted_stt import ASKED, Fail, Say, ScriptedSTT, speech
from tests.support.transcribing import PLAIN, SUM
from tests.support.virtual_session import Published, run_session

NORA = Speaker("nora", "Nora")
MICROPHONE = Track("mic-nora", NORA)
OMARS = Track("mic-omar", Speaker("omar", "Omar"))


def deaf_to_requests() -> ScriptedSTT:
    """An engine that gives no final on request, and says nothing."""
    return ScriptedSTT(can_flush=False)


def test_room_in_which_nobody_speaks_gives_states_and_no_captions():
    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", silence(25), start_s=0)])
    published = run_session(source, ScriptedSTT)
    assert published.captions == []
    assert published.report.ended_by == "script_over"
    assert published.report.sent_ms == 0
    assert len(published.states) >= 25 // STATE_INTERVAL_S


def test_engine_that_needs_the_sum_hears_silence_as_well():
    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", silence(25), start_s=0)])
    published = run_session(source, deaf_to_requests, traits=SUM)
    assert published.captions == []
    assert published.report.sent_ms == pytest.approx(25_000, abs=WINDOW_MS)


def test_room_that_ends_at_once_ends_the_session():
    published = run_session(ScriptedSource([(0, ParticipantJoined(NORA))]), ScriptedSTT)
    assert published.states[-1]["captions"] == "off"


def test_final_that_comes_only_after_the_end_is_published():
    script = [Say(0.5, speech("good", start_s=0)), Say(ASKED, speech("good bye", start_s=0, final=True))]
    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", noise(1), start_s=0)])
    published = run_session(source, lambda: ScriptedSTT(script))
    assert [caption.text for caption in published.finals] == ["good bye"]
    kinds = [event.kind for _, event in published.events]
    assert kinds.index("caption") < len(kinds) - 1
    assert published.states[-1]["captions_reason"] == "ended"


def test_asking_for_the_end_ends_a_session_whose_room_goes_on():
    source = ScriptedSource([(0, TrackOpened(MICROPHONE))], ends=False)
    published = run_session(source, ScriptedSTT, end_after_s=3)
    assert published.report.ended_by == "asked"
    assert published.report.duration_ms < (3 + FINISH_TIMEOUT_S) * 1000


def test_finals_are_numbered_without_a_gap_and_partials_are_not():
    script = [
        Say(0.5, speech("one", start_s=0.1)),
        Say(1.0, speech("one", start_s=0.1, final=True)),
        Say(1.5, speech("two", start_s=1.1)),
        Say(2.0, speech("two", start_s=1.1, final=True)),
    ]
    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", noise(3), start_s=0)])
    published = run_session(source, lambda: ScriptedSTT(script))
    numbered = [(event.seq, event.caption.is_final) for _, event in published.events if event.caption]
    assert [seq for seq, is_final in numbered if is_final] == [1, 2]
    assert {seq for seq, is_final in numbered if not is_final} == {None}


def test_broken_engine_is_said_and_the_next_stream_hears_what_has_no_final():
    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", noise(6), start_s=0)])
    first = [Say(0.5, speech("lost", start_s=0.1)), Fail(1.0)]
    second = [Say(1.0, speech("found again", start_s=0.2, final=True))]
    published = run_session(source, lambda: ScriptedSTT(first, second))
    assert [caption.text for caption in published.finals] == ["found again"]
    assert published.finals[0].start_ms == 200
    withdrawn = [caption for caption in published.captions if not (caption.text or caption.is_waiting)]
    assert [caption.id for caption in withdrawn] == ["1-1"]
    assert published.captions_states[:3] == [("live", None), ("degraded", "engine"), ("live", None)]
    assert published.report.replayed_turns == 1
    assert published.kept.of("gap") == []


def test_audio_that_stops_in_mid_word_is_flushed():
    source = ScriptedSource(
        [
            (0, TrackOpened(MICROPHONE)),
            *audio("mic-nora", noise(1), start_s=0),
            (1.001, TrackMuted("mic-nora")),
            (4, TrackUnmuted("mic-nora")),
            *audio("mic-nora", noise(1), start_s=4),
        ]
    )
    engine = []

    def new_engine() -> ScriptedSTT:
        engine.append(ScriptedSTT())
        return engine[0]

    published = run_session(source, new_engine)
    stream = engine[0].streams[0]
    # The last window of each stretch is filled up.
    assert stream.flushes_s[0] == pytest.approx(1.0, abs=WINDOW_MS / 1000)
    assert stream.received_s == pytest.approx(2.0, abs=2 * WINDOW_MS / 1000)
    assert published.report.sent_ms == round(1000 * stream.received_s)


def test_words_after_a_mute_are_placed_where_they_were_spoken():
    source = ScriptedSource(
        [
            (0, TrackOpened(MICROPHONE)),
            *audio("mic-nora", noise(1), start_s=0),
            (1.001, TrackMuted("mic-nora")),
            (4, TrackUnmuted("mic-nora")),
            *audio("mic-nora", noise(2), start_s=4),
        ]
    )
    script = [Say(2.5, speech("later", start_s=1.5, final=True))]
    published = run_session(source, lambda: ScriptedSTT(script))
    assert published.finals[0].start_ms == pytest.approx(4_500, abs=WINDOW_MS)


def test_unheard_people_are_listed_until_they_are_heard_or_leave():
    source = ScriptedSource(
        [
            (0, ParticipantJoined(NORA)),
            (1, Unheard("nora", UnheardReason.E2EE)),
            (2, Unheard("omar", UnheardReason.NOT_PERMITTED)),
            (3, HeardAgain("nora")),
            (4, ParticipantLeft("omar")),
            (5, ParticipantLeft("nora")),
        ]
    )
    published = run_session(source, ScriptedSTT)
    unheard = [{u["identity"]: u["reason"] for u in state["unheard"]} for state in published.states]
    assert {"nora": "e2ee"} in unheard
    assert {"nora": "e2ee", "omar": "not_permitted"} in unheard
    assert {"omar": "not_permitted"} in unheard
    assert unheard[-1] == {}
    off = [state for state in published.states if state["captions_reason"] == "unheard"]
    assert off
    assert {state["captions"] for state in off} == {"off"}


def test_renamed_speaker_has_the_new_name_in_later_captions():
    source = ScriptedSource(
        [
            (0, TrackOpened(MICROPHONE)),
            *audio("mic-nora", noise(3), start_s=0),
            (1.5, SpeakerRenamed(Speaker("nora", "Dr. Nora"))),
        ]
    )
    script = [
        Say(1.0, speech("one", start_s=0.2, final=True)),
        Say(2.5, speech("two", start_s=1.7, final=True)),
    ]
    published = run_session(source, lambda: ScriptedSTT(script))
    assert [caption.speaker.name for caption in published.finals] == ["Nora", "Dr. Nora"]


@pytest.mark.parametrize("traits", [PLAIN, SUM], ids=["floor", "sum"])
@pytest.mark.parametrize("block_ms", [50, 3_000])
def test_words_of_somebody_who_has_just_left_keep_their_name(block_ms: int, traits: Traits):
    """Also where the last words and the leaving arrive together; Omar is there and silent."""
    spoken = load_meeting(INCIDENT_REVIEW, sample_rate_hz=16_000, start_s=1.0, end_s=4.0).tracks["Nora"]
    source = ScriptedSource(
        [
            (0, TrackOpened(OMARS)),
            (0, TrackOpened(MICROPHONE)),
            *audio("mic-omar", silence(3), start_s=0, block_ms=block_ms),
            *audio("mic-nora", spoken, start_s=0, block_ms=block_ms),
            (3.0, TrackClosed("mic-nora")),
            (3.0, ParticipantLeft("nora")),
        ]
    )
    script = [Say(ASKED, speech("thanks for joining", start_s=0.3, final=True))]
    published = run_session(
        source, lambda: ScriptedSTT(script, can_flush=traits.finalizes), traits=traits, new_detector=VAD
    )
    assert published.finals[0].speaker == NORA
    assert published.finals[0].confidence > 0.9


def test_break_in_which_nobody_is_heard_is_not_sent_as_silence_in_a_sum():
    break_s = 600
    source = ScriptedSource(
        [
            (0, TrackOpened(MICROPHONE)),
            (0, TrackOpened(OMARS)),
            *audio("mic-nora", silence(1), start_s=0),
            *audio("mic-omar", silence(1), start_s=0.03),
            (1.04, TrackMuted("mic-nora")),
            (1.04, TrackMuted("mic-omar")),
            (break_s, TrackUnmuted("mic-nora")),
            *audio("mic-nora", silence(1), start_s=break_s),
        ]
    )
    published = run_session(source, deaf_to_requests, traits=SUM)
    assert 2_000 <= published.report.sent_ms <= 2_100


def test_what_waits_for_a_late_track_is_still_in_the_sum_at_the_end():
    source = ScriptedSource(
        [
            (0, TrackOpened(MICROPHONE)),
            (0, TrackOpened(OMARS)),
            *audio("mic-omar", silence(0.5), start_s=0),
            *audio("mic-nora", silence(2), start_s=0),
        ]
    )
    sent_ms = run_session(source, deaf_to_requests, traits=SUM).report.sent_ms
    assert sent_ms == pytest.approx(2_000, abs=WINDOW_MS)


def test_engine_that_cannot_even_open_a_stream_is_tried_again():
    class Locked(ScriptedSTT):
        refusals = 2

        def stream(self, **options):
            if self.refusals:
                self.refusals -= 1
                raise ValueError("no key")
            return super().stream(**options)

    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", noise(12), start_s=0)])
    script = [Say(1.0, speech("at last", start_s=0.2, final=True))]
    published = run_session(source, lambda: Locked(script))
    assert [caption.text for caption in published.finals] == ["at last"]
    captions = [state["captions"] for state in published.states]
    assert captions[captions.index("degraded") + 1] == "live"


def test_engine_that_refuses_every_connection_is_degraded_throughout():
    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", noise(20), start_s=0)])
    published = run_session(source, lambda: ScriptedSTT(*([Fail(0.0)] for _ in range(50))))
    captions = [state["captions"] for state in published.states]
    assert captions.count("live") <= 1
    assert captions[:-1].count("degraded") >= 2


def test_engine_that_breaks_while_it_finishes_ends_the_session_all_the_same():
    script = [Say(0.5, speech("lost", start_s=0.1)), Fail(ASKED)]
    source = ScriptedSource([(0, TrackOpened(MICROPHONE)), *audio("mic-nora", noise(1), start_s=0)])
    published = run_session(source, lambda: ScriptedSTT(script))
    assert published.captions[-1].text == ""
    assert published.report.ended_by == "script_over"


def test_fault_of_a_part_ends_the_session_with_that_fault():
    class Broken(Published):
        async def publish(self, event: Event) -> None:
            raise OSError("no way out")

    source = ScriptedSource([(0, TrackOpened(MICROPHONE))], ends=False)
    with pytest.raises(ExceptionGroup) as caught:
        run_session(source, ScriptedSTT, published=Broken())
    assert caught.group_contains(OSError)
