"""The curve of a learning-rate range test, as a picture and as a chart of a page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic
from tlx.reporting.line_chart import Frame, line


def rate_chart(phase: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The chart of a phase's test; `found`: as a run's summary has it. A ring is at the rate that is taken."""
    powers = [math.log10(rate) for rate in found["rates"]]
    low, high = min(found["smooth"]), 2 * max(found["smooth"][: max(1, len(powers) // 4)])
    frame = Frame(f"{phase}: loss of a step (nats), rate {found['lr']:g}", powers[0], powers[-1], min(low, 0.0), high)

    def points(losses: Sequence[float]) -> list[tuple[float, float]]:
        pairs = zip(powers, losses, strict=True)
        return [(frame.x(power), frame.y(loss)) for power, loss in pairs if loss <= high]

    whole = range(math.ceil(powers[0] - 1e-9), math.floor(powers[-1] + 1e-9) + 1)
    nearest = min(range(len(powers)), key=lambda i: abs(powers[i] - math.log10(found["lr"])))
    lines = [line("a step", "train", points(found["losses"])), line("smoothed", "val", points(found["smooth"]))]
    return {
        **frame.drawn(),
        "across": "learning rate",
        "epochs": [(frame.x(power), f"1e{power}") for power in whole],
        "lines": lines,
        "best": [(frame.x(powers[nearest]), frame.y(found["smooth"][nearest]))],
    }


def rate_plot(rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], lr: float, path: Path) -> None:
    """The losses of the steps (nats) and the smoothed curve by learning rate; `lr`: the one that is taken."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="#7f8c8d", linewidth=0.8, label="loss of a step")
    axes.plot(rates, smooth, color="#1f5fa8", linewidth=2, label="smoothed")
    axes.axvline(lr, color="#2b7a3d", linestyle="--", label=f"taken: {lr:g}")
    low, first = min(smooth), max(smooth[: max(1, len(smooth) // 4)])
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats)")
    axes.set_ylim(max(0.0, low - 0.15 * (first - low)), first + 0.6 * (first - low) + 1e-3)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=110, pil_kwargs={"compress_level": 1})
