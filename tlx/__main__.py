"""`python -m tlx`, and the script `tlx`."""

import sys
from typing import NoReturn

from tlx.core import own_process

__all__ = ["main"]


def main() -> NoReturn:
    """Runs the process's command line and ends the process."""
    own_process.begin()  # before anything large is imported
    from tlx.cli.main import main as run

    code = run()
    own_process.end(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
