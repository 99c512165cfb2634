"""A comparison as one picture: test accuracies with their intervals, and learning curves."""

import io
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlx.comparison.comparison import SAME, Comparison, Configuration
from tlx.core.errors import printable
from tlx.reporting.fonts import lettering
from tlx.reporting.run_plots import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.font_manager import FontProperties

MOST = 40  # configurations with a row, the first by validation
# Of Okabe and Ito, which all eyes can tell apart: as many configurations have curves.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a00", "#000000")
GREY = "#7f8c8d"
WIDTH = 11.0  # inches
LETTERS = 140  # of a line below the axis
NAME = 56  # of a configuration's name
CURVES = (("val_accuracy", "validation accuracy"), ("val_loss", "validation loss (nats)"))


def picture(comparison: Comparison) -> bytes:
    """The picture as PNG."""
    from matplotlib.figure import Figure

    shown = comparison.configurations[:MOST]
    top = 0.9 + 0.36 * len(shown)
    figure = Figure(figsize=(WIDTH, top + 3.6), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=[top, 3.6])
    curves = rows[1].subgridspec(1, 2)
    axes = figure.add_subplot(rows[0])
    _accuracies(axes, shown)
    _names_beside(axes, comparison, shown)
    for place, (key, title) in enumerate(CURVES):
        _curves(figure.add_subplot(curves[place]), shown[: len(COLOURS)], key, title)
    if len(comparison.configurations) > len(COLOURS):
        bounds = textwrap.wrap(_bounds(len(comparison.configurations)), LETTERS)
        figure.supxlabel("\n".join(bounds), fontsize=9, color=GREY)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _accuracies(axes: "Axes", shown: Sequence[Configuration]) -> None:
    lows = [min(one.interval[0], *(run.accuracy for run in one.runs)) for one in shown]
    highs = [max(one.interval[1], *(run.accuracy for run in one.runs)) for one in shown]
    margin = max(0.05 * (max(highs) - min(lows)), 0.004)
    for place, one in enumerate(shown):
        colour = COLOURS[place] if place < len(COLOURS) else GREY
        accuracies = [run.accuracy for run in one.runs]
        dashes = (0, (2.5, 1)) if one.interval_of == "images" else "-"
        axes.plot(
            one.interval, [place] * 2, color=colour, linewidth=2.2, linestyle=dashes, solid_capstyle="butt", zorder=2
        )
        if one.n > 1:
            axes.plot(
                accuracies, [place + 0.28 + moved for moved in _spread(accuracies)],
                linestyle="none", marker="o", markersize=5, color=colour, alpha=0.5,
                markeredgewidth=0, zorder=3,
            )  # fmt: skip
        axes.plot([one.mean], [place], marker="D", markersize=7, color=colour, markeredgecolor="white", zorder=4)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlim=(max(min(lows) - margin, -0.004), min(max(highs) + margin, 1.004)))
    _in_percent(axes.xaxis, 8)
    kinds = {one.interval_of for one in shown}
    mixed = "runs and images (dashed: over the images of one run)"
    over = f"over {kinds.pop() if len(kinds) == 1 else mixed}"
    dots = ", one dot per run" if any(one.n > 1 for one in shown) else ""
    label = f"test accuracy: mean and 95 % interval {over}{dots}"
    axes.set_xlabel("\n".join(textwrap.wrap(label, LETTERS)))
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _names_beside(axes: "Axes", comparison: Comparison, shown: Sequence[Configuration]) -> None:
    """Names on the left, and on the right what can be said against the chosen one."""
    for place in range(len(shown)):
        words = _words(comparison, place)
        axes.text(
            1.012, place, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9,
            color=GREY if words == SAME else "black",
        )  # fmt: skip
    names, font = _names(shown)
    axes.set_yticks(range(len(shown)), names, fontproperties=font, parse_math=False)
    for place, name in enumerate(axes.get_yticklabels()[: len(COLOURS)]):
        name.set_color(COLOURS[place])


def _names(shown: Sequence[Configuration]) -> tuple[list[str], "FontProperties"]:
    """Short names, and a font that has all of these."""
    from matplotlib.font_manager import FontProperties

    drawn = lettering([printable(one.label) for one in shown])
    return short_names(drawn.names, NAME), FontProperties(fname=drawn.font, size=9)


def _words(comparison: Comparison, place: int) -> str:
    return "chosen" if place == 0 else comparison.pair(0, place).words(place)


def _curves(axes: "Axes", shown: Sequence[Configuration], key: str, title: str) -> None:
    """The mean over the runs that came so far, and their range."""
    from matplotlib.ticker import MaxNLocator

    for place, one in reversed([*enumerate(shown)]):
        epochs, means, lows, highs = over_runs([run.rows for run in one.runs], key)
        style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(epochs) <= 40 else {}
        axes.plot(epochs, means, color=COLOURS[place], linewidth=1.6, **style)
        if one.n > 1:
            axes.fill_between(epochs, lows, highs, color=COLOURS[place], alpha=0.14, linewidth=0)
    axes.set(xlabel="epoch", ylabel=title + (": mean and range" if any(one.n > 1 for one in shown) else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if key == "val_accuracy":
        _in_percent(axes.yaxis, 6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _in_percent(axis: "Axis", intervals: int) -> None:
    """Ticks for shares: at most so many intervals, with labels of as many digits as their steps have."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(MaxNLocator(nbins=intervals, steps=[1, 2, 5, 10]))
    digits = -math.floor(math.log10((high - low) / intervals)) - 2  # of a step in points, which is no smaller
    axis.set_major_formatter(PercentFormatter(1.0, decimals=max(0, digits)))


def _spread(values: Sequence[float]) -> list[float]:
    """How far, in rows, each dot is moved so that equal values have dots beside each other."""
    counts, seen = Counter(values), Counter[float]()
    found = []
    for value in values:
        step = min(0.1, 0.28 / max(counts[value] - 1, 1))
        found.append((seen[value] - (counts[value] - 1) / 2) * step)
        seen[value] += 1
    return found


def over_runs(
    runs: Sequence[Sequence[Mapping[str, Any]]], key: str
) -> tuple[list[int], list[float], list[float], list[float]]:
    """The epochs of runs, and of each the mean, lowest and highest figure over the runs that came so far."""
    values: dict[int, list[float]] = {}
    for rows in runs:
        for row in rows:
            values.setdefault(int(row["epoch"]), []).append(float(row[key]))
    epochs = sorted(values)
    each = [values[epoch] for epoch in epochs]
    return epochs, [sum(some) / len(some) for some in each], [*map(min, each)], [*map(max, each)]


def _bounds(configurations: int) -> str:
    more = f", the first {MOST} have a row" if configurations > MOST else ""
    return f"{configurations} configurations: by validation the first {len(COLOURS)} have curves{more}"
