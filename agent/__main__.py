"""`python -m agent`, and what the console script `roomscribe` runs."""

from agent.cli import app
from agent.cli.ending import end_process

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name, and end the process."""
    try:
        app.main()
    except SystemExit as end:
        end_process(end.code if isinstance(end.code, int) else 0)


if __name__ == "__main__":
    main()
