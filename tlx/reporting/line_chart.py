"""A chart of lines by epoch as the coordinates of an SVG, which `templates/parts.html` draws."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from tlx.core.choose_by import score

WIDTH, HEIGHT = 360, 220  # of the drawing; its text has 12 units
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 22, 34
FLAT = 0.02  # accuracies that differ less are drawn from 0 to 1
NAMED = 6  # phases up to which each is named

Points = Sequence[tuple[float, float]]


def curves(rows: Sequence[Mapping[str, Any]], choose_by: str) -> list[dict[str, Any]]:
    """Losses and validation accuracy by epoch; phases are marked, and the best epoch of each by `choose_by`.

    `rows`: the epochs, as `metrics.jsonl` has them; a figure that an epoch lacks is left out of its line.
    """
    if not rows:
        return []
    losses = [value for row in rows for key in ("train_loss", "val_loss") if _finite(value := row.get(key))]
    found = [_chart(rows, choose_by, "loss (nats)", ("train_loss", "val_loss"), 0.0, max(losses, default=1.0))]
    accuracies = [value for row in rows if _finite(value := row.get("val_accuracy"))]
    if accuracies:
        low, high = min(accuracies), max(accuracies)
        low, high = (low, high) if high - low >= FLAT else (0.0, 1.0)
        found.append(_chart(rows, choose_by, "validation accuracy", ("val_accuracy",), low, high))
    return found


def _chart(
    rows: Sequence[Mapping[str, Any]], choose_by: str, title: str, keys: Sequence[str], low: float, high: float
) -> dict[str, Any]:
    frame = Frame(title, rows[0]["epoch"], rows[-1]["epoch"], low, high)
    x, y = frame.x, frame.y
    lines = []
    for key in keys:
        points = [(x(row["epoch"]), y(row[key])) for row in rows if _finite(row.get(key))]
        kind = key.partition("_")[0]
        lines.append(line("training" if kind == "train" else "validation", kind, points))
    parts = _phases(rows)
    best = [max(rows[a:b], key=lambda row: score(row, choose_by)) for a, b in parts if "val_loss" in rows[a]]
    return {
        **frame.drawn(),
        "lines": lines,
        "best": [(x(row["epoch"]), y(row[keys[-1]])) for row in best if _finite(row.get(keys[-1]))],
        "phases": [(x((rows[a]["epoch"] + rows[b - 1]["epoch"]) / 2), str(rows[a].get("phase", ""))) for a, b in parts]
        if len(parts) <= NAMED
        else [],
        "borders": [x(rows[a]["epoch"] - 0.5) for a, _ in parts[1:]],
    }


class Frame:
    """The axes of a chart: places of epochs and values, and their ticks. A title that ends in `accuracy`: in percent.

    Args:
        title: above the chart.
        first, last: the epochs.
        low, high: the values at the lower and the upper end.
    """

    def __init__(self, title: str, first: float, last: float, low: float, high: float) -> None:
        self.title, self.first, self.last = title, float(first), float(last)
        self.low, self.high = low, high if high > low else low + 1

    def x(self, epoch: float) -> float:
        """The place of an epoch."""
        share = (epoch - self.first + 0.5) / (self.last - self.first + 1)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """The place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def drawn(self) -> dict[str, Any]:
        """The chart without lines, as the template takes it."""
        ticks, share = _ticks(self.low, self.high), self.title.endswith("accuracy")
        digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9) - (2 if share else 0)) if ticks[1:] else 1
        return {
            "title": self.title,
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": WIDTH - RIGHT,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
            "ticks": [(self.y(v), f"{v:.{digits}%}" if share else f"{v:.{digits}f}") for v in ticks],
            "epochs": [(self.x(e), f"{e:.0f}") for e in _ticks(self.first, self.last) if e == int(e)],
            "across": "epoch",
            "best": [],
            "phases": [],
            "borders": [],
        }


def line(name: str, kind: str, points: Points, *, colour: str = "", band: Points = ()) -> dict[str, Any]:
    """A line as the template takes it: of a class of the style, or of a colour, with a band's outline about it."""
    path = " ".join(f"{a},{b}" for a, b in points)
    around = " ".join(f"{a},{b}" for a, b in band)
    return {"name": name, "kind": kind, "points": points, "path": path, "colour": colour, "band": around}


def _phases(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The rows of each phase: the first, and the one behind the last."""
    starts = [i for i, row in enumerate(rows) if i == 0 or row.get("phase") != rows[i - 1].get("phase")]
    return list(zip(starts, [*starts[1:], len(rows)], strict=True))


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers from `low` to `high`; the one number where they are equal."""
    if high <= low:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
