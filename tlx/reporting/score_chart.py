"""Two distributions of a score, and a threshold, as the coordinates of an SVG, which `templates/parts.html` draws."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 480, 220, 44, 36, 22  # of the drawing, and its margins; its text has 12 units
BINS = 30


def score_chart(scores: Mapping[str, Sequence[float]], threshold: float | None) -> dict[str, Any]:
    """The share of each set's images in bins of equal width, as steps.

    Args:
        scores: kind of line (`val`, `train`) → scores, at least one each.
        threshold: where a line is drawn; None: nowhere.
    """
    every = [one for some in scores.values() for one in some] + ([] if threshold is None else [threshold])
    low, high = min(every), max(every)
    high = high if high > low else low + 1e-3
    right, bottom = WIDTH - ABOVE, HEIGHT - BELOW
    shares = {kind: _shares(some, low, high) for kind, some in scores.items()}
    most = max(share for some in shares.values() for share in some)

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (right - LEFT), 1)

    def y(share: float) -> float:
        return round(bottom - share / most * (bottom - ABOVE), 1)

    def path(some: Sequence[float]) -> str:
        edges = [x(low + (high - low) * i / BINS) for i in range(BINS + 1)]
        steps = [f"{edges[i]},{y(share)} {edges[i + 1]},{y(share)}" for i, share in enumerate(some)]
        return " ".join([f"{edges[0]},{bottom}", *steps, f"{edges[-1]},{bottom}"])

    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": right,
        "top": ABOVE,
        "bottom": bottom,
        "lines": [(kind, path(some)) for kind, some in shares.items()],
        "threshold": None if threshold is None else x(threshold),
        "across": [(x(low + (high - low) * i / 4), f"{low + (high - low) * i / 4:.2f}") for i in range(5)],
        "up": [(y(most * i / 2), f"{most * i / 2:.0%}") for i in range(3)],
    }


def _shares(scores: Sequence[float], low: float, high: float) -> list[float]:
    counts = [0] * BINS
    for one in scores:
        counts[min(BINS - 1, int((one - low) / (high - low) * BINS))] += 1
    return [count / len(scores) for count in counts]
