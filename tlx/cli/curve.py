"""`python -m tlx curve`: test accuracy against the number of training images, and what twice as many would give."""

import argparse
import sys

from tlx.cli.next_command import show_use
from tlx.cli.subcommand import Subcommand
from tlx.reporting.text_table import near


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.epilog = (
        "example: python -m tlx curve dataset=image_folder dataset.root=~/photos strategy=linear_probe,lp_ft seeds=3"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="as for a sweep: strategy=a,b are curves of one picture, seeds=5 the runs of a point (default: 3); "
        "dataset.per_class=5,10,20 or dataset.limit.train=100,200,400 are the numbers of training images (default: "
        "all of them, half, a quarter, and so on)",
    )
    parser.add_argument("--name", help="name of the folder (default: date and time, or the one to go on with)")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from tlx.config import tracking_uri
    from tlx.curves.curve_request import requested
    from tlx.curves.learning_curve import run_curve

    words = tracking_uri.typed(given.overrides)
    request = requested(words, given.name, given.config_dir)
    found = run_curve(request, [*words, *(["--name", given.name] if given.name else [])])
    print(found)
    print(f"page: {near(found.folder / 'report.html')}", file=sys.stderr)
    for command, why in found.failed:
        print(f"failed: {why}\n  again: {command}", file=sys.stderr)
    if found.best is not None:
        show_use(found.best, "best model of all images")
    return 1 if found.failed else 0


SUBCOMMAND = Subcommand(
    "curve", "accuracy against the number of training images, and what twice as many would give", _options, _main
)
