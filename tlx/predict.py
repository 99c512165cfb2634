"""`python -m tlx predict RUN PATH…`: image files to classes, as a table, CSV or JSON lines."""

import argparse
import contextlib
import csv
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tlx.checks import DEVICES
from tlx.errors import RequestError
from tlx.folders import PICTURES
from tlx.runtime import atomic

if TYPE_CHECKING:
    from tlx.model import Prediction


def options(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its model/")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="image files, or folders of them")
    parser.add_argument("--csv", nargs="?", const="-", metavar="FILE", help="as CSV, to FILE.csv or stdout")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="as JSON lines, to FILE.json or stdout")
    parser.add_argument("--batch-size", type=int, default=32, help="images in one forward pass (32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number> or mps")


def main(given: argparse.Namespace) -> int:
    """Carries the verb out and gives its exit code."""
    return predict(given.run, given.paths, given.csv, given.json, given.batch_size, given.device)


def predict(
    run: str, paths: Sequence[str], as_csv: str | None, as_json: str | None, batch_size: int, device: str
) -> int:
    """Prints a row for each image, or writes them to the files asked for (`-`: stdout).

    Returns:
        0, or 1 where some image could not be read: it has a row with its error.

    Raises:
        RequestError: no such path, no image in a folder, no model in the run, a value out of range.
    """
    if batch_size < 1:
        raise RequestError(f"--batch-size {batch_size}: must be at least 1")
    form, words = DEVICES
    if not re.fullmatch(form, device):
        raise RequestError(f"--device {device}: must be {words}")
    for option, target in (("csv", as_csv), ("json", as_json)):
        if target not in (None, "-") and not str(target).endswith(f".{option}"):
            raise RequestError(f"--{option} {target}: the file's name must end in .{option}; put the images before it")
    if not Path(os.path.expanduser(run)).is_dir():
        raise RequestError(f"{run}: no such folder; give a run's folder, as in outputs/<date>/<run>")
    files = list(find(paths))
    from tlx.model import load

    model = load(run, device)
    began, done, failed = time.perf_counter(), 0, 0
    with contextlib.ExitStack() as open_files:
        write: list[Callable[[Prediction], None]] = [
            writer(open_files.enter_context(_target(target)), model.classes)
            for target, writer in ((as_csv, _CsvRows), (as_json, _JsonRows))
            if target is not None
        ]
        write = write or [_TableRows(sys.stdout, model.classes)]
        for prediction in model.predict(files, batch_size):
            done, failed = done + 1, failed + bool(prediction.error)
            for rows in write:
                rows(prediction)
    took = time.perf_counter() - began
    unread = f", {failed} could not be read" if failed else ""
    print(f"{done} images, {done / took:.0f} images/s{unread}", file=sys.stderr)
    return 1 if failed else 0


def find(paths: Iterable[str]) -> Iterator[Path]:
    """The image files among files and folders (searched at any depth), sorted within a folder.

    Raises:
        RequestError: a path does not exist, or a folder holds no image.
    """
    for given in paths:
        path = Path(os.path.expanduser(given))
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES and file.is_file())
            if not inside:
                raise RequestError(f"{given}: holds no image ({', '.join(PICTURES)})")
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise RequestError(f"{given}: no such file or folder")


class _TableRows:
    """Aligned text, a row at once, so that thousands of images show as they come."""

    def __init__(self, stream: IO[str], classes: Sequence[str]) -> None:
        self.stream = stream
        self.width = max(10, *map(len, classes))
        print(f"{'prediction':<{self.width}}  probability  file", file=stream)

    def __call__(self, p: "Prediction") -> None:
        if p.error:
            print(f"{'-':<{self.width}}            -  {p.file}: {p.error}", file=self.stream)
        else:
            print(f"{p.prediction:<{self.width}}  {p.probability:>11.4f}  {p.file}", file=self.stream)


class _CsvRows:
    def __init__(self, stream: IO[str], classes: Sequence[str]) -> None:
        self.classes, self.table = classes, csv.writer(stream)
        self.table.writerow(["file", "prediction", "probability", *(f"p({name})" for name in classes), "error"])

    def __call__(self, p: "Prediction") -> None:
        each = [f"{p.probabilities[name]:.6f}" if p.probabilities else "" for name in self.classes]
        self.table.writerow([p.file, p.prediction, f"{p.probability:.6f}" if not p.error else "", *each, p.error])


class _JsonRows:
    def __init__(self, stream: IO[str], classes: Sequence[str]) -> None:
        self.stream = stream

    def __call__(self, p: "Prediction") -> None:
        row = {"file": p.file, "error": p.error} if p.error else {
            "file": p.file, "prediction": p.prediction, "probability": p.probability, "probabilities": p.probabilities
        }  # fmt: skip
        print(json.dumps(row, ensure_ascii=False), file=self.stream)


@contextlib.contextmanager
def _target(target: str) -> Iterator[IO[str]]:
    if target == "-":
        yield sys.stdout
        return
    with atomic(Path(os.path.expanduser(target))) as path, path.open("w", encoding="utf-8", newline="") as stream:
        yield stream
