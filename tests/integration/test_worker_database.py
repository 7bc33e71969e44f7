"""A worker finds out before any room does whether it can work with its database."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from persistence import schema
from persistence.database import Database

LIMIT_S = 60.0


async def run_worker(folder: Path, **settings: str) -> tuple[int, str]:
    """Start one that is to refuse, and give its exit code and what it says."""
    environment = {
        **os.environ,
        "LIVEKIT_URL": "ws://127.0.0.1:9",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "secret-secret-secret-secret-secret-secret",
        "ROOMSCRIBE_DATA_DIR": str(folder / "data"),
        # One that loads nothing: this is about what comes before any room.
        "ROOMSCRIBE_STT__ENGINES": "benchmarks.counting_stt:CountingSTT",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", "worker",
        cwd=folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


def new_database(folder: Path) -> Database:
    (folder / "data").mkdir()
    database = Database(f"sqlite:///{folder / 'data' / 'roomscribe.db'}")
    schema.upgrade(database)
    return database


async def test_database_of_a_newer_roomscribe_is_refused_in_one_sentence(tmp_path: Path):
    database = new_database(tmp_path)
    with database.write() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    database.close()
    code, output = await run_worker(tmp_path)
    assert code == 2
    assert "9999" in output.splitlines()[-1]
    assert "upgrade Roomscribe" in output.splitlines()[-1]
    assert "Traceback" not in output


async def test_tables_are_not_made_where_the_settings_forbid_it(tmp_path: Path):
    code, output = await run_worker(tmp_path, ROOMSCRIBE_DATABASE__UPGRADE_AT_START="false")
    assert code == 2
    assert "roomscribe db upgrade" in output.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
async def test_folder_that_cannot_be_written_to_is_refused_in_one_sentence(tmp_path: Path):
    # Root may write to a read-only folder, but nobody may make one here.
    code, output = await run_worker(tmp_path, ROOMSCRIBE_DATA_DIR="/proc/roomscribe")
    assert code == 2
    assert "data_dir" in output.splitlines()[-1]
    assert "Traceback" not in output
