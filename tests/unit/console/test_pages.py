"""What a page answers where something fails: a page for people, problem details for programs."""

from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI

from agent.console.gate import Gate
from agent.console.keys import require_key
from agent.console.pages import add_pages
from agent.console.problems import add_problems
from agent.console.store import Store
from agent.errors import DatabaseAwayError
from persistence.api_keys import ApiKey

SECRET = "what somebody said"


def client(error: Exception) -> httpx.AsyncClient:
    """Of an application whose store fails."""

    def store() -> Store:
        raise error

    app = FastAPI()
    add_problems(app)
    add_pages(app, store)
    key = ApiKey("1", "default", "a test", datetime(2026, 3, 2, tzinfo=UTC), None, None)
    app.dependency_overrides[require_key] = lambda: key
    gate = Gate(app, is_local=False)
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://console.test")


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (ValueError(SECRET), 500, "Something went wrong"),
        (DatabaseAwayError("the database is away"), 503, "The database cannot be reached"),
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
        assert ("retry-after" in answer.headers) == (status == 503)
        answer = await http.get("/sessions/1", headers={"accept": "application/json"})
        assert answer.headers["content-type"] == "application/problem+json"


async def test_page_runs_no_script_of_others_and_is_not_kept_by_the_browser() -> None:
    async with client(ValueError()) as http:
        answer = await http.get("/login")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
