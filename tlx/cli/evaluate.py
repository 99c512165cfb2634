"""`python -m tlx evaluate RUN dataset=…`: a saved model measured on other data, as a run measures its own."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, printable, unicode
from tlx.reporting.text_table import aligned
from tlx.runs.evaluate_model import Measured, evaluate, seen_lines
from tlx.runs.evaluation_data import PARTS

if TYPE_CHECKING:
    from tlx.training.metrics import Scores


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser)
    parser.add_argument(
        "overrides", nargs="+", metavar="key=value", help="dataset=…, dataset.<key>=…, runtime.<key>=…, seed, output"
    )
    parser.add_argument(
        "--part",
        default="all",
        metavar="PART",
        help=f"{', '.join(PARTS)} (default: all); all files are read in any case",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the predictions to FILE.csv")
    parser.add_argument("--json", metavar="FILE", help="write the metrics to FILE.json")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    for option, target in (("csv", given.csv), ("json", given.json)):
        if target is not None and (not target.endswith(f".{option}") or Path(os.path.expanduser(target)).is_dir()):
            raise RequestError(f"--{option} {target}: must be a file whose name ends in .{option}")
    # Where the runs are is also where features are cached: it is said once, in either way.
    output = next((word.partition("=")[2] for word in given.overrides if word.startswith("output=")), None)
    overrides = given.overrides if output is not None else [*given.overrides, f"output={given.output}"]
    found = evaluate(run_folder(given.run, output or given.output), overrides, given.part, given.config_dir)
    if given.csv is not None:
        with atomic(Path(os.path.expanduser(given.csv)), "--csv FILE") as path:
            table = found.scores.table(found.files, found.labels, found.classes)
            path.write_text(table, encoding="utf-8", newline="")
    if given.json is not None:
        with atomic(Path(os.path.expanduser(given.json)), "--json FILE") as path:
            text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
            path.write_text(unicode(text), encoding="utf-8")  # a file's name need not be Unicode
    print("\n".join(map(printable, _lines(found))))
    for target in (given.csv, given.json):
        if target is not None:
            print(f"written: {target}", file=sys.stderr)
    return 0


SUBCOMMAND = Subcommand("evaluate", "measure a saved model on other data", _options, _main)


def _unknown(scores: "Scores", number: int) -> list[tuple[str, str]]:
    """How many images are predicted as unknown, though they are of the classes; nothing of a model that predicts none
    so."""
    found = [metric for metric in scores.metrics if metric.name == "unknown_false_alarms"]
    return [
        (
            "unknown",
            f"{one.value:.1%} predicted as unknown  (95 % interval {one.low:.1%} to {one.high:.1%}, {number} images)",
        )
        for one in found
    ]


def _lines(found: Measured) -> list[str]:
    """The lines of the report."""
    from tlx.reporting.run_display import MOST  # imports rich, which --help needs not

    scores, number = found.scores, len(found.files)
    low, high = scores.interval
    of = "" if found.part == "all" else f" of {found.of:,} (--part all takes them all)"
    calibrated = f", {scores.metric('log_loss').value:.4f} at the model's temperature {found.temperature:.2f}"
    after = "" if found.temperature == 1 else calibrated
    facts = [
        ("accuracy", f"{scores.accuracy:.1%}  (95 % interval {low:.1%} to {high:.1%}, {number} images)"),
        ("loss", f"{scores.loss:.4f} nats{after}"),
        *_unknown(scores, number),
        ("data", f"{found.data}, part {found.part}: {number:,} images{of}"),
        ("computed", f"on {found.device}, {found.precision}"),
        *seen_lines(found),
    ]
    if found.sole:
        facts.append(("note", "all images are of one class: the accuracy is its recall; precision and F1 do not exist"))
    if found.absent:
        names = ", ".join(found.absent[:MOST]) + (", …" if len(found.absent) > MOST else "")
        facts.append(("no image of", f"{names} ({len(found.absent)} of {len(found.classes)} classes)"))
    if found.skipped:
        path, why = found.skipped[0]
        more = f" and {len(found.skipped) - 1} more" if len(found.skipped) > 1 else ""
        facts.append(("skipped", f"{path} ({why}){more}"))
    shown = {name: figures for name, figures in found.per_class.items() if name not in found.absent}
    ranked = sorted(shown, key=lambda name: scores.per_class[name]["f1"])
    many = len(shown) > MOST
    rows: list[tuple[str, ...]] = [("class", "images", "precision", "recall", "F1")]
    for name in ranked[:MOST] if many else shown:
        figures = (
            "-" if value is None else f"{value:.3f}" for value in map(shown[name].get, ("precision", "recall", "f1"))
        )
        rows.append((name, f"{shown[name]['images']:.0f}", *figures))
    note = [f"the {MOST} classes of {len(ranked)} with the lowest F1"] if many else []
    return [*aligned(facts, left=2), "", *aligned(rows, left=1), *note]
