"""What every request passes on its way in, and every answer on its way out, whoever makes it."""

import ipaddress
import traceback
from inspect import isawaitable
from urllib.parse import urlsplit

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Gate", "is_loopback"]

MAX_REQUESTS = 300  # at once, event streams included: some 100 kB each, and all threads are long in use
BUSY_AFTER_S = 2  # when to try again
LOOPBACK_NAME = "localhost"
FOREIGN_HOST = "The Host of the request is not this machine, which alone is served."
BUSY = "Too many requests are under way."

# Nothing but what we serve ourselves, and no script or style within a page.
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; form-action 'self'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CACHEABLE = "/static/"  # all else is what people said

log = structlog.get_logger(__name__)


def is_loopback(host: str) -> bool:
    """Whether a host, by its name or address, is this machine and no other can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == LOOPBACK_NAME


class Gate:
    """A middleware of the application: which requests come in, and how answers go out.

    It refuses a `Host` that is not this machine where we serve this machine alone: a page elsewhere may have
    its own name lead here, and would then read with the browser's right (DNS rebinding). It bounds how many
    requests are under way, gives each answer its security headers, and turns what fails into an answer and a
    line in the log that hold no word of what was said.

    Args:
        app: Who answers.
        is_local: Whether we serve this machine alone.
    """

    def __init__(self, app: ASGIApp, *, is_local: bool) -> None:
        self._app = app
        self._is_local = is_local
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                _secure(MutableHeaders(scope=message), scope["path"])
            await send(message)

        if self._is_local and not _names_loopback(Headers(scope=scope).get("host", "")):
            await _answer(HTTPException(421, FOREIGN_HOST), scope, receive, send_guarded)
            return
        if self._under_way >= MAX_REQUESTS:
            busy = HTTPException(503, BUSY, {"Retry-After": str(BUSY_AFTER_S)})
            await _answer(busy, scope, receive, send_guarded)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send_guarded)
        except Exception as error:  # noqa: BLE001  of whatever kind: its message may hold what was said
            log.error("console.request_failed", error=type(error).__name__, at=_place(error))
            if not has_begun:
                await _answer(error, scope, receive, send_guarded)
        finally:
            self._under_way -= 1


async def _answer(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the application does where it fails so: with a page for who asked for one."""
    kind = HTTPException if isinstance(error, HTTPException) else Exception
    answer = scope["app"].exception_handlers[kind](Request(scope), error)
    await (await answer if isawaitable(answer) else answer)(scope, receive, send)


def _secure(headers: MutableHeaders, path: str) -> None:
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-cache" if path.startswith(CACHEABLE) else "no-store")


def _names_loopback(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _place(error: BaseException) -> str:
    """Where it was raised, as file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
