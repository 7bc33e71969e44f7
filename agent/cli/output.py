"""Where a command puts what it was asked for: standard output, or a file."""

import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import IO

import typer

__all__ = ["save", "show"]

EXIT_FAILED = 1


def show(source: IO[bytes]) -> None:
    """Write to standard output.

    Raises:
        typer.Exit: Who read it has had enough.
    """
    try:
        shutil.copyfileobj(source, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read it has had enough. Python would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_FAILED) from None


def save(source: IO[bytes], output: Path) -> None:
    """Write to a file; what was there is replaced, all at once.

    Raises:
        InputError: It cannot be written.
    """
    from agent.errors import InputError

    try:
        if output.exists() and not output.is_file():
            # A device or a pipe, which nothing may replace; a folder refuses.
            with output.open("wb") as target:
                shutil.copyfileobj(source, target)
        else:
            _replace(output.resolve(), source)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written: {error.strerror}; give --output a file that you may write to"
        ) from None


def _replace(file: Path, source: IO[bytes]) -> None:
    """Put a file where maybe another one is; nobody ever sees the half of it."""
    part = file.with_name(f".roomscribe-{uuid.uuid4().hex}")
    try:
        with part.open("xb") as target:
            shutil.copyfileobj(source, target)
        if file.exists():
            shutil.copymode(file, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
