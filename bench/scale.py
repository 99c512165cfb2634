"""python -m bench.scale: time and memory against the number of images, from 1,000 to 100,000.

Draws small images (32 × 32, ten classes, one in a hundred an altered copy of another) and puts them in a folder, in
shards and in Parquet. Each source and number goes through the audit, the audit again, a run without it (the feature
pass and training) and, of files, a prediction of all: each a process of its own. All of it takes about an hour;
--sources, --images and --commands take a part, whose figures are added to those of --results.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import growth
from bench.runner import process
from bench.small_images import SOURCES, overrides
from bench.works import python

COMMANDS = ("audit", "again", "run", "predict")  # `again` and `predict` need what the one before has left
OF, INTERRUPTED = "images", 130


def words(command: str, source: str, n: int, below: Path) -> list[str]:
    """What is typed behind `python -m tlx`."""
    if command == "predict":
        written = ["--csv", str(below / "found.csv"), "--output", str(output(command, below))]
        return ["predict", "latest", str(below / "data"), *written]
    common = [*overrides(source, below / "data", n), f"output={output(command, below)}", "tracking=none"]
    if command == "run":
        return [*common, "backbone.input_size=32", "dataset.audit=off", "training.epochs=3"]
    return ["audit", *common, "backbone.input_size=32"]


def output(command: str, below: Path) -> Path:
    """Where the commands write: what audits have kept is nothing to runs."""
    return below / ("audits" if command in ("audit", "again") else "runs")


def measured(command: str, source: str, n: int, below: Path, before: growth.Row, most: float | None) -> dict[str, Any]:
    """A row of `growth`. The data is made where it is not there.

    A command that takes more than `most` seconds is interrupted; `before`, its row of the last time, is gone on from.
    """
    if not (below / "data").is_dir():
        shutil.rmtree(below / "making", ignore_errors=True)
        SOURCES[source](below / "making", n)
        (below / "making").rename(below / "data")
    if command in ("audit", "run") and "unfinished" not in before:  # they find nothing of an earlier one
        before = {}
        shutil.rmtree(output(command, below), ignore_errors=True)
    done = process(python(["-m", "tlx", *words(command, source, n, below)]), most)
    own = {"seconds": done.wall, "busy": done.busy, "peak_mib": done.peak_mib, "own_mib": done.own_mib}
    if "unfinished" in before:
        own |= {name: before[name] + own[name] for name in ("seconds", "busy")}
        own |= {name: max(before[name], own[name]) for name in ("peak_mib", "own_mib")}
    row = {"series": title(command, source), "number": n, **own, "processor": machine()}
    if done.code in (0, 1):
        return row
    return {**row, ("unfinished" if done.code == INTERRUPTED else "failed"): done.error}


def title(command: str, source: str) -> str:
    """What a row is called."""
    return f"{source}: {'audit again' if command == 'again' else command}"


def machine() -> str:
    """The processor and how many of its cores; `bench.machine` imports torch, and a child's peak counts from ours."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "this machine")
    return f"{name}, {os.cpu_count()} cores"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what is named, and draws all results. Exit code 1 where a command failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=str(__doc__).partition(": ")[2])
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--images", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=COMMANDS, help="none: draw alone")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-scale"), metavar="FOLDER",
        help="for the images and what is made of them, 2 GB; it stays, for a further command (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=float, metavar="SECONDS",
        help="a command is interrupted after so many seconds, and goes on the next time; its seconds are added",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, metavar="FILE", help="default: results.json in that folder")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="a PNG of all results")
    given = parser.parse_args(argv)
    results, failed = given.results or given.work / "results.json", False
    for source in given.sources:
        for n in given.images:
            for command in [one for one in COMMANDS if one in given.commands]:
                if command == "predict" and source != "folder":
                    continue
                named = (title(command, source), n)
                before = next((old for old in growth.known(results) if (old["series"], old["number"]) == named), {})
                below = (given.work / f"{source}-{n}").absolute()
                row = measured(command, source, n, below, before, given.most)
                growth.add(results, row)
                failed |= "failed" in row or "unfinished" in row
                print(json.dumps(row), flush=True)
    rows = growth.known(results)
    print(f"\nOn {', '.join(sorted({row['processor'] for row in rows}))}\n\n{growth.table(rows, OF)}")
    if given.chart is not None:
        growth.chart(rows, OF, given.chart)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
