"""A chart of lines by epoch as the coordinates of an SVG, which `templates/parts.html` draws."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from tlx.core.choose_by import score

WIDTH, HEIGHT = 360, 220  # of the drawing; its text has 12 units
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 22, 34
NAMED = 6  # phases up to which each is named


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
        low, high = (low, high) if high - low >= 0.02 else (0.0, 1.0)
        found.append(_chart(rows, choose_by, "validation accuracy", ("val_accuracy",), low, high))
    return found


def _chart(
    rows: Sequence[Mapping[str, Any]], choose_by: str, title: str, keys: Sequence[str], low: float, high: float
) -> dict[str, Any]:
    first, last = float(rows[0]["epoch"]) - 0.5, float(rows[-1]["epoch"]) + 0.5
    high = high if high > low else low + 1
    share = title.endswith("accuracy")

    def x(epoch: float) -> float:
        return round(LEFT + (epoch - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for key in keys:
        points = [(x(row["epoch"]), y(row[key])) for row in rows if _finite(row.get(key))]
        kind = key.partition("_")[0]
        name = "training" if kind == "train" else "validation"
        lines.append({"name": name, "kind": kind, "points": points, "path": " ".join(f"{a},{b}" for a, b in points)})
    parts = _phases(rows)
    best = [max(rows[a:b], key=lambda row: score(row, choose_by)) for a, b in parts if "val_loss" in rows[a]]
    ticks = _ticks(low, high)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9) - (2 if share else 0)) if ticks[1:] else 1
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "lines": lines,
        "best": [(x(row["epoch"]), y(row[keys[-1]])) for row in best if _finite(row.get(keys[-1]))],
        "ticks": [(y(v), f"{v:.{digits}%}" if share else f"{v:.{digits}f}") for v in ticks],
        "epochs": [(x(e), f"{e:.0f}") for e in _ticks(rows[0]["epoch"], rows[-1]["epoch"]) if e == int(e)],
        "phases": [(x((rows[a]["epoch"] + rows[b - 1]["epoch"]) / 2), str(rows[a].get("phase", ""))) for a, b in parts]
        if len(parts) <= NAMED
        else [],
        "borders": [x(rows[a]["epoch"] - 0.5) for a, _ in parts[1:]],
    }


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
