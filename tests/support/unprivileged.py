"""Being somebody whose permissions count, as those of root do not."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["unprivileged_folder"]

NOBODY = 65534


@contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """An empty folder of whom we are meanwhile."""
    # Not pytest's, which only its owner may enter.
    with TemporaryDirectory() as folder:
        ours = os.geteuid()
        if ours == 0:
            shutil.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(ours)
