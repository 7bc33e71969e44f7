"""What a session makes of bad sound: no pauses, everybody at once, hums, tracks that come and go, bleed.

The engine tells which windows it was given, so that no word can hide.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from livekit.local_inference import VAD

from agent.audio.activity import WINDOW_MS, WINDOW_SAMPLES, VoiceActivityDetector
from agent.audio.turns import LONGEST_MS
from agent.ingest.meeting import load_meeting
from agent.session.source import (
    ParticipantJoined,
    ParticipantLeft,
    Source,
    SourceEvent,
    TrackClosed,
    TrackMuted,
    TrackOpened,
    TrackUnmuted,
)
from agent.values import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Samples, Speaker, Track
from persistence.records import Gap
from plugins.stt.traits import Traits
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.numbered_speech import Loudness, NumberSTT, assert_none_twice, heard, numbered, said
from tests.support.scripted_source import ScriptedSource, audio, silence
from tests.support.transcribing import PLAIN
from tests.support.virtual_session import Published, run_session

TRAITS = {
    "one_lane": PLAIN,
    "two_lanes": replace(PLAIN, live_turns=2),
    "one_lane_recognize": replace(PLAIN, recognizes=True),
    "two_lanes_recognize": replace(PLAIN, live_turns=2, recognizes=True),
}


def run(
    source: Source,
    engine: Callable[[], NumberSTT] = NumberSTT,
    *,
    traits: Traits = PLAIN,
    new_detector: Callable[[], VoiceActivityDetector] = Loudness,
    at: dict[float, Callable[[NumberSTT], None]] | None = None,
) -> Published:
    """A whole session under virtual time; `at` some seconds something is done to its engine."""

    def new_engine() -> NumberSTT:
        made = engine()
        for when_s, do in (at or {}).items():
            asyncio.get_running_loop().call_at(when_s, do, made)
        return made

    return run_session(source, new_engine, traits=traits, new_detector=new_detector)


def track(number: int | str) -> Track:
    return Track(f"mic-{number}", Speaker(f"p{number}", f"Person {number}"))


def assert_all_heard_once(published: Published, tracks: dict[str, Samples]) -> None:
    """By everybody's name, and nobody is left waiting."""
    for who, samples in tracks.items():
        words = heard(published.finals, who)
        assert set(said(samples)) <= set(words), f"words of {who} were lost"
        assert_none_twice(words)
    assert_nothing_open(published)
    assert published.kept.of("gap") == []
    assert published.report.coverage >= 0.98


def assert_nothing_open(published: Published) -> None:
    """Each caption that was shown became final or was withdrawn."""
    newest = {caption.id: caption for caption in published.captions}
    assert not [each for each in newest.values() if each.is_waiting or (each.text and not each.is_final)]


def assert_heard_or_missed(published: Published, tracks: dict[str, Samples]) -> None:
    """Each word is in a final or, by its speaker's name, in a gap; none twice, and nobody is left waiting."""
    gaps = [record for record in published.kept.of("gap") if isinstance(record, Gap)]
    for who, samples in tracks.items():
        words = heard(published.finals, who)
        missed = [(gap.start_ms, gap.end_ms) for gap in gaps if gap.identity == who]
        for number in set(said(samples)) - set(words):
            at_ms = (number - 1) * WINDOW_MS
            assert any(start <= at_ms < end for start, end in missed), f"{who} at {at_ms} ms"
        assert_none_twice(words)
    assert_nothing_open(published)


def delays_s(published: Published) -> list[float]:
    """From the end of each final's words to its being shown."""
    return [
        at_s - event.caption.end_ms / 1000
        for at_s, event in published.events
        if event.caption is not None and event.caption.is_final
    ]


# --- Somebody who does not pause


def test_who_speaks_for_ten_minutes_without_a_pause_is_cut_and_loses_no_word():
    samples = numbered(1, [(1, 601)], 603)
    engines: list[NumberSTT] = []

    def engine() -> NumberSTT:
        engines.append(NumberSTT())
        return engines[0]

    source = ScriptedSource([(0, TrackOpened(track(1))), *audio("mic-1", samples, start_s=0, block_ms=128)])
    published = run(source, engine)
    assert_all_heard_once(published, {"p1": samples})
    assert engines[0].longest_s <= LONGEST_MS / 1000 + 0.1
    assert max(delays_s(published)) < 2
    assert published.report.sent_ms <= 1.02 * 600_000
    assert published.captions_states == [("live", None), ("off", "ended")]


@pytest.mark.parametrize("traits", TRAITS)
def test_who_says_something_while_another_never_pauses_is_heard_all_the_same(traits: str):
    endless, brief = numbered(1, [(1, 41)], 43), numbered(2, [(10, 11), (30, 31.5)], 43)
    source = ScriptedSource(
        [
            (0, TrackOpened(track(1))),
            (0, TrackOpened(track(2))),
            *audio("mic-1", endless, start_s=0, block_ms=64),
            *audio("mic-2", brief, start_s=0, block_ms=64),
        ]
    )
    published = run(source, traits=TRAITS[traits])
    assert_all_heard_once(published, {"p1": endless, "p2": brief})
    most_s = LONGEST_MS / 1000 + 1 if traits == "one_lane" else 2
    brief_delays = [
        at_s - event.caption.end_ms / 1000
        for at_s, event in published.events
        if event.caption is not None and event.caption.is_final and event.caption.speaker.identity == "p2"
    ]
    assert max(brief_delays) <= most_s


# --- Everybody at once


@pytest.mark.parametrize("traits", TRAITS)
def test_twelve_people_who_speak_at_once_are_each_heard_by_name(traits: str):
    tracks = {
        number: numbered(number, [(1 + number / 50, 3 + number / 50), (6, 6.6)], 9) for number in range(12)
    }
    source = ScriptedSource(
        [
            *((0, TrackOpened(track(number))) for number in tracks),
            *(
                event
                for number, samples in tracks.items()
                for event in audio(f"mic-{number}", samples, start_s=0)
            ),
        ]
    )
    published = run(source, traits=TRAITS[traits])
    assert_all_heard_once(published, {f"p{number}": samples for number, samples in tracks.items()})
    assert len({caption.speaker.identity for caption in published.captions if caption.is_waiting}) >= 10
    assert max(delays_s(published)) < 10
    assert published.report.replayed_turns == 0


def test_twelve_people_at_once_with_an_engine_that_takes_little_more_than_real_time_come_late_and_whole():
    tracks = {number: numbered(number, [(1, 4)], 36) for number in range(12)}
    source = ScriptedSource(
        [
            *((0, TrackOpened(track(number))) for number in tracks),
            *(
                event
                for number, samples in tracks.items()
                for event in audio(f"mic-{number}", samples, start_s=0, block_ms=128)
            ),
        ]
    )
    published = run(source, traits=replace(PLAIN, burst_rate=1.25))
    assert_all_heard_once(published, {f"p{number}": samples for number, samples in tracks.items()})
    assert published.captions_states == [
        ("live", None),
        ("delayed", "backlog"),
        ("live", None),
        ("off", "ended"),
    ]


# --- Sound that is no speech


def test_music_is_not_sent_and_says_nothing():
    """By the real detector: chords that change twice a second."""
    t = np.arange(20 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    root = np.array([220.0, 196.0, 261.6, 174.6])[(2 * t).astype(int) % 4]
    chords = sum(np.sin(2 * np.pi * root * ratio * t) for ratio in (1.0, 1.25, 1.5, 2.0))
    samples = (chords * 3_000).astype(np.int16)
    source = ScriptedSource([(0, TrackOpened(track(1))), *audio("mic-1", samples, start_s=0)])
    published = run(source, new_detector=VAD)
    assert published.captions == []
    assert published.report.sent_ms == 0
    assert published.report.coverage == 1.0


def hum(seconds: float) -> Samples:
    t = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (4_000 * np.sin(2 * np.pi * 100 * t) + 500).astype(np.int16)


def test_hum_that_is_taken_for_speech_costs_its_length_and_shows_nobody_a_word():
    """What it is the engine tells; the coverage says that something was heard that has no words."""
    source = ScriptedSource([(0, TrackOpened(track(1))), *audio("mic-1", hum(40), start_s=0)])
    published = run(source, at={0.0: lambda engine: setattr(engine, "is_deaf", True)})
    assert published.finals == []
    assert_nothing_open(published)
    assert published.report.sent_ms <= 40_000 + WINDOW_MS
    assert published.report.coverage == 0.0
    assert published.kept.of("gap") == []
    assert published.report.replayed_turns == 0


@pytest.mark.parametrize("traits", TRAITS)
def test_hum_of_one_takes_no_word_of_another(traits: str):
    samples = numbered(2, [(5, 6), (20, 22), (33, 34)], 40)
    source = ScriptedSource(
        [
            (0, TrackOpened(track(1))),
            (0, TrackOpened(track(2))),
            *audio("mic-1", hum(40), start_s=0),
            *audio("mic-2", samples, start_s=0, block_ms=64),
        ]
    )
    published = run(source, traits=TRAITS[traits])
    words = heard(published.finals, "p2")
    assert set(said(samples)) <= set(words)
    assert len(words) == len(set(words))
    assert published.kept.of("gap") == []


# --- Tracks that come and go


@pytest.mark.parametrize("traits", ["one_lane", "two_lanes_recognize"])
def test_fifty_people_of_whom_half_speak_at_once_are_each_heard_by_name(traits: str):
    """Two rooms' worth, each of whom begins 0.1 s after the one before."""
    tracks = {
        f"p{number}": numbered(number, [(1 + number / 10, 3.5 + number / 10)], 9) for number in range(50)
    }
    published = run(in_room(tracks), traits=TRAITS[traits])
    assert_all_heard_once(published, tracks)


def test_fifty_people_at_once_with_an_engine_that_is_too_slow_are_heard_or_told_as_missed():
    """What they say takes longer than audio is kept."""
    tracks = {f"p{number}": numbered(number, [(0.5, 4)], 4.5) for number in range(50)}
    published = run(in_room(tracks, until_s=120), traits=replace(PLAIN, burst_rate=1.0))
    assert_heard_or_missed(published, tracks)
    assert {gap.reason for gap in published.kept.of("gap")} == {"backlog"}
    assert published.report.coverage >= 0.5
    assert published.captions_states == [
        ("live", None),
        ("delayed", "backlog"),
        ("live", None),
        ("off", "ended"),
    ]


def in_room(tracks: dict[str, Samples], *, until_s: float = 0.0) -> ScriptedSource:
    """All come at once and leave when their sound is over; the room is there until then at least."""
    script: list[tuple[float, SourceEvent]] = [(until_s, ParticipantJoined(Speaker("omar", "Omar")))]
    for who, samples in tracks.items():
        opened = track(who.removeprefix("p"))
        script += [(0, TrackOpened(opened)), *audio(opened.id, samples, start_s=0, block_ms=128)]
        script += [(len(samples) / SAMPLE_RATE_HZ + 0.1, TrackClosed(opened.id))]
    return ScriptedSource(script)


def test_fifty_tracks_that_come_and_go_are_each_heard_and_leave_no_caption_open():
    """Each is there for 2.5 s, five of them at a time, and half of them come back."""
    script: list[tuple[float, SourceEvent]] = []
    tracks: dict[str, Samples] = {}
    for number in range(50):
        start_s = 0.64 * number
        samples = numbered(number, [(0.5, 1.0 + number % 3 / 2)], 2.5)
        tracks[f"p{number}"] = samples
        script += [(start_s, TrackOpened(track(number)))]
        script += audio(f"mic-{number}", samples, start_s=start_s + 0.001)
        match number % 4:
            case 0:
                script += [(start_s + 2.6, TrackClosed(f"mic-{number}"))]
            case 1:
                script += [
                    (start_s + 2.6, TrackMuted(f"mic-{number}")),
                    (start_s + 3.0, TrackUnmuted(f"mic-{number}")),
                    *audio(f"mic-{number}", silence(0.5), start_s=start_s + 3.0),
                ]
            case 2:
                script += [
                    (start_s + 2.6, TrackClosed(f"mic-{number}")),
                    (start_s + 2.6, ParticipantLeft(f"p{number}")),
                    (start_s + 3.0, TrackOpened(track(number))),
                ]
    published = run(ScriptedSource(script), traits=TRAITS["two_lanes_recognize"])
    assert_all_heard_once(published, tracks)
    for final in published.finals:
        number = int(final.speaker.identity[1:])
        begin_ms = 640 * number + 500
        assert begin_ms - 100 <= final.start_ms <= final.end_ms <= begin_ms + 1_500 + 100


STOPS: dict[str, list[SourceEvent]] = {
    "closed": [TrackClosed("mic-1")],
    "muted": [TrackMuted("mic-1")],
    "left": [TrackClosed("mic-1"), ParticipantLeft("p1")],
    "silent": [],
    "opened_again": [TrackOpened(track(1))],
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("traits", TRAITS)
def test_track_that_stops_in_mid_speech_keeps_its_words_and_lets_the_others_speak(stop: str, traits: str):
    stopped, other = numbered(1, [(1, 9)], 3.008), numbered(2, [(2, 5.5)], 8)
    source = ScriptedSource(
        [
            (0, TrackOpened(track(1))),
            (0, TrackOpened(track(2))),
            *audio("mic-1", stopped, start_s=0, block_ms=32),
            *audio("mic-2", other, start_s=0, block_ms=32),
            *((3.01, event) for event in STOPS[stop]),
        ]
    )
    published = run(source, traits=TRAITS[traits])
    assert_all_heard_once(published, {"p1": stopped, "p2": other})
    assert max(delays_s(published)) < 5


def test_speech_that_no_engine_took_is_a_gap_and_counts_once():
    """Away for longer than audio is kept: half of what was said has no words, and the coverage is a half."""
    samples = numbered(1, [(1, 11), (120, 130)], 135)
    source = ScriptedSource([(0, TrackOpened(track(1))), *audio("mic-1", samples, start_s=0, block_ms=64)])
    published = run(
        source,
        at={
            0.0: lambda engine: setattr(engine, "refuses", True),
            100.0: lambda engine: setattr(engine, "refuses", False),
        },
    )
    assert set(heard(published.finals, "p1")) == {number for number in said(samples) if number > 1_000}
    assert {gap.reason for gap in published.kept.of("gap")} == {"engine"}
    assert published.report.coverage == pytest.approx(0.5, abs=0.03)


# --- One voice in two tracks


@pytest.fixture(scope="module")
def felix() -> Samples:
    return aligned(
        load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, start_s=10.0, end_s=16.5).tracks["Felix"]
    )


@pytest.fixture(scope="module")
def nora() -> Samples:
    return aligned(
        load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, start_s=0.7, end_s=7.2).tracks["Nora"]
    )


def aligned(samples: Samples) -> Samples:
    return samples[: len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES]


def copied(samples: Samples, by_db: float, by_ms: int) -> Samples:
    """As a loudspeaker and a microphone would, somewhat."""
    later = np.concatenate((np.zeros(by_ms * SAMPLES_PER_MS), samples))[: len(samples)]
    hiss = np.random.default_rng(3).normal(0, 8, len(samples))
    return np.round(later * 10 ** (-by_db / 20) + hiss).astype(np.int16)


def in_tracks(**tracks: Samples) -> ScriptedSource:
    return ScriptedSource(
        [
            *((0, TrackOpened(Track(f"mic-{name}", Speaker(name, name)))) for name in tracks),
            *(
                event
                for name, samples in tracks.items()
                for event in audio(f"mic-{name}", samples, start_s=0)
            ),
        ]
    )


def words(published: Published, who: str) -> list[str]:
    return [
        word for final in published.finals if final.speaker.identity == who for word in final.text.split()
    ]


@pytest.mark.parametrize("traits", ["one_lane", "two_lanes_recognize"])
@pytest.mark.parametrize(("by_db", "by_ms"), [(10, 50), (20, 121), (30, 250)])
def test_one_voice_in_two_tracks_is_captioned_once_under_the_stronger(
    felix: Samples, by_db: float, by_ms: int, traits: str
):
    alone = run(in_tracks(felix=felix), traits=TRAITS[traits], new_detector=VAD)
    # The weaker track comes first, as its owner may have come first.
    both = run(
        in_tracks(omar=copied(felix, by_db, by_ms), felix=felix), traits=TRAITS[traits], new_detector=VAD
    )
    assert {final.speaker.identity for final in both.finals} == {"felix"}
    assert words(both, "felix") == words(alone, "felix")
    assert_nothing_open(both)
    assert both.report.coverage >= 0.95
    assert both.report.sent_ms <= 1.1 * alone.report.sent_ms


def test_bleed_that_comes_before_its_master_is_taken_back(felix: Samples):
    """A loudspeaker's copy by a quick way, and the voice itself by a slow one."""
    late = aligned(np.concatenate((np.zeros(200 * SAMPLES_PER_MS, np.int16), felix)))
    quick = copied(np.pad(felix, (0, len(late) - len(felix))), 15, 0)
    published = run(in_tracks(omar=quick, felix=late), new_detector=VAD)
    assert {final.speaker.identity for final in published.finals} == {"felix"}
    assert_nothing_open(published)
    assert published.report.coverage >= 0.95


def test_who_answers_after_bleed_is_heard_under_their_own_name(felix: Samples, nora: Samples):
    pause = silence(0.64)
    felix_track = np.concatenate((felix, pause, np.zeros_like(nora)))
    nora_track = np.concatenate((copied(felix, 15, 100), pause, nora))
    published = run(in_tracks(felix=felix_track, nora=nora_track), new_detector=VAD)
    alone = run(in_tracks(nora=np.concatenate((np.zeros_like(felix), pause, nora))), new_detector=VAD)
    assert set(words(alone, "nora")) <= set(words(published, "nora"))
    assert min(final.start_ms for final in published.finals if final.speaker.identity == "nora") > 6_000
    assert max(final.end_ms for final in published.finals if final.speaker.identity == "felix") < 7_500


@pytest.mark.parametrize("traits", TRAITS)
def test_two_people_who_say_different_words_at_once_are_two(felix: Samples, nora: Samples, traits: str):
    published = run(in_tracks(felix=felix, nora=nora), traits=TRAITS[traits], new_detector=VAD)
    for who, samples in (("felix", felix), ("nora", nora)):
        alone = run(in_tracks(**{who: samples}), new_detector=VAD)
        assert set(words(alone, who)) <= set(words(published, who))
    assert published.report.coverage >= 0.98
