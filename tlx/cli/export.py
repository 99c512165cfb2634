"""`python -m tlx export RUN --format …`: a saved model in another format, compared with it before it is written."""

import argparse
from functools import cache
from pathlib import Path

from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.errors import RequestError
from tlx.inference.comparison_images import Content, of_file
from tlx.inference.export import FORMATS, export


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
        "--images",
        nargs="+",
        metavar="PATH",
        default=[],
        help="images to compare on, the first 1,000; default: the run's test images",
    )


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    run = run_folder(given.run, given.output)
    export(run, given.format, given.to, given.images, given.input, _content(run))
    return 0


def _content(run: str) -> Content:
    """What reads the run's test images; those of a data set without files are looked for when the first is read."""

    @cache
    def found() -> Content:
        from tlx.runs.page_images import images_of
        from tlx.runs.run_files import read

        folder = Path(run)
        try:
            return images_of(read(folder.parent if folder.name == "model" else folder))
        except RequestError:  # a model's folder alone
            return of_file

    return lambda name: found()(name)


SUBCOMMAND = Subcommand("export", "write a saved model as ONNX, torch.export or a state dict", _options, _main)
