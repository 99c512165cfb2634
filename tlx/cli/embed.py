"""`python -m tlx embed RUN PATH… --out FILE`: features of images by a saved model, as Parquet or NumPy's archive."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tlx.cli.images_argument import images_option, no_image, opened
from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import State, doing
from tlx.core.errors import RequestError, printable
from tlx.inference.feature_files import SUFFIXES, feature_file

__all__ = ["SUBCOMMAND", "embed"]


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser, no_image("embed"))
    images_option(parser)
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="FILE.parquet or FILE.npz: file, features, prediction, probability"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="batch size; default: that of the run's evaluation")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number> or mps")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    run = run_folder(given.run, given.output)
    return embed(run, given.paths, Path(os.path.expanduser(given.out)), given.batch_size, given.device)


SUBCOMMAND = Subcommand("embed", "features of images by a saved model, as a file", _options, _main)


def embed(run: str, paths: Sequence[str], out: Path, batch_size: int | None = None, device: str = "auto") -> int:
    """Writes the features of images, the input of the model's classifier, a row each in their order.

    Returns:
        0, or 1 where some image could not be read: it has no row.

    Raises:
        RequestError: no such path, no image in a folder, no model in the run, a value out of range, another suffix,
            none of the images could be read.
    """
    if out.suffix not in SUFFIXES:
        raise RequestError(f"--out {out}: the file's name must end in {' or '.join(SUFFIXES)}")
    if batch_size is not None and batch_size < 1:
        raise RequestError(f"--batch-size {batch_size}: must be at least 1")
    model, files, left_out = opened(run, paths, device)
    from tlx.inference.embedding import embedded

    began, done, failed, width = time.perf_counter(), 0, 0, 0

    def now() -> State:
        return State([f"{done:,} of {len(files):,} images"], done / len(files))

    with doing(now), feature_file(out, model.classes) as write:
        for prediction, features in embedded(model, files, batch_size):
            done += 1
            if features is None:
                failed += 1
                print(printable(f"{prediction.file}: {prediction.error}"), file=sys.stderr)
            else:
                width = len(features)
                write(prediction, features)
        if failed == done:
            raise RequestError(f"{out}: not written: none of the {done} images could be read")
    if left_out:
        print(left_out, file=sys.stderr)
    rate = done / (time.perf_counter() - began)
    unread = f", {failed} could not be read" if failed else ""
    print(f"{done} images, {rate:.0f} images/s{unread}", file=sys.stderr)
    print(f"written: {out}: {done - failed} rows of {width} features")
    return 1 if failed else 0
