"""The verb `search`: the best values of some keys by validation, in a study that goes on where it stopped.

A trial is a job of a sweep. It is scored by that figure of the validation images which `evaluation.choose_by` names, of
the model that it keeps. A study that an earlier version made goes on by the validation accuracy. The test set chooses
nothing.
"""

import argparse
import importlib.util
import sys
from contextlib import closing

from tlx.core.errors import RequestError
from tlx.search.hyperparameter_search import Search


def options(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
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
    parser.add_argument("--trials", type=int, default=20, help="in all, those of earlier calls included; default 20")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with YAML of your own")


def main(given: argparse.Namespace) -> int:
    """Runs trials until there are enough of them, and prints the best."""
    if importlib.util.find_spec("optuna") is None:
        raise RequestError("search: needs the package optuna; pip install 'tlx-transfer[search]'")
    if given.trials < 1:
        raise RequestError(f"--trials {given.trials}: must be at least 1")
    search = Search(given.overrides, given.trials, given.config_dir)
    with closing(search.study):
        try:
            failed = search.run()
        except BaseException as error:
            search.whole.tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            print(f"{search.standing()}; the same command goes on", file=sys.stderr)
            raise
        return search.close(failed)
