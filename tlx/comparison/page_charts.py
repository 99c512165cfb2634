"""The charts of a comparison's page: test accuracies with their intervals, and learning curves."""

import math
from collections.abc import Sequence
from typing import Any

from tlx.comparison.comparison import Comparison, Configuration
from tlx.comparison.plot import over_runs
from tlx.reporting.line_chart import FLAT, Frame, line
from tlx.reporting.square_charts import COLOURS

MOST = 40  # configurations with a row, the first by validation; as many as there are colours have curves
GREY = "#808080"
MARGIN = 0.02  # of the width, on both sides


def accuracies(comparison: Comparison) -> dict[str, Any]:
    """A row for each configuration: places in percent of the width, of the interval, the mean and each run."""
    shown = comparison.configurations[:MOST]
    lows = [min(one.interval[0], *(run.accuracy for run in one.runs)) for one in shown]
    highs = [max(one.interval[1], *(run.accuracy for run in one.runs)) for one in shown]
    low, wide = min(lows), max(max(highs) - min(lows), 0.01)

    def at(share: float) -> float:
        return round(100 * (MARGIN + (share - low) / wide * (1 - 2 * MARGIN)), 2)

    step = next(step for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if wide / step <= 6)
    ticks = [
        number * step for number in range(math.ceil(low / step - 1e-9), math.floor((low + wide) / step + 1e-9) + 1)
    ]
    return {
        "rows": [
            {
                "label": one.label,
                "words": "chosen" if place == 0 else comparison.pair(0, place).words(place),
                "colour": COLOURS[place] if place < len(COLOURS) else GREY,
                "mean": at(one.mean),
                "left": at(one.interval[0]),
                "width": round(at(one.interval[1]) - at(one.interval[0]), 2),
                "runs": [at(run.accuracy) for run in one.runs] if one.n > 1 else [],
                "title": f"{one.mean:.1%} ({one.interval[0]:.1%} to {one.interval[1]:.1%})",
            }
            for place, one in enumerate(shown)
        ],
        "ticks": [(at(tick), f"{tick:.{1 if step < 0.01 else 0}%}") for tick in ticks],
        "dots": any(one.n > 1 for one in shown),
        "unshown": len(comparison.configurations) - len(shown),
    }


def curves(comparison: Comparison) -> list[dict[str, Any]]:
    """Validation accuracy and loss by epoch: the mean over the runs that came so far, and their range."""
    shown = comparison.configurations[: len(COLOURS)]
    return [
        _curves(shown, *each)
        for each in (("val_accuracy", "validation accuracy"), ("val_loss", "validation loss (nats)"))
    ]


def _curves(shown: Sequence[Configuration], key: str, title: str) -> dict[str, Any]:
    found = [over_runs([run.rows for run in one.runs], key) for one in shown]
    low, high = min(min(lows) for _, _, lows, _ in found), max(max(highs) for _, _, _, highs in found)
    if key == "val_accuracy" and high - low < FLAT:
        low, high = 0.0, 1.0
    first, last = min(epochs[0] for epochs, _, _, _ in found), max(epochs[-1] for epochs, _, _, _ in found)
    frame = Frame(title, first, last, low, high)
    lines = []
    for place, (epochs, means, lows, highs) in reversed([*enumerate(found)]):
        points, up, down = (
            [(frame.x(epoch), frame.y(value)) for epoch, value in zip(epochs, values, strict=True)]
            for values in (means, highs, lows)
        )
        band = [*up, *reversed(down)] if shown[place].n > 1 else []
        lines.append(line(shown[place].label, "one", points, colour=COLOURS[place], band=band))
    return {**frame.drawn(), "lines": lines}
