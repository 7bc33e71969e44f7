"""`roomscribe journal`, as an operator uses it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from agent.cli.journal import app
from agent.errors import InputError
from persistence import schema
from persistence.apply import Applier
from persistence.database import Database
from persistence.journal.folder import set_aside
from persistence.journal.line import frame
from persistence.journal.segment import segment_name
from persistence.journal.writer import Journal
from persistence.position import Position
from persistence.records import DEFAULT_SPACE
from tests.support.journalled import ROOMY, begun, final

SECRET = "the-word-that-somebody-said"
LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, in which roomscribe-data is."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "roomscribe-data" / "journal"


def journal(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert SECRET not in result.output
    return result


def drained() -> subprocess.CompletedProcess[str]:
    """In a process of its own, since it configures the logs of the process."""
    command = [sys.executable, "-m", "agent", "journal", "drain"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert SECRET not in done.stdout + done.stderr
    return done


def told(result: Result) -> str:
    """What is printed, on one line, without the spaces of a table."""
    return " ".join(result.stdout.split())


def leave_behind(folder: Path, session: str = "ab12", finals: int = 3) -> Path:
    written = Journal.create(folder, begun(session), ROOMY)
    written.append([final(number, SECRET) for number in range(1, finals + 1)])
    written.close(is_applied=False)
    return written.path


def harm(path: Path) -> str:
    """Damage the first final, and tell where."""
    file = path / segment_name(1)
    file.write_bytes(file.read_bytes().replace(SECRET.encode(), SECRET.upper().encode(), 1))
    return f"{file}: byte {len(frame(begun(path.name.partition('-')[0])))}"


def upgraded() -> Database:
    database = Database("sqlite:///roomscribe-data/roomscribe.db")
    schema.upgrade(database)
    return database


def test_no_journals_are_said_so(journals: Path) -> None:
    result = journal("list")
    assert (result.exit_code, told(result)) == (0, "no journals in roomscribe-data/journal")
    assert json.loads(journal("list", "--json").stdout) == []
    assert told(journal("verify")) == ""


def test_each_journal_is_listed_with_what_the_database_lacks(journals: Path) -> None:
    live = Journal.create(journals, begun("live"), ROOMY)
    live.append([final(1, SECRET), final(2, SECRET)])
    stretch = live.read(Position(1, 0), max_records=2)
    database = upgraded()
    Applier(database, DEFAULT_SPACE, "live", 1).apply(stretch.records, stretch.end)
    database.close()
    leave_behind(journals)
    set_aside(leave_behind(journals, "harmed"))

    listed = {one["session"]: one for one in json.loads(journal("list", "--json").stdout)}
    assert {name: (one["state"], one["records_to_drain"]) for name, one in listed.items()} == {
        "live": ("live", 1),
        "ab12": ("left behind", 4),
        "harmed": ("damaged", 4),
    }
    assert listed["ab12"]["room"] == "planning"
    assert listed["ab12"]["begun_at"] == "2026-03-01T09:00:00+00:00"
    assert listed["ab12"]["size_bytes"] == (journals / "ab12-1" / segment_name(1)).stat().st_size
    table = told(journal("list"))
    assert "planning 2026-03-01T09:00:00+00:00" in table
    assert "4 left behind" in table
    live.close(is_applied=True)


def test_a_database_that_is_away_leaves_the_list_without_what_it_lacks(
    journals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/nothing")
    leave_behind(journals)
    result = journal("list")
    assert result.exit_code == 0
    assert "? left behind" in told(result)


def test_a_name_from_outside_cannot_write_on_the_terminal(journals: Path) -> None:
    evil = begun().model_copy(update={"room": "\x1b[2J[bold]plan"})
    Journal.create(journals, evil, ROOMY).close(is_applied=False)
    assert "[2J[bold]plan" in journal("list").stdout
    assert "\x1b" not in journal("list").stdout


def test_a_name_from_outside_is_plain_in_json(journals: Path) -> None:
    # U+009B begins a control sequence where a terminal takes it for one.
    evil = begun().model_copy(update={"session": "é\u009b2J", "room": "é\u200b"})
    Journal.create(journals, evil, ROOMY).close(is_applied=False)
    printed = journal("list", "--json").stdout
    assert printed.isascii()
    (listed,) = json.loads(printed)
    assert (listed["session"], listed["room"]) == ("é\u009b2J", "é\u200b")


def test_a_journal_that_cannot_be_read_is_listed_and_verified_so(journals: Path) -> None:
    leave_behind(journals)
    segment = leave_behind(journals, "bad") / segment_name(1)
    segment.unlink()
    segment.mkdir()
    upgraded().close()
    listed = {one["session"]: one for one in json.loads(journal("list", "--json").stdout)}
    assert {name: one["records_to_drain"] for name, one in listed.items()} == {"ab12": 4, "bad": None}
    result = journal("verify")
    assert result.exit_code == 1
    assert "cannot be read: Is a directory" in told(result)
    assert "ab12-1: 4 records, whole" in told(result)


def test_draining_brings_over_what_was_left_behind(journals: Path) -> None:
    upgraded().close()
    leave_behind(journals)
    leave_behind(journals, "cd34", 2)
    done = drained()
    assert (done.returncode, done.stdout) == (0, "2 journals drained: 5 finals\n")
    assert list(journals.iterdir()) == []
    assert drained().stdout == "0 journals drained: 0 finals\n"


def test_draining_a_damaged_journal_says_where_it_is_and_fails(journals: Path) -> None:
    upgraded().close()
    leave_behind(journals)
    harm(leave_behind(journals, "harmed"))
    done = drained()
    assert (done.returncode, done.stdout) == (1, "1 journal drained: 5 finals; 1 journal not wholly\n")
    assert "harmed-1.damaged" in done.stderr


def test_draining_while_the_database_is_away_says_so_and_keeps_everything(
    journals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/nothing")
    path = leave_behind(journals)
    done = drained()
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be used" in done.stderr
    assert "run this again when it is back" in done.stderr
    assert path.exists()


def test_draining_into_a_database_without_tables_says_what_to_do(journals: Path) -> None:
    path = leave_behind(journals)
    Database("sqlite:///roomscribe-data/roomscribe.db").close()  # its file is there from then on
    done = drained()
    assert (done.returncode, done.stdout) == (1, "")
    assert "run `roomscribe db upgrade`" in done.stderr
    assert path.exists()


def test_journals_that_are_whole_are_verified_so(journals: Path) -> None:
    path = leave_behind(journals)
    result = journal("verify")
    assert (result.exit_code, told(result)) == (0, "ab12-1: 4 records, whole")
    assert told(journal("verify", str(path))) == told(result)


def test_a_damage_is_told_with_its_place(journals: Path) -> None:
    leave_behind(journals)
    place = harm(leave_behind(journals, "harmed")).removeprefix(f"{Path.cwd()}/")
    result = journal("verify")
    assert result.exit_code == 1
    assert f"harmed-1: 3 records, 1 damage {place}: " in told(result)
    assert "ab12-1: 4 records, whole" in told(result)


def test_a_torn_end_is_told_and_is_no_damage(journals: Path) -> None:
    file = leave_behind(journals) / segment_name(1)
    file.write_bytes(file.read_bytes()[:-5])
    result = journal("verify")
    assert result.exit_code == 0
    assert "3 records, whole" in told(result)
    assert "the last record was never wholly written" in told(result)


def test_a_path_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    result = journal("verify", str(tmp_path))
    assert isinstance(result.exception, InputError)
