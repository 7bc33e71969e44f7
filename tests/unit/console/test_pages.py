"""What a page answers where something fails: a page for people, problem details for programs."""

from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from agent.console.gate import Gate
from agent.console.keys import require_key
from agent.console.pages import add_pages
from agent.console.problems import add_problems
from agent.console.store import Store
from agent.errors import DatabaseAwayError
from persistence.api_keys import ApiKey

SECRET = "what somebody said"


def client(error: Exception, *, is_local: bool = False) -> httpx.AsyncClient:
    """Of an application whose store fails."""

    def store() -> Store:
        raise error

    app = FastAPI()
    add_problems(app)
    add_pages(app, store)
    key = ApiKey("1", "default", "a test", datetime(2026, 3, 2, tzinfo=UTC), None, None)
    app.dependency_overrides[require_key] = lambda: key
    app.add_middleware(Gate, is_local=is_local)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console.test")


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (ValueError(SECRET), 500, "Something went wrong"),
        (DatabaseAwayError("the database is away"), 503, "The database cannot be reached"),
        (HTTPException(503), 503, "Too many ask at once"),
    ],
)
async def test_failure_is_a_page_for_a_browser_and_says_nothing_of_what_was_said(
    error: Exception, status: int, title: str
) -> None:
    async with client(error) as http:
        answer = await http.get("/sessions/1", headers={"accept": "text/html,*/*"})
        assert answer.status_code == status
        assert f"<h1>{title}</h1>" in answer.text
        assert SECRET not in answer.text
        assert ("retry-after" in answer.headers) == isinstance(error, DatabaseAwayError)
        answer = await http.get("/sessions/1", headers={"accept": "application/json"})
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("is_local", "status", "title"),
    [(True, 421, "This address is not served"), (False, 503, "Too many ask at once")],
)
async def test_what_the_gate_refuses_is_a_page_for_a_browser(
    monkeypatch: pytest.MonkeyPatch, is_local: bool, status: int, title: str
) -> None:
    monkeypatch.setattr("agent.console.gate.MAX_REQUESTS", 0)
    async with client(ValueError(), is_local=is_local) as http:
        answer = await http.get("/login", headers={"accept": "text/html,*/*"})
        assert (answer.status_code, answer.headers.get("retry-after")) == (status, None if is_local else "2")
        assert f"<h1>{title}</h1>" in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        answer = await http.get("/api/v1/sessions", headers={"accept": "text/html"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_page_runs_no_script_of_others_and_is_not_kept_by_the_browser() -> None:
    async with client(ValueError()) as http:
        answer = await http.get("/login")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
