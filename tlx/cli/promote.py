"""`python -m tlx promote RUN --register NAME`: a finished run's saved model in MLflow's registry, as a version of NAME.

It becomes the champion of that name by the rule of a run with `tracking.register`: where it is better by validation.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tlx.cli import sync
from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import doing
from tlx.core.errors import RequestError
from tlx.inference.run_folder import model_folder
from tlx.reporting.log_lines import lines
from tlx.reporting.text_table import near
from tlx.runs.run_reader import state
from tlx.tracking.run_store import KEYS, settings_of, typed_places


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser)
    parser.add_argument("--register", required=True, metavar="NAME", help="the model's name in the registry")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        help=f"where MLflow is, if not where the run logged: {', '.join(KEYS)}",
    )


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    return promote(run_folder(given.run, given.output), given.register, given.overrides, given.output)


SUBCOMMAND = Subcommand("promote", "register a finished run's saved model in MLflow", _options, _main)


def promote(run: str, name: str, overrides: Sequence[str] = (), output: str = "outputs") -> int:
    """Registers the model of a run as a version of `name`, prints which, and returns 0.

    What MLflow has not got of the run is sent first. A model that is a version of that name already stays that version.
    `overrides`: `key=value` of `KEYS`. `output`: the folder whose store is used where none lies beside the run.

    Returns:
        0, or 1 where MLflow did not take it.

    Raises:
        RequestError: the run is not finished, the name is none that MLflow takes, no MLflow store.
    """
    if re.search("[/:]", name):
        raise RequestError(f"--register {name}: a model's name in the registry cannot have '/' or ':' in it")
    folder = Path(run).expanduser().absolute()
    if model_folder(folder) == folder:
        raise RequestError(f"{run}: a saved model alone; promote takes the folder of its run, in which its figures are")
    if why := state(folder):
        raise RequestError(f"{run}: {why}; only a finished run is promoted")
    settings = settings_of(folder, typed_places(overrides, "promote"), default=True)
    settings.model, settings.register = True, name
    with lines(quiet=True), doing("sending the model to MLflow"):
        sent = sync.send(folder, settings, Path(output).expanduser().absolute())
    if sent.missing:
        print(f"{near(folder)}: not registered: {sent.missing}", file=sys.stderr)
        return 1
    print(f"{near(folder)}: {sent.said[-1]}")
    return 0
