"""A table that fits a terminal: columns are left out by importance, cells are wrapped at spaces."""

from collections.abc import Sequence
from dataclasses import dataclass

from tlx.reporting.line_width import cells

__all__ = ["UNBROKEN", "Column", "fitted"]
BETWEEN = "  "
UNBROKEN = "\0"  # in a cell: a space at which it is not wrapped


@dataclass(frozen=True)
class Column:
    """A column of texts.

    Attributes:
        name: its first cell, wrapped at spaces where that is needed.
        texts: a cell a row.
        left_out: the columns with the highest number are left out first; 0: never.
        wraps: cells that a text may be wrapped to; None: it stays in one line.
        flush_left: or else right.
    """

    name: str
    texts: Sequence[str]
    left_out: int = 0
    wraps: int | None = None
    flush_left: bool = False

    @property
    def widest(self) -> int:
        """Cells that it takes with nothing wrapped."""
        return max(map(cells, (self.name, *self.texts)))

    @property
    def narrowest(self) -> int:
        """Cells that it takes at least."""
        words = [self.name, *self.texts] if self.wraps is not None else [self.name]
        longest = max(cells(word) for text in words for word in text.split(" "))
        if self.wraps is None:
            return max([longest, *map(cells, self.texts)])
        return max(longest, min(self.wraps, self.widest))


def fitted(columns: Sequence[Column], most: int) -> tuple[list[str], list[Column]] | None:
    """The table as lines of at most `most` cells, and the columns that are left out; None where it does not fit."""
    kept, left_out = list(columns), list[Column]()
    while sum(column.narrowest for column in kept) + len(BETWEEN) * (len(kept) - 1) > most:
        least = max(kept, key=lambda column: column.left_out)
        if not least.left_out:
            return None
        kept.remove(least)
        left_out.append(least)
    widths = [column.narrowest for column in kept]
    free = most - sum(widths) - len(BETWEEN) * (len(kept) - 1)
    for i, column in sorted(enumerate(kept), key=lambda pair: pair[1].wraps is None):  # wrapped cells before names
        more = min(free, column.widest - widths[i])
        widths[i], free = widths[i] + more, free - more
    rows = [[column.name for column in kept], *map(list, zip(*(column.texts for column in kept), strict=True))]
    blocks = [_row(row, kept, widths) for row in rows]
    apart = any(len(block) > 1 for block in blocks[1:])
    lines = blocks[0]
    for number, block in enumerate(blocks[1:]):
        lines = [*lines, *([""] if apart and number else []), *block]
    return lines, left_out


def _row(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    wrapped = [_wrapped(text, width) for text, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, wrapped))):
        texts = [text[number] if number < len(text) else "" for text in wrapped]
        shown = [_padded(text, c, width) for text, c, width in zip(texts, columns, widths, strict=True)]
        lines.append(BETWEEN.join(shown).rstrip().replace(UNBROKEN, " "))
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """The text at its spaces; no word is wider."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and cells(lines[-1]) + 1 + cells(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def _padded(text: str, column: Column, width: int) -> str:
    space = " " * (width - cells(text))
    return text + space if column.flush_left else space + text
