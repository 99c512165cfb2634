"""Points with an interval each over a logarithmic axis: where templates draw accuracy against cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Point", "scatter"]
WIDTH, HEIGHT = 720.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 700.0, 24.0, 312.0
STEPS = (1, 2, 5)
APART = 16.0  # between points at one place


@dataclass(frozen=True)
class Point:
    """What is drawn: `x` above 0, shares `y`, `low`, `high`; `kind` is a class of the template's style.

    `label` stands beside it, `name` is said where a pointer rests on it.
    """

    label: str
    name: str
    x: float
    y: float
    low: float
    high: float
    kind: str


def scatter(points: Sequence[Point], title: str, axis: str) -> dict[str, Any]:
    """What the macro `scatter` of `parts.html` draws; the line joins the points that no other beats in both."""
    low_x, high_x = min(p.x for p in points) / 1.3, max(p.x for p in points) * 1.6
    low_y, high_y = min(p.low for p in points), max(p.high for p in points)
    margin = max(0.05 * (high_y - low_y), 0.002)
    low_y, high_y = max(low_y - margin, 0.0), min(high_y + margin, 1.0)

    def across(x: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * math.log(x / low_x) / math.log(high_x / low_x), 1)

    def up(y: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (y - low_y) / (high_y - low_y), 1)

    seen = list[float]()
    drawn = []
    for point in points:  # of those at one place across, each stands a little to the right of the one before
        x = across(point.x)
        moved = x + APART * sum(abs(x - other) < APART for other in seen)
        seen.append(x)
        drawn.append(
            {"x": moved, "y": up(point.y), "low": up(point.low), "high": up(point.high)}
            | {"label": point.label, "name": point.name, "kind": point.kind}
        )
    best, front = -1.0, list[str]()
    for point, place in sorted(zip(points, drawn, strict=True), key=lambda pair: (pair[0].x, -pair[0].y)):
        if point.y > best:
            best = point.y
            front.append(f"{place['x']},{place['y']}")
    return {
        "title": title,
        "axis": axis,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "top": TOP,
        "bottom": BOTTOM,
        "ticks": [
            (up(value), f"{value:.0%}" if step >= 0.01 else f"{value:.1%}") for value, step in _shares(low_y, high_y)
        ],
        "across": [(across(value), f"{value:g}") for value in _decades(low_x, high_x)],
        "front": " ".join(front),
        "points": drawn,
    }


def _shares(low: float, high: float) -> list[tuple[float, float]]:
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 6 or s == 0.2)
    first = math.ceil(low / step - 1e-9)
    return [(round(i * step, 6), step) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in STEPS if low <= step * 10.0**power <= high]
