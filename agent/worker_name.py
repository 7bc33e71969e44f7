"""What a worker is called in the database: who keeps a session's journal and audio."""

import contextlib
import os
import secrets
import socket
from pathlib import Path

__all__ = ["worker_name"]

NAME_FILE = "worker-name"


def worker_name(data_dir: Path) -> str:
    """The name that goes with a data folder, made when it is first asked for.

    It stays when the folder comes to another machine, or to a container with another host name.

    Raises:
        OSError: The folder cannot be written to.
    """
    file = data_dir / NAME_FILE
    with contextlib.suppress(FileNotFoundError):
        if name := file.read_text(encoding="utf-8").strip():
            return name
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    # Several workers may share the folder: the first one names it for all.
    new = data_dir / f".{NAME_FILE}-{secrets.token_hex(4)}"
    new.write_text(name + "\n", encoding="utf-8")
    try:
        os.link(new, file)
    except FileExistsError:
        return file.read_text(encoding="utf-8").strip()
    finally:
        new.unlink()
    return name
