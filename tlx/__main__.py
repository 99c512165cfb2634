"""`python -m tlx`, and the script `tlx`."""

import sys

from tlx.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
