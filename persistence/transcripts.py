"""What was said in a session, in the order in which it was said."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, cast, func, select, tuple_

from agent.values import Speaker
from persistence.paging import Page
from persistence.records import Final, Gap
from persistence.rows import GAP, UTTERANCE, columns, records

__all__ = ["FinalCursor", "finals", "gaps", "iter_finals", "newest", "revisions", "speakers", "unseen"]

PAGE_FINALS = 500


class FinalCursor(NamedTuple):
    """A place in a transcript. A caption's id, `{epoch}-{number}`, does not sort as text."""

    start_ms: int
    epoch: int
    number: int


def finals(
    connection: Connection,
    space: str,
    session_id: str,
    *,
    after: FinalCursor | None = None,
    limit: int = PAGE_FINALS,
) -> Page[Final, FinalCursor]:
    """The final captions of a session, by their time.

    Args:
        session_id: Not one that was merged: `catalogue.resolve` tells what that became.
        after: Where the page before ended.
    """
    place = tuple(UTTERANCE.c[name] for name in FinalCursor._fields)
    query = (
        select(*columns(UTTERANCE, Final), *place)
        .where(UTTERANCE.c.space_id == space, UTTERANCE.c.session_id == session_id)
        .order_by(*place)
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(*after))
    rows = connection.execute(query).all()
    items = tuple(Final.model_validate(dict(row._mapping)) for row in rows[:limit])
    last = FinalCursor(*(rows[limit - 1]._mapping[column] for column in place)) if len(rows) > limit else None
    return Page(items, last)


def iter_finals(connection: Connection, space: str, session_id: str) -> Iterator[Final]:
    """All final captions of a session, by their time, of which no more than a page is in memory."""
    page = finals(connection, space, session_id)
    yield from page.items
    while page.next is not None:
        page = finals(connection, space, session_id, after=page.next)
        yield from page.items


def newest(connection: Connection, space: str, session_id: str, *, limit: int) -> tuple[Final, ...]:
    """The final captions of a session that began last, at most so many, by their time."""
    query = (
        select(*columns(UTTERANCE, Final))
        .where(UTTERANCE.c.space_id == space, UTTERANCE.c.session_id == session_id)
        .order_by(*(UTTERANCE.c[name].desc() for name in FinalCursor._fields))
        .limit(limit)
    )
    return records(connection, Final, query)[::-1]


def speakers(connection: Connection, space: str, session_id: str) -> tuple[Speaker, ...]:
    """Everybody who has a final caption in a session, who spoke first before the others.

    Who changed their name goes by the last one.
    """
    its = (UTTERANCE.c.space_id == space, UTTERANCE.c.session_id == session_id)
    start_ms = UTTERANCE.c.start_ms
    query = (
        select(UTTERANCE.c.identity, UTTERANCE.c.name, func.min(start_ms), func.max(start_ms))
        .where(*its)
        .group_by(UTTERANCE.c.identity, UTTERANCE.c.name)
    )
    rows = [tuple(row) for row in connection.execute(query)]
    names = {identity: name for identity, name, _, _ in sorted(rows, key=lambda row: row[3])}
    in_order = dict.fromkeys(identity for identity, _, _, _ in sorted(rows, key=lambda row: (row[2], row[0])))
    return tuple(Speaker(identity, names[identity]) for identity in in_order)


def revisions(connection: Connection, space: str, session_id: str) -> dict[str, int]:
    """The revision of each final caption of a session, by its id."""
    query = select(UTTERANCE.c.id, UTTERANCE.c.revision).where(
        UTTERANCE.c.space_id == space, UTTERANCE.c.session_id == session_id
    )
    return {row.id: row.revision for row in connection.execute(query)}


def unseen(
    connection: Connection, space: str, session_id: str, seen: Mapping[str, int], *, limit: int = PAGE_FINALS
) -> tuple[Final, ...]:
    """The final captions of a session that somebody does not have yet, by their time.

    They need not lie behind those that they have: who spoke at the same time as others comes later, and so
    does what was left behind by an agent that died.

    Args:
        seen: The revision of each one that they have, by its id.
        limit: At most so many.
    """
    its = (UTTERANCE.c.space_id == space, UTTERANCE.c.session_id == session_id)
    # Nothing is ever removed and revisions only rise, so that these two figures tell of any change.
    total = cast(func.coalesce(func.sum(UTTERANCE.c.revision), 0), BigInteger)
    if tuple(connection.execute(select(func.count(), total).where(*its)).one()) == (
        len(seen),
        sum(seen.values()),
    ):
        return ()
    place = tuple(UTTERANCE.c[name] for name in FinalCursor._fields)
    there = connection.execute(select(UTTERANCE.c.id, UTTERANCE.c.revision).where(*its).order_by(*place))
    wanted = [id_ for id_, revision in there if revision > seen.get(id_, 0)][:limit]
    found = select(*columns(UTTERANCE, Final)).where(*its, UTTERANCE.c.id.in_(wanted)).order_by(*place)
    return records(connection, Final, found)


def gaps(connection: Connection, space: str, session_id: str) -> tuple[Gap, ...]:
    """What was not heard in a session, or not turned into text, by its time."""
    return records(
        connection,
        Gap,
        select(*columns(GAP, Gap))
        .where(GAP.c.space_id == space, GAP.c.session_id == session_id)
        .order_by(GAP.c.start_ms, GAP.c.identity, GAP.c.reason, GAP.c.epoch),
    )
