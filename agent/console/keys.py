"""Who may read: a key as a bearer token, or in the cookie that signing in sets."""

import asyncio
import threading
import time
from collections import OrderedDict
from hashlib import sha256
from typing import cast
from urllib.parse import urlsplit

import structlog
from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from agent.errors import DatabaseError
from persistence import api_keys
from persistence.api_keys import ApiKey
from persistence.database import Database

__all__ = ["COOKIE", "FRESH_S", "Keys", "check_origin", "find_key", "require_key", "shown_key"]

COOKIE = "roomscribe_key"
MAX_KEY_CHARACTERS = 200  # ours have 47
FRESH_S = 5.0  # a key that was revoked is good for no longer
MAX_CACHED = 1_000
USED_EVERY_S = 60.0  # how exactly it is known when a key was used last
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}  # these change nothing
UNKNOWN = "No valid key: send `Authorization: Bearer rsk_…`; `roomscribe keys create` makes one."
CROSS_ORIGIN = "The request comes from another site, which may change nothing here."

log = structlog.get_logger(__name__)


class Keys:
    """Looks keys up, and remembers for a moment what it found; may be used in several threads.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        # By the hash of a key, what is known of it, and until when that is fresh.
        self._found: OrderedDict[bytes, tuple[ApiKey, float]] = OrderedDict()
        self._used_at_s: OrderedDict[str, float] = OrderedDict()

    def fresh(self, key: str) -> ApiKey | None:
        """What was found of a key within the last seconds. It does not block."""
        with self._lock:
            found, until_s = self._found.get(_hash(key), (None, 0.0))
        return found if time.monotonic() < until_s else None

    def find(self, key: str) -> ApiKey | None:
        """What is known of a key; None if it is none of ours, or was revoked. It blocks.

        Raises:
            DatabaseAwayError: The database is away.
        """
        if not (key.startswith(api_keys.PREFIX) and len(key) <= MAX_KEY_CHARACTERS):
            return None
        if (fresh := self.fresh(key)) is not None:
            return fresh
        with self._database.read() as connection:
            found = api_keys.find(connection, key)
        with self._lock:
            self._found.pop(_hash(key), None)
            if found is not None:
                self._found[_hash(key)] = (found, time.monotonic() + FRESH_S)
                while len(self._found) > MAX_CACHED:
                    self._found.popitem(last=False)
        return found

    async def known(self, key: str) -> ApiKey | None:
        """The same without blocking."""
        return self.fresh(key) or await run_in_threadpool(self.find, key)

    def is_to_be_noted(self, key: ApiKey) -> bool:
        """Tells once a minute that the use of a key is to be written down."""
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._used_at_s.get(key.id, -USED_EVERY_S) < USED_EVERY_S:
                return False
            self._used_at_s[key.id] = now_s
            self._used_at_s.move_to_end(key.id)
            while len(self._used_at_s) > MAX_CACHED:
                self._used_at_s.popitem(last=False)
        return True

    async def note_uses(self, used: "asyncio.Queue[str]") -> None:
        """Write down which keys were used, as long as it runs. It takes their ids from the queue."""
        while True:
            key_id = await used.get()
            try:
                await run_in_threadpool(self._note_use, key_id)
            except DatabaseError as error:
                log.info("console.key_use_not_noted", key=key_id, problem=str(error))

    def _note_use(self, key_id: str) -> None:
        with self._database.write() as connection:
            api_keys.used(connection, key_id)


async def require_key(request: Request) -> ApiKey:
    """Whose request it is.

    Raises:
        HTTPException: 401 without a valid key, 403 where a cookie came with a request from another site.
        DatabaseAwayError: The database is away.
    """
    key = shown_key(request)
    keys = cast(Keys, request.app.state.keys)
    found = await keys.known(key)
    if found is None:
        raise HTTPException(401, UNKNOWN, {"WWW-Authenticate": "Bearer"})
    if "authorization" not in request.headers and request.method not in SAFE_METHODS:
        check_origin(request)
    if keys.is_to_be_noted(found):
        used: asyncio.Queue[str] = request.app.state.used_keys
        if not used.full():  # it is noted again in a minute
            used.put_nowait(found.id)
    return found


def find_key(request: Request, key: str) -> ApiKey | None:
    """What is known of a key that somebody gives to sign in. It blocks; errors as for `Keys.find`."""
    return cast(Keys, request.app.state.keys).find(key)


def shown_key(request: Request) -> str:
    """The key that a request shows, whatever it is worth; a bearer token goes before a cookie."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        return request.cookies.get(COOKIE, "")
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def check_origin(request: Request) -> None:
    """Refuse what a page of another site sends, with which a browser sends our cookie.

    Behind a proxy `Host` may be another one than the browser's, but its own word is worth as much.

    Raises:
        HTTPException: 403 if so, or if nothing tells where the request is from.
    """
    site = request.headers.get("sec-fetch-site")
    try:
        origin = urlsplit(request.headers.get("origin", "")).netloc
    except ValueError:
        origin = ""
    is_ours = site == "same-origin" or (site is None and origin and origin == request.headers.get("host"))
    if not is_ours:
        raise HTTPException(403, CROSS_ORIGIN)


def _hash(key: str) -> bytes:
    return sha256(key.encode("utf-8", "replace")).digest()
