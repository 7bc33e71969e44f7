"""What every benchmark can be told on its command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["meetings", "parser"]

MEETINGS = Path(__file__).parent.parent / "tests" / "data" / "meetings"


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    options.add_argument(
        "--meeting",
        type=Path,
        action="append",
        dest="meetings",
        metavar="DIR",
        help="a folder with a track per participant and truth.json; several are pooled (those of the tests)",
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as JSON")
    options.add_argument(
        "--full", action="store_true", help="everything, without a limit of about ten minutes"
    )
    return options


def meetings(options: argparse.Namespace) -> Sequence[Path]:
    """The meetings that were asked for, else those of the tests."""
    return options.meetings or sorted(path.parent for path in MEETINGS.glob("*/truth.json"))
