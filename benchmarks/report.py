"""What a benchmark found: a JSON file for machines, a table for the terminal, a section of RESULTS.md."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["RESULTS", "Figure", "Report", "current_commit", "current_machine", "write_section"]

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    `value` is None where there was nothing to measure. `target` is None where there is none yet; `held` tells
    whether it was reached.
    """

    name: str
    value: float | int | None
    unit: str
    target: str | None = None
    held: bool | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `started_at` is an aware UTC time; `remarks` say in sentences what the figures mean."""

    benchmark: str
    commit: str
    machine: Mapping[str, Any]
    started_at: datetime
    parameters: Mapping[str, Any]
    figures: Sequence[Figure]
    remarks: Sequence[str] = ()

    @property
    def has_missed(self) -> bool:
        """Whether a target was not reached."""
        return any(figure.held is False for figure in self.figures)

    def to_json(self) -> str:
        """The run as a JSON object of the one shape that all benchmarks have."""
        return json.dumps(
            {
                "benchmark": self.benchmark,
                "commit": self.commit,
                "machine": dict(self.machine),
                "started_at": self.started_at.isoformat(timespec="seconds"),
                "parameters": dict(self.parameters),
                "figures": [asdict(figure) for figure in self.figures],
            },
            indent=2,
        )

    def print(self, console: Console) -> None:
        """Show the figures as a table."""
        table = Table(title=f"{self.benchmark}, commit {self.commit}, {_machine_text(self.machine)}")
        for title in ("figure", "value", "target", "held"):
            table.add_column(title, justify="right" if title == "value" else "left")
        for figure in self.figures:
            table.add_row(*_cells(figure))
        console.print(table)
        for remark in self.remarks:
            console.print(remark, highlight=False)

    def to_markdown(self) -> str:
        """The run as a section of RESULTS.md, heading included."""
        started_at = self.started_at.strftime("%Y-%m-%d %H:%M UTC")
        parameters = ", ".join(
            f"{name} {_parameter_text(value)}" for name, value in self.parameters.items() if value is not None
        )
        lines = [
            f"## {self.benchmark}",
            "",
            f"{started_at}, commit {self.commit}, {_machine_text(self.machine)}; {parameters}.",
            "",
            "| figure | value | target | held |",
            "|---|---:|---|---|",
            *(f"| {' | '.join(_cells(figure))} |" for figure in self.figures),
        ]
        if self.remarks:
            lines += ["", *(f"- {remark}" for remark in self.remarks)]
        return "\n".join(lines) + "\n"


def write_section(report: Report, path: Path = RESULTS) -> None:
    """Put a run in the place of the same benchmark's last one in RESULTS.md, or at its end."""
    text = path.read_text(encoding="utf-8")
    section = report.to_markdown()
    # A section reaches to the next heading of its level.
    old = re.compile(rf"^## {re.escape(report.benchmark)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if found := old.search(text):
        before, after = text[: found.start()], text[found.end() :]
        text = before + section + ("\n" + after if after else "")
    else:
        text = text.rstrip("\n") + "\n\n" + section
    path.write_text(text, encoding="utf-8")


def current_commit() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; `unknown` outside of one.

    RESULTS.md does not count: a run writes into it, and the next one measures the same code.
    """
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS.name}"
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    run = subprocess.run(
        ("git", *arguments),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return run.stdout.strip()


def current_machine() -> dict[str, Any]:
    """The processor, and how many of its cores we may use."""
    return {"cores": len(os.sched_getaffinity(0)), "cpu": _cpu_name()}


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _machine_text(machine: Mapping[str, Any]) -> str:
    return f"{machine['cores']} cores of {machine['cpu']}"


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    value = "none" if figure.value is None else f"{figure.value} {figure.unit}".strip()
    held = {None: "", True: "yes", False: "NO"}[figure.held]
    return figure.name, value, figure.target or "", held


def _parameter_text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
