"""Who may read: keys, cookies, hosts and origins."""

import http.client
import time
from urllib.parse import urlsplit

import httpx
import pytest

from persistence import api_keys
from persistence.database import Database
from tests.support.console import RunningConsole
from tests.support.kept_session import KeptSession

API = "/api/v1"
LIMIT_S = 30.0
GUARDED = [
    "/sessions", "/sessions/1", "/sessions/1/transcript", "/sessions/1/analysis", "/sessions/1/recording",
    "/sessions/1/events", "/schemas", "/openapi.json",
]  # fmt: skip


def with_host(console: RunningConsole, host: str | None, path: str = "/healthz") -> int:
    """The status of a request with this `Host`."""
    address = urlsplit(console.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=LIMIT_S)
    try:
        connection.putrequest("GET", path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("path", GUARDED)
def test_nothing_is_open_without_a_key(nobody: httpx.Client, path: str) -> None:
    response = nobody.get(API + path)

    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.headers["content-type"] == "application/problem+json"
    assert nobody.post(f"{API}/sessions/1/analysis/retry").status_code == 401


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "bearer x", "Bearer rsk_wrong", "Basic x", "Bearer " + "rsk_" * 100, "Bearer \xe9"],
)
def test_a_key_that_is_none_opens_nothing(nobody: httpx.Client, authorization: str) -> None:
    headers = {b"Authorization": authorization.encode("latin-1")}

    assert nobody.get(f"{API}/sessions", headers=headers).status_code == 401


def test_a_cookie_opens_what_a_bearer_token_opens(nobody: httpx.Client, key: str) -> None:
    assert nobody.get(f"{API}/sessions", headers={"Cookie": f"roomscribe_key={key}"}).status_code == 200
    # What a program says aloud goes before what its browser has.
    both = {"Cookie": f"roomscribe_key={key}", "Authorization": "Bearer rsk_wrong"}
    assert nobody.get(f"{API}/sessions", headers=both).status_code == 401


def test_a_revoked_key_opens_nothing_after_a_moment(
    client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.console.keys.FRESH_S", 0.2)
    assert client.get(f"{API}/sessions").status_code == 200
    with database.write() as connection:
        [known] = api_keys.list_keys(connection, space)
        assert api_keys.revoke(connection, space, known.id)

    until_s = time.monotonic() + LIMIT_S
    while (status := client.get(f"{API}/sessions").status_code) == 200 and time.monotonic() < until_s:
        time.sleep(0.05)

    assert status == 401


def test_it_is_written_down_that_a_key_was_used(client: httpx.Client, database: Database, space: str) -> None:
    client.get(f"{API}/sessions")

    until_s = time.monotonic() + LIMIT_S
    used_at = None
    while used_at is None and time.monotonic() < until_s:
        with database.read() as connection:
            [known] = api_keys.list_keys(connection, space)
        used_at = known.used_at
        time.sleep(0.02)
    assert used_at is not None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "OURS"}, 403),
        ({"Origin": "OURS"}, 404),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"}, 404),
    ],
)
def test_a_cookie_changes_nothing_on_behalf_of_another_site(
    nobody: httpx.Client, console: RunningConsole, key: str, headers: dict[str, str], status: int
) -> None:
    headers = {name: console.url if value == "OURS" else value for name, value in headers.items()}

    response = nobody.post(
        f"{API}/sessions/none/analysis/retry", headers={**headers, "Cookie": f"roomscribe_key={key}"}
    )

    assert response.status_code == status


@pytest.mark.parametrize("path", ["/login", "/logout", "/sessions/none/retry"])
def test_a_form_of_another_site_changes_nothing(nobody: httpx.Client, key: str, path: str) -> None:
    headers = {"Cookie": f"roomscribe_key={key}", "Origin": "http://evil.example"}

    response = nobody.post(path, data={"key": key}, headers=headers)

    assert (response.status_code, response.headers.get("set-cookie")) == (403, None)


def test_a_bearer_token_needs_no_origin(client: httpx.Client, database: Database, space: str) -> None:
    session = KeptSession(database, space=space)

    assert client.post(f"{API}/sessions/{session.id}/analysis/retry").status_code == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8700", "[::1]:8700", "LOCALHOST"])
def test_a_host_that_is_this_machine_is_served(console: RunningConsole, host: str) -> None:
    assert with_host(console, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "[",
    ],
)
def test_a_name_that_others_lead_here_is_refused(console: RunningConsole, host: str) -> None:
    assert with_host(console, host) == 421
    assert with_host(console, host, f"{API}/sessions") == 421


@pytest.mark.parametrize("path", ["/healthz", f"{API}/sessions", "/nothing", "/login", "/static/nothing"])
def test_every_answer_has_its_security_headers(nobody: httpx.Client, path: str) -> None:
    headers = nobody.get(path).headers

    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] in ("no-referrer", "same-origin")  # the latter where there are forms
    if path.startswith("/api/"):
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_too_many_requests_at_once_are_told_to_come_back(
    nobody: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.console.gate.MAX_REQUESTS", 0)

    response = nobody.get("/healthz")

    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


def test_other_methods_and_paths_are_problems_too(client: httpx.Client) -> None:
    for response, status in ((client.delete(f"{API}/sessions"), 405), (client.get(f"{API}/nothing"), 404)):
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
