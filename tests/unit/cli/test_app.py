import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agent.cli.app import main

HEAVY = ("livekit", "numpy", "av", "pydantic", "rich.live", "aiohttp")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["roomscribe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom agent.cli.app import main\nsys.argv = ['roomscribe', '--help']\n"
        f"try:\n    main()\nfinally:\n    sys.stderr.write(repr([n for n in {HEAVY!r} if n in sys.modules]))"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "Usage: roomscribe" in ended.stdout
    assert ended.stderr == "[]"


def test_config_show_is_toml_with_masked_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIVEKIT_API_SECRET", "not to be seen")

    assert exit_code(monkeypatch, "config", "show") == 0

    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["livekit"]["api_secret"] == "***"
    assert shown["dispatch"] == {"mode": "explicit", "agent_name": "roomscribe", "rooms": ["*"]}
    assert shown["stt"]["whisper"]["model"] == "tiny.en"


def test_config_show_json_gives_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code(monkeypatch, "config", "show")
    as_toml = tomllib.loads(capsys.readouterr().out)

    exit_code(monkeypatch, "config", "show", "--json")

    assert json.loads(capsys.readouterr().out) == as_toml


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "nowhere.toml", "config", "show"), "config: nowhere.toml does not exist"),
        (("token", "r", "--identity", "i"), "config: livekit.api_key is missing; set LIVEKIT_API_KEY"),
        (("up",), "config: livekit.api_key is missing"),
    ],
)
def test_unusable_settings_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert exit_code(monkeypatch, *arguments) == 2

    said = capsys.readouterr().err
    assert said.startswith(f"roomscribe: {message}")
    assert said.count("\n") == 1


def test_up_livekit_refuses_a_server_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIVEKIT_URL", "wss://example.livekit.cloud")
    monkeypatch.setattr("agent.cli.local_livekit.find_livekit_server", lambda: Path("livekit-server"))

    assert exit_code(monkeypatch, "up", "--livekit") == 2
    assert "--livekit serves this machine only" in capsys.readouterr().err


def test_up_livekit_tells_how_to_get_a_livekit_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")

    assert exit_code(monkeypatch, "up", "--livekit") == 1

    captured = capsys.readouterr()
    assert "https://github.com/livekit/livekit/releases" in captured.err
    assert captured.out == ""


def test_play_refuses_a_folder_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "secret")

    assert exit_code(monkeypatch, "play", "nowhere", "--room", "r") == 2
    assert "meeting nowhere is not a folder" in capsys.readouterr().err
