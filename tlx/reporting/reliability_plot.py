"""A picture of how far a run's probabilities are to be believed: the reliability diagram of the test images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic
from tlx.core.statistics import wilson
from tlx.reporting.run_plots import place_labels

BEFORE, AFTER = "#7f8c8d", "#1f5fa8"


def reliability(calibration: Mapping[str, Any], classes: int, path: Path) -> None:
    """Draws the share of correct images against the probability of the predicted class.

    A dot is a bin of equal numbers of images, before and after the temperature, the latter with Wilson's 95 % interval.
    On the diagonal a model is calibrated.

    Args:
        calibration: as `summary.json` has it.
        classes: their number; no prediction is less probable than one of so many.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(5.2, 5))  # margins by hand: constrained layout draws everything twice
    axes = figure.subplots(gridspec_kw={"left": 0.15, "right": 0.96, "bottom": 0.12, "top": 0.9})
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="calibrated")
    bins = calibration["after"]["bins"]
    for one in bins:
        ends = wilson(one["accuracy"] * one["images"], one["images"])
        axes.plot([one["probability"]] * 2, ends, color=AFTER, linewidth=1, alpha=0.5)
    same = calibration["temperature"] == 1
    shown = [("after", AFTER, "o")] if same else [("before", BEFORE, "s"), ("after", AFTER, "o")]
    for when, colour, marker in shown:
        found = calibration[when]
        label = f"{'' if same else f'{when} the temperature: '}error {found['ece']:.1%}"
        across, up = ([one[key] for one in found["bins"]] for key in ("probability", "accuracy"))
        axes.plot(across, up, color=colour, marker=marker, markersize=5, linewidth=1, label=label)
    low = min(1 / classes, 0.5)
    axes.set(xlabel="probability of the predicted class", ylabel="share of correct images")
    axes.set(xlim=(low, 1.01), ylim=(-0.01, 1.02))
    place_labels(axes, below=-0.08, beside=-0.11)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(steps=[1, 2, 2.5, 5, 10], nbins=5))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left" if low < 0.4 else "lower right")
    images = sum(one["images"] for one in bins)
    axes.set_title(f"{images:,} test images, temperature {calibration['temperature']:.2f}", fontsize=10, y=1.0)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=110, pil_kwargs={"compress_level": 1})
