"""What was kept, as the commands show and export it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from sqlalchemy import make_url, select, text

from agent.captions.protocol import schema as json_schema
from agent.cli import sessions
from agent.cli.app import main
from persistence import commands, schema
from persistence import sessions as kept_sessions
from persistence.apply import Applier
from persistence.clock import database_time
from persistence.commands import Command
from persistence.database import Database
from persistence.records import (
    DEFAULT_SPACE,
    Begun,
    Ended,
    Failure,
    Final,
    Gap,
    Presence,
    Record,
    Stem,
    Usage,
)
from persistence.rows import AUDIT_EVENT, SESSION_COMMAND
from tests.support.postgres import Postgres

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
FIRST = "1a" * 16
LONG_FINALS = 5_000  # more than a pipe holds
LIMIT_S = 30


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int | str | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def postgres(logs: Path) -> Iterator[Postgres]:
    with Postgres(logs / "postgres-of-commands.log") as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an empty database, which is that of the settings, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'roomscribe.db'}"
        monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", url)
        yield url
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.new_database()
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", url)
    yield url
    postgres.drop_database(url)


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    database = Database(empty_url)
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["roomscribe", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Ran(ended.value.code, captured.out, captured.err)

    return run


def begun(session: str = FIRST, room: str = "planning", room_sid: str = "RM_1", after_s: int = 0) -> Begun:
    return Begun(
        session=session,
        epoch=1,
        room=room,
        room_sid=room_sid,
        agent="agent-1",
        worker="worker-1",
        languages=("en",),
        started_at=AT + timedelta(seconds=after_s),
        offset_ms=0,
        is_provisional=True,
    )


def final(number: int, words: str, start_ms: int, identity: str = "ada-1", name: str = "Ada") -> Final:
    return Final(
        id=f"1-{number}", revision=1, seq=number, identity=identity, name=name, text=words, language="en",
        confidence=0.9, has_overlap=False, start_ms=start_ms, end_ms=start_ms + 900, at=AT,
    )  # fmt: skip


MEETING: list[Record] = [
    Presence(identity="ada-1", name="Ada", joined_ms=0, left_ms=60_000),
    Presence(identity="ada-2", name="Ada", joined_ms=500),
    Presence(identity="omar", name="عمر\x1b[31m", joined_ms=700, left_ms=50_000),
    final(1, "Good morning.", 1_000),
    final(2, "𝄞 secret word", 3_000, "omar", "عمر\x1b[31m"),
    Gap(start_ms=2_000, end_ms=2_500, reason="agent_away"),
    Stem(
        track="TR_1", number=1, identity="ada-1", path="1.ogg", sample_rate_hz=48_000, start_ms=0,
        duration_ms=61_000, size_bytes=2_000_000,
    ),
    Usage(identity="ada-1", speech_ms=65_000, stt_ms=70_000, covered_ms=52_000),
    Usage(identity="", speech_ms=0, stt_ms=1_000),
    Failure(id="f1", stage="stt", code="timeout", message="No answer in 5 s.", at=AT),
]  # fmt: skip
ENDED = Ended(reason="room_closed", end_ms=60_000, at=AT + timedelta(seconds=60))


def keep(database: Database, first: Begun, *records: Record) -> str:
    assert Applier(database, first.space, first.session, first.epoch).apply([first, *records], None) == []
    return first.session


def many(database: Database, count: int) -> list[str]:
    """The ids of sessions, the newest first."""
    kept = [
        keep(database, begun(f"{n:02}{'b' * 30}", f"room {n % 2}", f"RM_{n}", after_s=n), ENDED)
        for n in range(count)
    ]
    return kept[::-1]


def test_sessions_are_listed_the_newest_first_with_how_to_see_more(database: Database, run: Run) -> None:
    newest = many(database, 5)

    listed = run("sessions", "list", "--limit", "3", "--json")

    assert [one["id"] for one in listed.json] == newest[:3]
    assert "--limit 6" in listed.err
    table = run("sessions", "list", "--limit", "5")
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == newest
    assert table.err == ""


def test_sessions_of_one_room_are_listed_alone(database: Database, run: Run) -> None:
    newest = many(database, 5)

    listed = run("sessions", "list", "--room", "room 1", "--json")

    assert [one["id"] for one in listed.json] == [newest[1], newest[3]]
    assert run("sessions", "list", "--room", "nowhere").out == "no sessions of room nowhere\n"


@pytest.mark.usefixtures("database")
def test_a_database_without_sessions_has_none_to_list(run: Run) -> None:
    assert run("sessions", "list") == Ran(0, "no sessions\n", "")
    assert run("sessions", "list", "--json").json == []


def test_a_session_that_goes_on_is_live(database: Database, run: Run) -> None:
    keep(database, begun())

    assert " live " in run("sessions", "list").out
    (listed,) = run("sessions", "list", "--json").json
    assert (listed["status"], listed["ended_at"], listed["ended_by"]) == ("live", None, None)


def test_a_list_keeps_its_lines_whatever_rooms_are_called(database: Database, run: Run) -> None:
    room = "a\x1b[2J\n\u202eb " + "long " * 50
    keep(database, begun(room=room), ENDED)

    lines = run("sessions", "list").out.splitlines()

    assert len(lines) == 2
    assert lines[1].rstrip().endswith("room_closed  a[2J b " + "long " * 49 + "long")


def test_a_session_is_shown_with_all_but_what_was_said(database: Database, run: Run) -> None:
    keep(database, begun(), *MEETING, ENDED)

    shown = run("sessions", "show", FIRST)

    assert shown.code == 0
    for part in (
        "planning", "RM_1",
        "2026-03-01 09:00:00 UTC", "by room_closed, after 00:01:00", "agent-1 of worker-1,",
        "00:01:01 in 1 segment, 2.0 MB", "00:01:05 of speech, 00:01:11 sent", "3 participants", "عمر[31m",
        "00:00:00-00:01:00", "00:00:00-?", "1 gap", "agent_away", "everybody", "No answer in 5 s.",
    ):  # fmt: skip
        assert part in shown.out
    for out in (shown.out, run("sessions", "show", FIRST, "--json").out):
        assert "secret" not in out
        assert "morning" not in out
        assert "\x1b" not in out


def test_a_session_as_json_has_keys_that_stay(database: Database, run: Run) -> None:
    keep(database, begun(), *MEETING, ENDED)

    shown = run("sessions", "show", FIRST, "--json").json

    epoch = shown["epochs"][0]
    assert epoch.pop("began_at") == "2026-03-01T09:00:00.000Z"
    assert shown.pop("heard_at").endswith("Z")
    assert shown == {
        "id": FIRST,
        "room": "planning",
        "status": "ended",
        "epoch": 1,
        "languages": ["en"],
        "started_at": "2026-03-01T09:00:00.000Z",
        "ended_at": "2026-03-01T09:01:00.000Z",
        "ended_by": "room_closed",
        "room_sids": ["RM_1"],
        "epochs": [
            {
                "epoch": 1,
                "agent": "agent-1",
                "worker": "worker-1",
                "published_as": FIRST,
                "published_epoch": 1,
            }
        ],
        "participants": [
            {"identity": "ada-1", "name": "Ada", "joined_ms": 0, "left_ms": 60_000},
            {"identity": "ada-2", "name": "Ada", "joined_ms": 500, "left_ms": None},
            {"identity": "omar", "name": "عمر\x1b[31m", "joined_ms": 700, "left_ms": 50_000},
        ],
        "finals": 2,
        "gaps": [{"start_ms": 2_000, "end_ms": 2_500, "identity": None, "reason": "agent_away"}],
        "audio": {"segments": 1, "duration_ms": 61_000, "size_bytes": 2_000_000},
        "usage": [
            {"identity": None, "speech_ms": 0, "stt_ms": 1_000, "covered_ms": 0},
            {"identity": "ada-1", "speech_ms": 65_000, "stt_ms": 70_000, "covered_ms": 52_000},
        ],
        "failures": [
            {
                "id": "f1",
                "stage": "stt",
                "code": "timeout",
                "message": "No answer in 5 s.",
                "at": "2026-03-01T09:00:00.000Z",
            }
        ],
    }


def test_the_beginning_of_an_id_names_a_session_if_no_other_begins_so(database: Database, run: Run) -> None:
    keep(database, begun("abcdef00"))
    keep(database, begun("abcdef01", room_sid="RM_2"))

    assert run("sessions", "show", "abcdef00").code == 0
    for given, said in (
        ("abcdef", "2 sessions"),
        ("abcde", "'abcde' is too short; give an id, or the first 6 or more characters"),
        ("", "'' is too short"),
        ("abcdef02", "there is no session abcdef02; give an id"),
        ("abcde%", "no session"),
    ):
        for command in (("sessions", "show"), ("export",)):
            ran = run(*command, given)
            assert (ran.code, ran.out) == (2, "")
            assert said in ran.err
    assert run("export", "abcdef0", "--output", "x").code == 2
    keep(database, begun("fedcba00", room_sid="RM_3"))
    assert run("sessions", "show", "fedcba", "--json").json["id"] == "fedcba00"


def test_a_merged_session_shows_what_it_became(database: Database, run: Run) -> None:
    keep(database, begun(), final(1, "Before.", 0))
    later = keep(database, begun("2b" * 16, after_s=90), final(1, "After.", 0))

    shown = run("sessions", "show", later[:8])

    assert f"session    {FIRST}" in shown.out
    assert f"merged     {later}" in shown.out
    assert f"was merged into {FIRST}" in shown.err
    assert run("export", later).out == "[00:00:00] Ada: Before.\n[00:01:30] Ada: After.\n"
    assert [one["id"] for one in run("sessions", "list", "--json").json] == [FIRST]


def test_a_transcript_is_exported_in_every_format(database: Database, run: Run) -> None:
    keep(database, begun(), *MEETING, ENDED)

    assert run("export", FIRST) == Ran(
        0,
        "[00:00:01] Ada (ada-1): Good morning.\n[00:00:02] (not heard for 500 ms: agent_away)\n"
        "[00:00:03] عمر[31m: 𝄞 secret word\n",
        "",
    )
    assert run("export", FIRST, "--format", "srt").out.startswith(
        "1\n00:00:01,000 --> 00:00:01,900\nAda (ada-1): G"
    )
    assert run("export", FIRST, "--format", "vtt").out.startswith(
        "WEBVTT\n\n1-1\n00:00:01.000 --> 00:00:01.900\n<v "
    )
    exported = run("export", FIRST, "--format", "json").json
    jsonschema.validate(exported, json_schema("transcript"))
    assert exported["finals"][0]["speaker"] == {"identity": "ada-1", "name": "Ada"}


def test_what_a_session_has_so_far_is_exported_and_said_to_be_so(database: Database, run: Run) -> None:
    keep(database, begun(), *MEETING)

    ran = run("export", FIRST, "--format", "json")

    assert "so far" in ran.err
    assert ran.json["session"]["ended_at"] is None
    assert len(ran.json["finals"]) == 2


def test_a_file_gets_the_format_of_its_ending_and_replaces_another(database: Database, run: Run) -> None:
    keep(database, begun(), *MEETING, ENDED)
    Path("meeting.vtt").write_text("before")
    Path("meeting.vtt").chmod(0o640)

    assert run("export", FIRST, "--output", "meeting.vtt") == Ran(0, "", "")

    assert Path("meeting.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n")
    assert Path("meeting.vtt").stat().st_mode & 0o777 == 0o640
    assert run("export", FIRST, "--format", "srt", "--output", "other.txt").code == 0
    assert Path("other.txt").read_text(encoding="utf-8").startswith("1\n")
    assert [path.name for path in Path().glob(".roomscribe-*")] == []


@pytest.mark.parametrize(
    ("output", "reason"), [(".", "Is a directory"), ("gone/x.txt", "No such file"), ("y" * 300, "too long")]
)
def test_a_file_that_cannot_be_written_is_said(
    database: Database, run: Run, output: str, reason: str
) -> None:
    keep(database, begun(), *MEETING, ENDED)

    ran = run("export", FIRST, "--output", output)

    assert (ran.code, ran.out) == (2, "")
    assert f"{output} cannot be written: " in ran.err
    assert reason in ran.err


def test_devices_and_links_are_written_through(database: Database, run: Run) -> None:
    keep(database, begun(), *MEETING, ENDED)
    Path("target.txt").write_text("before")
    Path("link.txt").symlink_to("target.txt")
    os.mkfifo("pipe")

    assert run("export", FIRST, "--output", "link.txt").code == 0
    assert Path("link.txt").is_symlink()
    assert "Good morning." in Path("target.txt").read_text(encoding="utf-8")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True, encoding="utf-8") as reader:
        assert run("export", FIRST, "--output", "pipe").code == 0
        assert "Good morning." in reader.communicate()[0]


@pytest.mark.parametrize("form", ["txt", "json"])
def test_a_reader_that_has_had_enough_is_no_traceback(database: Database, form: str) -> None:
    keep(database, begun(), *(final(n, "A rather long sentence.", n) for n in range(1, LONG_FINALS)), ENDED)
    command = [sys.executable, "-m", "agent", "export", FIRST, "--format", form]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert errors == b""
    assert process.returncode == 1


def test_output_is_utf_8_whatever_the_terminal_is_said_to_be(database: Database) -> None:
    keep(database, begun(), *MEETING, ENDED)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    ran = subprocess.run(
        [sys.executable, "-m", "agent", "export", FIRST], capture_output=True, env=environment, check=True
    )

    assert "𝄞" in ran.stdout.decode("utf-8")


def is_over(database: Database, session: str, reason: str) -> None:
    with database.write() as connection:
        assert kept_sessions.end(connection, DEFAULT_SPACE, session, reason, database_time(connection))


def answering(url: str, outcome: str, *, ended_by: str | None = None) -> Command:
    """What an agent does that is asked to end its session."""
    deadline_s = time.monotonic() + LIMIT_S
    with closing(Database(url)) as database:
        while time.monotonic() < deadline_s:
            with database.read() as connection:
                asked = commands.waiting(connection, DEFAULT_SPACE, FIRST)
            if asked:
                with database.write() as connection:
                    assert commands.answer(connection, DEFAULT_SPACE, asked[0].id, outcome)
                if ended_by is not None:
                    is_over(database, FIRST, ended_by)
                return asked[0]
            time.sleep(0.02)
    raise AssertionError("it was not asked")


def asked_of(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(SESSION_COMMAND)).all())


@pytest.mark.usefixtures("long_wait")
class TestEnding:
    @pytest.fixture
    def long_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sessions, "AGENT_WAIT_S", LIMIT_S)

    @pytest.fixture
    def short_wait(self, monkeypatch: pytest.MonkeyPatch, long_wait: None) -> None:
        monkeypatch.setattr(sessions, "AGENT_WAIT_S", 0.5)
        monkeypatch.setattr(sessions, "SAID_AFTER_S", 0.1)

    def test_its_agent_ends_it(self, database: Database, empty_url: str, run: Run) -> None:
        keep(database, begun())
        with ThreadPoolExecutor(1) as threads:
            agent = threads.submit(answering, empty_url, commands.DONE, ended_by="api")
            ran = run("sessions", "end", FIRST[:8])
            asked = agent.result(LIMIT_S)

        assert (ran.code, ran.out) == (0, f"session {FIRST} is ended, by api\n")
        assert (asked.kind, asked.body, asked.asked_by) == ("end", {"reason": "api"}, "cli")
        with database.read() as connection:
            event = connection.execute(
                select(AUDIT_EVENT).where(AUDIT_EVENT.c.action == "session.end_asked")
            ).one()
        assert (event.actor, event.subject) == ("cli", FIRST)

    def test_its_agent_may_refuse(self, database: Database, empty_url: str, run: Run) -> None:
        keep(database, begun())
        with ThreadPoolExecutor(1) as threads:
            agent = threads.submit(answering, empty_url, "refused: not now")
            ran = run("sessions", "end", FIRST)
            agent.result(LIMIT_S)

        assert (ran.code, ran.out) == (1, "")
        assert ran.err == f"roomscribe: session {FIRST} goes on: its agent refuses to end it: not now\n"

    @pytest.mark.usefixtures("short_wait")
    def test_without_an_agent_it_is_ended_all_the_same_and_nobody_leads_it_again(
        self, database: Database, run: Run
    ) -> None:
        keep(database, begun())

        ran = run("sessions", "end", FIRST)

        assert ran.code == 0
        assert ran.out.startswith(f"session {FIRST} is ended, by api; no agent of it answered within ")
        assert ran.err.startswith(f"waiting for the agent of session {FIRST}, ")
        assert ran.err.count("\n") == 1
        shown = run("sessions", "show", FIRST, "--json").json
        assert (shown["status"], shown["ended_by"]) == ("ended", "api")
        with database.write() as connection:
            # An agent that still runs finds it.
            assert len(commands.waiting(connection, DEFAULT_SPACE, FIRST)) == 1
            again = kept_sessions.begin(
                connection, space=DEFAULT_SPACE, room="planning", room_sid="RM_1", worker="worker-2",
                languages=["en"], new_id="2b" * 16,
            )  # fmt: skip
        assert again == kept_sessions.Refused("api")

    @pytest.mark.usefixtures("short_wait")
    def test_one_that_is_taken_for_lost_may_be_ended_for_good(self, database: Database, run: Run) -> None:
        keep(database, begun())
        is_over(database, FIRST, kept_sessions.AGENT_LOST)

        ended = run("sessions", "end", FIRST, "--json").json

        assert (ended["ended_by"], ended["agent_answered"]) == ("api", False)

    def test_one_that_has_ended_is_left_as_it_is(self, database: Database, run: Run) -> None:
        keep(database, begun(), ENDED)

        ran = run("sessions", "end", FIRST)

        assert (ran.code, ran.err) == (0, "")
        assert ran.out == f"session {FIRST} had ended already, by room_closed\n"
        ended = run("sessions", "end", FIRST, "--json").json
        assert (ended["id"], ended["ended_by"], ended["agent_answered"]) == (FIRST, "room_closed", None)
        assert asked_of(database) == []

    def test_one_that_ends_by_itself_in_between_asks_no_agent_that_comes_later(
        self, database: Database, empty_url: str, run: Run
    ) -> None:
        keep(database, begun())

        def ends() -> None:
            deadline_s = time.monotonic() + LIMIT_S
            with closing(Database(empty_url)) as own:
                while not asked_of(own) and time.monotonic() < deadline_s:
                    time.sleep(0.02)
                is_over(own, FIRST, "room_closed")

        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(ends)
            ran = run("sessions", "end", FIRST)
            other.result(LIMIT_S)

        assert (ran.code, ran.out) == (0, f"session {FIRST} is ended, by room_closed\n")
        assert [command.outcome for command in asked_of(database)] == ["done"]

    def test_one_that_is_not_there_cannot_be_ended(self, database: Database, run: Run) -> None:
        ran = run("sessions", "end", FIRST)

        assert (ran.code, ran.out) == (2, "")
        assert f"there is no session {FIRST}" in ran.err


COMMANDS = [
    ("sessions", "list"),
    ("sessions", "show", FIRST),
    ("sessions", "end", FIRST),
    ("export", FIRST),
]


@pytest.mark.parametrize("command", COMMANDS, ids="-".join)
def test_a_database_that_is_empty_is_one_sentence(run: Run, empty_url: str, command: tuple[str, ...]) -> None:
    Database(empty_url).close()  # SQLite's file is there from then on

    ran = run(*command)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("roomscribe: database ")
    assert ran.err.endswith("is empty; run `roomscribe db upgrade`\n")
    assert "p@ss" not in ran.err


def test_a_database_that_is_newer_is_one_sentence(database: Database, run: Run) -> None:
    with database.write() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))

    ran = run("sessions", "list")

    assert ran.code == 1
    assert "of version 9999" in ran.err


@pytest.mark.parametrize("command", COMMANDS, ids="-".join)
def test_a_database_that_is_away_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", "postgresql://someone:hidden@127.0.0.1:1/there")

    ran = run(*command)

    assert (ran.code, ran.out) == (1, "")
    assert "cannot be used: " in ran.err
    assert ran.err.count("\n") == 1
    assert "hidden" not in ran.err


def test_a_new_key_is_told_with_its_database_and_without_a_password(
    database: Database, empty_url: str, run: Run
) -> None:
    made = run("keys", "create", "--name", "me")

    assert made.code == 0
    assert f"to the installation in {database.name};" in made.err
    password = make_url(empty_url).password
    assert database.is_sqlite or password
    assert not password or (password not in made.err and quote(password) not in made.err)
