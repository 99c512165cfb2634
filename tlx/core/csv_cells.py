"""CSV that a spreadsheet opens as it is: text that it would take for a formula has a `'` before it."""

import csv
import re
from collections.abc import Iterable
from typing import IO, Any

__all__ = ["Table", "cell", "text"]

# A spreadsheet executes what begins so, and does not where a quote stands before it; a quote more keeps the way
# back open. A sign alone is no formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r].+", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-](inf|nan)", re.IGNORECASE | re.ASCII)


class Table:
    """Writes rows as CSV; a cell that is text and no number goes through `cell`."""

    def __init__(self, stream: IO[str]) -> None:
        self._rows = csv.writer(stream)

    def row(self, cells: Iterable[Any]) -> None:
        """Writes a row."""
        self._rows.writerow([cell(one) if isinstance(one, str) else one for one in cells])


def cell(value: str) -> str:
    """The text as a cell of a table that people open in a spreadsheet; numbers stay numbers."""
    return f"'{value}" if _FORMULA.fullmatch(value) and not _NUMBER.fullmatch(value) else value


def text(written: str) -> str:
    """The text that `cell` has made the cell of; one that another version wrote is taken as it is."""
    bare = written.removeprefix("'")
    return bare if bare != written and cell(bare) == written else written
