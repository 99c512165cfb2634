"""A list of runs as text, CSV and JSON lines."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import IO, Any

from tlx.core.csv_cells import Table
from tlx.core.errors import printable, unicode
from tlx.reporting.fitted_table import Column, fitted
from tlx.reporting.line_width import cells, wrapped
from tlx.reporting.text_table import aligned, duration, near
from tlx.sweeps.run_list import COLUMNS, ListedRun

__all__ = ["columns", "csv", "json_lines", "text", "values"]
WRAPPED = 24  # cells that what was typed is wrapped to
NAMES = ("folder", "status", "test accuracy", "95 % interval", "began", "time", "typed")
# The columns that a narrow table is without, those that matter least last.
LEAST = ("95 % interval", "typed", "began", "time")


def text(runs: Sequence[ListedRun], width: int | None = None) -> str:
    """A line a run; where a screen of `width` cells is narrower, cells are wrapped and columns left out.

    Where that is not enough, each run has lines of its own.
    """
    rows = [list(map(printable, _cells(run))) for run in runs]
    lines = aligned([NAMES, *rows], 2)
    if width is not None and max(map(cells, lines)) > width:
        narrow = fitted(_columns(rows), width)
        lines = _stacked(rows, width) if narrow is None else narrow[0]
    return "\n".join(lines)


def values(runs: Sequence[ListedRun], keys: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a table as values: what every run has, the figures of any of them, and further `keys`."""
    names = columns(runs, keys)
    return [{name: str(run.folder) if name == "folder" else run.value(name) for name in names} for run in runs]


def columns(runs: Sequence[ListedRun], keys: Sequence[str] = ()) -> list[str]:
    """The names of a table's columns."""
    figures = (name for run in runs for name in run.figures)
    return list(dict.fromkeys([*COLUMNS, *figures, *keys]))


def csv(runs: Sequence[ListedRun], stream: IO[str], keys: Sequence[str] = ()) -> None:
    """Writes a row a run."""
    table, names = Table(stream), columns(runs, keys)
    table.row(names)
    for row in values(runs, keys):
        table.row(["" if row[name] is None else unicode(str(row[name])) for name in names])


def json_lines(runs: Sequence[ListedRun], stream: IO[str], keys: Sequence[str] = ()) -> None:
    """Writes an object a run, each in a line."""
    for row in values(runs, keys):
        print(unicode(json.dumps(row, ensure_ascii=False, default=str)), file=stream)


def _cells(run: ListedRun) -> tuple[str, ...]:
    """A run's row, by `NAMES`."""
    accuracy, low, high = (run.figures.get(f"test_accuracy{end}") for end in ("", "_low", "_high"))
    seconds = run.row["seconds"]
    moment = f"{datetime.fromtimestamp(run.began):%Y-%m-%d %H:%M}" if run.began else "-"
    return (
        near(run.folder),
        run.status,
        "-" if accuracy is None else f"{accuracy:.1%}",
        "-" if low is None or high is None else f"{low:.1%} to {high:.1%}",
        moment,
        "-" if seconds is None else duration(seconds),
        " ".join(f"{key}={value}" for key, value in run.requested.items()),
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[Column]:
    return [
        Column(
            name,
            column,
            left_out=LEAST.index(name) + 1 if name in LEAST else 0,
            wraps=WRAPPED if name == "typed" else None,
            flush_left=name in ("folder", "status", "typed"),
        )
        for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)
    ]


def _stacked(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The folder in a line of its own, and the figures below it."""
    lines = list[str]()
    for folder, *others in rows:
        shown = [one for name, one in zip(NAMES[1:], others, strict=True) if one != "-" and name != "typed"]
        lines += [folder, *wrapped(f"  {', '.join(shown)}", width)]
    return lines
