"""The events of the data channel as JSON. Their JSON Schemas lie beside this file, in `schemas/`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, cast

from agent.captions.text import clean
from agent.values import Caption, Event, Speaker

__all__ = [
    "EVENTS_TOPIC",
    "MAX_PACKET_BYTES",
    "VERSION",
    "caption_body",
    "encode",
    "epoch_of",
    "notice_body",
    "schema",
    "state_body",
    "timestamp",
]

VERSION = 1
EVENTS_TOPIC = "roomscribe.events"
MAX_PACKET_BYTES = 15_000  # what every LiveKit client takes in one reliable packet
MAX_UNHEARD_BYTES = 12_000  # of a packet; who does not fit is only counted


def caption_body(caption: Caption) -> dict[str, Any]:
    """The body of a `caption` event."""
    return {
        "id": caption.id,
        "rev": caption.revision,
        "final": caption.is_final,
        "speaker": _speaker(caption.speaker),
        "confidence": caption.confidence,
        "overlap": caption.has_overlap,
        "waiting": caption.is_waiting,
        "text": caption.text,
        "stable": caption.stable_chars,
        "lang": caption.language,
        "start_ms": caption.start_ms,
        "end_ms": caption.end_ms,
    }


def state_body(
    *,
    agent: str,
    captions: str,
    captions_reason: str | None,
    recording: str,
    recording_reason: str | None,
    storage: str,
    unheard: Mapping[str, str],
    coverage: float,
    lag_ms: int,
    languages: Iterable[str],
) -> dict[str, Any]:
    """The body of a `state` event.

    Args:
        agent: The identity of the agent, to which commands are addressed.
        captions: `live`, `delayed`, `degraded`, `paused` or `off`; the reason is for people.
        recording: `on`, `off` or `failed`; the reason is for people.
        storage: Where what is said now is safe: `database`, `journal`, `database_only` or `nowhere`.
        unheard: By identity, why somebody's microphone cannot be heard.
        coverage: Of the speech in all turns that are over, the share that is in finals, 0 to 1.
        lag_ms: How long ago the newest recognised words were spoken.
        languages: The languages that are recognised.
    """
    return {
        "agent": agent,
        "captions": captions,
        "captions_reason": captions_reason,
        "recording": recording,
        "recording_reason": recording_reason,
        "storage": storage,
        "unheard": list(_as_many_as_fit(unheard)),
        "unheard_count": len(unheard),
        "coverage": round(coverage, 3),
        "lag_ms": lag_ms,
        "languages": list(languages),
    }


def notice_body(*, code: str, text: str) -> dict[str, Any]:
    """The body of a `notice` event: `text` is a sentence for people, `code` tells programs which."""
    return {"code": code, "text": text}


def encode(event: Event) -> bytes:
    """An event with its envelope, as UTF-8 JSON of at most `MAX_PACKET_BYTES`."""
    envelope: dict[str, Any] = {
        "v": VERSION,
        "kind": event.kind,
        "session": event.session,
        "epoch": event.epoch,
        "at": timestamp(event.at),
    }
    if event.seq is not None:
        envelope["seq"] = event.seq
    return json.dumps({**envelope, **event.body}, ensure_ascii=False, separators=(",", ":")).encode()


def epoch_of(packet: bytes) -> int:
    """The epoch that an event says to be of; 0 where it is no event."""
    try:
        event = json.loads(packet)
        epoch = event.get("epoch") if isinstance(event, dict) else None
    except (ValueError, RecursionError):
        return 0
    return epoch if isinstance(epoch, int) else 0


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of an event of this kind, envelope included."""
    text = files("agent.captions").joinpath("schemas", f"{kind}.json").read_text(encoding="utf-8")
    return cast(dict[str, Any], json.loads(text))


def _speaker(speaker: Speaker) -> dict[str, str]:
    return {"identity": speaker.identity, "name": clean(speaker.name) or clean(speaker.identity)}


def _as_many_as_fit(unheard: Mapping[str, str]) -> Iterator[dict[str, str]]:
    left = MAX_UNHEARD_BYTES
    for identity, reason in sorted(unheard.items()):
        entry = {"identity": identity, "reason": reason}
        left -= len(json.dumps(entry, ensure_ascii=False).encode()) + 1
        if left < 0:
            return
        yield entry
