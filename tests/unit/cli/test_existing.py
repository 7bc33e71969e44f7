"""Commands that want an installation make none."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from agent.cli.app import main
from agent.cli.existing import existing_database
from agent.config import load_settings
from agent.errors import ConfigError, InputError
from persistence import schema
from persistence.database import Database

SESSION = "1a" * 16
COMMANDS = [
    ("keys", "create", "--name", "me"),
    ("keys", "list"),
    ("keys", "revoke", "abc"),
    ("sessions", "list"),
    ("sessions", "show", SESSION),
    ("sessions", "end", SESSION),
    ("export", SESSION),
    ("report", SESSION),
    ("retry", SESSION),
    ("journal", "drain"),
    ("db", "check"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["roomscribe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def upgraded() -> None:
    with closing(Database.of(load_settings())) as database:
        schema.upgrade(database)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_in_another_folder_a_command_says_so_and_makes_no_database(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
) -> None:
    # It configures the logs of the process.
    monkeypatch.setattr("agent.telemetry.logs.configure_logs", lambda *_: None)

    assert code_of(monkeypatch, *command) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(
        f"roomscribe: there is no database at {folder}/roomscribe-data/roomscribe.db: run this in the folder "
        "where `roomscribe up` runs, or set ROOMSCRIBE_DATA_DIR; `roomscribe db upgrade` makes one\n"
    )
    assert list(folder.iterdir()) == []


def test_journals_are_listed_without_a_database_and_none_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of(monkeypatch, "journal", "list") == 0
    assert list(folder.iterdir()) == []


def test_a_file_that_the_settings_name_is_looked_for_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", "sqlite:///other.db")
    with pytest.raises(InputError, match=rf"no database at {folder}/other\.db: .* ROOMSCRIBE_DATABASE__URL;"):
        existing_database(load_settings())

    upgraded()

    with closing(existing_database(load_settings())) as database:
        schema.check(database)


@pytest.mark.parametrize("url", ["mysql://me:hidden@host/x", "hidden", "sqlite://"])
def test_a_url_of_no_database_that_we_know_is_refused_as_ever(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", url)

    with pytest.raises(ConfigError, match=r"database\.url"):
        existing_database(load_settings())


def test_a_new_key_is_said_to_be_of_the_folder_that_was_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upgraded()

    assert code_of(monkeypatch, "keys", "create", "--name", "me") == 0

    captured = capsys.readouterr()
    assert f"to the installation in {folder}/roomscribe-data;" in captured.err
    assert captured.out.startswith("rsk_")


def test_a_new_key_is_said_to_be_of_a_database_without_its_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DATABASE__URL", f"sqlite:///{folder}/other.db?timeout=7")
    upgraded()

    assert code_of(monkeypatch, "keys", "create", "--name", "me") == 0

    said = capsys.readouterr().err
    assert f"to the installation in sqlite:///{folder}/other.db;" in said
    assert "timeout" not in said
