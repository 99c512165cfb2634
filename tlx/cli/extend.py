"""`python -m tlx extend RUN dataset=…`: a class more, or more images, with the features that are there already."""

import argparse

from tlx.cli.next_command import show_use
from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.epilog = "example: python -m tlx extend latest dataset.root=~/more_photos"
    run_argument(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="the new images: dataset.root=FOLDER of class folders, some of which may be new, or any data set as for a "
        "run; runtime.<key> and output beside them",
    )
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from tlx.config.command_line import command
    from tlx.extension.extend import extend

    run = run_folder(given.run, given.output)
    overrides = list(given.overrides)
    if not any(word.startswith("output=") for word in overrides):
        overrides.append(f"output={given.output}")
    found = extend(run, overrides, command(["extend", run, *given.overrides], given.config_dir), given.config_dir)
    print(found)
    show_use(found.folder)
    return 0


SUBCOMMAND = Subcommand(
    "extend",
    "more images or classes for a finished run: its features as they are, its classifier anew",
    _options,
    _main,
)
