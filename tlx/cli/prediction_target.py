"""Where predictions are written: the files that are named, or stdout."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError
from tlx.inference.prediction_gallery import check

__all__ = ["check_targets", "target_stream"]


def check_targets(requested: Mapping[str, str], top: int | None, batch_size: int | None) -> None:
    """Finds out before anything is opened whether the requested files can be written.

    `requested`: `csv`, `json` or `html` → a file, or `-` for stdout.

    Raises:
        RequestError: a value is out of range, or a file has a wrong name.
    """
    for name, value in (("batch-size", batch_size), ("top", top)):
        if value is not None and value < 1:
            raise RequestError(f"--{name} {value}: must be at least 1")
    for option, target in requested.items():
        if (target != "-" or option == "html") and not target.endswith(f".{option}"):
            raise RequestError(f"--{option} {target}: the file's name must end in .{option}; put the images before it")
        if Path(os.path.expanduser(target)).is_dir():
            raise RequestError(f"--{option} {target}: is a folder; give the name of a file")
    if "html" in requested:
        check(Path(os.path.expanduser(requested["html"])))
    if list(requested.values()).count("-") > 1:
        raise RequestError("--csv --json: both to stdout cannot be separated; give one of them a file")


@contextlib.contextmanager
def target_stream(form: str, target: str) -> Iterator[IO[str]]:
    """The stream of a target: stdout, or a file that is whole or absent."""
    if target == "-":
        yield sys.stdout
        return
    place = f"--{form} FILE"
    with (
        atomic(Path(os.path.expanduser(target)), place) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        yield stream
