"""`python -m tlx runs`: the runs of an output folder, listed; `show`, `remove` and `gc`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tlx.cli.run_argument import output_option
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import doing
from tlx.core.errors import RequestError, nearest
from tlx.reporting.line_width import width
from tlx.reporting.text_table import near

ACTIONS = ("show", "remove", "gc")
OPTIONS = {  # by action, beside --output
    "": ("--last", "--csv", "--json"),
    "show": (),
    "remove": ("--yes", "--force", "--files-only"),
    "gc": ("--yes",),
}
NEWEST = 30  # runs that a terminal shows, where nothing else is said


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "words", metavar="CONDITION", nargs="*",
        help="list only runs of which it holds: dataset=shapes, status=failed,interrupted, 'test_accuracy>0.9', "
        "training.lr=0.01 (choices, figures, keys of the configuration); or show RUN: all of one run; or remove RUN…: "
        "runs and sweeps, with what MLflow has of them; or gc: what is left of interrupted and failed runs, temporary "
        "files, what is deleted in MLflow (gc failed temporary: only these kinds)",
    )  # fmt: skip
    parser.add_argument(
        "--last", type=int, metavar="N",
        help=f"list only the N newest runs; 0: all of them (default: {NEWEST} on a terminal, else all)",
    )  # fmt: skip
    parser.add_argument("--csv", action="store_true", help="CSV, with all figures")
    parser.add_argument("--json", action="store_true", help="JSON lines, with all figures")
    parser.add_argument("--yes", action="store_true", help="remove, gc: do not ask")
    parser.add_argument(
        "--force",
        action="store_true",
        help="remove: also a run that others begin with, or that is in MLflow's registry",
    )
    parser.add_argument("--files-only", action="store_true", help="remove: what MLflow has stays")
    output_option(parser)


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    action, *words = given.words or [""]
    _check(action if action in ACTIONS else "", given)
    if action == "show":
        if len(words) != 1:
            raise RequestError(f"runs show: takes one RUN, not {len(words)}: its folder, latest, or its id in MLflow")
        return show(words[0], given.output)
    if action == "remove":
        from tlx.cli.runs_remove import remove

        return remove(words, given.output, yes=given.yes, forced=given.force, files_only=given.files_only)
    if action == "gc":
        from tlx.cli.runs_remove import gc

        return gc(words, given.output, yes=given.yes)
    if given.csv and given.json:
        raise RequestError("--csv --json: both to stdout cannot be separated; give one of them")
    form = "csv" if given.csv else "json" if given.json else ""
    return runs(given.words, given.output, form, given.last)


def _check(action: str, given: argparse.Namespace) -> None:
    """Refuses the options that the action does not have."""
    every = (option for options in OPTIONS.values() for option in options if option not in OPTIONS[action])
    wrong = [option for option in dict.fromkeys(every) if _typed(option, given)]
    if wrong:
        what, has = f"runs {action}".strip(), ", ".join(("--output", *OPTIONS[action]))
        raise RequestError(f"{what}: takes no {', '.join(wrong)}; its options are {has}")


def _typed(option: str, given: argparse.Namespace) -> bool:
    value = getattr(given, option.removeprefix("--").replace("-", "_"))
    return value is not None and value is not False  # --last 0 is typed


SUBCOMMAND = Subcommand("runs", "list runs, newest first; show one in full; remove runs and leftovers", _options, _main)


def runs(conditions: Sequence[str], output: str, form: str = "", last: int | None = None) -> int:
    """Prints the runs of which all conditions hold, newest first, and returns 0.

    `form`: `csv` or `json`, else a table. `last`: so many of them, 0 for all, None for as many as a screen shows.

    Raises:
        RequestError: no such folder, a word is no condition, no run has its key.
    """
    from tlx.sweeps import run_table
    from tlx.sweeps.run_conditions import condition, wanted
    from tlx.sweeps.run_list import listed

    if last is not None and last < 0:
        raise RequestError(f"--last {last}: must be 0 (all) or more")
    for word in conditions:
        if word.isidentifier():
            actions = " or ".join(ACTIONS) + nearest(word, ACTIONS)
            raise RequestError(f"runs {word}: neither a condition, as dataset=shapes, nor {actions}")
    required = [condition(word) for word in conditions]
    folder, most = Path(os.path.expanduser(output)), width(sys.stdout)
    with doing("reading the runs"):
        every = listed(folder)
        found = wanted(every, required)
    keys = [one.key for one in required]
    number = (NEWEST if most is not None and not form else 0) if last is None else last
    some = found[:number] if number else found
    if form:
        (run_table.csv if form == "csv" else run_table.json_lines)(some, sys.stdout, keys)
        return 0
    if some:
        print(run_table.text(some, most))
    counted = (
        f"{len(found):,} of {len(every):,} runs" if required else f"{len(every):,} run{'' if len(every) == 1 else 's'}"
    )
    rest = f"; the newest {len(some)} are shown, --last 0 shows all" if len(some) < len(found) else ""
    print(f"{counted} in {near(folder)}{rest}", file=sys.stderr if some else sys.stdout)
    return 0


def show(run: str, output: str) -> int:
    """Prints all of one run, finished or not, and returns 0.

    Raises:
        RequestError: no such run.
    """
    from tlx.reporting.run_display import closing
    from tlx.runs.run_summary import Summary
    from tlx.sweeps.named_runs import begun
    from tlx.sweeps.run_list import listed_run
    from tlx.sweeps.run_page import about

    named = begun(run, output)
    if named.why:
        print(named.why, file=sys.stderr)
    found = listed_run(named.folder)
    print("\n".join(about(found)))
    closing(Summary.of(found.folder, found.summary))
    return 0
