import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.cli import doctor
from agent.cli.doctor import (
    check_console,
    check_data_dir,
    check_database,
    check_disk,
    check_engine,
    check_journals,
    check_livekit,
    check_rooms,
    look,
)
from agent.config import Console, load_settings
from persistence import schema
from persistence.database import Database
from persistence.journal.folder import set_aside
from persistence.journal.writer import Journal
from tests.support.journalled import ROOMY, begun


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_data_dir_is_left_as_it_was(tmp_path: Path) -> None:
    check = check_data_dir(tmp_path / "new" / "data")

    assert check.outcome == "ok"
    assert list((tmp_path / "new" / "data").iterdir()) == []


def test_a_data_dir_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    check = check_data_dir(tmp_path / "file" / "data")

    assert check.outcome == "failed"
    assert "cannot be written to: Not a directory" in check.detail
    assert "ROOMSCRIBE_DATA_DIR" in check.advice


async def test_a_missing_key_is_said() -> None:
    check = await check_livekit(load_settings())

    assert check.outcome == "failed"
    assert "LIVEKIT_API_KEY" in check.advice


async def test_a_livekit_that_is_away_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:1")
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "a secret of at least 32 characters")

    check = await check_livekit(load_settings())

    assert (check.outcome, check.detail) == (
        "failed",
        "LiveKit at ws://127.0.0.1:1 does not answer (Connection refused)",
    )
    assert check.advice.startswith("start it")


async def test_an_unknown_engine_is_said() -> None:
    check = await check_engine("wisper", load_settings().stt)

    assert check.outcome == "failed"
    assert '"wisper" is unknown' in check.detail


def test_a_database_that_is_up_to_date_is_good() -> None:
    with closing(Database(load_settings().database_url)) as database:
        schema.upgrade(database)

    check = check_database(load_settings())

    assert check.outcome == "ok"
    assert check.detail.endswith(f"roomscribe.db is up to date ({schema.newest()})")


def test_a_database_that_is_not_there_is_said_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_database(load_settings())
    assert check.outcome == "note"
    assert check.detail.startswith(
        f"there is no database at {tmp_path}/roomscribe-data/roomscribe.db; a worker"
    )

    monkeypatch.setenv("ROOMSCRIBE_DATABASE__UPGRADE_AT_START", "false")

    check = check_database(load_settings())
    assert check.outcome == "failed"
    assert "`roomscribe db upgrade` makes one" in check.advice
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_is_made_ready_by_a_worker_or_else_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    Database.of(load_settings()).close()
    check = check_database(load_settings())
    assert check.outcome == "note"
    assert "is empty; a worker" in check.detail

    monkeypatch.setenv("ROOMSCRIBE_DATABASE__UPGRADE_AT_START", "false")

    check = check_database(load_settings())
    assert (check.outcome, check.advice) == ("failed", "run `roomscribe db upgrade`")


def test_a_database_of_somebody_else_is_said_whoever_upgrades() -> None:
    with closing(Database(load_settings().database_url)) as database, database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER)")

    check = check_database(load_settings())

    assert check.outcome == "failed"
    assert "none of Roomscribe" in check.detail
    assert "database.url" in check.advice


@pytest.mark.parametrize(
    "url", ["postgresql://me:hidden@127.0.0.1:1/x", "mysql://me:hidden@host/x", "hidden"]
)
def test_a_database_that_cannot_be_used_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", url)

    check = check_database(load_settings())

    assert check.outcome == "failed"
    assert "database.url" in check.detail + check.advice
    assert "hidden" not in check.detail + check.advice


def test_journals_that_wait_for_the_database_are_counted(tmp_path: Path) -> None:
    assert check_journals(tmp_path / "nowhere").outcome == "ok"
    live = Journal.create(tmp_path, begun("aa"), ROOMY)
    assert check_journals(tmp_path).detail.startswith("1 live, 0 left behind, 0 damaged")
    assert check_journals(tmp_path).outcome == "ok"
    live.close(is_applied=False)

    check = check_journals(tmp_path)

    assert check.outcome == "note"
    assert check.detail.startswith("0 live, 1 left behind, 0 damaged")
    assert "`roomscribe journal drain`" in check.advice
    set_aside(tmp_path / "aa-1")
    check = check_journals(tmp_path)
    assert check.detail.startswith("0 live, 0 left behind, 1 damaged")
    assert "`roomscribe journal verify`" in check.advice
    assert "drain" not in check.advice


def test_a_disk_too_full_to_record_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATA_DIR", str(tmp_path))
    assert check_disk(load_settings()).outcome == "ok"
    monkeypatch.setenv("ROOMSCRIBE_RECORDING__MIN_FREE_MB", str(10**12))

    check = check_disk(load_settings())

    assert check.outcome == "failed"
    assert str(tmp_path) in check.detail
    assert "recording.enabled" in check.advice
    monkeypatch.setenv("ROOMSCRIBE_RECORDING__ENABLED", "false")
    assert check_disk(load_settings()).outcome == "note"


async def test_rooms_are_not_looked_at_where_livekit_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check_rooms(load_settings())).outcome == "note"  # without a key
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:1")
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "a secret of at least 32 characters")

    check = await check_rooms(load_settings())

    assert check.outcome == "note"
    assert check.detail.startswith("not looked at: that takes LiveKit")


async def test_settings_without_a_key_are_not_called_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMSCRIBE_STT__ENGINES", "none")
    monkeypatch.setenv("ROOMSCRIBE_CONSOLE__PORT", "0")

    checks = {check.name: check for check in await look(load_settings())}

    assert checks["settings"].detail.startswith("valid; ")
    assert checks["livekit"].outcome == "failed"
    assert checks["console"].outcome == "ok"


def console_at(port: int, host: str = "127.0.0.1") -> Console:
    return Console(host=host, port=port)


@contextmanager
def answering(status: int, body: str) -> Iterator[int]:
    """A server that says the same to everybody, and its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as its base has it
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served.server_port
        finally:
            served.shutdown()
            thread.join()


async def test_a_port_of_the_console_that_is_free_is_good() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    check = await check_console(console_at(port))

    assert (check.outcome, check.detail) == ("ok", f"port {port} is free")
    assert (await check_console(console_at(0))).outcome == "ok"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, '{"info": {"title": "Roomscribe"}}'),
        (401, '{"detail": "No valid key: `roomscribe keys create` makes one."}'),
    ],
)
async def test_a_console_that_runs_already_is_good(status: int, body: str, host: str) -> None:
    with answering(status, body) as port:
        check = await check_console(console_at(port, host))

    assert (check.outcome, check.detail) == ("ok", f"port {port} is answered by a Roomscribe console")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, '{"info": {"title": "Another"}}'),
        (200, "[]"),
        (200, "<html>"),
        (401, '{"detail": 1}'),
        (404, '{"detail": "Not Found"}'),
    ],
)
async def test_a_port_that_something_else_has_is_said_with_its_setting(status: int, body: str) -> None:
    with answering(status, body) as port:
        check = await check_console(console_at(port))

    assert check.outcome == "failed"
    assert f"listens on port {port}" in check.detail
    assert "ROOMSCRIBE_CONSOLE__PORT" in check.advice


async def test_who_says_nothing_on_the_port_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "CONSOLE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check = await check_console(console_at(silent.getsockname()[1]))

    assert check.outcome == "failed"


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 70])
async def test_an_address_of_no_machine_of_ours_is_said(host: str) -> None:
    check = await check_console(console_at(8700, host))

    assert check.outcome == "failed"
    assert "ROOMSCRIBE_CONSOLE__HOST" in check.advice
