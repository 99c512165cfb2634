"""The argument RUN and the option `--output`, which are the same in every subcommand that has them."""

import argparse
import os
import sys
from collections.abc import Callable

from tlx.sweeps.named_runs import OUTPUT, run_named

__all__ = ["RUN", "output_option", "run_argument", "run_folder"]
RUN = "a run's folder, latest, a sweep's or a recommendation's name or folder (its chosen model), or an id in MLflow"


def run_argument(parser: argparse.ArgumentParser, word: Callable[[str], str] = str) -> None:
    """Adds RUN, and `--output`. `word`: returns what was typed as RUN, or raises why it cannot be one."""
    parser.add_argument("run", metavar="RUN", type=word, help=RUN)
    output_option(parser)


def output_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--output`."""
    parser.add_argument("--output", metavar="FOLDER", default=OUTPUT, help=f"folder of the runs (default: {OUTPUT})")


def run_folder(word: str, output: str) -> str:
    """The folder of the run that a word names; on stderr a line that says which it is, where the name does not.

    Raises:
        RequestError: it names none, or several.
    """
    named = run_named(word, output)
    if named.why:
        print(named.why, file=sys.stderr)
    return os.fspath(named.folder)
