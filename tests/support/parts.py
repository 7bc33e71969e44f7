"""Real parts that tests need: where one is missing a test is skipped, or fails where all must be there."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["REQUIRE_ALL_VARIABLE", "missing", "require"]

REQUIRE_ALL_VARIABLE = "ROOMSCRIBE_REQUIRE_ALL"


def require(program: str) -> Path:
    """The path of a program that a test cannot do without."""
    found = shutil.which(program)
    if found is None:
        missing(f"{program} is not on PATH; `make setup` installs it")
    return Path(found)


def missing(reason: str) -> NoReturn:
    """End a test that lacks a real part: as a failure where the environment says so, else as skipped."""
    if os.environ.get(REQUIRE_ALL_VARIABLE) == "1":
        pytest.fail(f"{reason} ({REQUIRE_ALL_VARIABLE}=1)", pytrace=False)
    pytest.skip(reason)
