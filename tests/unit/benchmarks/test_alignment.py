import json
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.errors import InputError
from agent.ingest.meeting import Meeting, Segment
from benchmarks import alignment
from benchmarks.alignment import RecognisedWord, Word, align_meeting, place_words, spoken_segments, within

SEGMENT = Segment("Ines", "I will lower it to two percent.", 10.0, 13.0)


def times(words: list[Word]) -> list[tuple[str, float, float, bool]]:
    return [(word.text, round(word.start_s, 3), round(word.end_s, 3), word.matched) for word in words]


def test_recognised_words_keep_their_times() -> None:
    recognised = [
        RecognisedWord(" I", 10.1, 10.2),
        RecognisedWord(" will", 10.2, 10.5),
        RecognisedWord(" lower", 10.5, 11.0),
        RecognisedWord(" it", 11.0, 11.2),
        RecognisedWord(" to", 11.2, 11.4),
        RecognisedWord(" two", 11.5, 11.8),
        RecognisedWord(" percent.", 12.0, 12.9),
    ]

    words = place_words(SEGMENT, 3, recognised)

    assert times(words) == [
        ("i", 10.1, 10.2, True),
        ("will", 10.2, 10.5, True),
        ("lower", 10.5, 11.0, True),
        ("it", 11.0, 11.2, True),
        ("to", 11.2, 11.4, True),
        ("two", 11.5, 11.8, True),
        ("percent", 12.0, 12.9, True),
    ]
    assert {(word.speaker, word.segment) for word in words} == {("Ines", 3)}


def test_a_number_in_digits_shares_its_time_among_its_words() -> None:
    words = place_words(Segment("Ines", "two percent", 0.0, 2.0), 0, [RecognisedWord(" 2%.", 0.5, 1.5)])

    assert times(words) == [("two", 0.5, 0.8, True), ("percent", 0.8, 1.5, True)]


def test_a_misrecognised_word_is_placed_between_its_neighbours_and_flagged() -> None:
    recognised = [
        RecognisedWord(" I'll", 10.0, 10.5),
        RecognisedWord(" lure", 10.5, 11.0),
        RecognisedWord(" to", 11.8, 12.0),
        RecognisedWord(" two", 12.0, 12.3),
    ]

    words = place_words(SEGMENT, 0, recognised)

    assert times(words)[2:4] == [("lower", 10.5, 11.429, False), ("it", 11.429, 11.8, False)]
    assert times(words)[-1] == ("percent", 12.3, 13.0, False)


def test_a_segment_of_which_nothing_was_recognised_is_shared_out_by_length() -> None:
    words = place_words(Segment("Omar", "All right.", 2.0, 4.0), 0, [])

    assert times(words) == [("all", 2.0, 2.75, False), ("right", 2.75, 4.0, False)]


def test_word_times_stay_inside_the_segment_and_in_order() -> None:
    recognised = [RecognisedWord(" all", 1.0, 3.0), RecognisedWord(" right", 2.5, 9.0)]

    words = place_words(Segment("Omar", "All right.", 2.0, 4.0), 0, recognised)

    assert times(words) == [("all", 2.0, 3.0, True), ("right", 3.0, 4.0, True)]


def test_a_cut_keeps_whole_words_in_its_own_time() -> None:
    words = [
        Word("a", 0.0, 1.0, "Omar", 0, True),
        Word("b", 1.0, 2.0, "Omar", 0, True),
        Word("c", 2.0, 3.0, "Ines", 1, True),
    ]

    cut = within(words, 0.5, 3.0)

    assert cut == [Word("b", 0.5, 1.5, "Omar", 0, True), Word("c", 1.5, 2.5, "Ines", 1, True)]
    assert spoken_segments(cut) == [Segment("Omar", "b", 0.5, 1.5), Segment("Ines", "c", 1.5, 2.5)]


@pytest.fixture
def recognised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indexes of the segments that a recogniser was asked for, which hears nothing."""
    asked: list[int] = []

    def recognise(meeting: Meeting, indexes: Sequence[int]) -> Iterator[tuple[int, list[Word]]]:
        for index in indexes:
            asked.append(index)
            yield index, place_words(meeting.segments[index], index, [])

    monkeypatch.setattr(alignment, "_recognise", recognise)
    return asked


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A meeting of one second with two segments."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "meeting"
    folder.mkdir()
    segments = [
        {"speaker": "Omar", "text": "Right.", "start": 0.0, "end": 0.4},
        {"speaker": "Omar", "text": "Good.", "start": 0.6, "end": 1.0},
    ]
    (folder / "truth.json").write_text(json.dumps({"segments": segments, "duration": 1.0}))
    with wave.open(str(folder / "Omar.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16_000))
    return folder


def test_a_segment_is_recognised_once(folder: Path, recognised: list[int]) -> None:
    first = align_meeting(folder)

    assert [word.text for word in first] == ["right", "good"]
    assert align_meeting(folder) == first
    assert recognised == [0, 1]


def test_only_what_a_cut_touches_is_recognised(folder: Path, recognised: list[int]) -> None:
    progress: list[tuple[int, int]] = []

    cut = align_meeting(folder, 0.5, 1.0, on_progress=lambda done, total: progress.append((done, total)))
    whole = align_meeting(folder)

    assert [word.text for word in cut] == ["good"]
    assert [word.text for word in whole] == ["right", "good"]
    assert recognised == [1, 0]
    assert progress == [(1, 1)]


def test_a_changed_meeting_is_recognised_again(folder: Path, recognised: list[int]) -> None:
    align_meeting(folder)
    truth = folder / "truth.json"
    truth.write_text(truth.read_text().replace("Good", "Fine"))

    assert [word.text for word in align_meeting(folder)] == ["right", "fine"]
    assert recognised == [0, 1, 0, 1]


def test_a_speaker_without_a_track_is_named(folder: Path, recognised: list[int]) -> None:
    truth = folder / "truth.json"
    truth.write_text(truth.read_text().replace("Omar", "Nora"))

    with pytest.raises(InputError, match="has no track of Nora"):
        align_meeting(folder)


def test_a_damaged_cache_is_made_again(folder: Path, recognised: list[int], tmp_path: Path) -> None:
    whole = align_meeting(folder)
    [cache] = (tmp_path / "cache").rglob("*.json")
    cache.write_text(cache.read_text()[:-5])

    assert align_meeting(folder) == whole
    assert recognised == [0, 1, 0, 1]
