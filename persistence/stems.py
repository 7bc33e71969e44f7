"""Segments of audio whose end was never told, because their job died."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from persistence.rows import EPOCH, STEM

__all__ = ["OpenStem", "close_stem", "open_stems"]


@dataclass(frozen=True, slots=True)
class OpenStem:
    """A segment without an end. `path` is relative to the folder of all stems."""

    session_id: str
    epoch: int
    track: str
    number: int
    path: str


def open_stems(
    connection: Connection, worker: str, live: Collection[tuple[str, int]], *, limit: int
) -> list[OpenStem]:
    """The open segments on a worker's disk that nobody writes any more.

    Args:
        worker: Whose disk.
        live: The journals that are being written, by the session and epoch that they are published as.
        limit: At most so many.
    """
    of_stem = [STEM.c[name] for name in OpenStem.__slots__]
    query = (
        select(*of_stem, EPOCH.c.published_as, EPOCH.c.published_epoch)
        .join_from(STEM, EPOCH, (EPOCH.c.session_id == STEM.c.session_id) & (EPOCH.c.epoch == STEM.c.epoch))
        .where(STEM.c.worker == worker, STEM.c.duration_ms.is_(None))
        .order_by(STEM.c.session_id, STEM.c.epoch, STEM.c.track, STEM.c.number)
    )
    dead = (
        OpenStem(row.session_id, row.epoch, row.track, row.number, row.path)
        for row in connection.execute(query)
        if (row.published_as, row.published_epoch) not in live
    )
    return [stem for stem, _ in zip(dead, range(limit), strict=False)]


def close_stem(
    connection: Connection, stem: OpenStem, *, duration_ms: int, size_bytes: int, ended_by: str
) -> None:
    """Complete a segment with what was found of it on the disk, unless somebody has done so."""
    connection.execute(
        update(STEM)
        .where(
            STEM.c.session_id == stem.session_id,
            STEM.c.epoch == stem.epoch,
            STEM.c.track == stem.track,
            STEM.c.number == stem.number,
            STEM.c.duration_ms.is_(None),
        )
        .values(duration_ms=duration_ms, size_bytes=size_bytes, ended_by=ended_by)
    )
