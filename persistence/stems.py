"""Segments of audio whose end was never told, because their job died."""

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from persistence.rows import EPOCH, STEM

__all__ = ["OpenStem", "close_stem", "open_stems"]


@dataclass(frozen=True, slots=True)
class OpenStem:
    """A segment without an end. `path` is relative to the folder of all stems."""

    space_id: str
    session_id: str
    epoch: int
    track: str
    number: int
    path: str


def open_stems(connection: Connection, worker: str, *, limit: int) -> list[OpenStem]:
    """The open segments on a worker's disk, of all spaces, whose agents are known to be gone.

    Args:
        worker: Whose disk.
        limit: At most so many.
    """
    query = (
        select(*(STEM.c[name] for name in OpenStem.__slots__))
        .join_from(STEM, EPOCH, (EPOCH.c.session_id == STEM.c.session_id) & (EPOCH.c.epoch == STEM.c.epoch))
        .where(STEM.c.worker == worker, STEM.c.duration_ms.is_(None), EPOCH.c.settled_at.is_not(None))
        .order_by(STEM.c.session_id, STEM.c.epoch, STEM.c.track, STEM.c.number)
        .limit(limit)
    )
    return [OpenStem(*row) for row in connection.execute(query)]


def close_stem(
    connection: Connection, stem: OpenStem, *, duration_ms: int, size_bytes: int, ended_by: str
) -> None:
    """Complete a segment with what was found of it on the disk, unless somebody has done so."""
    connection.execute(
        update(STEM)
        .where(
            STEM.c.space_id == stem.space_id,
            STEM.c.session_id == stem.session_id,
            STEM.c.epoch == stem.epoch,
            STEM.c.track == stem.track,
            STEM.c.number == stem.number,
            STEM.c.duration_ms.is_(None),
        )
        .values(duration_ms=duration_ms, size_bytes=size_bytes, ended_by=ended_by)
    )
