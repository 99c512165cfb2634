"""`python -m tlx export RUN --format …`: a saved model in another format, compared with it before it is kept."""

import argparse
from typing import TYPE_CHECKING

from tlx.inference.export import FORMATS, export

if TYPE_CHECKING:
    pass


def options(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its model/")
    parser.add_argument("--format", required=True, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--to", metavar="FILE", help="where to write; RUN/export/model.onnx, .pt2, .safetensors")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        default=[],
        help="what to compare on, the first 64; the run's test images",
    )


def main(given: argparse.Namespace) -> int:
    """Carries the verb out and gives its exit code."""
    export(given.run, given.format, given.to, given.images)
    return 0
