"""The confusion matrix of a page, whose cells open the images behind them; of many classes the most confused pairs."""

from collections import defaultdict
from typing import Any

from tlx.runs.page_entries import Entries

MATRIX = 20  # classes up to which it is a matrix
PAIRS = 40  # pairs of many classes
EACH, ALL = 12, 180  # images of a cell that are shown, and of all cells


def confusion(entries: Entries, classes: list[str]) -> dict[str, Any]:
    """What the template takes: rows of cells, or pairs, and the `cells` that open; each named by its two classes."""
    cells = _cells(entries, classes)
    counts = [sum(len(cells.get((i, j), ())) for j in range(len(classes))) for i in range(len(classes))]
    if len(classes) <= MATRIX:
        opened = sorted(cells, key=lambda cell: (cell[0] == cell[1], -len(cells[cell])))
    else:
        wrong = [cell for cell in cells if cell[0] != cell[1]]
        opened = sorted(wrong, key=lambda cell: (-len(cells[cell]), cell))[:PAIRS]
    most = max(2, min(EACH, ALL // max(len(opened), 1)))
    shown = {cell: _opened(cell, cells[cell], most, entries, classes) for cell in opened}
    return {
        "classes": classes,
        "matrix": [
            [_cell(i, j, len(cells.get((i, j), ())), counts[i]) for j in range(len(classes))]
            for i in range(len(classes))
        ]
        if len(classes) <= MATRIX
        else [],
        "counts": counts,
        "pairs": [
            {**_cell(i, j, len(cells[i, j]), counts[i]), "label": classes[i], "prediction": classes[j]}
            for i, j in opened
            if i != j
        ]
        if len(classes) > MATRIX
        else [],
        "unshown": sum(i != j for i, j in cells) - len(opened) if len(classes) > MATRIX else 0,
        "cells": list(shown.values()),
    }


def _cells(entries: Entries, classes: list[str]) -> dict[tuple[int, int], list[int]]:
    """The images of each pair (label, prediction) that has any: mistakes the most confident first, hits the least."""
    numbers = {name: number for number, name in enumerate(classes)}
    cells = defaultdict[tuple[int, int], list[int]](list)
    for order in (entries.mistakes, entries.hits):
        for row in order:
            cells[numbers[entries.labels[row]], numbers[entries.predictions[row]]].append(row)
    return cells


def _cell(label: int, prediction: int, count: int, of: int) -> dict[str, Any]:
    return {
        "id": f"{label}-{prediction}",
        "count": count,
        "share": count / of if of else 0.0,
        "correct": label == prediction,
    }


def _opened(cell: tuple[int, int], rows: list[int], most: int, entries: Entries, classes: list[str]) -> dict[str, Any]:
    label, prediction = (classes[number] for number in cell)
    correct = cell[0] == cell[1]
    what = f"{label}, predicted correctly" if correct else f"{label}, predicted as {prediction}"
    order = "the least confident first" if correct else "the most confident first"
    some = f"{most} of {len(rows):,} images, {order}" if len(rows) > most else f"{len(rows)} images, {order}"
    return {
        "id": f"{cell[0]}-{cell[1]}",
        "title": what,
        "words": "1 image" if len(rows) == 1 else some,
        "entries": [entries.entry(row, short=True) for row in rows[:most]],
    }
