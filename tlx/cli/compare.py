"""`python -m tlx compare X…`: runs side by side, on the terminal and as CSV, page and picture."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlx.cli.run_argument import output_option, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.comparison import text_table
from tlx.comparison.comparison import compared
from tlx.comparison.flips import flips, lead
from tlx.comparison.origin import Origin
from tlx.comparison.outputs import KINDS, show, write
from tlx.comparison.paired_tests import one
from tlx.core.activity import doing
from tlx.core.errors import RequestError
from tlx.runs.run_reader import is_run, read, state
from tlx.sweeps.named_runs import OUTPUT, runs_named, sweep_named
from tlx.sweeps.sweep_summary import origin

__all__ = ["SUBCOMMAND", "compare", "flipped"]


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "given",
        metavar="X",
        nargs="*",
        help="sweeps' names or folders, runs' folders, latest, runs' ids in MLflow, or folders that hold runs",
    )
    parser.add_argument(
        "--flipped", nargs=2, metavar=("RUN", "RUN"), help="the test images where two runs disagree and one is correct"
    )
    for kind, what in (("csv", "the table"), ("html", "a page with all of it"), ("png", "the picture")):
        parser.add_argument(
            f"--{kind}", metavar="FILE", help=f"write {what} to FILE.{kind}; a sweep's folder gets it anyway"
        )
    output_option(parser)


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    targets = {kind: Path(os.path.expanduser(file)) for kind in KINDS if (file := getattr(given, kind)) is not None}
    if given.flipped:
        if given.given or targets:
            raise RequestError("--flipped takes two runs and nothing beside them")
        flipped(given.flipped, given.output)
    else:
        compare(given.given, targets, given.output)
    return 0


SUBCOMMAND = Subcommand("compare", "compare runs or the configurations of a sweep, with paired tests", _options, _main)


def compare(runs: Sequence[str], targets: Mapping[str, Path], output: str = OUTPUT) -> None:
    """Prints a comparison, and writes it to files.

    Args:
        runs: what names runs or sweeps (`tlx.sweeps.named_runs`), or folders that hold runs.
        targets: `csv`, `html` or `png` → a file to write; a sweep's own three files are written in any case.
        output: the folder where the runs are.

    Raises:
        RequestError: no such sweep or run, none finished, a broken file, a target that cannot be written.
    """
    for kind, file in targets.items():
        if file.suffix != f".{kind}":
            raise RequestError(f"--{kind} {file}: the file's name must end in .{kind}")
        if file.is_dir():
            raise RequestError(f"--{kind} {file}: is a folder; give the name of a file")
        if not file.parent.is_dir():
            raise RequestError(f"--{kind} {file}: there is no folder {file.parent}; make it first")
    if not runs:
        raise RequestError("compare: give a sweep's name, or the folders of runs")
    folders, place = runs_named(runs, output), sweep_named(runs, output)
    print(f"{len(folders)} run{'' if len(folders) == 1 else 's'} …", file=sys.stderr)
    with doing("comparing the runs"):
        found = compared(folders)
    show(found)
    # A sweep's own three always go together.
    own = [] if place is None else [place / f"comparison.{kind}" for kind in KINDS]
    typed = shlex.join(["python", "-m", "tlx", "compare", *runs])
    of = Origin(typed) if place is None else origin(place)
    with doing("drawing and writing the comparison"):
        files = write(found, list(dict.fromkeys([*own, *targets.values()])), of, targets.values())
    for file in files:
        print(f"written: {file}", file=sys.stderr)


def flipped(words: Sequence[str], output: str = OUTPUT) -> None:
    """Prints the test images where two runs, given by their names, disagree and one of them is correct.

    Raises:
        RequestError: one is no finished run, or they were tested on different images.
    """
    runs = []
    for word in words:
        folder = Path(run_folder(word, output))
        if not is_run(folder):
            raise RequestError(f"--flipped {word}: no run's folder; give one, as in outputs/<date>/<run>")
        if why := state(folder):
            raise RequestError(f"--flipped {word}: {why}")
        runs.append(read(folder))
    a, b = runs
    if not a.same_images(b):
        raise RequestError(f"--flipped {' '.join(words)}: they were tested on different images")
    found = one(lead(a, b))
    print(text_table.flipped(flips([(a, b)]), (words[0], words[1]), found))
