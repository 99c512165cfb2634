"""A comparison on the terminal and as files."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tlx.comparison import html_page, text_table
from tlx.comparison.comparison import Comparison
from tlx.core.atomic_files import atomic

KINDS = ("csv", "html", "png")


def show(comparison: Comparison) -> None:
    """Prints the table on stdout; on a terminal that is too narrow for it, each configuration has lines of its own."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(text_table.text(comparison, width))


def write(comparison: Comparison, files: Sequence[Path]) -> list[Path]:
    """Writes the table, the page or the picture, as each file's ending says, each whole or absent; the files.

    Raises:
        RequestError: a file cannot be written.
    """
    from tlx.comparison import plot

    picture = plot.picture(comparison) if {".html", ".png"} & {file.suffix for file in files} else b""
    made: dict[str, Callable[[], bytes]] = {
        ".csv": lambda: text_table.table(comparison).encode(),
        ".html": lambda: html_page.page(comparison, picture).encode(),
        ".png": lambda: picture,
    }
    whole = {ending: made[ending]() for ending in {file.suffix for file in files}}
    for file in files:
        with atomic(file) as path:
            path.write_bytes(whole[file.suffix])
    return list(files)
