"""A comparison as one page: what it is of, table, picture, pairwise tests, the runs, and the images where the models
disagree."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tlx.comparison.comparison import SAME, Comparison, Pair
from tlx.comparison.flips import Flip, flips
from tlx.comparison.origin import Origin, facts, title
from tlx.comparison.text_table import cells, chosen, head, left_out, notes, p_value, points
from tlx.core.choose_by import shown
from tlx.datasets.image_decoding import UnreadableImage, decode
from tlx.inference.prediction_gallery import QUALITY, SIDE
from tlx.reporting import html_pages
from tlx.reporting.text_table import near
from tlx.runs.run_reader import Run

MATRIX = 24  # configurations that are set against each other, the first by validation
PAIRS = 66  # pairs whose images are shown, those with the chosen one first
SHOWN = 12  # images of a pair that either side has right more often
PICTURES = 240  # different images on the page; the others have their names only


def page(comparison: Comparison, pictures: Sequence[bytes], file: Path, origin: Origin) -> str:
    """The page.

    Args:
        comparison: what it shows.
        pictures: PNG, for a wide screen and for a narrow one; none where they could not be drawn.
        file: where the page will lie; links to the runs' folders are relative to it.
        origin: what the comparison comes from.
    """
    pairs = sorted((pair for pair in comparison.pairs if pair.found), key=lambda pair: (pair.first, pair.second))
    flipped = [(pair, flips(pair.matched)) for pair in pairs[:PAIRS]]
    spans = (run.summary.get("range") for each in comparison.configurations for run in each.runs)
    small = _Pictures(next(filter(None, spans), None))
    # Each picture is on the page once, as a class of its own, however many pairs it is in.
    details = [_detail(comparison, pair, found, small) for pair, found in flipped]
    return html_pages.page(
        "comparison.html",
        title=title(comparison, origin),
        facts=facts(comparison, origin),
        head=head(comparison),
        rows=[[*map(_lines, cells(comparison, place))] for place in range(len(comparison.configurations))],
        chosen=chosen(comparison),
        notes=[*notes(comparison), *left_out(comparison)],
        plots=[html_pages.data_url(picture, "png") for picture in pictures],
        matrix=_matrix(comparison),
        tested=comparison.tested,
        run_head=("configuration", "seed", "fold", "test accuracy", comparison.rule, "folder"),
        runs=list(_runs(comparison, file)),
        details=details,
        unshown=len(pairs) - len(flipped),
        pictures=small.data,
        pixels=SIDE,
    )


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


class _Pictures:
    """Small pictures of image files, each once. `span`: of those of more than 8 bits, as `decode` has it."""

    def __init__(self, span: Sequence[float] | None) -> None:
        self.span = None if span is None else (span[0], span[1])
        self.known: dict[str, int | None] = {}
        self.data: list[str] = []

    def of(self, file: str) -> int | None:
        """The picture's number; None where there is no such file, or enough pictures."""
        if file not in self.known:
            self.known[file] = self._make(Path(file)) if len(self.data) < PICTURES else None
        return self.known[file]

    def _make(self, file: Path) -> int | None:
        try:
            small = Image.fromarray(decode(file, self.span))
        except (OSError, ValueError, UnreadableImage):  # `test/3` of a drawn data set, or the file has gone
            return None
        small.thumbnail((SIDE, SIDE))
        jpeg = io.BytesIO()
        small.save(jpeg, "JPEG", quality=QUALITY)
        self.data.append(html_pages.data_url(jpeg.getvalue(), "jpeg"))
        return len(self.data) - 1


def _detail(comparison: Comparison, pair: Pair, found: list[Flip], pictures: _Pictures) -> dict[str, Any]:
    first, second = (comparison.configurations[place].label for place in (pair.first, pair.second))
    won = [flip for flip in found if flip.first > flip.second]
    lost = [flip for flip in found if flip.first < flip.second]
    sides = []
    for name, some in ((first, won), (second, lost)):
        more = f", {SHOWN} of them shown" if len(some) > SHOWN else ""
        words = f"{name} is correct more often on {_images(len(some))}{more}"
        sides.append({"words": words, "flips": [_flip(flip, pictures) for flip in some[:SHOWN]]})
    return {
        "summary": f"{first} against {second}: {len(won)} and {_images(len(lost))}",
        "opened": (pair.first, pair.second) == (0, 1),
        "sides": sides,
    }


def _flip(flip: Flip, pictures: _Pictures) -> dict[str, Any]:
    counts = f"correct in {flip.first} of {flip.of} against {flip.second} of {flip.of}"
    return {
        "picture": pictures.of(flip.file),
        "lines": [f"is {flip.label}", counts if flip.of > 1 else " against ".join(flip.said)],
        "name": flip.file.replace("\\", "/").rpartition("/")[2] or flip.file,
        "file": flip.file,
    }


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"
