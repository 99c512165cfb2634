"""`python -m tlx export RUN --format …`: a saved model in another format, compared with it before it is written."""

import argparse
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.errors import RequestError
from tlx.inference.comparison_images import Content, of_file
from tlx.inference.export import FORMATS, export

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlx.inference.quantization import Quantize


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser)
    parser.add_argument("--format", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "--to", metavar="FILE", help="file to write; default: RUN/export/model.onnx, .pt2 or .safetensors"
    )
    parser.add_argument(
        "--input",
        metavar="NAME",
        help="what the file takes: image (default), uint8 [H, W, 3] of any size; images, [N, H, W, 3] of one size; "
        "resized, [N, 3, S, S] that you have resized and cropped",
    )
    parser.add_argument(
        "--quantize",
        action="store_true",
        help="onnx in 8-bit integers, to RUN/export/model-int8.onnx; what that costs in accuracy is printed",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        default=[],
        help="images to compare on, the first 1,000; default: the run's test images",
    )


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    run = run_folder(given.run, given.output)
    if given.quantize and given.format != "onnx":
        raise RequestError(f"--quantize: only with --format onnx, not {given.format}")
    quantized = _quantized(run) if given.quantize else None
    export(run, given.format, given.to, given.images, given.input, _content(run), quantized)
    return 0


def _quantized(run: str) -> "Quantize":
    """Training images of the run, and what a difference of accuracy is in words."""
    from tlx.comparison.paired_tests import one
    from tlx.inference.quantization import Quantize
    from tlx.runs.training_images import training_images

    def words(outcomes: "NDArray[np.int8]") -> str:
        found = one(outcomes.astype(float))
        judged = "it costs accuracy" if found.high < 0 else "no loss is distinguishable" if found.low < 0 else "no loss"
        ends = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
        return f"{100 * found.mean:+.1f} points (95 % interval {ends}, paired): {judged}"

    return Quantize(lambda number: training_images(_home(run), number), words)


def _home(run: str) -> Path:
    folder = Path(run)
    return folder.parent if folder.name == "model" else folder


def _content(run: str) -> Content:
    """What reads the run's test images; those of a data set without files are looked for when the first is read."""

    @cache
    def found() -> Content:
        from tlx.runs.page_images import images_of
        from tlx.runs.run_files import read

        try:
            return images_of(read(_home(run)))
        except RequestError:  # a model's folder alone
            return of_file

    return lambda name: found()(name)


SUBCOMMAND = Subcommand("export", "write a saved model as ONNX, torch.export or a state dict", _options, _main)
