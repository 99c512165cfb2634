"""A map of points and a reliability diagram as the coordinates of an SVG, which `templates/parts.html` draws."""

from collections.abc import Mapping, Sequence
from typing import Any

from tlx.core.statistics import wilson

SIDE, LEFT, BELOW, ABOVE = 320, 44, 36, 10  # of the drawing, and its margins; its text has 12 units
# Okabe and Ito's colours, which people see apart whatever their colour vision, and three more.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c00", "#7a5cc7", "#a65628", "#808080")


def point_map(
    points: Sequence[tuple[int, int, int]], correct: Sequence[bool], titles: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """A point for each image; up to ten classes have colours, mistakes have a ring.

    Args:
        points: class, x, y of each; x and y from 0 to 1,000.
        correct: of each.
        titles: what is said of each mistake.
        names: the classes.
    """
    coloured = len(names) <= len(COLOURS)
    size = SIDE - 2 * ABOVE

    def place(point: tuple[int, int, int]) -> tuple[float, float]:
        return round(ABOVE + point[1] / 1000 * size, 1), round(SIDE - ABOVE - point[2] / 1000 * size, 1)

    groups = [
        {"colour": COLOURS[number], "points": [place(p) for p in points if p[0] == number]}
        for number in range(len(names))
    ] if coloured else [{"colour": "#808080", "points": [place(point) for point in points]}]  # fmt: skip
    wrong = [
        (*place(point), title)
        for point, ok, title in zip(points, correct, titles, strict=True)
        if not ok
    ]  # fmt: skip
    return {
        "side": SIDE,
        "groups": groups,
        "wrong": wrong,
        "key": [(COLOURS[number], name) for number, name in enumerate(names)] if coloured else [],
    }


def reliability(calibration: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """The share of correct images against the probability of the predicted class, before and after the temperature.

    Args:
        calibration: as `summary.json` has it.
        classes: their number; no prediction is less probable than one of so many.
    """
    low = min(1 / max(classes, 1), 0.5)
    right, bottom, top = SIDE - 2 * ABOVE, SIDE - BELOW, 2 * ABOVE

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (1 - low) * (right - LEFT), 1)

    def y(value: float) -> float:
        return round(bottom - value * (bottom - top), 1)

    bins = calibration["after"]["bins"]
    ends = [wilson(one["accuracy"] * one["images"], one["images"]) for one in bins]
    whens = ("after",) if calibration.get("temperature") == 1 else ("before", "after")
    return {
        "side": SIDE,
        "left": LEFT,
        "right": right,
        "top": top,
        "bottom": bottom,
        "diagonal": (x(low), y(low), x(1), y(1)),
        "lines": [
            (when, " ".join(f"{x(one['probability'])},{y(one['accuracy'])}" for one in calibration[when]["bins"]))
            for when in whens
        ],
        "bars": [
            (x(one["probability"]), y(a), y(b), y(one["accuracy"])) for one, (a, b) in zip(bins, ends, strict=True)
        ],
        "across": [(x(tick / 10), f"{tick * 10} %") for tick in range(11) if tick / 10 >= low and tick % 2 == 0],
        "up": [(y(tick / 5), f"{tick * 20} %") for tick in range(6)],
    }
