"""`python -m tlx predict --rank`: which images to label next, or to look at again, as a table, CSV, JSON or a page."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tlx.cli.images_argument import opened
from tlx.cli.prediction_target import check_targets, target_stream
from tlx.core.activity import State, doing
from tlx.core.csv_cells import Table
from tlx.core.errors import RequestError, nearest, printable, unicode
from tlx.core.output_streams import shows_all
from tlx.datasets.image_paths import SHOWN
from tlx.inference.prediction_gallery import gallery
from tlx.reporting.text_table import aligned

if TYPE_CHECKING:
    from tlx.inference.label_ranking import RankedImages
    from tlx.inference.predictor import Model

__all__ = ["MOST", "ORDERS_OF_RANK", "rank"]
MOST = 100  # images, where --top says nothing
# The words of `--rank`, and what the order means.
ORDERS_OF_RANK: Mapping[str, str] = {
    "uncertain": "first those between whose two most probable classes the model can decide least",
    "diverse": "first those that are uncertain, unlike the training images and unlike those before them",
    "mistaken": "first those where the model contradicts the folder's name most confidently",
}


def rank(
    run: str,
    paths: Sequence[str],
    order: str,
    targets: Mapping[str, str | None],
    top: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> int:
    """Prints the first images of an order, or writes them to the requested files.

    Args:
        order: one of `ORDERS_OF_RANK`.
        targets: `csv`, `json` or `html` → a file, or `-` for stdout.
        top: so many images; None: `MOST`.

    Returns:
        0, or 1 where some image could not be read.

    Raises:
        RequestError: as `predict`; for `mistaken`: no image lies in a folder that is named as a class.
    """
    if order not in ORDERS_OF_RANK:
        raise RequestError(f"--rank {order}: must be {', '.join(ORDERS_OF_RANK)}{nearest(order, ORDERS_OF_RANK)}")
    requested = {form: target for form, target in targets.items() if target is not None}
    check_targets(requested, top, batch_size)
    model, files, left_out = opened(run, paths, device)
    files, known = _to_rank(run, files, order)
    done = 0

    def watch() -> None:
        nonlocal done
        done += 1

    def now() -> State:
        return State([f"{done:,} of {len(files):,} images"], done / max(len(files), 1))

    from tlx.inference.label_ranking import ranked

    with doing(now):
        found = ranked(model, files, order, top or MOST, watch, batch_size)
    _write(model, found, order, requested)
    for line in filter(None, [left_out, *_lines(found, order, len(files), known)]):
        print(line, file=sys.stderr)
    for target in requested.values():
        if target != "-":
            print(f"written: {target}", file=sys.stderr)
    return 1 if found.failed else 0


def _to_rank(run: str, files: list[Path], order: str) -> tuple[list[Path], int]:
    """The images that have a place in the order, and how many the model was trained on or chosen by.

    Those are labelled already: nothing is to be labelled next among them. A wrong label may well be among them.
    """
    from tlx.inference.label_ranking import learned
    from tlx.inference.run_folder import model_folder

    with doing("comparing with the training images"):
        known = learned(model_folder(run), files)
    kept = files if order == "mistaken" else [file for file, is_known in zip(files, known, strict=True) if not is_known]
    if not kept:
        raise RequestError(
            f"--rank {order}: the model was trained on all {len(files):,} images, which have labels; give others, or "
            "take --rank mistaken"
        )
    return kept, sum(known)


def _write(model: "Model", found: "RankedImages", order: str, requested: Mapping[str, str]) -> None:
    for form, target in requested.items():
        if form == "html":
            _page(model, found, order, Path(os.path.expanduser(target)))
            continue
        with target_stream(form, target) as stream:
            (_csv if form == "csv" else _json)(model, found, stream)
    if not requested:
        _table(found, sys.stdout)


def _page(model: "Model", found: "RankedImages", order: str, file: Path) -> None:
    """The pictures of the ranked images, which are read once more: those of all images need not fit into memory."""
    shown = min(SHOWN, len(model.classes))
    with gallery(file, model.classes, shown, "given", ORDERS_OF_RANK[order]) as add:
        files = [one.prediction.file for one in found.images]
        for prediction, view in model.with_views(files, unknown=False):
            add(prediction, view)
        for failed in found.failed:
            add(failed, None)


def _table(found: "RankedImages", stream: IO[str]) -> None:
    labels = any(one.label for one in found.images)
    rows = [["rank", "score", "prediction", "probability", *(["folder"] if labels else []), "file"]]
    for number, one in enumerate(found.images, 1):
        p = one.prediction
        label = [printable(one.label)] if labels else []
        said = [f"{one.score:.4f}", printable(p.prediction), f"{p.probability:.4f}"]
        rows.append([str(number), *said, *label, printable(p.file)])
    print("\n".join(aligned(rows, left=len(rows[0]))), file=stream)
    for failed in found.failed:
        print(printable(f"-  {failed.file}: {failed.error}"), file=stream)


def _csv(model: "Model", found: "RankedImages", stream: IO[str]) -> None:
    table = Table(stream)
    table.row(
        ["rank", "score", "file", "prediction", "probability", "folder", *(f"p({c})" for c in model.classes), "error"]
    )
    for number, one in enumerate(found.images, 1):
        p = one.prediction
        each = [f"{p.probabilities[name]:.6f}" for name in model.classes]
        said = [p.prediction, f"{p.probability:.6f}", one.label]
        table.row([number, f"{one.score:.6f}", unicode(p.file), *said, *each, ""])
    for failed in found.failed:
        table.row(["", "", unicode(failed.file), *[""] * (3 + len(model.classes)), failed.error])


def _json(model: "Model", found: "RankedImages", stream: IO[str]) -> None:
    rows = [
        {"rank": number, "score": one.score, "file": one.prediction.file, "prediction": one.prediction.prediction}
        | {"probability": one.prediction.probability, "probabilities": one.prediction.probabilities}
        | ({"folder": one.label} if one.label else {})
        for number, one in enumerate(found.images, 1)
    ]
    for row in [*rows, *({"file": failed.file, "error": failed.error} for failed in found.failed)]:
        print(unicode(json.dumps(row, ensure_ascii=not shows_all(stream))), file=stream)


def _lines(found: "RankedImages", order: str, images: int, known: int) -> list[str]:
    """What the order means, and what has no place in it."""
    lines = [f"{len(found.images):,} of {images:,} images: {ORDERS_OF_RANK[order]}"]
    if order == "mistaken":
        lines[0] += f"; {found.agreed:,} are predicted as their folder is named"
        if found.aside:
            lines.append(f"left out: {found.aside:,} images in folders that are no class of the model")
        if known:
            lines.append(
                f"the model has learned {known:,} of the images with their labels, and contradicts these less than it "
                "should; python -m tlx audit judges each image by a model that has not seen it"
            )
    elif known:
        lines.append(f"left out: {known:,} images that the model was trained on or chosen by: they have labels")
    if order == "diverse" and images and not found.images:
        lines.append("no image could be read")
    return lines
