"""The files of a learning curve: summary, table, picture and page, each whole or absent."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic
from tlx.core.csv_cells import Table
from tlx.core.errors import shown, unicode
from tlx.curves import curve_picture
from tlx.curves.curve_words import HEAD, MADE, Found, cells, notes, sentence
from tlx.reporting import html_pages

__all__ = ["COLUMNS", "rows", "write"]
COLUMNS = (
    "series", "images", "val_images", "runs", "test_accuracy", "low", "high", "sd", "fitted", "kind", "seconds",
)  # fmt: skip


def write(folder: Path, found: Found, command: str, failed: Sequence[tuple[str, str]], best: str | None) -> None:
    """Writes what was found into the folder of a curve; the summary last, for it says that all are there."""
    picture = curve_picture.picture(found)
    with atomic(folder / "curve.csv") as file:
        file.write_text(unicode(_table(found)), encoding="utf-8")
    with atomic(folder / "curve.png") as file:
        file.write_bytes(picture)
    with atomic(folder / "report.html") as file:
        file.write_text(unicode(_page(folder, found, command, failed, picture)), encoding="utf-8")
    summary = {
        "series": [_of_series(measured, expected) for measured, expected in found],
        "sentences": [sentence(measured, expected) for measured, expected in found],
        "failed": [{"command": one, "error": why} for one, why in failed],
        "run": best,
        "command": command,
        "status": "failed" if failed else "finished",
    }
    with atomic(folder / "summary.json") as file:
        file.write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")


def _of_series(measured: Any, expected: Any) -> dict[str, Any]:
    law = expected.law
    known = {key: value for key, value in asdict(expected).items() if key not in ("law", "band", "band_images")}
    return {
        "label": measured.label,
        "points": [
            {
                "images": point.images,
                "val_images": point.val,
                "test_accuracy": point.found.mean,
                "low": point.found.interval[0],
                "high": point.found.interval[1],
                "runs": [run.folder.name for run in point.found.runs],
            }
            for point in measured.points
        ],
        "power_law": None if law is None else {key: float(value) for key, value in vars(law).items()},
        "forecast": None if expected.refusal else {k: v for k, v in known.items() if k != "refusal"},
        "refusal": expected.refusal,
    }  # fmt: skip


def _table(found: Found) -> str:
    stream = io.StringIO()
    table = Table(stream)
    table.row(COLUMNS)
    for row in rows(found):
        decimals = [2 if name == "seconds" else 6 for name in COLUMNS]
        table.row([f"{cell:.{n}f}" if isinstance(cell, float) else cell for cell, n in zip(row, decimals, strict=True)])
    return stream.getvalue()


def rows(found: Found) -> Iterator[list[Any]]:
    """A row a point with the columns `COLUMNS`, and one for what is extrapolated, whose `kind` says so."""
    for measured, expected in found:
        law = expected.law
        for point in measured.points:
            one = point.found
            fitted = None if law is None else 1 - float(law.error(point.images))
            yield [
                measured.label, point.images, point.val, one.n, float(one.mean), *map(float, one.interval),
                None if one.sd is None else float(one.sd), fitted, "measured", float(one.seconds),
            ]  # fmt: skip
        if not expected.refusal:
            ends, fitted = (float(expected.low), float(expected.high)), float(expected.accuracy)
            yield [measured.label, expected.images, None, None, None, *ends, None, fitted, "extrapolated", None]


def _page(folder: Path, found: Found, command: str, failed: Sequence[tuple[str, str]], picture: bytes) -> str:
    first, *rest = [sentence(measured, expected) for measured, expected in found]
    return html_pages.page(
        "curve.html",
        title=folder.name,
        pictures={},
        pixels=0,
        result=first,
        others=rest,
        notes=[*notes(found), *(f"failed: {why}: {one}" for one, why in failed)],
        command=shown(command),
        head=HEAD,
        rows=[[[cell] for cell in cells(measured.label, point)] for measured, _ in found for point in measured.points],
        picture=html_pages.data_url(picture, "png"),
        extrapolated=MADE if any(not expected.refusal for _, expected in found) else "",
    )
