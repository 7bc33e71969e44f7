"""`python -m agent`, and what the console script `roomscribe` runs."""

from agent.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
