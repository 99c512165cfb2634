"""Which column of a table is what: as the user says, or by its name where only one can be meant."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tlx.core.errors import RequestError, nearest, printable
from tlx.datasets.group_splits import NONE
from tlx.datasets.table_rows import TableRows

# What a column is for, with the names by which it is known: letters and digits alone, in lower case.
NAMES = {
    "path": ("path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename", "img"),
    "label": ("label", "labels", "class", "classname", "category", "target"),
    "split": ("split", "subset"),
    "weight": ("weight", "sampleweight"),
}
WEAK = ("id", "imageid", "name")  # of path, where there is none of the others
ONES, ZEROS = ("1", "1.0", "true"), ("0", "0.0", "false")
SHOWN = 6  # names in a message


def columns_of(rows: TableRows, given: Mapping[str, str | None], group: str | None, key: str) -> dict[str, str]:
    """What each column is for: `path`, and where there is one `label`, `split`, `group`, `weight` → its name.

    `given`: `dataset.columns`. `group`: `dataset.group`, which may be an expression instead. `key`: for messages.

    Raises:
        RequestError: no such column, or none or several that can be meant.
    """
    if unknown := [name for name in given if name not in NAMES]:
        name = unknown[0]
        raise RequestError(f"dataset.columns.{name}: no such key{nearest(name, NAMES)}; {', '.join(NAMES)}")
    found = {}
    for use, known in NAMES.items():
        if given.get(use) is not None:
            name = str(given[use])
            if name not in rows.columns:
                raise RequestError(
                    f"dataset.columns.{use}={name}: {key} has no such column{nearest(name, rows.columns)}; "
                    f"{_listed(rows.columns)}"
                )
            found[use] = name
            continue
        likely = [name for name in rows.columns if _plain(name) in known]
        if use == "path" and not likely:
            likely = [name for name in rows.columns if _plain(name) in WEAK]
        if len(likely) > 1:
            raise RequestError(
                f"{key}: which column is the {use}: {' or '.join(map(printable, likely))}? "
                f"dataset.columns.{use}={likely[0]} says it"
            )
        if likely:
            found[use] = likely[0]
    if "path" not in found:
        raise RequestError(
            f"{key}: no column is known to hold the paths of images: {_listed(rows.columns)}{_why(rows)}"
        )
    if group != NONE and (group or "group") in rows.columns:
        found["group"] = group or "group"
    return found


def said(columns: Mapping[str, str], rows: TableRows, names: Sequence[str]) -> Iterator[str]:
    """The lines that say which column is what. `names`: of one-hot columns, where these are the labels."""
    plural = {"path": "images", "label": "labels", "split": "splits", "group": "groups"}
    parts = [f"{plural[use]} from column '{columns[use]}'" for use in plural if use in columns]
    if names:
        parts.append(f"labels from the one that is 1 of the columns {_listed(names)}")
    others = [name for name in rows.columns if name and name not in (*columns.values(), *names)]
    unused = f"; not used: {_listed(others)}" if others else ""
    yield printable(f"table: {', '.join(parts)}{unused}; dataset.columns.<use> changes it")
    if "weight" in columns:
        yield printable(
            f"table: the weights of column '{columns['weight']}' are not used: every image counts the same; "
            "training.class_weights=balanced weights classes"
        )


def labels_of(rows: TableRows, columns: Mapping[str, str], key: str) -> tuple[list[Any], list[str]]:
    """The label of each row, text or None, and the one-hot columns that it comes from, if it does.

    Raises:
        RequestError: no column of labels, or several labels a row (multi-label), with what can be done instead.
    """
    if "label" in columns:
        name = columns["label"]
        cells = [
            _single(cell, number, name, key) for cell, number in zip(rows.columns[name], rows.numbers, strict=True)
        ]
        _refuse_combined(cells, rows.numbers, name, key)
        return cells, []
    hot = {
        name: [str(cell).strip().lower() in ONES for cell in cells]
        for name, cells in rows.columns.items()
        if name not in columns.values() and all(str(cell).strip().lower() in ONES + ZEROS for cell in cells)
    }
    if len(hot) < 2:
        raise RequestError(
            f"{key}: no column is known to hold the labels: {_listed(rows.columns)}; dataset.columns.label=NAME says "
            "which one does"
        )
    names, labels = list(hot), list[str]()
    for number, row in zip(rows.numbers, zip(*hot.values(), strict=True), strict=True):
        ones = [name for name, one in zip(names, row, strict=True) if one]
        if len(ones) != 1:
            what = f"{len(ones)} of the columns {_listed(names)} are 1" if ones else f"none of {_listed(names)} is 1"
            raise _multi_label(f"{key}: row {number}: {what}", f"dataset.columns.label={names[0]}")
        labels += ones
    return list(labels), names


def cell_text(cell: Any) -> str:
    """A cell as text: a whole number without a point, as other programs write a column with gaps."""
    if isinstance(cell, bool):
        return str(cell).lower()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _single(cell: Any, number: int, name: str, key: str) -> str | None:
    """The label in a cell; that of a list of one. Raises `RequestError` for a list of several."""
    several = cell
    if isinstance(cell, str) and re.fullmatch(
        r"\s*\[.*,.*\]\s*", cell, re.DOTALL
    ):  # a list as Python and JSON write it
        several = [part.strip(" '\"") for part in cell.strip()[1:-1].split(",")]
    if isinstance(several, list):
        if len(several) > 1:
            some = _listed([cell_text(one) for one in several])
            raise _multi_label(f"{key}: row {number}: has {len(several)} labels in column '{name}' ({some})")
        cell = several[0] if several else None
    return None if cell is None else cell_text(cell)


def _refuse_combined(labels: Sequence[str | None], numbers: Sequence[int], name: str, key: str) -> None:
    """Raises `RequestError` for labels such as `cat|dog` beside `cat` and `dog`: several in one cell."""
    whole = {label for label in labels if label}
    for sign in "|;,":
        combined = {label: [part.strip() for part in label.split(sign)] for label in whole if sign in label}
        parts = {part for inside in combined.values() for part in inside}
        if combined and parts & whole and len(parts) < len(whole):
            row = next(i for i, label in enumerate(labels) if label in combined)
            seen = f"{key}: row {numbers[row]}: has several labels in column '{name}' ({labels[row]})"
            raise _multi_label(printable(seen))


def _multi_label(seen: str, instead: str = "") -> RequestError:
    """What to say where images have several labels, or none."""
    how = instead or "a column of 0 and 1 for each label, and dataset.columns.label=THAT_COLUMN"
    return RequestError(
        f"{seen}: multi-label, which is not trained here: an image has one label; {how} trains on one of them, yes or "
        "no, or keep one label in each row"
    )


def _why(rows: TableRows) -> str:
    """What may be the reason that a table has no column of paths, and what to do."""
    if bytes_ := [name for name in rows.unread if _plain(name) in NAMES["path"]]:
        return f"; '{bytes_[0]}' holds the images themselves, which is not read: write them into files"
    if any(re.search(r"\.(jpe?g|png|tiff?|bmp|webp|gif)$", name, re.IGNORECASE) for name in rows.columns):
        return "; the first row must have the columns' names, as in path,label"
    return "; dataset.columns.path=NAME says which one does"


def _plain(name: str) -> str:
    return "".join(re.findall(r"[^\W_]+", name.lower()))


def _listed(names: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> str:
    given = [printable(name) for name in names if name]
    return ", ".join(given[:SHOWN]) + (f" and {len(given) - SHOWN} more" if len(given) > SHOWN else "")
