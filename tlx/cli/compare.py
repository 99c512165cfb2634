"""`python -m tlx compare X…`: runs side by side, on the terminal and as CSV, page and picture."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tlx.cli.subcommand import Subcommand
from tlx.comparison import text_table
from tlx.comparison.comparison import compared, flips, lead
from tlx.comparison.outputs import KINDS, show, write
from tlx.comparison.paired_tests import one
from tlx.core.errors import RequestError, nearest, reason
from tlx.runs.run_reader import content, is_run, read, state
from tlx.sweeps import sweep_manifest

__all__ = ["SUBCOMMAND", "compare", "compared", "find", "flipped", "show", "write"]
NO_RUNS = ("features", "sources", "mlartifacts")  # beside runs in their folder, and large
MOST = 10_000  # folders that are looked at, in search of runs


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "given", metavar="X", nargs="*", help="a sweep's name or folder, runs' folders, or folders that hold runs"
    )
    parser.add_argument(
        "--flipped", nargs=2, metavar=("RUN", "RUN"), help="the test images that one of two runs alone has right"
    )
    for kind, what in (("csv", "the table"), ("html", "a page with all of it"), ("png", "the picture")):
        parser.add_argument(
            f"--{kind}", metavar="FILE", help=f"{what}, to FILE.{kind}; a sweep's folder has it in any case"
        )
    parser.add_argument("--output", metavar="FOLDER", default="outputs", help="where the runs are (outputs)")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    targets = {kind: Path(os.path.expanduser(file)) for kind in KINDS if (file := getattr(given, kind)) is not None}
    if given.flipped:
        if given.given or targets:
            raise RequestError("--flipped takes two runs and nothing beside them")
        flipped(*given.flipped)
    else:
        compare(given.given, targets, given.output)
    return 0


SUBCOMMAND = Subcommand("compare", "the runs of a sweep side by side, with paired tests", _options, _main)


def compare(runs: Sequence[str], targets: Mapping[str, Path], output: str = "outputs") -> None:
    """Prints a comparison, and writes it to files.

    Args:
        runs: sweeps' names, sweeps' folders, runs' folders, or folders that hold runs.
        targets: `csv`, `html` or `png` → a file to write; a sweep's own three files are written in any case.
        output: the folder where the runs are.

    Raises:
        RequestError: no such sweep or run, none finished, a broken file, a target that cannot be written.
    """
    for kind, file in targets.items():
        if file.suffix != f".{kind}":
            raise RequestError(f"--{kind} {file}: the file's name must end in .{kind}")
        if file.is_dir():
            raise RequestError(f"--{kind} {file}: is a folder; give the name of a file")
        if not file.parent.is_dir():
            raise RequestError(f"--{kind} {file}: there is no folder {file.parent}; make it first")
    if not runs:
        raise RequestError("compare what? a sweep's name, or the folders of runs")
    folders, place = find(runs, output), sweep(runs, output)
    print(f"{len(folders)} run{'' if len(folders) == 1 else 's'} …", file=sys.stderr)
    found = compared(folders)
    show(found)
    # A sweep's own three always go together.
    own = [] if place is None else [place / f"comparison.{kind}" for kind in KINDS]
    for file in write(found, list(dict.fromkeys([*own, *targets.values()]))):
        print(f"written: {file}", file=sys.stderr)


def flipped(first: str, second: str) -> None:
    """Prints the test images that one of two runs alone has right.

    Raises:
        RequestError: one is no finished run, or they were tested on different images.
    """
    runs = []
    for word in (first, second):
        folder = Path(os.path.expanduser(word))
        if not is_run(folder):
            raise RequestError(f"--flipped {word}: no run's folder; give one, as in outputs/<date>/<run>")
        if why := state(folder):
            raise RequestError(f"--flipped {word}: {why}")
        runs.append(read(folder))
    a, b = runs
    if not a.same_images(b):
        raise RequestError(f"--flipped {first} {second}: they were tested on different images")
    found = one(lead(a, b))
    print(text_table.flipped(flips([(a, b)]), (first, second), found))


def find(words: Sequence[str], output: str) -> list[Path]:
    """The folders of runs that sweeps' names, sweeps' folders and runs' folders stand for, each once.

    Any other folder stands for the runs that are up to two levels below it, as in outputs/<date>/<run>.

    Raises:
        RequestError: a word is none of these, or its folder is too large or unreadable.
    """
    found = [folder for word in words for folder in _of(word, Path(os.path.expanduser(output)) / "sweeps")]
    return list({folder.resolve(): folder for folder in found}.values())


def sweep(words: Sequence[str], output: str) -> Path | None:
    """The folder of the one sweep that is meant; None for runs as such."""
    places = [_place(word, Path(os.path.expanduser(output)) / "sweeps") for word in words]
    place = places[0] if len(places) == 1 else None
    return place if place is not None and (place / sweep_manifest.FILE).is_file() else None


def _place(word: str, sweeps: Path) -> Path | None:
    # A bare word is a sweep's name first; what has a slash is a folder.
    places = [sweeps / word] if os.sep not in word and word not in (".", "..") else []
    return next((place for place in [*places, Path(os.path.expanduser(word))] if place.is_dir()), None)


def _of(word: str, sweeps: Path) -> list[Path]:
    place = _place(word, sweeps)
    if place is None:
        names = [entry.name for entry in sweeps.iterdir() if entry.is_dir()] if sweeps.is_dir() else []
        if os.sep in word:
            raise RequestError(f"{word}: no such folder; give a sweep's name or the folders of runs")
        there = f"sweeps there: {', '.join(sorted(names)[-5:])}" if names else "there is none yet"
        raise RequestError(f"{word}: no such sweep in {sweeps}, and no such folder{nearest(word, names)}; {there}")
    if is_run(place):
        return [place]
    planned = (
        content(place / sweep_manifest.FILE, dict).get("jobs") if (place / sweep_manifest.FILE).is_file() else None
    )
    jobs = planned.values() if isinstance(planned, dict) else ()
    planned = [str(job["folder"]) for job in jobs if isinstance(job, dict) and "folder" in job]
    begun = [str(folder.relative_to(place)) for folder in _within(place)]
    if not (names := sorted({*planned, *begun})):
        raise RequestError(
            f"{word}: neither a run's folder (no summary.json in it) nor one that holds runs; "
            "give a sweep's name, or runs' folders, as in outputs/<date>/<run>"
        )
    return [place / name for name in names]


def _within(place: Path) -> Iterator[Path]:
    """The runs up to two levels below a folder; in a run there is no other, and none in `NO_RUNS`."""
    looked = 0

    def below(folder: Path, levels: int) -> Iterator[Path]:
        nonlocal looked
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        looked += len(names)
        if looked > MOST:
            raise RequestError(f"{place}: more than {MOST:,} folders in it; give those of runs, or one with fewer")
        for inner in (folder / name for name in names):
            if is_run(inner):
                yield inner
            elif levels > 1 and inner.name not in NO_RUNS:
                yield from below(inner, levels - 1)

    try:
        yield from below(place, 2)
    except OSError as error:
        raise RequestError(f"{error.filename or place}: cannot be read: {reason(error)}") from error
