"""A comparison on the terminal and as files."""

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tlx.comparison import html_page, text_table
from tlx.comparison.comparison import Comparison
from tlx.comparison.origin import Origin
from tlx.core.atomic_files import PLACE, atomic
from tlx.reporting.line_width import width

KINDS = ("csv", "html", "png")


def show(comparison: Comparison) -> None:
    """Prints the table on stdout, as wide as it is where that is a terminal."""
    print(text_table.text(comparison, width(sys.stdout)))


def write(comparison: Comparison, files: Sequence[Path], origin: Origin, typed: Collection[Path] = ()) -> list[Path]:
    """Writes the table, the page or the picture, as each file's ending says, each whole or absent; the files.

    Args:
        comparison, files: what is written, and where.
        origin: where the page says that it comes from.
        typed: those of the files that an option named.

    Raises:
        RequestError: a file cannot be written.
    """
    from tlx.comparison import plot

    made: dict[str, Callable[[Path], bytes]] = {
        ".csv": lambda _: text_table.table(comparison).encode(),
        ".html": lambda file: html_page.page(comparison, file, origin).encode(),
        ".png": lambda _: plot.picture(comparison),
    }
    whole = [made[file.suffix](file) for file in files]
    for file, content in zip(files, whole, strict=True):
        place = f"--{file.suffix[1:]} FILE" if file in typed else PLACE
        with atomic(file, place) as path:
            path.write_bytes(content)
    return list(files)
