"""`python -m tlx`, and the script `tlx`."""

import sys

from tlx.core import own_process

__all__ = ["main"]


def main() -> int:
    """Runs the process's command line and returns its exit code."""
    own_process.begin()  # before anything large is imported
    from tlx.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
