"""`python -m tlx predict RUN PATH…`: image files to classes, as a table, CSV, JSON lines or a page of pictures."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tlx.cli.images_argument import images_option, no_image, opened
from tlx.cli.prediction_target import check_targets, target_stream
from tlx.cli.ranked_images import MOST, ORDERS_OF_RANK, rank
from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import State, doing
from tlx.core.csv_cells import Table
from tlx.core.device import EMULATED, emulated
from tlx.core.errors import RequestError, nearest, printable, unicode
from tlx.core.output_streams import shows_all
from tlx.datasets.image_decoding import MAX_PIXELS, allow
from tlx.datasets.image_paths import SHOWN
from tlx.inference.prediction_gallery import FIRST, ORDERS, gallery
from tlx.reporting.text_table import duration

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.inference.predictor import Prediction

if TYPE_CHECKING:
    Writer = Callable[[Prediction, Tensor | None], None]


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser, no_image("predict"))
    images_option(parser)
    parser.add_argument("--csv", nargs="?", const="-", metavar="FILE", help="write CSV to FILE.csv, or to stdout")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON lines to FILE.json, or to stdout"
    )
    parser.add_argument(
        "--html", metavar="FILE", help="write the pictures to FILE.html, those after the first hundred to FILE-pages/"
    )
    parser.add_argument(
        "--sort", metavar="ORDER", help=f"order of the pictures: {', '.join(ORDERS)} (default: {FIRST})"
    )
    parser.add_argument(
        "--rank",
        metavar="ORDER",
        help=f"which images to label next, or to look at again: {', '.join(ORDERS_OF_RANK)}",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="K",
        help=f"show the K most probable classes of each image; with --rank: the first K images (default: {MOST})",
    )
    parser.add_argument(
        "--no-unknown", action="store_true", help="predict a class for every image, however unlike the training images"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="batch size; default: that of the run's evaluation")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number> or mps")
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help=f"maximum number of pixels of an image; larger images are not read (default: {MAX_PIXELS:,})",
    )


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    if given.max_pixels is not None:
        if given.max_pixels < 1:
            raise RequestError(f"--max-pixels {given.max_pixels}: must be at least 1")
        allow(given.max_pixels)
    targets = {"csv": given.csv, "json": given.json, "html": given.html}
    run = run_folder(given.run, given.output)
    if given.rank is not None:
        if given.sort is not None:
            raise RequestError(f"--sort {given.sort}: --rank has an order of its own; leave one of them out")
        return rank(run, given.paths, given.rank, targets, given.top, given.batch_size, given.device)
    return predict(
        run, given.paths, targets, given.top, given.batch_size, given.device, given.sort, not given.no_unknown
    )


SUBCOMMAND = Subcommand("predict", "classify files and folders with a saved model", _options, _main)


def predict(
    run: str,
    paths: Sequence[str],
    targets: dict[str, str | None] | None = None,
    top: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    sort: str | None = None,
    unknown: bool = True,
) -> int:
    """Prints a row for each image, or writes them to the requested files.

    `targets`: `csv`, `json` or `html` → a file, whole or absent, or `-` for stdout. `top`: so many of the most probable
    classes in each row; None: the probability of every class. `sort`: one of `ORDERS`, for `html`; None: the first.
    `unknown`: whether an image may be predicted as none of the classes.

    Returns:
        0, or 1 where some image could not be read: it has a row with its error.

    Raises:
        RequestError: no such path, no image in a folder, no model in the run, a value out of range.
    """
    requested = {form: target for form, target in (targets or {}).items() if target is not None}
    _check(requested, top, batch_size, sort)
    model, files, left_out = opened(run, paths, device)
    if emulated(model.precision, model.device):
        slow = f"the model computes in bf16, as it was measured: {EMULATED}; tlx export writes it in fp32"
        print(f"warning: {slow}", file=sys.stderr)
    k = None if top is None else min(top, len(model.classes))
    began, done, failed = time.perf_counter(), 0, 0
    with contextlib.ExitStack() as within:
        write: list[Writer] = []
        for form, target in requested.items():
            if form == "html":
                file, shown = Path(os.path.expanduser(target)), k or min(SHOWN, len(model.classes))
                write.append(within.enter_context(gallery(file, model.classes, shown, sort or FIRST)))
            else:
                stream = within.enter_context(target_stream(form, target))
                write.append((_CsvRows if form == "csv" else _JsonRows)(stream, model.classes, k))
        write = write or [_TableRows(sys.stdout, model.classes, k)]

        def now() -> State:
            rate = done / (time.perf_counter() - began)
            left = [f"{duration((len(files) - done) / rate)} left", f"{rate:.0f} images/s"] if done else []
            return State([f"{done:,} of {len(files):,} images", *left], done / len(files))

        within.enter_context(doing(now))
        for prediction, view in model.with_views(files, batch_size, unknown=unknown):
            done, failed = done + 1, failed + bool(prediction.error)
            for rows in write:
                rows(prediction, view)
    took = time.perf_counter() - began
    unread = f", {failed} could not be read" if failed else ""
    if left_out:
        print(left_out, file=sys.stderr)
    print(f"{done} images, {done / took:.0f} images/s{unread}", file=sys.stderr)
    for target in requested.values():
        if target != "-":
            print(f"written: {target}", file=sys.stderr)
    return 1 if failed else 0


def _check(requested: dict[str, str], top: int | None, batch_size: int | None, sort: str | None) -> None:
    if sort is not None and sort not in ORDERS:
        raise RequestError(f"--sort {sort}: must be {', '.join(ORDERS)}{nearest(sort, ORDERS)}")
    if sort is not None and "html" not in requested:
        raise RequestError(f"--sort {sort}: is the order of the pictures of --html; add --html FILE.html")
    check_targets(requested, top, batch_size)


class _TableRows:
    """Aligned text, a row at once, so that thousands of images show as they come."""

    def __init__(self, stream: IO[str], classes: Sequence[str], top: int | None) -> None:
        self.stream, self.top = stream, top or 0
        self.width = max(10, *map(len, map(printable, classes)))
        best = "".join(f"{f'top {i + 1}':<{self.width}}             " for i in range(self.top))
        print(f"{'prediction':<{self.width}}  probability  {best}file", file=stream)

    def __call__(self, p: "Prediction", _: object) -> None:
        if p.error:
            best = " " * (self.width + 13) * self.top
            line = f"{'-':<{self.width}}            -  {best}{p.file}: {p.error}"
        else:
            best = "".join(f"{printable(name):<{self.width}}  {share:>9.4f}  " for name, share in p.top(self.top))
            line = f"{printable(p.prediction):<{self.width}}  {p.probability:>11.4f}  {best}{p.file}"
        print(printable(line), file=self.stream)


class _CsvRows:
    def __init__(self, stream: IO[str], classes: Sequence[str], top: int | None) -> None:
        self.classes, self.top, self.table = classes, top, Table(stream)
        ranks = [(f"top{i + 1}", f"p(top{i + 1})") for i in range(top or 0)]
        columns = [name for pair in ranks for name in pair] or [f"p({name})" for name in classes]
        self.empty = [""] * len(columns)
        self.table.row(["file", "prediction", "probability", *columns, "error"])

    def __call__(self, p: "Prediction", _: object) -> None:
        if p.error:
            cells = ["", "", *self.empty]
        elif self.top:
            best = [cell for name, share in p.top(self.top) for cell in (name, f"{share:.6f}")]
            cells = [p.prediction, f"{p.probability:.6f}", *best]
        else:
            each = [f"{p.probabilities[name]:.6f}" for name in self.classes]
            cells = [p.prediction, f"{p.probability:.6f}", *each]
        self.table.row([unicode(p.file), *cells, p.error])


class _JsonRows:
    def __init__(self, stream: IO[str], classes: Sequence[str], top: int | None) -> None:
        self.stream, self.top = stream, top

    def __call__(self, p: "Prediction", _: object) -> None:
        row: dict[str, Any] = {"file": p.file}
        if p.error:
            row |= {"error": p.error}
        else:
            row |= {"prediction": p.prediction, "probability": p.probability}
            row |= {} if p.unknown_score is None else {"unknown_score": p.unknown_score}
            best = [{"class": name, "probability": share} for name, share in p.top(self.top or 0)]
            row |= {"top": best} if self.top else {"probabilities": p.probabilities}
        # What is no Unicode in a file's name becomes an escape of JSON's own, and so does what the stream cannot show.
        text = json.dumps(row, ensure_ascii=not shows_all(self.stream))
        print(unicode(text), file=self.stream)
