"""Whole sessions on real speech and the real engine, faster than real time."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from livekit.agents import stt
from livekit.local_inference import VAD

from agent.config import load_settings
from agent.ingest.meeting import Meeting, load_meeting
from agent.ingest.recorded import RecordedSource
from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt import load_engine
from plugins.stt.traits import TRAITS
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.virtual_session import Published, run_session


def new_engine() -> stt.STT[Any]:
    settings = load_settings()
    engine = load_engine("whisper", settings.stt)
    engine.prewarm()
    return engine


def run_whisper(tracks: Mapping[str, Samples]) -> Published:
    """A session with the engine that is the default, as what it is."""
    return run_session(RecordedSource(tracks), new_engine, traits=TRAITS["whisper"], new_detector=VAD)


def meeting(start_s: float, end_s: float) -> Meeting:
    return load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ, start_s=start_s, end_s=end_s)


@pytest.fixture(scope="module")
def published() -> Published:
    """Ines, Nora and Greta follow each other within less than half a second, from 54 to 64 s."""
    return run_whisper(meeting(54, 65).tracks)


def test_same_recording_gives_the_same_events_at_the_same_times(published):
    again = run_whisper(meeting(54, 65).tracks)
    assert again.comparable() == published.comparable()


def test_speakers_who_leave_no_pause_between_them_are_told_apart(published):
    said = {c.speaker.name: c.text.lower() for c in published.finals}
    assert "fine with me" in said["Ines"]
    assert any("agree" in c.text for c in published.finals if c.speaker.name == "Nora")
    assert any("customers" in c.text for c in published.finals if c.speaker.name == "Greta")


def test_partials_are_shown_before_their_final_and_no_faster_than_four_a_second(published):
    first_shown = {}
    for caption in published.captions:
        first_shown.setdefault(caption.id, caption.is_final)
    shown_first_as_partials = [id_ for id_, is_final in first_shown.items() if not is_final]
    assert len(shown_first_as_partials) >= len(published.finals) / 2
    times = [at for at, event in published.events if event.caption and not event.caption.is_final]
    assert all(later - earlier > 0.249 for earlier, later in itertools.pairwise(times))


def test_caption_never_goes_back_and_its_final_is_its_last_word(published):
    revisions: dict[str, int] = {}
    finished: set[str] = set()
    for caption in published.captions:
        assert caption.id not in finished
        assert caption.revision > revisions.get(caption.id, 0)
        revisions[caption.id] = caption.revision
        if caption.is_final:
            finished.add(caption.id)


def tones(seconds: float) -> np.ndarray:
    """Something like music: chords that change twice a second."""
    t = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    step = (t * 2).astype(int) % 4
    root = np.array([220.0, 196.0, 261.6, 174.6])[step]
    chord = sum(np.sin(2 * np.pi * root * ratio * t) for ratio in (1.0, 1.25, 1.5, 2.0))
    return (chord * 3_000).astype(np.int16)


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(lambda s: tones(s), id="music"),
        pytest.param(
            lambda s: np.random.default_rng(1).normal(0, 1_500, round(s * SAMPLE_RATE_HZ)).astype(np.int16),
            id="noise",
        ),
        pytest.param(lambda s: np.zeros(round(s * SAMPLE_RATE_HZ), np.int16), id="silence"),
    ],
)
def test_sound_without_speech_gives_nobody_a_word(sound: Callable[[float], np.ndarray]):
    published = run_whisper({"Radio": sound(8)})
    assert [caption.text for caption in published.finals] == []


def test_music_of_one_does_not_take_the_words_of_another():
    tracks = meeting(0.5, 8).tracks
    length = len(tracks["Nora"])
    radio = tones(length / SAMPLE_RATE_HZ)[:length] // 8
    published = run_whisper({"Nora": tracks["Nora"], "Radio": radio})
    assert published.finals
    assert {caption.speaker.name for caption in published.finals} == {"Nora"}
