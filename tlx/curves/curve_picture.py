"""A learning curve as a picture: measured points with intervals, the fitted power law, and what is extrapolated."""

import io
from typing import TYPE_CHECKING

import numpy as np

from tlx.comparison.plot import COLOURS, GREY
from tlx.curves.curve_words import Found
from tlx.curves.forecast import Forecast
from tlx.curves.measured_points import CurveSeries
from tlx.reporting.fonts import lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["picture"]


def picture(found: Found) -> bytes:
    """The picture as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    drawn = lettering([measured.label for measured, _ in found])
    for place, ((measured, expected), name) in enumerate(zip(found, drawn.names, strict=True)):
        _series(axes, measured, expected, COLOURS[place] if place < len(COLOURS) else GREY, name)
    most = max(measured.images[-1] for measured, _ in found)
    if any(not expected.refusal for _, expected in found):
        end = max(expected.images for _, expected in found) * 1.06
        axes.axvspan(most * 1.03, end, color="#7f8c8d", alpha=0.1, linewidth=0)
        axes.text(
            (most * 1.03 * end) ** 0.5, 0.015, "extrapolated", transform=axes.get_xaxis_transform(), ha="center",
            color="#5a6465", fontsize=9,
        )  # fmt: skip
        axes.set_xlim(right=end)
    ticks = sorted({int(images) for measured, _ in found for images in measured.images} | {
        expected.images for _, expected in found if not expected.refusal
    })  # fmt: skip
    axes.xaxis.set_major_locator(FixedLocator(_apart(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set(xlabel="training images", ylabel="test accuracy, with 95 % intervals")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(prop=FontProperties(fname=drawn.font, size=9), frameon=False, loc="best")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()


def _series(axes: "Axes", measured: CurveSeries, expected: Forecast, colour: str, name: str) -> None:
    images, means = measured.images, 1 - measured.errors
    ends = np.array([point.found.interval for point in measured.points]).T
    reach = np.clip([means - ends[0], ends[1] - means], 0, None)
    style = ":" if expected.refusal else "none"  # a law that does not hold is not drawn
    axes.errorbar(
        images, means, yerr=reach, fmt="o", linestyle=style, color=colour, markersize=5, capsize=2.5, linewidth=1.2,
        label=name,
    )  # fmt: skip
    if expected.law is None or expected.refusal:
        return
    inside = np.geomspace(images[0], images[-1], 60)
    axes.plot(inside, [1 - float(expected.law.error(at)) for at in inside], color=colour, linewidth=1.6)
    beyond = np.array(expected.band_images)
    axes.plot(beyond, [1 - float(expected.law.error(at)) for at in beyond], color=colour, linewidth=1.6, linestyle="--")
    low, high = expected.band
    axes.fill_between(beyond, np.array(low), np.array(high), color=colour, alpha=0.16, linewidth=0)


def _apart(ticks: list[int]) -> list[int]:
    """Those of the numbers that have space beside each other, the largest always."""
    kept = list[int]()
    for tick in reversed(ticks):
        if not kept or kept[-1] / tick >= 1.35:
            kept.append(tick)
    return kept
