"""A transcript as plain text, SubRip, WebVTT or JSON, a piece at a time. The JSON Schema lies in `schemas/`.

None of them shows control characters or direction overrides, and a text is in one line everywhere. Who shares
a name with somebody else in the session is told apart by the identity: `Ada (ada-2)`. JSON has both anyway.

Sources: W3C WebVTT; SubRip has none, so it is kept to what every player reads.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import merge
from itertools import count
from types import MappingProxyType
from typing import Any

from agent.captions.protocol import timestamp
from agent.captions.text import clean
from agent.values import Speaker

__all__ = [
    "FORMATS",
    "VERSION",
    "Cue",
    "Stay",
    "Transcript",
    "Unheard",
    "clock",
    "json_text",
    "srt",
    "told_apart",
    "txt",
    "vtt",
]

VERSION = 1  # of the JSON
MIN_CUE_MS = 500  # of a cue that ends before it begins: players do not show it else
NAMELESS = "?"

# What JSON would let through to a terminal: controls, half surrogates, line separators, direction overrides.
INVISIBLE = re.compile("[\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]")
ARROW = re.compile(r"--+>")
ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class Cue:
    """A final caption. `id` is the caption's, `{epoch}-{number}`."""

    id: str
    revision: int
    speaker: Speaker
    text: str
    language: str
    confidence: float
    has_overlap: bool
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Unheard:
    """A gap: what was not heard, or not turned into text; of everybody where `identity` is empty."""

    start_ms: int
    end_ms: int
    identity: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stay:
    """Somebody was in the room under this name; `left_ms` is None where they are still, or nobody knows."""

    speaker: Speaker
    joined_ms: int
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session and what was said in it.

    `speakers` are all who are in `stays` or in `cues`. The latter are read once, in the order of their
    beginnings, as are the `gaps`.
    """

    session: str
    room: str
    languages: Sequence[str]
    started_at: datetime
    ended_at: datetime | None
    ended_by: str
    stays: Sequence[Stay]
    gaps: Sequence[Unheard]
    speakers: Collection[Speaker]
    cues: Iterable[Cue]


def txt(transcript: Transcript) -> Iterator[str]:
    """A line for each final, `[00:01:02] Ada: Hello`, and one for each gap."""
    names = told_apart(transcript.speakers)
    for item in _in_order(transcript):
        said = (
            f"{names[item.speaker]}: {item.text}" if isinstance(item, Cue) else f"({_not_heard(item, names)})"
        )
        yield f"[{clock(item.start_ms)}] {said}\n"


def srt(transcript: Transcript) -> Iterator[str]:
    """SubRip, which has no escapes: the arrow that marks its times is shortened in what was said."""
    names = told_apart(transcript.speakers)
    for number, cue in enumerate(_spoken(transcript), 1):
        line = ARROW.sub("->", f"{names[cue.speaker]}: {cue.text}")
        times = f"{_time(cue.start_ms, ',')} --> {_time(_shown_until_ms(cue), ',')}"
        yield f"{number}\n{times}\n{line}\n\n"


def vtt(transcript: Transcript) -> Iterator[str]:
    """WebVTT, a voice for each speaker; a gap is a comment."""
    names = told_apart(transcript.speakers)
    yield "WEBVTT\n"
    for item in _in_order(transcript):
        if isinstance(item, Cue):
            times = f"{_time(item.start_ms, '.')} --> {_time(_shown_until_ms(item), '.')}"
            said = f"<v {names[item.speaker].translate(ESCAPES)}>{item.text.translate(ESCAPES)}"
            yield f"\n{item.id}\n{times}\n{said}\n"
        else:
            comment = _not_heard(item, names).translate(ESCAPES)
            yield f"\nNOTE {_time(item.start_ms, '.')} {comment}\n"


def json_text(transcript: Transcript) -> Iterator[str]:
    """JSON, an item a line. A final has the keys of a `caption` event."""
    session = {
        "id": transcript.session,
        "room": clean(transcript.room),
        "languages": list(transcript.languages),
        "started_at": timestamp(transcript.started_at),
        "ended_at": timestamp(transcript.ended_at) if transcript.ended_at is not None else None,
        "ended_by": clean(transcript.ended_by) or None,
    }
    yield f'{{"v":{VERSION},\n"session":{_dump(session)}'
    for key, items in (
        ("participants", map(_participant, transcript.stays)),
        ("finals", map(_final, _spoken(transcript))),
        ("gaps", map(_gap, transcript.gaps)),
    ):
        yield f',\n"{key}":['
        for number, item in enumerate(items):
            yield f"{',' if number else ''}\n{_dump(item)}"
        yield "]"
    yield "}\n"


FORMATS: Mapping[str, Callable[[Transcript], Iterator[str]]] = MappingProxyType(
    {"txt": txt, "srt": srt, "vtt": vtt, "json": json_text}
)


def told_apart(speakers: Iterable[Speaker]) -> dict[Speaker, str]:
    """What everybody is called, so that no two identities are called the same.

    Who has a name alone is called by it; who shares it has the identity behind it.
    """
    shown = {speaker: clean(speaker.name) or clean(speaker.identity) or NAMELESS for speaker in speakers}
    holders: dict[str, set[str]] = {}
    for speaker, name in shown.items():
        holders.setdefault(name, set()).add(speaker.identity)
    names: dict[Speaker, str] = {}
    taken: dict[str, str] = {}

    # In an order of their own, so that the same people are always called the same.
    for speaker in sorted(shown, key=lambda speaker: (speaker.identity, speaker.name)):
        name, identity = shown[speaker], speaker.identity
        candidates = _candidates(name, clean(identity) or NAMELESS, is_shared=len(holders[name]) > 1)
        # Somebody may have chosen the very name that tells two others apart.
        names[speaker] = next(one for one in candidates if taken.setdefault(one, identity) == identity)
    return names


def clock(at_ms: int) -> str:
    """A session time as `HH:MM:SS`."""
    minutes, seconds = divmod(at_ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"


def _candidates(name: str, identity: str, *, is_shared: bool) -> Iterator[str]:
    if not is_shared:
        yield name
    yield f"{name} ({identity})"
    # Identities that differ only in what is not shown.
    for number in count(2):
        yield f"{name} ({identity}, {number})"


def _spoken(transcript: Transcript) -> Iterator[Cue]:
    """The cues that have something to show."""
    for cue in transcript.cues:
        if text := clean(cue.text):
            yield replace(cue, text=text)


def _in_order(transcript: Transcript) -> Iterator[Cue | Unheard]:
    return merge(transcript.gaps, _spoken(transcript), key=lambda item: item.start_ms)


def _not_heard(gap: Unheard, names: Mapping[Speaker, str]) -> str:
    known = {speaker.identity: name for speaker, name in names.items()}
    who = f"{known.get(gap.identity) or clean(gap.identity) or NAMELESS} " if gap.identity else ""
    length_ms = max(gap.end_ms - gap.start_ms, 0)
    length = f"{round(length_ms / 1000)} s" if length_ms >= 1000 else f"{length_ms} ms"
    return f"{who}not heard for {length}: {clean(gap.reason)}"


def _shown_until_ms(cue: Cue) -> int:
    return cue.end_ms if cue.end_ms > cue.start_ms else cue.start_ms + MIN_CUE_MS


def _time(at_ms: int, separator: str) -> str:
    return f"{clock(at_ms)}{separator}{at_ms % 1000:03}"


def _participant(stay: Stay) -> dict[str, Any]:
    return {**_speaker(stay.speaker), "joined_ms": stay.joined_ms, "left_ms": stay.left_ms}


def _final(cue: Cue) -> dict[str, Any]:
    return {
        "id": cue.id,
        "rev": cue.revision,
        "speaker": _speaker(cue.speaker),
        "text": cue.text,
        "lang": cue.language,
        "confidence": cue.confidence,
        "overlap": cue.has_overlap,
        "start_ms": cue.start_ms,
        "end_ms": cue.end_ms,
    }


def _gap(gap: Unheard) -> dict[str, Any]:
    return {
        "start_ms": gap.start_ms,
        "end_ms": gap.end_ms,
        "identity": gap.identity or None,
        "reason": clean(gap.reason),
    }


def _speaker(speaker: Speaker) -> dict[str, str]:
    return {"identity": speaker.identity, "name": clean(speaker.name) or clean(speaker.identity)}


def _dump(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
