"""What several workers log, followed while they run."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Log", "Logs", "logged_at_s"]


class Log(Protocol):
    """Where entries are looked up: a `RunningWorker`, or `Logs` of several."""

    def logged(self, event: str, **fields: object) -> Sequence[Mapping[str, Any]]:
        """The entries so far with this event and these fields."""
        ...


class Logs:
    """The entries of several files, each line read once. They have a field `worker`: whose they are."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[str, int]] = {}
        self._entries: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._lines: list[tuple[str, str]] = []

    def add(self, path: Path, worker: str) -> None:
        """Follow a file, which is there."""
        self._files[path] = worker, 0

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The entries so far with this event and these fields, as they were logged."""
        self._read()
        found = [entry for entry in self._entries[event] if fields.items() <= entry.items()]
        return sorted(found, key=logged_at_s)

    def lines(self, worker: str) -> list[str]:
        """What a worker has written that is no entry."""
        self._read()
        return [line for owner, line in self._lines if owner == worker]

    def _read(self) -> None:
        for path, (worker, offset) in self._files.items():
            with path.open("rb") as file:
                file.seek(offset)
                # The last line may be being written.
                whole = file.read().rpartition(b"\n")[0]
            if not whole:
                continue
            self._files[path] = worker, offset + len(whole) + 1
            for line in whole.decode("utf-8", "replace").splitlines():
                self._take(worker, line)

    def _take(self, worker: str, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get("event"), str):
            self._entries[entry["event"]].append({**entry, "worker": worker})
        else:
            self._lines.append((worker, line))


def logged_at_s(entry: Mapping[str, Any]) -> float:
    """When an entry was logged, as wall time in seconds."""
    return datetime.fromisoformat(entry["timestamp"]).timestamp()
