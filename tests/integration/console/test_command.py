"""`roomscribe console` and `roomscribe keys`, as people run them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.cli.app import main
from agent.config import load_settings
from persistence import schema
from persistence.database import Database
from tests.support import server
from tests.support.kept_session import KeptSession

LIMIT_S = 60.0  # a process takes some seconds to start where the machine is busy
ENDS_WITHIN_S = 20.0  # an open stream would hold it for ever
POLL_S = 0.05


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int | str | None
    out: str
    err: str


Keys = Callable[..., Ran]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """That of an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROOMSCRIBE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ROOMSCRIBE_CONSOLE__PORT", "0")
    monkeypatch.setenv("ROOMSCRIBE_LOG__FORMAT", "json")
    return dict(os.environ)


@pytest.fixture
def keys(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Keys:
    """Runs `roomscribe keys` with some arguments, in this process, where there is a database."""
    with closing(Database.of(load_settings())) as database:
        schema.upgrade(database)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["roomscribe", "keys", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Ran(ended.value.code, captured.out, captured.err)

    return run


def refusal(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """What `roomscribe console` says where it does not begin."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "agent", "console"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def logged(log: Path, event: str) -> dict[str, Any]:
    """The line of a log with this event, once it is there."""
    until_s = time.monotonic() + LIMIT_S
    while time.monotonic() < until_s:
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and json.loads(line)["event"] == event:
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(POLL_S)
    raise AssertionError(f"no {event} in {log.read_text(encoding='utf-8')}")


@contextmanager
def running(environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-P", "-m", "agent", "console"]
    with log.open("wb") as output:
        child = server.start(command, output=output, environment=environment)
    try:
        yield child
    finally:
        server.end(child, signal.SIGKILL, patience_s=LIMIT_S)


def test_a_key_is_printed_once_listed_and_revoked(keys: Keys) -> None:
    made = keys("create", "--name", "Ada\x1b[31m")
    key = made.out.removesuffix("\n")
    listed = keys("list").out
    key_id = listed.splitlines()[1].split()[0]

    revoked = keys("revoke", key_id)
    again = keys("revoke", key_id)

    assert (made.code, key[:4], len(key), len(key.split())) == (0, "rsk_", 47, 1)
    assert key_id in made.err
    assert key not in made.err + listed
    assert "Ada" in listed
    assert "\x1b" not in listed + made.err
    assert (revoked.code, again.code) == (0, 2)
    assert "no key" in again.err
    assert keys("list").out.count("never") == listed.count("never") - 1


@pytest.mark.parametrize(
    "arguments", [("create", "--name", " "), ("create", "--name", "x" * 101), ("revoke", "rsk_secret")]
)
def test_what_cannot_be_used_is_refused_without_repeating_a_key(
    keys: Keys, arguments: tuple[str, ...]
) -> None:
    refused = keys(*arguments)

    assert (refused.code, refused.out) == (2, "")
    assert "rsk_secret" not in refused.err


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_an_open_event_stream(
    environment: dict[str, str], keys: Keys, logs: Path, by: signal.Signals
) -> None:
    key = keys("create", "--name", "Ada").out.strip()
    with closing(Database.of(load_settings())) as database:
        session = KeptSession(database)
        session.hear()
    log = logs / f"console-{by.name}.log"
    with running(environment, log) as child:
        url = logged(log, "console.ready")["url"]
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=LIMIT_S, trust_env=False) as client:
            assert client.get("/api/v1/sessions", params={"room": "private"}).status_code == 200
            with client.stream("GET", f"/api/v1/sessions/{session.id}/events") as stream:
                lines = stream.iter_lines()
                assert next(line for line in lines if line.startswith("data: "))
                child.send_signal(by)
                assert not any(line.startswith("event: ended") for line in lines)
        assert child.wait(ENDS_WITHIN_S) == 0
    logged(log, "console.ended")
    assert "private" not in log.read_text(encoding="utf-8")
    assert "ERROR" not in log.read_text(encoding="utf-8").upper()


def test_a_port_that_is_taken_is_told_with_its_setting(environment: dict[str, str]) -> None:
    with socket.create_server((server.HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = refusal({**environment, "ROOMSCRIBE_CONSOLE__PORT": port})

    assert refused.returncode == 2
    assert f"console.port {port} cannot be used" in refused.stderr
    assert "ROOMSCRIBE_CONSOLE__PORT" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_it_warns_where_others_can_reach_it_without_tls(environment: dict[str, str], logs: Path) -> None:
    log = logs / "console-open.log"
    with running({**environment, "ROOMSCRIBE_CONSOLE__HOST": "0.0.0.0"}, log) as child:
        assert logged(log, "console.no_tls")["level"] == "warning"
        url = logged(log, "console.ready")["url"].replace("0.0.0.0", server.HOST)
        # Whatever a proxy or a name leads here.
        served = httpx.get(f"{url}/healthz", headers={"Host": "captions.example"}, trust_env=False)
        assert served.status_code == 200
        server.end(child, signal.SIGTERM, patience_s=ENDS_WITHIN_S)
        assert child.returncode == 0


def test_it_waits_for_a_database_that_is_away_and_can_be_ended_meanwhile(
    environment: dict[str, str], logs: Path
) -> None:
    url = f"postgresql://nobody:secret@{server.HOST}:{server.free_port()}/none"
    log = logs / "console-away.log"
    with running({**environment, "ROOMSCRIBE_DATABASE__URL": url}, log) as child:
        assert "secret" not in str(logged(log, "console.database_away"))
        server.end(child, signal.SIGTERM, patience_s=ENDS_WITHIN_S)
        assert child.returncode == 0


def test_old_tables_that_may_not_be_upgraded_are_told(environment: dict[str, str]) -> None:
    refused = refusal({**environment, "ROOMSCRIBE_DATABASE__UPGRADE_AT_START": "false"})

    assert refused.returncode == 1
    assert "roomscribe db upgrade" in refused.stderr
