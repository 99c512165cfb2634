"""`python -m tlx export RUN --format …`: a saved model in another format, compared with it before it is written."""

import argparse

from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.inference.export import FORMATS, export


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser)
    parser.add_argument("--format", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "--to", metavar="FILE", help="file to write; default: RUN/export/model.onnx, .pt2 or .safetensors"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        default=[],
        help="images to compare on, the first 64; default: the run's test images",
    )


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    export(run_folder(given.run, given.output), given.format, given.to, given.images)
    return 0


SUBCOMMAND = Subcommand("export", "write a saved model as ONNX, torch.export or a state dict", _options, _main)
