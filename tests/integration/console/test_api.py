"""What the API answers, over a real socket."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from agent.captions.protocol import schema
from agent.config import Settings
from agent.console.store import Store
from persistence import analyses, api_keys, renderings
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from tests.integration.console.conftest import Parts
from tests.support.console import RunningConsole
from tests.support.kept_session import DURATION_MS, KeptSession, final
from tests.support.stored_session import add_space

BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
API = "/api/v1"
AUDIO = bytes(range(250)) * 400
CURSORS = (
    "x",
    "e30",
    "WzEsMl0",
    "WyJ4IiwieSJd",
    "WzEsMiwzLDRd",
    "é",
    "W" * 399,
    "WzllOTksMSwxXQ",
    "WzEsMSwtMV0",
)
LIMIT_S = 30.0


def problem(response: httpx.Response, status: int) -> str:
    """The detail of an answer that has to be this problem."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["status"] == status
    return str(response.json()["detail"])


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """The events of a stream, comments left out."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def until_nobody_follows(console: RunningConsole) -> None:
    """Wait until the streams are closed that were left before."""
    until_s = time.monotonic() + LIMIT_S
    while console.app.state.viewers.count and time.monotonic() < until_s:
        time.sleep(0.02)
    assert console.app.state.viewers.count == 0


def add_recording(database: Database, settings: Settings, space: str, session: str) -> None:
    path = f"{space}/mix.webm"
    file = settings.renderings_dir / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(AUDIO)
    with database.write() as connection:
        renderings.put(
            connection, space, session, path=path, media_type="audio/webm", duration_ms=DURATION_MS,
            size_bytes=len(AUDIO),
        )  # fmt: skip


class TestSessions:
    @BOTH
    def test_pages_hold_every_session_once_the_newest_first(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        kept = [
            KeptSession(database, space=space, room=f"room {n % 2}", after_s=n + 0.000001).id
            for n in range(5)
        ]

        found, after = [], None
        while True:
            page = client.get(f"{API}/sessions", params={"limit": 2, **({"after": after} if after else {})})
            found += [session["id"] for session in page.json()["sessions"]]
            if (after := page.json()["next"]) is None:
                break

        assert found == kept[::-1]
        of_room = client.get(f"{API}/sessions", params={"room": "room 1"}).json()
        assert [session["id"] for session in of_room["sessions"]] == [kept[3], kept[1]]

    @BOTH
    def test_a_session_says_what_is_known_of_it(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.hear()
        assert client.get(f"{API}/sessions/{session.id}").json()["duration_ms"] is None
        session.end()
        session.analyse()

        shown = client.get(f"{API}/sessions/{session.id}").json()

        summary = {
            "id": session.id,
            "room": "planning",
            "status": "ended",
            "languages": ["en"],
            "started_at": "2026-03-01T09:00:00Z",
            "ended_at": "2026-03-01T09:01:00Z",
            "ended_by": "room_closed",
            "duration_ms": DURATION_MS,
            "analysis": {"status": "done", "step": "", "version": 1},
        }
        assert shown == {
            **summary,
            "people": [{"identity": "ada", "name": "Ada"}, {"identity": "ben", "name": "Ben"}],
            "finals": 2,
            "coverage": 0.75,
            "gaps": [{"start_ms": 5_000, "end_ms": 6_000, "identity": "", "reason": "agent_away"}],
            "recording": None,
        }
        assert client.get(f"{API}/sessions").json()["sessions"] == [summary]

    @BOTH
    def test_a_transcript_is_paged_by_time(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.keep(*(final(n, f"Word {n}.", 10_000 - n) for n in range(1, 6)))

        found, after = [], None
        while True:
            parameters = {"limit": 2, **({"after": after} if after else {})}
            page = client.get(f"{API}/sessions/{session.id}/transcript", params=parameters).json()
            found += page["utterances"]
            if (after := page["next"]) is None:
                break

        assert [one["id"] for one in found] == ["1-5", "1-4", "1-3", "1-2", "1-1"]
        assert found[0] == {
            "id": "1-5", "speaker": {"identity": "ada", "name": "Ada"}, "text": "Word 5.", "language": "en",
            "has_overlap": False, "start_ms": 9_995, "end_ms": 10_895,
        }  # fmt: skip

    @pytest.mark.parametrize("cursor", CURSORS)
    def test_a_cursor_that_no_page_gave_is_refused(
        self, client: httpx.Client, database: Database, space: str, cursor: str
    ) -> None:
        session = KeptSession(database, space=space)

        for path in ("/sessions", f"/sessions/{session.id}/transcript"):
            assert "cursor" in problem(client.get(API + path, params={"after": cursor}), 400)

    @pytest.mark.parametrize(
        "parameters", [{"limit": "0"}, {"limit": "x"}, {"limit": "99999"}, {"room": "r" * 257}]
    )
    def test_a_parameter_out_of_bounds_is_refused_by_its_name(
        self, client: httpx.Client, parameters: dict[str, str]
    ) -> None:
        detail = problem(client.get(f"{API}/sessions", params=parameters), 422)

        assert next(iter(parameters)) in detail
        assert "99999" not in detail


class TestAnalysis:
    @BOTH
    def test_statements_come_with_their_evidence_and_the_titles_of_the_scenario(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.hear()
        session.end()
        assert "analysis" in problem(client.get(f"{API}/sessions/{session.id}/analysis"), 404)
        session.analyse()

        found = client.get(f"{API}/sessions/{session.id}/analysis").json()

        assert found["kinds"][:2] == [
            {"id": "decision", "title": "Decisions", "has_owner": False},
            {"id": "action", "title": "Actions", "has_owner": True},
        ]
        assert len(found["kinds"]) == 5
        ada = {"identity": "ada", "name": "Ada"}
        assert found["statements"] == [
            {
                "kind": "decision",
                "text": "We ship on Friday.",
                "owner": ada,
                "due": "Friday",
                "confidence": 0.8,
                "support": "lexical",
                "evidence": [
                    {
                        "utterance": "1-2", "start": 0, "end": 18, "speaker": ada,
                        "text": "We ship on Friday.", "start_ms": 3_000, "end_ms": 3_900,
                    }
                ],
            }
        ]  # fmt: skip
        assert (found["status"], found["problem"], found["incomplete"]) == ("done", "", ["journal"])
        assert (found["claims"], found["drops"], found["keywords"]) == (3, {"quote_not_found": 2}, ["ship"])
        assert found["statistics"]["participations"][0]["speaker"] == ada

    @BOTH
    def test_an_analysis_that_failed_says_why_and_is_tried_again(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.end()
        session.analyse(fails="The disk is full.")
        path = f"{API}/sessions/{session.id}/analysis"
        failed = client.get(path).json()

        again = client.post(f"{path}/retry")

        assert (failed["status"], failed["step"], failed["problem"]) == (
            "failed",
            "analyse",
            "The disk is full.",
        )
        assert (again.status_code, again.json()["status"], again.json()["problem"]) == (202, "pending", "")
        assert "not failed" in problem(client.post(f"{path}/retry"), 409)
        assert problem(client.post(f"{API}/sessions/none/analysis/retry"), 404)

    def test_a_kind_that_the_scenario_does_not_have_is_shown_by_its_id(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.end()
        session.analyse(kind="mood")

        found = client.get(f"{API}/sessions/{session.id}/analysis").json()

        assert found["kinds"][-1] == {"id": "mood", "title": "Mood", "has_owner": True}
        assert "Mood <span" in client.get(f"/sessions/{session.id}").text

    @BOTH
    def test_what_an_older_analysis_says_stands_until_a_newer_one_has_its_own(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.hear()
        session.end()
        session.analyse()
        first = client.get(f"{API}/sessions/{session.id}/analysis").json()
        newer = session.begin_analysis()

        running = client.get(f"{API}/sessions/{session.id}/analysis").json()
        page = client.get(f"/sessions/{session.id}").text
        with database.write() as connection:
            analyses.fail(connection, newer, "failed", "The disk is full.")
        failed = client.get(f"{API}/sessions/{session.id}/analysis").json()
        session.analyse(kind="risk")
        last = client.get(f"{API}/sessions/{session.id}/analysis").json()

        for one in (running, failed):
            assert (one["version"], one["newest_version"]) == (1, 2)
            assert one["statements"] == first["statements"]
        assert (running["status"], running["step"], running["problem"]) == ("running", "analyse", "")
        assert (failed["status"], failed["problem"]) == ("failed", "The disk is full.")
        assert "What follows is version 1" in page
        assert "We ship on Friday." in page
        assert (last["status"], last["version"], last["newest_version"]) == ("done", 3, 3)
        assert [one["kind"] for one in last["statements"]] == ["risk"]

    def test_an_analysis_that_failed_after_its_statements_keeps_them(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.hear()
        session.end()
        session.analyse()
        second = session.analyse(kind="risk")
        with database.write() as connection:
            analyses.fail(connection, second, "failed", "The disk is full.")

        found = client.get(f"{API}/sessions/{session.id}/analysis").json()

        assert (found["status"], found["version"], found["newest_version"]) == ("failed", 2, 2)
        assert [one["kind"] for one in found["statements"]] == ["risk"]


class TestRecording:
    def test_the_range_that_is_asked_for_is_given(
        self, client: httpx.Client, database: Database, space: str, settings: Settings
    ) -> None:
        session = KeptSession(database, space=space)
        path = f"{API}/sessions/{session.id}/recording"
        assert problem(client.get(path), 404)
        add_recording(database, settings, space, session.id)

        recording = client.get(f"{API}/sessions/{session.id}").json()["recording"]
        whole = client.get(recording["url"])
        middle = client.get(path, headers={"Range": "bytes=1000-1999"})
        end = client.get(path, headers={"Range": "bytes=-10"})
        beyond = client.get(path, headers={"Range": f"bytes={len(AUDIO)}-"})

        assert recording == {
            "url": path, "media_type": "audio/webm", "duration_ms": DURATION_MS, "size_bytes": len(AUDIO),
        }  # fmt: skip
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, AUDIO, "audio/webm")
        assert whole.headers["accept-ranges"] == "bytes"
        assert client.head(path).headers["content-length"] == str(len(AUDIO))
        assert (middle.status_code, middle.content) == (206, AUDIO[1000:2000])
        assert middle.headers["content-range"] == f"bytes 1000-1999/{len(AUDIO)}"
        assert (end.status_code, end.content) == (206, AUDIO[-10:])
        problem(beyond, 416)
        assert beyond.headers["content-range"] == f"bytes */{len(AUDIO)}"
        problem(client.get(path, headers={"Range": "lines=1-2"}), 400)

    @pytest.mark.parametrize("way", ["../secret", "absolute", "link", "folder", "gone"])
    def test_nothing_but_a_file_in_the_folder_of_renderings_is_given(
        self,
        client: httpx.Client,
        database: Database,
        space: str,
        settings: Settings,
        way: str,
    ) -> None:
        session = KeptSession(database, space=space)
        folder, secret = settings.renderings_dir, settings.data_dir / "secret"
        folder.mkdir(parents=True, exist_ok=True)
        secret.write_text("not to be seen", encoding="utf-8")
        (folder / f"link-{space}").symlink_to(secret)
        path = {"absolute": str(secret), "folder": ".", "link": f"link-{space}"}.get(way, way)
        with database.write() as connection:
            renderings.put(
                connection, space, session.id, path=path, media_type="audio/webm", duration_ms=1,
                size_bytes=1,
            )  # fmt: skip

        problem(client.get(f"{API}/sessions/{session.id}/recording"), 404)
        assert client.get(f"{API}/sessions/{session.id}").json()["recording"] is None


class TestEvents:
    @BOTH
    def test_each_final_is_told_once_whenever_and_wherever_it_comes(
        self, client: httpx.Client, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.hear()

        with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
            told = events(stream.iter_lines())
            first = [next(told)[1]["id"] for _ in range(2)]
            # It was said before what is there already, by somebody who had to wait.
            session.keep(final(3, "At the same time.", 500))
            earlier = next(told)
            session.keep(final(1, "Good morning, all.", 1_000, revision=2))
            corrected = next(told)
            session.keep(final(4, "Bye.", 8_000))
            session.end()
            rest = list(told)

        assert stream.headers["content-type"].startswith("text/event-stream")
        assert first == ["1-1", "1-2"]
        assert (earlier[0], earlier[1]["id"], earlier[1]["text"]) == ("final", "1-3", "At the same time.")
        assert (corrected[1]["id"], corrected[1]["text"]) == ("1-1", "Good morning, all.")
        assert [(name, data.get("id")) for name, data in rest] == [("final", "1-4"), ("ended", None)]
        assert rest[-1][1] == {"session": session.id}

    def test_a_viewer_that_leaves_is_counted_no_more(
        self, client: httpx.Client, console: RunningConsole, database: Database, space: str
    ) -> None:
        session = KeptSession(database, space=space)
        session.hear()
        until_nobody_follows(console)

        with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
            assert stream.status_code == 200
            told = events(stream.iter_lines())  # closes the stream when nobody holds it
            next(told)
            assert console.app.state.viewers.count == 1

        until_nobody_follows(console)

    def test_too_many_viewers_are_told_to_come_back(
        self,
        client: httpx.Client,
        console: RunningConsole,
        database: Database,
        space: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        until_nobody_follows(console)
        monkeypatch.setattr("agent.console.following.MAX_VIEWERS", 1)
        session = KeptSession(database, space=space)

        with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
            assert stream.status_code == 200
            lines = stream.iter_lines()  # closes the stream when nobody holds it
            next(lines)
            second = client.get(f"{API}/sessions/{session.id}/events")

        assert problem(second, 503)
        assert second.headers["retry-after"] == "30"

    def test_a_stream_ends_when_its_key_is_revoked(
        self, client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agent.console.keys.FRESH_S", 0.0)
        session = KeptSession(database, space=space)
        session.hear()

        with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
            told = events(stream.iter_lines())
            next(told)
            with database.write() as connection:
                [key] = api_keys.list_keys(connection, space)
                api_keys.revoke(connection, space, key.id)
            assert [name for name, _ in told if name != "final"] == []

    def test_a_silent_stream_has_a_heartbeat(
        self, client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agent.console.events.HEARTBEAT_S", 0.5)
        session = KeptSession(database, space=space)

        with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
            assert any(line.startswith(":") for line in stream.iter_lines())

    def test_a_session_whose_end_is_not_all_there_ends_after_a_while(
        self, client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agent.console.following.SETTLE_S", 1.0)
        session = KeptSession(database, space=space)
        session.hear()
        session.end(is_settled=False)

        with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
            assert [name for name, _ in events(stream.iter_lines())] == ["final", "final", "ended"]


class TestSpaces:
    @BOTH
    def test_what_is_in_another_space_is_not_there(
        self, client: httpx.Client, database: Database, space: str, settings: Settings
    ) -> None:
        other = f"{space}-other"
        add_space(database, other)
        session = KeptSession(database, space=other)
        session.hear()
        session.end()
        session.analyse(fails="No.")
        with database.write() as connection:
            renderings.put(
                connection, other, session.id, path=f"{other}.webm", media_type="audio/webm", duration_ms=1,
                size_bytes=1,
            )  # fmt: skip
            theirs, _ = api_keys.create(connection, other, "Eve")
        settings.renderings_dir.mkdir(parents=True, exist_ok=True)
        (settings.renderings_dir / f"{other}.webm").write_bytes(b"x")
        paths = [
            f"{API}/sessions/{session.id}{p}"
            for p in ("", "/transcript", "/analysis", "/recording", "/events")
        ]

        for path in paths:
            problem(client.get(path), 404)
            assert client.get(path, headers={"Authorization": f"Bearer {theirs}"}).status_code == 200
        problem(client.post(f"{API}/sessions/{session.id}/analysis/retry"), 404)
        assert client.get(f"{API}/sessions").json() == {"sessions": [], "next": None}


class TestFailures:
    def test_a_failure_tells_neither_the_client_nor_the_log_what_was_said(
        self, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def fail(*_: object) -> None:
            raise ValueError("a secret word")

        monkeypatch.setattr(Store, "session", fail)

        response = client.get(f"{API}/sessions/1")

        problem(response, 500)
        assert response.headers["content-security-policy"]
        printed = capfd.readouterr()
        assert "ValueError" in printed.out + printed.err
        assert "secret word" not in response.text + printed.out + printed.err

    def test_a_database_that_is_away_is_a_503_with_when_to_try_again(self, own_parts: Parts) -> None:
        with own_parts.database.write() as connection:
            key, _ = api_keys.create(connection, DEFAULT_SPACE, "Ada")
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=own_parts.console.url, headers=headers, trust_env=False) as client:
            assert client.get(f"{API}/sessions").status_code == 200
            with own_parts.database.write() as connection:
                connection.exec_driver_sql("ALTER TABLE session RENAME TO gone")

            response = client.get(f"{API}/sessions")

        assert str(own_parts.settings.data_dir) not in problem(response, 503)
        assert int(response.headers["retry-after"]) > 0


def test_schemas_are_those_of_the_data_channel(client: httpx.Client) -> None:
    schemas = client.get(f"{API}/schemas").json()

    assert schemas["caption"] == schema("caption")
    for each in schemas.values():
        jsonschema.Draft202012Validator.check_schema(each)


def test_health_is_told_to_anybody(nobody: httpx.Client) -> None:
    assert nobody.get("/healthz").json() == {"status": "ok"}
