"""The image files among files, folders, archives, patterns and a list on stdin."""

import codecs
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tlx.core.errors import RequestError
from tlx.datasets.archive_index import is_archive
from tlx.datasets.file_kinds import is_image, only_images
from tlx.datasets.folder_layout import is_folder, listed, local, walk

SHOWN = 3  # classes below a picture of the page, where --top does not say how many


def find(paths: Iterable[str], left_out: list[Path] | None = None) -> Iterator[Path]:
    """The image files among files, folders (searched at any depth), patterns and the list on stdin (`-`).

    An archive, and a folder in one (`photos.zip/ants`), is searched as a folder is, and not unpacked. What is an image
    shows in its content (`file_kinds.is_image`); other files of a folder or a pattern are added to `left_out`. Sorted
    within a folder and a pattern. A file of the list that is not there is no error here: it will be one row's.

    Raises:
        RequestError: a path does not exist, a folder or pattern holds no image, an archive cannot be read in place, a
            URL, an empty list.
    """
    for given in paths:
        path = local(given)
        if given == "-":
            yield from _listed(sys.stdin)
        elif _is_searched(path):
            inside, others = only_images(sorted(map(Path, walk(str(path)))))
            if not inside:
                raise RequestError(f"{given}: holds no image ({none_of_them(others)})")
            (left_out if left_out is not None else []).extend(others)
            yield from inside
        elif path.is_file() or is_image(path):
            yield path
        elif glob.has_magic(given):
            found = sorted(glob.glob(str(path), recursive=True))
            inside, others = only_images([file for file in map(Path, found) if not file.is_dir()])
            if not inside:
                raise RequestError(f"{given}: no image is named so ({none_of_them(others)})")
            (left_out if left_out is not None else []).extend(others)
            yield from inside
        else:
            raise RequestError(f"{given}: no such file or folder")


def _is_searched(path: Path) -> bool:
    """Whether it is a folder or an archive. What is an image is none, though an archive may be hidden in its end."""
    if path.is_file() and (is_image(path) or not is_archive(path)):
        return False
    return is_folder(path)


def none_of_them(files: Sequence[Path]) -> str:
    """Files that are no images, counted and named."""
    if not files:
        return "no file"
    number = "1 file that is no image" if len(files) == 1 else f"{len(files):,} files that are no images"
    return f"{number}: {listed([file.name for file in files])}"


def _listed(lines: Iterable[str]) -> Iterator[Path]:
    if isinstance(lines, io.TextIOWrapper):  # names are the file system's: in its encoding, and perhaps no Unicode
        lines = io.StringIO(_decoded(lines.buffer.read()), newline=None)
    files = [local(line) for line in (line.rstrip("\r\n").removeprefix("\ufeff") for line in lines) if line.strip()]
    if not files:
        raise RequestError("-: no path on stdin; give one a line, as in find photos -name '*.jpg' | …")
    yield from files


def _decoded(listed: bytes) -> str:
    """A list of paths as text; one that a Windows program wrote may be in UTF-16, or begin with a mark (BOM)."""
    if listed.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return listed.decode("utf-16", "replace")
    return os.fsdecode(listed.removeprefix(codecs.BOM_UTF8))
