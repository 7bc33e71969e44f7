"""Keys of the console and its API: only a hash of each is stored.

A key has 256 random bits, so that one round of SHA-256 is enough: there is nothing to guess.
"""

import secrets
import uuid
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection, insert, or_, select, update

from persistence.clock import clock, database_time
from persistence.rows import API_KEY

__all__ = ["PREFIX", "ApiKey", "create", "find", "list_keys", "revoke", "used"]

PREFIX = "rsk_"  # so that a key is known for one wherever it turns up
KEY_BYTES = 32
USED_EVERY = timedelta(minutes=1)  # how exactly it is known when a key was used last


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key: not the key itself."""

    id: str
    space_id: str
    name: str
    created_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


def create(connection: Connection, space: str, name: str) -> tuple[str, ApiKey]:
    """Make a key; gives it, which nobody can find out afterwards, and what is known of it."""
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    made = ApiKey(uuid.uuid4().hex[:12], space, name, database_time(connection), None, None)
    connection.execute(
        insert(API_KEY).values(
            id=made.id, space_id=space, name=name, hash=_hash(key), created_at=made.created_at
        )
    )
    return key, made


def find(connection: Connection, key: str) -> ApiKey | None:
    """What is known of a key that somebody shows, unless it is none of ours or was revoked."""
    row = connection.execute(
        select(*(API_KEY.c[field.name] for field in fields(ApiKey))).where(
            API_KEY.c.hash == _hash(key), API_KEY.c.revoked_at.is_(None)
        )
    ).one_or_none()
    return None if row is None else ApiKey(*row)


def used(connection: Connection, key_id: str) -> None:
    """Write down that a key was used, unless that was done within the last minute."""
    before = database_time(connection) - USED_EVERY
    connection.execute(
        update(API_KEY)
        .where(API_KEY.c.id == key_id, or_(API_KEY.c.used_at.is_(None), API_KEY.c.used_at < before))
        .values(used_at=clock(connection))
    )


def list_keys(connection: Connection, space: str) -> list[ApiKey]:
    """The keys of a space, the oldest first."""
    rows = connection.execute(
        select(*(API_KEY.c[field.name] for field in fields(ApiKey)))
        .where(API_KEY.c.space_id == space)
        .order_by(API_KEY.c.created_at, API_KEY.c.id)
    )
    return [ApiKey(*row) for row in rows]


def revoke(connection: Connection, space: str, key_id: str) -> bool:
    """Make a key of a space worthless; tells whether there was one that was not."""
    return (
        connection.execute(
            update(API_KEY)
            .where(API_KEY.c.space_id == space, API_KEY.c.id == key_id, API_KEY.c.revoked_at.is_(None))
            .values(revoked_at=clock(connection))
        ).rowcount
        > 0
    )


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()
