"""What `make demo` tells at its end."""

import importlib.util
import socket
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).parents[3] / "scripts" / "demo.py"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, whose console has a port that is free."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CONSOLE_PORT", module._free_port())
    monkeypatch.setattr(module, "LEFT", Path("/a folder"))
    return module


def test_the_lines_name_the_data_of_the_demo_and_the_key(demo: ModuleType) -> None:
    said = demo._next("rsk_1", "abc")

    data = "ROOMSCRIBE_DATA_DIR='/a folder/data'"
    assert f"    {data} .venv/bin/roomscribe console\n" in said
    assert f"    {data} .venv/bin/roomscribe keys revoke abc\n" in said
    assert f"http://127.0.0.1:{demo.CONSOLE_PORT}, with the key rsk_1\n" in said


def test_a_port_that_is_taken_is_not_told(demo: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", demo.CONSOLE_PORT)):
        said = demo._next("rsk_1", "abc")

    assert str(demo.CONSOLE_PORT) not in said
    port = said.partition("http://127.0.0.1:")[2].partition(",")[0]
    assert f"ROOMSCRIBE_CONSOLE__PORT={port} .venv/bin/roomscribe console\n" in said


async def test_what_a_command_says_besides_is_shown_only_where_it_fails(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = tmp_path / "roomscribe"
    command.write_text('#!/bin/sh\necho printed\necho said >&2\nexit "$1"\n', encoding="utf-8")
    command.chmod(0o700)
    monkeypatch.setattr(demo, "ROOMSCRIBE", command)

    assert await demo._run({}, "0") == "printed\n"
    assert capfd.readouterr().err == ""
    with pytest.raises(demo.DemoError, match="ended with 1"):
        await demo._run({}, "1")
    assert capfd.readouterr().err == "said\n"


def test_the_id_of_the_key_is_found_where_keys_are_listed(demo: ModuleType) -> None:
    assert demo._key_id(" key  made (UTC)  for \n 0a1b  2026-01-01 10:00  demo \n") == "0a1b"
