"""`python -m tlx recommend`: which network, and how much of it to train; with a model that can be used at once."""

import argparse
import time

from tlx.cli.next_command import show_use
from tlx.cli.subcommand import Subcommand
from tlx.core.stopwatch import process_age

DEFAULT_MINUTES = 10.0


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.epilog = "example: python -m tlx recommend dataset=image_folder dataset.root=~/photos --minutes 10"
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="as for a run; backbone=a,b and strategy=a,b are the choices (default: every backbone whose weights are "
        "here, and the strategies that the number of images suggests)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=DEFAULT_MINUTES,
        help=f"time for all of it, that of earlier calls included (default: {DEFAULT_MINUTES:g}); given again with "
        "more, it only adds",
    )
    parser.add_argument("--max-parameters", type=float, metavar="N", help="leave out networks with more parameters")
    parser.add_argument("--max-ms", type=float, metavar="MS", help="leave out those that predict slower, an image here")
    parser.add_argument("--max-mb", type=float, metavar="MB", help="leave out those with larger files of weights")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="BACKBONE=FILE", help="a file of weights for a backbone"
    )
    parser.add_argument("--download", action="store_true", help="fetch the weights of some well-known networks")
    parser.add_argument("--name", help="name of the folder (default: date and time, or the one to go on with)")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from tlx.config import tracking_uri
    from tlx.recommendation.recommend import run_recommendation
    from tlx.recommendation.request import Limits, requested, words_of

    began = time.monotonic() - process_age()
    request = requested(
        tracking_uri.typed(given.overrides),
        given.minutes,
        limits=Limits(given.max_parameters, given.max_ms, given.max_mb),
        weights=given.weights,
        download=given.download,
        name=given.name,
        config_dir=given.config_dir,
    )
    found = run_recommendation(request, words_of(request), began)
    print(found)
    show_use(found.folder)
    return 0


SUBCOMMAND = Subcommand(
    "recommend", "which network, and how much of it to train: within the time that you give", _options, _main
)
