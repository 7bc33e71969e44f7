"""What was kept of what viewers saw: looked for in the database and on the disks."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import av
from sqlalchemy import Connection, select

from agent.config import Settings
from agent.room.player import SAMPLE_RATE_HZ
from benchmarks.chaos.observations import Audio, Caption, hole_ms, said_twice, seq_faults
from benchmarks.chaos.room import Room
from persistence.database import Database
from persistence.tables import SCHEMA

__all__ = ["Outcome", "look_for", "pool", "until_drained"]

DRAIN_S = 60.0
POLL_S = 0.1
PLAYS_WITHIN_MS = 40  # of what the database says


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found.

    `lost` and `changed` are finals that viewers saw, `twice` texts. `behind_ms` is how long before each kill
    its audio ends, where there is any, and `holes_ms` what is missing of it in each hand-over, by kind.
    `split` names rooms that have more than one session though they were never closed. `seq_repeated` and
    `seq_falling` name finals with a number that another one has, or that is lower than the one before.
    `seq_missing` counts numbers within an epoch that neither the viewer nor the database has, `seq_skipped`
    those between two epochs, `seq_unseen` those that only the database has.
    """

    finals: int
    lost: Sequence[tuple[str, str]]
    changed: Sequence[tuple[str, str]]
    twice: Sequence[str]
    behind_ms: Sequence[int]
    unplayable: Sequence[str]
    holes_ms: Sequence[tuple[str, int]] = ()
    split: Sequence[str] = ()
    seq_repeated: Sequence[str] = ()
    seq_falling: Sequence[str] = ()
    seq_missing: int = 0
    seq_skipped: int = 0
    seq_unseen: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    finals: Sequence[Caption]
    started_at: Mapping[str, datetime]
    sessions: Mapping[str, Sequence[str]]  # by room
    audio: Sequence[tuple[str, Audio]]  # with its path
    open_stems: Sequence[str]  # segments whose end nobody has told


def look_for(settings: Settings | Sequence[Settings], rooms: Sequence[Room]) -> Outcome:
    """Look for what the viewers of these rooms got. It blocks.

    Args:
        settings: Those of each worker; they share a database.
        rooms: All are closed by now.
    """
    every = [settings] if isinstance(settings, Settings) else settings
    seen = {
        (event.final.session, event.final.id): event.final
        for room in rooms
        for event in room.watched.events
        if event.final is not None
    }
    database = Database(every[0].database_url)
    try:
        with database.read() as connection:
            kept = _read(connection, {room.name for room in rooms})
    finally:
        database.close()
    finals = {(final.session, final.id): final for final in kept.finals}
    return Outcome(
        finals=len(seen),
        lost=[key for key in seen if key not in finals],
        changed=[key for key, final in seen.items() if finals.get(key, final) != final],
        twice=[final.text for final in said_twice((finals | seen).values())],
        behind_ms=list(_behind_ms(rooms, kept)),
        unplayable=[
            *kept.open_stems,
            *(path for path, audio in kept.audio if not _plays(every, path, audio.duration_ms)),
        ],
        holes_ms=list(_holes_ms(rooms, [audio for _, audio in kept.audio])),
        split=[room.name for room in rooms if _is_split(room, kept)],
        **_seq(rooms, kept.finals),
    )


def pool(outcomes: Sequence[Outcome]) -> Outcome:
    """Several as one."""
    none = Outcome(0, (), (), (), (), ())
    values: dict[str, object] = {}
    for each in fields(Outcome):
        parts = [getattr(outcome, each.name) for outcome in outcomes]
        is_count = isinstance(getattr(none, each.name), int)
        values[each.name] = sum(parts) if is_count else [item for part in parts for item in part]
    return Outcome(**values)  # type: ignore[arg-type]


async def until_drained(settings: Settings | Sequence[Settings], limit_s: float = DRAIN_S) -> None:
    """Wait until the workers have brought over everything that was left behind, and completed its audio.

    Raises:
        TimeoutError: They have not in time.
    """
    every = [settings] if isinstance(settings, Settings) else settings
    database = Database(every[0].database_url)
    try:
        async with asyncio.timeout(limit_s):
            while _has_journals(every) or _has_open_stems(database):  # noqa: ASYNC110  polls files
                await asyncio.sleep(POLL_S)
    finally:
        database.close()


def _read(connection: Connection, rooms: set[str]) -> _Kept:
    utterance, session, stem = (SCHEMA.tables[name] for name in ("utterance", "session", "stem"))
    sessions: dict[str, list[str]] = defaultdict(list)
    started_at = {}
    for row in connection.execute(select(session).where(session.c.room.in_(rooms))):
        started_at[row.id] = row.started_at
        if row.merged_into is None:
            sessions[row.room].append(row.id)
    finals = connection.execute(select(utterance).order_by(utterance.c.session_id, utterance.c.seq))
    stems = connection.execute(select(stem)).all()
    return _Kept(
        [
            Caption(row.session_id, row.epoch, row.id, row.seq, row.text, row.start_ms, row.end_ms)
            for row in finals
            if row.session_id in started_at
        ],
        started_at,
        sessions,
        [
            (row.path, Audio(row.session_id, row.epoch, row.start_ms, row.duration_ms or 0))
            for row in stems
            if row.session_id in started_at
        ],
        [row.path for row in stems if row.session_id in started_at and row.duration_ms is None],
    )


def _behind_ms(rooms: Iterable[Room], kept: _Kept) -> Iterable[int]:
    for fault in (fault for room in rooms for fault in room.faults):
        ends_ms = [
            audio.start_ms + audio.duration_ms
            for _, audio in kept.audio
            if (audio.session, audio.epoch) == (fault.session, fault.epoch)
        ]
        if ends_ms and fault.is_kill and fault.session in kept.started_at:
            yield round((fault.at_s - kept.started_at[fault.session].timestamp()) * 1000) - max(ends_ms)


def _holes_ms(rooms: Iterable[Room], audio: Sequence[Audio]) -> Iterable[tuple[str, int]]:
    for each in (handover for room in rooms for handover in room.handovers):
        if (hole := hole_ms(audio, each.session, each.epoch, each.next_epoch)) is not None:
            yield each.kind, hole


def _is_split(room: Room, kept: _Kept) -> bool:
    seen = {event.session for event in room.watched.events}
    return len(seen | set(kept.sessions.get(room.name, ()))) > 1


def _seq(rooms: Iterable[Room], kept: Sequence[Caption]) -> dict[str, Any]:
    seen = [event.final for room in rooms for event in room.watched.events if event.final is not None]
    known = {(final.session, final.id): final for final in (*kept, *seen)}
    in_order = sorted(known.values(), key=lambda final: (final.epoch, final.seq))
    of_viewers, of_all = seq_faults(seen), seq_faults(in_order)
    return {
        # By viewers' too: one that came to them again under its own number counts as well.
        "seq_repeated": sorted({*_names(of_all.repeated), *_names(of_viewers.repeated)}),
        "seq_falling": _names(of_viewers.falling),
        "seq_missing": of_all.missing,
        "seq_skipped": of_all.skipped,
        "seq_unseen": max(of_viewers.missing + of_viewers.skipped - of_all.missing - of_all.skipped, 0),
    }


def _names(finals: Iterable[Caption]) -> list[str]:
    return [f"{final.session} {final.id} as {final.seq}" for final in finals]


def _plays(settings: Iterable[Settings], path: str, duration_ms: int) -> bool:
    """Whether a segment of audio can be decoded to its end, as long as the database says it is."""
    if not duration_ms:
        return True
    found = [folder / path for folder in _stems_dirs(settings) if (folder / path).is_file()]
    if not found:
        return False
    with av.open(found[0]) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    return abs(samples * 1000 / SAMPLE_RATE_HZ - duration_ms) <= PLAYS_WITHIN_MS


def _stems_dirs(settings: Iterable[Settings]) -> list[Path]:
    return [each.stems_dir for each in settings]


def _has_journals(settings: Iterable[Settings]) -> bool:
    return any(each.journal_dir.is_dir() and any(each.journal_dir.iterdir()) for each in settings)


def _has_open_stems(database: Database) -> bool:
    stem = SCHEMA.tables["stem"]
    with database.read() as connection:
        return connection.execute(select(stem.c.path).where(stem.c.duration_ms.is_(None))).first() is not None
