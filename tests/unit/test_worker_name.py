"""What a worker is called."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.worker_name import worker_name


def test_name_stays_with_its_folder(tmp_path: Path, monkeypatch):
    name = worker_name(tmp_path / "data")
    monkeypatch.setattr("socket.gethostname", lambda: "another-machine")
    assert worker_name(tmp_path / "data") == name
    assert worker_name(tmp_path / "other").startswith("another-machine-")


def test_workers_that_share_a_folder_share_its_name(tmp_path: Path):
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(lambda _: worker_name(tmp_path), range(32)))
    assert len(names) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["worker-name"]
