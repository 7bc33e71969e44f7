"""The pages: signing in, the list of sessions, a session, its captions while it is live, and its report.

They are made on the server and can be read without JavaScript; what is in `static/` adds the player, the
transcript that follows it, and captions as they come.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from agent.console import html, report, view, wording
from agent.console.keys import COOKIE, check_origin, find_key, require_key
from agent.console.models import SessionOut, UtteranceOut
from agent.console.store import MAX_UTTERANCES, Store
from agent.errors import DatabaseAwayError
from persistence.api_keys import ApiKey

__all__ = ["add_pages"]

SESSIONS_SHOWN = 30
MOST_UTTERANCES = 5 * MAX_UTTERANCES  # of a page: some ten hours of speech, and 4 MB
LIVE_UTTERANCES = 200  # that were said before somebody opened the live page
COOKIE_S = 90 * 24 * 3600
# Who follows a link from a mail or a chat is signed in. What changes something wants our own origin besides.
SAME_SITE: Literal["lax"] = "lax"
SEE_OTHER = 303  # the answer to a form: whoever loads the page again sends it no second time

TITLES = {
    400: ("This address is wrong", "Maybe a part of it is missing. The list of sessions has the right ones."),
    403: ("This is not allowed", "The request came from another site, or your key may not do it."),
    404: ("There is nothing here", "There is no such session, or the address is wrong."),
    421: (
        "This address is not served",
        "Open the console as localhost or 127.0.0.1, or set console.host to have others reach it.",
    ),
    500: ("Something went wrong", "The log of the console says what. Try again, or tell who runs it."),
    503: ("Too many ask at once", "Try again in a moment."),
}
AWAY_TITLE = ("The database cannot be reached", "Nothing is lost. Try again in a moment.")
OTHER_TITLE = ("This cannot be done", "Go on from the list of sessions.")
NO_SESSION = "there is no such session"

HEADERS = {
    # What was said must not stay in a browser's cache after its person has signed out.
    "cache-control": "no-store",
    # With `no-referrer` a browser would not tell where our forms come from, unless it has TLS.
    "referrer-policy": "same-origin",
}

Handler = Callable[[Request, Any], Response | Awaitable[Response]]


def add_pages(app: FastAPI, store: Callable[[], Store]) -> None:
    """Give an application its pages. Call it after its exception handlers are set: pages show what these say.

    Args:
        store: Gives what is shown; called while the application runs.
    """
    app.mount("/static", StaticFiles(packages=[("agent.console", "static")]), name="static")
    app.include_router(_open_pages())
    app.include_router(_pages(store))
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = partial(_as_page, handler)


def _open_pages() -> APIRouter:
    """What can be seen without a key."""
    router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)

    @router.get("/login")
    def login_page(next: str = "/") -> Response:  # noqa: A002  the name in the address
        return _login(next)

    @router.post("/login", dependencies=[Depends(check_origin)])
    def login(
        request: Request,
        key: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        key = key.strip()
        if find_key(request, key) is None:
            return _login(next, "This key is not known here, or was revoked. Check it, or make another one.")
        answer = RedirectResponse(_local(next), SEE_OTHER)
        answer.set_cookie(
            COOKIE,
            key,
            max_age=COOKIE_S,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite=SAME_SITE,
        )
        return answer

    @router.post("/logout", dependencies=[Depends(check_origin)])
    def logout() -> Response:
        answer = RedirectResponse("/login", SEE_OTHER)
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite=SAME_SITE)
        return answer

    return router


def _login(next_: str, problem: str = "") -> Response:
    page = html.render("login.html", next=_local(next_), problem=problem)
    return HTMLResponse(page, 403 if problem else 200, headers=HEADERS)


def _local(address: str) -> str:
    """An address on this server; the list of sessions for what might lead to another one."""
    # Browsers take a backslash for a slash, and leave out line breaks.
    is_plain = re.fullmatch(r"/(?![/\\])[!-\[\]-~]*", address) is not None
    return address if is_plain and not urlsplit(address).netloc else "/"


def _pages(store: Callable[[], Store]) -> APIRouter:
    """What is shown to who has a key. Each of these runs in a thread, since the store blocks."""
    router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
    Key = Annotated[ApiKey, Depends(require_key)]  # noqa: N806  a type

    @router.get("/")
    def sessions(
        key: Key,
        after: Annotated[str | None, Query(max_length=400)] = None,
        room: Annotated[str | None, Query(max_length=256)] = None,
    ) -> Response:
        page = store().sessions(key.space_id, after, SESSIONS_SHOWN, room)
        return _page("sessions.html", page=page, room=room or "", is_older=after is not None, is_list=True)

    @router.get("/sessions/{session_id}")
    def session(key: Key, session_id: str) -> Response:
        shown = _session(store(), key, session_id)
        if shown.id != session_id:
            return RedirectResponse(f"/sessions/{quote(shown.id, safe='')}")  # what it was merged into
        said, is_cut = _said(store(), key, shown.id, MOST_UTTERANCES)
        analysis = store().analysis(key.space_id, shown.id)
        return _page(
            "session.html",
            session=shown,
            analysis=analysis,
            view=view.make(shown, said, analysis),
            is_cut=is_cut,
            steps=dict(wording.STEPS),
        )

    @router.get("/sessions/{session_id}/live")
    def live(key: Key, session_id: str) -> Response:
        shown = _session(store(), key, session_id)
        if shown.id != session_id:
            return RedirectResponse(f"/sessions/{quote(shown.id, safe='')}/live")
        latest = store().latest(key.space_id, shown.id, LIVE_UTTERANCES)
        if latest is None:
            raise HTTPException(404, NO_SESSION)
        # Colours are those of the session's page, so they are given to who spoke before the newest, too.
        people = view.people_of([*latest.speakers, *shown.people])
        return _page(
            "live.html",
            session=shown,
            view=view.make(shown, latest.utterances, None, people),
            is_cut=latest.is_cut,
            since_ms=latest.utterances[0].start_ms if latest.is_cut else 0,
            colours=view.COLOURS,
            pause_ms=view.BLOCK_PAUSE_MS,
        )

    @router.get("/sessions/{session_id}/report")
    def report_file(key: Key, session_id: str) -> Response:
        shown = _session(store(), key, session_id)
        said, _ = _said(store(), key, shown.id, None)
        text = report.render(shown, said, store().analysis(key.space_id, shown.id))
        disposition = f'attachment; filename="{_file_name(shown)}"'
        return HTMLResponse(text, headers=HEADERS | {"content-disposition": disposition})

    @router.post("/sessions/{session_id}/retry")
    def retry(key: Key, session_id: str) -> Response:
        shown = _session(store(), key, session_id)
        store().retry(key.space_id, shown.id)  # one that has not failed and lacks nothing stays as it is
        return RedirectResponse(f"/sessions/{quote(shown.id, safe='')}", SEE_OTHER)

    return router


def _page(template: str, **values: Any) -> Response:
    return HTMLResponse(html.render(template, **values), headers=HEADERS)


def _session(store: Store, key: ApiKey, session_id: str) -> SessionOut:
    found = store.session(key.space_id, session_id)
    if found is None:
        raise HTTPException(404, NO_SESSION)
    return found


def _said(store: Store, key: ApiKey, session_id: str, most: int | None) -> tuple[list[UtteranceOut], bool]:
    """What was said in a session, and whether that is not all of it.

    Args:
        most: Read no further page when there are so many; None reads all.
    """
    said: list[UtteranceOut] = []
    after: str | None = None
    while most is None or len(said) < most:
        page = store.transcript(key.space_id, session_id, after, MAX_UTTERANCES)
        if page is None:
            break
        said.extend(page.utterances)
        after = page.next
        if after is None:
            break
    return said, after is not None


def _file_name(session: SessionOut) -> str:
    room = re.sub(r"[^A-Za-z0-9_-]+", "-", session.room).strip("-")[:60]
    return f"{room or 'session'}-{session.started_at:%Y-%m-%d}.html"


async def _as_page(handler: Handler, request: Request, error: Exception) -> Response:
    """What an exception handler answers, as a page for who asked for one."""
    answer = handler(request, error)
    response = await answer if isawaitable(answer) else answer
    is_api = request.url.path.startswith(("/api/", "/static/"))
    if is_api or "text/html" not in request.headers.get("accept", "") or response.status_code < 400:
        return response
    if response.status_code == 401:
        place = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        # A form that was sent too late is not sent again by itself.
        there = _local(place) if request.method == "GET" else "/"
        return RedirectResponse(
            "/login" + (f"?{urlencode({'next': there})}" if there != "/" else ""), SEE_OTHER
        )
    status = 404 if response.status_code == 422 else response.status_code
    title, advice = AWAY_TITLE if isinstance(error, DatabaseAwayError) else TITLES.get(status, OTHER_TITLE)
    kept = {name: value for name, value in response.headers.items() if name in ("retry-after", "allow")}
    return HTMLResponse(html.render("error.html", title=title, advice=advice), status, headers=HEADERS | kept)
