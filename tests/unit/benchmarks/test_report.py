import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report import Figure, Report, current_commit, current_machine, write_section

REPORT = Report(
    benchmark="live",
    commit="abc123",
    machine={"cores": 2, "cpu": "Some CPU"},
    started_at=datetime(2025, 3, 1, 12, 0, tzinfo=UTC),
    parameters={"meetings": ["incident_review"], "full": False},
    figures=[
        Figure("shown_p50", 0.61, "s", "<= 0.5", False),
        Figure("wer", None, "%"),
        Figure("turns", 28, ""),
    ],
    remarks=["The engine dominates."],
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nHow to read them.\n")
    return path


def test_json_has_the_one_shape_of_all_benchmarks() -> None:
    assert json.loads(REPORT.to_json()) == {
        "benchmark": "live",
        "commit": "abc123",
        "machine": {"cores": 2, "cpu": "Some CPU"},
        "started_at": "2025-03-01T12:00:00+00:00",
        "parameters": {"meetings": ["incident_review"], "full": False},
        "figures": [
            {"name": "shown_p50", "value": 0.61, "unit": "s", "target": "<= 0.5", "held": False},
            {"name": "wer", "value": None, "unit": "%", "target": None, "held": None},
            {"name": "turns", "value": 28, "unit": "", "target": None, "held": None},
        ],
    }


def test_table_shows_every_figure_and_remark() -> None:
    console = Console(file=io.StringIO(), width=120)

    REPORT.print(console)

    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for expected in ("shown_p50", "0.61 s", "<= 0.5", "NO", "none", "The engine dominates."):
        assert expected in text


def test_a_new_section_goes_to_the_end(results: Path) -> None:
    write_section(REPORT, results)

    assert results.read_text() == (
        "# Results\n\nHow to read them.\n\n"
        "## live\n\n"
        "2025-03-01 12:00 UTC, commit abc123, 2 cores of Some CPU; meetings incident_review, full False.\n\n"
        "| figure | value | target | held |\n"
        "|---|---:|---|---|\n"
        "| shown_p50 | 0.61 s | <= 0.5 | NO |\n"
        "| wer | none |  |  |\n"
        "| turns | 28 |  |  |\n\n"
        "- The engine dominates.\n"
    )


def test_a_run_replaces_the_last_one_and_leaves_the_others(results: Path) -> None:
    other = replace(REPORT, benchmark="floor", commit="older")
    for report in (REPORT, other):
        write_section(report, results)
    before = results.read_text()

    write_section(replace(REPORT, commit="newer"), results)

    assert results.read_text() == before.replace("abc123", "newer")


def test_the_same_run_written_twice_stands_there_once(results: Path) -> None:
    write_section(REPORT, results)
    once = results.read_text()
    write_section(REPORT, results)

    assert results.read_text() == once


def test_machine_and_commit_are_never_empty() -> None:
    machine = current_machine()

    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert current_commit()
