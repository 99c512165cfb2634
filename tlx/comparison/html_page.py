"""A comparison as one page: what it is of, table, charts, pairwise tests, the runs, and the images where the models
disagree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlx.comparison import page_charts, page_flips
from tlx.comparison.comparison import SAME, Comparison, Pair
from tlx.comparison.origin import Origin, facts, title
from tlx.comparison.text_table import cells, chosen, head, interval, left_out, notes, p_value, points
from tlx.core.choose_by import shown
from tlx.reporting import html_pages
from tlx.reporting.text_table import near
from tlx.runs.run_reader import Run
from tlx.runs.small_pictures import SIDE

MATRIX = 24  # configurations that are set against each other, the first by validation


def page(comparison: Comparison, file: Path, origin: Origin) -> str:
    """The page, self-contained.

    Args:
        comparison: what it shows.
        file: where the page will lie; links to the runs' folders are relative to it.
        origin: what the comparison comes from.
    """
    details, unshown, pictures = page_flips.details(comparison)
    known = dict(facts(comparison, origin))
    return html_pages.page(
        "comparison.html",
        title=title(comparison, origin),
        result=_result(comparison),
        facts=[(name, value) for name, value in known.items() if name != "command"],
        command=known.get("command", ""),
        head=head(comparison),
        rows=[[*map(_lines, cells(comparison, place))] for place in range(len(comparison.configurations))],
        notes=[*notes(comparison), *left_out(comparison)],
        accuracies=page_charts.accuracies(comparison),
        charts=page_charts.curves(comparison),
        matrix=_matrix(comparison),
        tested=comparison.tested,
        run_head=("configuration", "seed", "fold", "test accuracy", comparison.rule, "folder"),
        runs=list(_runs(comparison, file)),
        details=details,
        unshown=unshown,
        pictures=pictures,
        pixels=SIDE,
    )


def _result(comparison: Comparison) -> str:
    """The result in one sentence, with its interval."""
    if found := chosen(comparison):
        sentence = found[0]
        return f"{sentence[0].upper()}{sentence[1:]}."
    one = comparison.configurations[0]
    return f"{one.mean:.1%} of the test images are classified correctly (95 % interval {interval(one)})."


def _matrix(comparison: Comparison) -> list[dict[str, Any]]:
    """What each row's configuration has more than each column's, in points."""
    some = range(min(len(comparison.configurations), MATRIX))
    return [
        {
            "label": comparison.configurations[row].label,
            "cells": [
                {"lines": [""]} if row == column else _cell(comparison.pair(row, column), row) for column in some
            ],
        }
        for row in some
    ]


def _runs(comparison: Comparison, file: Path) -> Iterator[list[Any]]:
    """Every run: its draw, what it found, and where it lies, with a link."""
    for one in comparison.configurations:
        for run in one.runs:
            draw = ("-" if value is None else str(value) for value in run.draw)
            figure = run.validation(comparison.rule)
            found = "-" if figure is None else shown(figure, comparison.rule)
            cells = [one.label, *draw, f"{run.accuracy:.1%}", found]
            yield [*([cell] for cell in cells), {"link": html_pages.link(run.folder, file), "words": _name(run, file)}]


def _name(run: Run, file: Path) -> str:
    """A run's folder as the page names it: by its path from there, which stays right where both are moved."""
    there, here = run.folder.absolute(), file.absolute().parent
    return str(there.relative_to(here)) if there.is_relative_to(here) else near(run.folder)


def _lines(cell: str) -> list[str]:
    """What an interval is over has a line of its own."""
    interval, over, what = cell.partition("% over ")
    return [f"{interval}%", f"over {what}"] if over else [cell]


def _cell(pair: Pair, row: int) -> dict[str, Any]:
    words = pair.words(row)
    if pair.found is None or pair.p is None:
        return {"lines": [words], "kind": "same"}
    lead, interval = points(pair.found, turned=row != pair.first).split(" (")
    return {
        "lines": [lead, f"({interval}", f"p {p_value(pair.p)}", words],
        "kind": "same" if words == SAME else words,
        "title": f"{pair.found.method}, {pair.found.runs} pairs of runs; p before correction {p_value(pair.found.p)}",
    }
