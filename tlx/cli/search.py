"""`python -m tlx search`: the best values of some keys by validation, in a study that can be resumed.

A trial is a job of a sweep. It is scored by that figure of the validation images which `evaluation.choose_by` names, of
the model that it saves. A study that an earlier version made goes on by the validation accuracy. The test set chooses
nothing.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import closing

from tlx.cli.next_command import show_use
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import doing, importing
from tlx.core.errors import RequestError, said


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.epilog = (
        "example: python -m tlx search dataset=ants_bees strategy=feature_extraction,finetune "
        "'training.lr_factor=interval(0.1,10)' sweep.name=ants"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="as for a run; keys to search get interval(low,high), range(start,stop,step) or a,b; sweep.name is "
        "the study's name (without one it comes from what is searched)",
    )
    parser.add_argument(
        "--trials", type=int, default=20, help="total number of trials, including those of earlier calls (default: 20)"
    )
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    return search_for(given.overrides, given.trials, given.config_dir)


SUBCOMMAND = Subcommand("search", "hyperparameter search with Optuna, by a validation metric", _options, _main)


def search_for(overrides: Sequence[str], trials: int, config_dir: str | None = None) -> int:
    """Runs trials until there are `trials` of them in the study, and prints the best.

    Returns:
        0, or 1 where trials of this call failed.

    Raises:
        RequestError: nothing to search, a wrong interval, Optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise RequestError("search: needs the package optuna; pip install 'tlx-transfer[search]'")
    if trials < 1:
        raise RequestError(f"--trials {trials}: must be at least 1")
    with importing("optuna"):
        from tlx.search.hyperparameter_search import Search

    with doing("composing the trials"):
        search = Search(overrides, trials, config_dir)
    with closing(search.study):
        try:
            failed = search.run()
        except BaseException as error:
            search.whole.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", said(error))
            print(f"{search.standing()}; running the same command again resumes", file=sys.stderr)
            raise
        code = search.close(failed)
    if code == 0:
        show_use(search.whole.folder, "chosen model")
    return code
