"""python -m bench.counts classes|jobs|runs: time and memory against the number of classes, jobs of a sweep, or runs.

`classes`: drawn images of 16 × 16 pixels, three training images and a test image of each class, through a run, its
page and `evaluate`. `jobs`: a sweep of a tiny network on cached features, with and without MLflow, its planning alone,
and the comparison of as many copies of jobs. `runs`: an output folder with copies of one real run under other names and
ids, also in MLflow's database: listed, its cache listed, the latest run shown, and a new run in it. Each command is a
process of its own. --numbers and --commands take a part, whose figures are added to those of --results.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import growth, made_counts
from bench.runner import process
from bench.scale import machine
from bench.works import python

NUMBERS = {"classes": (2, 100, 1_000, 5_000), "jobs": (10, 100, 1_000), "runs": (10, 100, 1_000, 10_000)}
TINY = ("backbone=small_cnn", "backbone.input_size=16", "training.epochs=2")
TRACKED = ("tracking.system_metrics=false", "tracking.model=false")
UNTRACKED = ("tracking=none",)
SHAPES = ("dataset.per_class=4", "dataset.audit=off")
PLAN = "import sys; from tlx.sweeps.sweep_plan import plan; print(len(plan(sys.argv[1:], None)[0]))"

Typed = Callable[[Path, int], list[str]]


def images(below: Path) -> list[str]:
    """What names the images of `classes`."""
    return ["dataset=image_folder", f"dataset.root={below / 'data'}"]


def jobs(below: Path, n: int) -> list[str]:
    """What is typed for a sweep: ten seeds, and as many learning rates as make `n` jobs."""
    rates = ",".join(f"{1e-4 * (1 + i):g}" for i in range(-(-n // 10)))
    seeds = ",".join(map(str, range(min(n, 10))))
    return [*TINY, *SHAPES, f"training.lr={rates}", f"seed={seeds}", f"output={below / 'out'}"]


def tlx(*words: str) -> list[str]:
    """A command line of tlx, for Python."""
    return ["-m", "tlx", *words]


# What is run by Python, by what grows and a name; in this order, since some need what others leave.
COMMANDS: Mapping[str, Mapping[str, Typed]] = {
    "classes": {
        "run": lambda below, n: tlx(*TINY, *images(below), *UNTRACKED, f"output={below / 'out'}"),
        "page": lambda below, n: tlx("report", "latest", "--output", str(below / "out")),
        "evaluate": lambda below, n: tlx("evaluate", "latest", *images(below), f"output={below / 'out'}"),
    },
    "jobs": {
        "plan": lambda below, n: ["-c", PLAN, *jobs(below, n), "sweep.name=real"],
        "sweep": lambda below, n: tlx("-m", *jobs(below, n), *TRACKED, "sweep.name=real"),
        "sweep without MLflow": lambda below, n: tlx("-m", *jobs(below, n), *UNTRACKED, "sweep.name=plain"),
        "compare": lambda below, n: tlx("compare", "copies", "--output", str(below / "copies")),
    },
    "runs": {
        "runs": lambda below, n: tlx("runs", "--output", str(below / "out")),
        "runs, by accuracy": lambda below, n: tlx("runs", "test_accuracy>0.9", "--output", str(below / "out")),
        "cache": lambda below, n: tlx("cache", "--output", str(below / "out")),
        "runs show latest": lambda below, n: tlx("runs", "show", "latest", "--output", str(below / "out")),
        "a new run": lambda below, n: tlx(*TINY, *SHAPES, *TRACKED, f"output={below / 'out'}"),
    },
}


def make(what: str, below: Path, n: int) -> None:
    """What the commands need, in a folder that is there only as a whole."""
    making = below.with_name(f"{below.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    if what == "classes":
        made_counts.classes(making, n)
    elif what == "jobs":
        _run(tlx("-m", *jobs(making, 10), *UNTRACKED, "sweep.name=real"))
        made_counts.sweep(making / "out" / "sweeps" / "real", making / "copies" / "sweeps" / "copies", n)
        shutil.rmtree(making / "out")
    else:
        _run(tlx(*TINY, *SHAPES, *TRACKED, f"output={making / 'out'}"))
        made_counts.runs(making / "out", n)
    making.rename(below)


def _run(words: Sequence[str]) -> None:
    done = process(python(words))
    if done.code:
        raise SystemExit(f"{' '.join(words)}: {done.error}")


def measured(what: str, command: str, n: int, below: Path, most: float | None) -> dict[str, Any]:
    """A row of `growth`; a command that takes more than `most` seconds is interrupted, and has failed."""
    if not below.is_dir():
        make(what, below, n)
    done = process(python(COMMANDS[what][command](below, n)), most)
    row = {"series": command, "number": n, "seconds": done.wall, "busy": done.busy, "peak_mib": done.peak_mib}
    row |= {"own_mib": done.own_mib, "processor": machine()}
    return {**row, "failed": done.error} if done.code else row


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what is named, and draws all results. Exit code 1 where a command failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.counts", description=str(__doc__).partition(": ")[2])
    parser.add_argument("what", choices=list(COMMANDS))
    parser.add_argument("--numbers", nargs="+", type=int, help="default: from the smallest to the largest")
    parser.add_argument("--commands", nargs="*", help="default: all; none: draw alone")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-counts"), metavar="FOLDER",
        help="for what is measured with, up to 5 GB; it stays, for a further command (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--most", type=float, metavar="SECONDS", help="a command is interrupted after so many")
    parser.add_argument("--results", type=Path, metavar="FILE", help="default: WHAT.json in that folder")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="a PNG of all results")
    given = parser.parse_args(argv)
    results, failed = given.results or given.work / f"{given.what}.json", False
    for n in given.numbers or NUMBERS[given.what]:
        for command in COMMANDS[given.what] if given.commands is None else given.commands:
            row = measured(given.what, command, n, (given.work / f"{given.what}-{n}").absolute(), given.most)
            growth.add(results, row)
            failed |= "failed" in row
            print(json.dumps(row), flush=True)
    rows = growth.known(results)
    where = ", ".join(sorted({row["processor"] for row in rows}))
    print(f"\nOn {where}; seconds are those of processors\n\n{growth.table(rows, given.what, 'busy')}")
    if given.chart is not None:
        growth.chart(rows, given.what, given.chart, "busy")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
