"""`python -m tlx report RUN…`: the page of a run written anew; of several runs or a sweep, the comparison's page."""

import argparse
import os
import sys
from pathlib import Path

from tlx.cli.compare import compare
from tlx.cli.run_argument import RUN, output_option, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import doing
from tlx.core.errors import RequestError
from tlx.reporting.text_table import near
from tlx.runs.run_reader import is_run
from tlx.sweeps.named_runs import sweep_named

COMPARISON = "comparison.html"


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"{RUN}; several, or a sweep: they are compared")
    parser.add_argument(
        "--html", metavar="FILE", help=f"where the page of several runs is written (default: {COMPARISON})"
    )
    output_option(parser)


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    sweep = sweep_named(given.runs, given.output)
    if len(given.runs) == 1 and sweep is None:
        if given.html is not None:
            raise RequestError(f"--html {given.html}: the page of one run is report.html in its folder; leave it out")
        print(f"written: {report(given.runs[0], given.output)}", file=sys.stderr)
        return 0
    target = given.html or (None if sweep else COMPARISON)
    compare(given.runs, {} if target is None else {"html": Path(os.path.expanduser(target))}, given.output)
    return 0


def report(word: str, output: str) -> str:
    """Writes the page of the run that a word names, and its model's card; the page's file, as short as it can be typed.

    Raises:
        RequestError: no such run, or a file of it cannot be read.
    """
    from tlx.runs import model_card, report_page

    folder = Path(run_folder(word, output))
    if not is_run(folder):
        raise RequestError(f"{word}: no run's folder; give one, as in outputs/<date>/<run>, or latest")
    with doing("writing the page"):
        model_card.write(folder)
        return near(report_page.write(folder))


SUBCOMMAND = Subcommand("report", "write the page of a run anew, or that of several runs", _options, _main)
