"""A comparison's test accuracies as bars with their intervals: the picture of a sweep among MLflow's runs."""

import io

from tlx.comparison.comparison import Comparison
from tlx.core.errors import printable
from tlx.reporting.fonts import lettering
from tlx.reporting.run_plots import short_names

MOST = 30  # configurations with a bar, the first by validation
CHOSEN, OTHER, INK = "#0072b2", "#a9c7dc", "#333333"  # Okabe and Ito's blue, and a paler one


def picture(comparison: Comparison) -> bytes:
    """The picture as PNG: a bar a configuration, the chosen one first and dark."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.ticker import PercentFormatter

    shown = comparison.configurations[:MOST]
    places, means = range(len(shown)), [one.mean for one in shown]
    sides = [[one.mean - one.interval[0] for one in shown], [one.interval[1] - one.mean for one in shown]]
    figure = Figure(figsize=(8.0, 1.0 + 0.34 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(places, means, height=0.7, color=[CHOSEN, *[OTHER] * (len(shown) - 1)])
    axes.errorbar(
        means, places, xerr=[[max(side, 0.0) for side in each] for each in sides],
        fmt="none", ecolor=INK, elinewidth=1.2, capsize=3,
    )  # fmt: skip
    for place, one in enumerate(shown):
        words = f"{one.mean:.1%}{'  chosen' if place == 0 and len(shown) > 1 else ''}"
        axes.text(1.01, place, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=INK)
    drawn = lettering([printable(one.label) for one in shown])
    font = FontProperties(fname=drawn.font, size=9)
    axes.set_yticks(places, short_names(drawn.names, 56), fontproperties=font, parse_math=False)
    axes.set(xlim=(0.0, 1.0), ylim=(len(shown) - 0.4, -0.6), xlabel="test accuracy, mean and 95 % interval")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
