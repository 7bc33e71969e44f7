import json
import wave
from pathlib import Path

import numpy as np
import pytest

from agent.errors import InputError
from agent.ingest.meeting import Segment, load_meeting

RATE_HZ = 8_000
INCIDENT_REVIEW = Path(__file__).parents[2] / "data" / "meetings" / "incident_review"


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())


def ramp(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE_HZ), dtype=np.int16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ada for 2 s and Bo for 1 s; truth.json knows of one segment each."""
    write_wav(tmp_path / "Ada.wav", ramp(2))
    write_wav(tmp_path / "Bo.wav", -ramp(1))
    segments = [
        {"speaker": "Ada", "text": "Hello.", "start": 0.2, "end": 0.8},
        {"speaker": "Bo", "text": "Hello Ada.", "start": 0.7, "end": 1.0},
    ]
    (tmp_path / "truth.json").write_text(json.dumps({"segments": segments, "duration": 2.5}))
    return tmp_path


def test_tracks_are_named_after_the_files_and_of_one_length(folder: Path) -> None:
    meeting = load_meeting(folder, sample_rate_hz=RATE_HZ)

    assert meeting.name == folder.name
    assert list(meeting.tracks) == ["Ada", "Bo"]
    assert meeting.duration_s == 2.5
    assert {len(samples) for samples in meeting.tracks.values()} == {round(2.5 * RATE_HZ)}
    np.testing.assert_array_equal(meeting.tracks["Ada"][: 2 * RATE_HZ], ramp(2))
    assert not meeting.tracks["Bo"][RATE_HZ:].any()


def test_a_cut_keeps_exactly_its_samples_and_shifts_the_segments(folder: Path) -> None:
    meeting = load_meeting(folder, sample_rate_hz=RATE_HZ, start_s=0.75, end_s=1.5)

    np.testing.assert_array_equal(meeting.tracks["Ada"], ramp(2)[6_000:12_000])
    np.testing.assert_array_equal(meeting.tracks["Bo"], np.pad(-ramp(1)[6_000:], (0, 4_000)))
    assert meeting.duration_s == 0.75
    assert meeting.segments == (
        Segment("Ada", "Hello.", pytest.approx(-0.55), pytest.approx(0.05)),
        Segment("Bo", "Hello Ada.", pytest.approx(-0.05), pytest.approx(0.25)),
    )


def test_a_cut_may_end_after_the_meeting(folder: Path) -> None:
    assert load_meeting(folder, sample_rate_hz=RATE_HZ, start_s=2.0, end_s=60.0).duration_s == 0.5


def test_an_opus_track_is_resampled_to_the_rate_asked_for() -> None:
    meeting = load_meeting(INCIDENT_REVIEW, sample_rate_hz=16_000, start_s=1.0, end_s=3.0)

    assert sorted(meeting.tracks) == ["Felix", "Greta", "Ines", "Nora", "Omar"]
    assert {samples.dtype for samples in meeting.tracks.values()} == {np.dtype(np.int16)}
    assert {len(samples) for samples in meeting.tracks.values()} == {32_000}
    loudest = max(meeting.tracks, key=lambda name: np.abs(meeting.tracks[name].astype(int)).sum())
    assert loudest == "Nora"


def test_a_meeting_without_truth_has_no_segments(folder: Path) -> None:
    (folder / "truth.json").unlink()

    meeting = load_meeting(folder, sample_rate_hz=RATE_HZ)

    assert meeting.segments == ()
    assert meeting.duration_s == 2.0


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("{", r"truth\.json is wrong: Invalid JSON"),
        (
            '{"segments": [{"speaker": "Ada", "start": 0, "end": 1}]}',
            r"is wrong at segments\.0\.text: Field required",
        ),
        ('{"duration": "long"}', "is wrong at duration: Input should be a valid number"),
    ],
)
def test_a_bad_truth_names_the_place(folder: Path, truth: str, message: str) -> None:
    (folder / "truth.json").write_text(truth)

    with pytest.raises(InputError, match=message):
        load_meeting(folder)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        load_meeting(tmp_path / "nowhere")


def test_a_folder_without_tracks_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(InputError, match=r"has no tracks; they are files that end in \.ogg, \.opus, \.wav"):
        load_meeting(tmp_path)


def test_an_unreadable_track_is_named(folder: Path) -> None:
    (folder / "Cy.ogg").write_bytes(b"not audio")

    with pytest.raises(InputError, match=r"Cy\.ogg cannot be read"):
        load_meeting(folder)


def test_two_tracks_of_one_participant_are_refused(folder: Path) -> None:
    (folder / "Ada.ogg").touch()

    with pytest.raises(InputError, match="two tracks of Ada"):
        load_meeting(folder)


def test_a_start_beyond_the_end_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="over before 3 s"):
        load_meeting(folder, start_s=3)


@pytest.mark.parametrize(
    ("start_s", "end_s", "message"),
    [(-1, None, "it must begin at 0 or later"), (2, 1, "is empty"), (1, 1, "is empty")],
)
def test_a_cut_that_cannot_be_is_refused(
    folder: Path, start_s: float, end_s: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_meeting(folder, start_s=start_s, end_s=end_s)
