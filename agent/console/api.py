"""The HTTP API, version 1: sessions, what was said in them, what was made of them, and their audio."""

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from json import loads
from os import stat_result
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Security
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from agent.console.cursor import MAX_CURSOR_CHARACTERS
from agent.console.events import MAX_SINCE_MS, EventStream
from agent.console.following import Viewers
from agent.console.keys import COOKIE, Keys, require_key, shown_key
from agent.console.models import AnalysisOut, SessionOut, SessionPage, TranscriptPage
from agent.console.problems import documented, problem
from agent.console.store import (
    DEFAULT_SESSIONS,
    DEFAULT_UTTERANCES,
    MAX_SESSIONS,
    MAX_UTTERANCES,
    Store,
)
from persistence.api_keys import ApiKey

__all__ = ["PREFIX", "api"]

PREFIX = "/api/v1"
MAX_ROOM_CHARACTERS = 256  # LiveKit takes no longer names
NO_SESSION = "There is no such session."
NO_ANALYSIS = "There is no such session, or no analysis of it yet."
NO_RECORDING = "There is no such session, or no audio of it for listening."

Key = Annotated[ApiKey, Depends(require_key)]
Cursor = Annotated[
    str | None, Query(max_length=MAX_CURSOR_CHARACTERS, description="What a page gave as `next`.")
]

Value = TypeVar("Value")

# Only told to readers of the description: `require_key` looks at both.
_bearer = HTTPBearer(auto_error=False, description="A key that `roomscribe keys create` made.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="What signing in sets.")


def api(store: Callable[[], Store]) -> APIRouter:
    """The API, all of which wants a key.

    Args:
        store: Gives what is answered; called while the application runs.
    """
    router = APIRouter(
        prefix=PREFIX,
        dependencies=[Depends(require_key), Security(_bearer), Security(_cookie)],
        responses=documented(401, 503),
    )

    @router.get("/sessions", responses=documented(400, 422))
    def sessions(
        key: Key,
        after: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=MAX_SESSIONS)] = DEFAULT_SESSIONS,
        room: Annotated[str | None, Query(max_length=MAX_ROOM_CHARACTERS)] = None,
    ) -> SessionPage:
        """Sessions, the newest first."""
        return store().sessions(key.space_id, after, limit, room)

    @router.get("/sessions/{session_id}", responses=documented(404, 422))
    def session(key: Key, session_id: str) -> SessionOut:
        """All about a session but what was said."""
        return _found(store().session(key.space_id, session_id), NO_SESSION)

    @router.get("/sessions/{session_id}/transcript", responses=documented(400, 404, 422))
    def transcript(
        key: Key,
        session_id: str,
        after: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=MAX_UTTERANCES)] = DEFAULT_UTTERANCES,
    ) -> TranscriptPage:
        """What was said, by its time."""
        return _found(store().transcript(key.space_id, session_id, after, limit), NO_SESSION)

    @router.get("/sessions/{session_id}/analysis", responses=documented(404, 422))
    def analysis(key: Key, session_id: str) -> AnalysisOut:
        """The newest analysis."""
        return _found(store().analysis(key.space_id, session_id), NO_ANALYSIS)

    @router.post(
        "/sessions/{session_id}/analysis/retry", status_code=202, responses=documented(403, 404, 409, 422)
    )
    def retry(key: Key, session_id: str) -> AnalysisOut:
        """Have the newest analysis tried again, if it has failed, or is incomplete."""
        if not _found(store().retry(key.space_id, session_id), NO_ANALYSIS):
            raise HTTPException(
                409, "The analysis has not failed and lacks nothing; only such a one is tried again."
            )
        return _found(store().analysis(key.space_id, session_id), NO_ANALYSIS)

    @router.get(
        "/sessions/{session_id}/recording",
        response_class=Response,
        responses={
            200: {"description": "All of it", "content": {"audio/*": {}}},
            206: {"description": "The bytes that were asked for", "content": {"audio/*": {}}},
            **documented(400, 404, 416, 422),
        },
    )
    @router.head("/sessions/{session_id}/recording", include_in_schema=False)
    def recording(key: Key, session_id: str) -> Response:
        """Everybody's audio in one file; a `Range` of bytes can be asked for."""
        path, media_type = _found(store().recording(key.space_id, session_id), NO_RECORDING)
        try:
            return _Audio(path, media_type, path.stat())
        except FileNotFoundError:
            raise HTTPException(404, NO_RECORDING) from None

    @router.get(
        "/sessions/{session_id}/events",
        response_class=Response,
        responses={
            200: {"description": "Server-Sent Events", "content": {"text/event-stream": {}}},
            **documented(404, 422),
        },
    )
    async def events(
        request: Request,
        key: Key,
        session_id: str,
        since: Annotated[
            int,
            Query(ge=0, le=MAX_SINCE_MS, description="Leave out what began before, in ms of session time."),
        ] = 0,
        last_event_id: Annotated[
            str, Header(description="What a stream that broke off gave as the last `id`.")
        ] = "",
    ) -> Response:
        """The captions of a session as they come: `final` events, each an utterance, and `ended` at the end.

        It begins with what was said so far; an utterance that is known by its id was corrected, or is told
        again. With `Last-Event-ID` it begins ten minutes before the newest that was told.
        """
        found = _found(await run_in_threadpool(store().resolve, key.space_id, session_id), NO_SESSION)
        state = request.app.state
        return EventStream(
            cast(Viewers, state.viewers),
            store(),
            partial(cast(Keys, state.keys).known, shown_key(request)),
            key.space_id,
            found,
            since_ms=since,
            last_id=last_event_id,
        )

    @router.get("/schemas")
    def schemas() -> dict[str, dict[str, Any]]:
        """The JSON Schemas of what goes over the data channel and of exports, by their names."""
        folder = files("agent.captions").joinpath("schemas")
        return {
            file.name.removesuffix(".json"): loads(file.read_text(encoding="utf-8"))
            for file in sorted(folder.iterdir(), key=lambda file: file.name)
            if file.name.endswith(".json")
        }

    @router.get("/openapi.json", include_in_schema=False)
    def description(request: Request) -> JSONResponse:
        return JSONResponse(request.app.openapi())

    return router


class _Audio(FileResponse):
    """A file of audio, or the part of it that was asked for; a range that it does not have is a problem."""

    def __init__(self, path: Path, media_type: str, stat: stat_result) -> None:
        super().__init__(path, media_type=media_type, stat_result=stat)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_refused = False

        async def send_or_refuse(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                is_refused = True
                size = [value for name, value in message["headers"] if name.lower() == b"content-range"]
                headers = {"Content-Range": size[0].decode("latin-1")} if size else {}
                await problem(message["status"], "The file has no such range.", headers)(scope, receive, send)
            elif not is_refused:
                await send(message)

        await super().__call__(scope, receive, send_or_refuse)


def _found(value: Value | None, detail: str) -> Value:
    if value is None:
        raise HTTPException(404, detail)
    return value
