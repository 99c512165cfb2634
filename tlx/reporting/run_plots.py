"""Pictures of a run: learning curves, confusion matrix, a grid of predictions.

Charts are Matplotlib's figures, without pyplot; the grid of pictures is Pillow's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlx.core.atomic_files import atomic
from tlx.core.choose_by import DEFAULT, score
from tlx.core.confusion_counts import ConfusionCounts
from tlx.reporting.fonts import lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont

GRID = 20  # pictures in the grid of predictions
COLUMNS = 5
SIDE = 168  # pixels of a picture in the grid
CELL = 180, 216  # and of a picture with what is written above it
TEXT = 13.0  # of that, pixels high
MOST = 40  # classes up to which a confusion matrix has names
NUMBERS = 15  # classes up to which it has numbers
CELLS = 400  # a side of it, at most: three pixels each
RIGHT, WRONG, TRAIN, VAL = "#2b7a3d", "#c0392b", "#7f8c8d", "#1f5fa8"


def curves(rows: Sequence[Mapping[str, Any]], path: Path, choose_by: str = DEFAULT) -> None:
    """Losses and validation accuracy by epoch; phases are marked, and the best epoch of each by `choose_by`.

    Args:
        rows: an epoch each: `phase, epoch, train_loss, val_loss` (nats), `val_accuracy` (0..1).
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(10, 4))  # margins by hand: constrained layout draws everything twice
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.08, "right": 0.98, "bottom": 0.13, "top": 0.92})
    place_labels(left, below=-0.1, beside=-0.12)
    place_labels(right, below=-0.1, beside=-0.12)
    epochs = [row["epoch"] for row in rows]
    style = {"marker": "o", "markersize": 4 if len(rows) > 1 else 8} if len(rows) <= 60 else {}
    left.plot(epochs, [row["train_loss"] for row in rows], color=TRAIN, label="training", **style)
    left.plot(epochs, [row["val_loss"] for row in rows], color=VAL, label="validation", **style)
    highest = max((row[key] for row in rows for key in ("train_loss", "val_loss")), default=0.0)
    left.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, 1.08 * highest or 1))
    accuracies = [row["val_accuracy"] for row in rows]
    low, high = (min(accuracies), max(accuracies)) if max(accuracies) - min(accuracies) >= 0.02 else (0.0, 1.0)
    margin = 0.06 * (high - low)
    right.plot(epochs, accuracies, color=VAL, label="validation", **style)
    right.set(xlabel="epoch", ylabel="validation accuracy", ylim=(low - margin, high + margin))
    right.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], nbins=6))
    left.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], nbins=6))
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.06 else 1))
    phases = lettering([row["phase"] for row in rows])
    starts = [i for i, row in enumerate(rows) if i == 0 or row["phase"] != rows[i - 1]["phase"]]
    ends = [*starts[1:], len(rows)]
    best = [max(rows[a:b], key=lambda row: score(row, choose_by)) for a, b in zip(starts, ends, strict=True)]
    for axes, key in ((left, "val_loss"), (right, "val_accuracy")):
        axes.plot(
            [row["epoch"] for row in best],
            [row[key] for row in best],
            linestyle="none", marker="o", markersize=11, markerfacecolor="none", color=VAL,
            label="best epoch" if len(best) == 1 else "best epoch of a phase",
        )  # fmt: skip
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=5))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        for number, (a, b) in enumerate(zip(starts, ends, strict=True)):
            if number:
                axes.axvline(epochs[a] - 0.5, color="black", linewidth=0.8, linestyle=":")
            middle = (epochs[a] + epochs[b - 1]) / 2
            axes.text(
                middle, 1.02, phases.names[a], transform=axes.get_xaxis_transform(), ha="center", parse_math=False,
                fontproperties=FontProperties(fname=phases.font, size=9),
            )  # fmt: skip
    left.legend(frameon=False, loc="best")
    _save(figure, path)


def confusion(counts: ConfusionCounts, classes: Sequence[str], path: Path) -> None:
    """Counts of the test set, a row a label, a column a prediction; the colour is the share of the label's images.

    Of more than `CELLS` classes a cell is a group of classes that follow each other, each way.
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    k = len(classes)
    each = -(-k // CELLS)
    matrix = counts.pooled(each)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    drawn = lettering(classes if k <= MOST else [])
    names = short_names(drawn.names, 24)
    turned = k > 6 or max(map(len, names), default=0) > 8
    side = min(max(2.4, 1 + 0.42 * k), 13)  # of the matrix; all in inches
    left = 0.55 + max(map(_font(drawn.font, 10).getlength, names), default=30) / 72  # for names of 10 points
    below, above, bar = left if turned else 0.6, 0.35, 1.15
    width, height = left + side + bar, below + side + above
    figure = Figure(figsize=(width, height))  # laid out by hand: constrained layout draws everything twice
    axes = figure.add_axes((left / width, below / height, side / width, side / height))
    # Its edges are numbers of classes, also where a cell is several of them.
    end = each * len(matrix) - 0.5
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, end, end, -0.5))
    axes.set(xlabel="prediction", ylabel="label")
    if k <= MOST:
        font = FontProperties(fname=drawn.font, size=10)
        axes.set_xticks(range(k), names, rotation=90 if turned else 0, fontproperties=font, parse_math=False)
        axes.set_yticks(range(k), names, fontproperties=font, parse_math=False)
    else:
        axes.set(xlabel="prediction (number of the class)", ylabel="label (number of the class)")
    if k <= NUMBERS:
        for i in range(k):
            for j in range(k):
                if matrix[i, j]:
                    colour = "white" if share[i, j] > 0.55 else "black"
                    axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", color=colour, fontsize=9)
    beside = figure.add_axes(
        ((left + side + 0.15) / width, (below + 0.1 * side) / height, 0.14 / width, 0.8 * side / height)
    )
    figure.colorbar(image, cax=beside, format="{x:.0%}").set_label("share of the label's images")
    right, total = int(counts.correct.sum()), int(counts.counts.sum())
    cells = f"; a cell is {each} × {each} classes" if each > 1 else ""
    axes.set_title(f"{right} of {total} correct ({right / max(total, 1):.1%}){cells}", fontsize=10, y=1.0)
    _save(figure, path)


def predictions(
    images: Sequence[np.ndarray],
    labels: Sequence[int],
    predictions: Sequence[int],
    probabilities: Sequence[float],
    classes: Sequence[str],
    path: Path,
) -> None:
    """A grid of pictures with prediction and probability; mistakes come first, framed, with their label.

    Args:
        images: uint8 `[H, W, 3]` of any size.
        labels, predictions: numbers of classes.
        probabilities: of the predicted class, 0..1.
    """
    from PIL import Image, ImageDraw, ImageOps

    order = choose(labels, predictions, probabilities)
    drawn = lettering(classes)
    names = short_names(drawn.names, 20)
    grid = Image.new("RGB", (COLUMNS * CELL[0], -(-len(order) // COLUMNS) * CELL[1]), "white")
    draw, font = ImageDraw.Draw(grid), _font(drawn.font, TEXT)
    for place, i in enumerate(order):
        right = predictions[i] == labels[i]
        row, column = divmod(place, COLUMNS)
        x, y = column * CELL[0] + (CELL[0] - SIDE) // 2, (row + 1) * CELL[1] - SIDE - 6
        grid.paste(ImageOps.fit(Image.fromarray(images[i]), (SIDE, SIDE), Image.Resampling.BICUBIC), (x, y))
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=RIGHT if right else WRONG, width=1 if right else 5)
        said = f"{names[predictions[i]]}  {probabilities[i]:.0%}"
        text = said if right else f"{said}\nis {names[labels[i]]}"
        widest = max(map(font.getlength, text.split("\n")))
        draw.multiline_text(
            (x + SIDE / 2, y - 4), text, fill="black" if right else WRONG, anchor="md", align="center",
            font=font if widest <= SIDE else _font(drawn.font, TEXT * SIDE / widest),
        )  # fmt: skip
    with atomic(path) as file:
        grid.save(file, format="png", compress_level=1)


def choose(labels: Sequence[int], predictions: Sequence[int], probabilities: Sequence[float]) -> list[int]:
    """Which images the grid shows: the most confident errors first; then correct ones, the least confident
    first, each class in turn."""
    images = range(len(labels))
    wrong = sorted((i for i in images if predictions[i] != labels[i]), key=lambda i: -probabilities[i])
    right = sorted((i for i in images if predictions[i] == labels[i]), key=lambda i: probabilities[i])
    seen: dict[int, int] = {}
    turns = []
    for i in right:
        turns.append((seen.get(labels[i], 0), labels[i], i))
        seen[labels[i]] = turns[-1][0] + 1
    return (wrong + [i for _, _, i in sorted(turns)])[:GRID]


def short_names(names: Sequence[str], length: int) -> list[str]:
    """Names of at most `length` characters, or as many more as it takes to keep different names different."""
    while True:
        tail = (length - 1) // 2
        for begin, end in ((length - 1 - tail, tail), (length - 1, 0), (0, length - 1)):
            short = [n if len(n) <= length else f"{n[:begin]}…{n[len(n) - end :]}" for n in names]
            if len(set(short)) == len(set(names)):
                return short
        length += 8


def place_labels(axes: "Axes", *, below: float, beside: float) -> None:
    """Puts the labels of two axes at fixed places, as shares of these: matplotlib would measure all numbers for it."""
    axes.xaxis.set_label_coords(0.5, below)
    axes.yaxis.set_label_coords(beside, 0.5)


def _font(file: str, size: float) -> "FreeTypeFont":
    """For text that Matplotlib does not draw; `size` in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(file, size)


def _save(figure: "Figure", path: Path) -> None:
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=110, pil_kwargs={"compress_level": 1})
