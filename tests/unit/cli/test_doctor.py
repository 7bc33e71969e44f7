from pathlib import Path

import pytest

from agent.cli.doctor import check_data_dir, check_engine, check_livekit
from agent.config import load_settings


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
