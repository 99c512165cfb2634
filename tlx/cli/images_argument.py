"""The arguments RUN PATH… of what predicts for images: which images, and the run's model, opened."""

import argparse
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.config.schema import DEVICES
from tlx.core.activity import doing, importing
from tlx.core.errors import RequestError, printable
from tlx.datasets.file_kinds import NAMES
from tlx.datasets.image_paths import find, none_of_them

if TYPE_CHECKING:
    from tlx.inference.predictor import Model


def images_option(parser: argparse.ArgumentParser) -> None:
    """Adds PATH…: which images."""
    parser.add_argument(
        "paths", metavar="PATH", nargs="+",
        help="image files, folders and archives (zip, tar) of them, patterns ('photos/**/*.jpg'), or - for a list on "
        "stdin, one path per line",
    )  # fmt: skip


def no_image(subcommand: str) -> Callable[[str], str]:
    """What takes the word that was typed as RUN, unless it is an image: then RUN was forgotten."""

    def run(word: str) -> str:
        if Path(word).suffix.lower() in NAMES:
            first = f"python -m tlx {subcommand} latest {shlex.quote(word)}"
            raise RequestError(f"{word}: an image, no run; RUN comes first: {first}")
        return word

    return run


def check_device(device: str) -> None:
    """Finds a wrong --device before torch is imported.

    Raises:
        RequestError: it is none.
    """
    form, words = DEVICES
    if not re.fullmatch(form, device):
        raise RequestError(f"--device {device}: must be {words}")


def opened(run: str, paths: Sequence[str], device: str) -> tuple["Model", list[Path], str]:
    """The run's model, the images, and what of the folders is left out, in words; nothing where all is taken.

    Raises:
        RequestError: no such device or path, no image in a folder, no model in the run.
    """
    check_device(device)
    left_out: list[Path] = []
    with doing("looking for images"):
        files = list(find(paths, left_out))
    with importing("torch"):
        from tlx.inference.predictor import load
    with doing("opening the model"):
        model = load(run, device)
    return model, files, f"left out: {printable(none_of_them(left_out))}" if left_out else ""
