"""What a run's figures are worth, in words: its calibration, images of no class, and what so many images can show."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tlx.core.metric import MetricValue, of_summary
from tlx.core.statistics import visible_in_words

# Figures that have no row of their own, but one of calibration or of unknown images.
TOGETHER = ("log_loss", "brier", "ece", "ece_floor", "unknown_false_alarms")
SMALL = 1000  # test images below which it is said which differences they show


def fitted_images(calibration: Mapping[str, Any]) -> str:
    """The images that a temperature was fitted to, by `calibration` of a summary."""
    what = "validation images" if calibration.get("fitted_on", "val") == "val" else "images out of fold"
    return f"{calibration.get('images', 0):,} {what}"


def worth(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of the closing table, as far as there is something to say."""
    known, images = summary["calibration"], summary["images"].get("test", 0)
    metrics = {one.key: one.value for one in of_summary(summary)}
    if "after" in known and "test_ece_floor" in metrics:
        before, after = known["before"], known["after"]
        source = f" from {fitted_images(known)}" if "images" in known else ""
        yield (
            "calibration",
            f"temperature {known['temperature']:.2f}{source}; log loss "
            f"{before['log_loss']:.4f} to {after['log_loss']:.4f}, calibration error {before['ece']:.1%} to "
            f"{after['ece']:.1%} (of a calibrated model: {metrics['test_ece_floor']:.1%})",
        )
    yield from unknown(summary)
    if 0 < images < SMALL and "test_accuracy" in metrics:
        yield "note", visible_in_words(metrics["test_accuracy"] * images, images)


def unknown(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """When an image is predicted as unknown, how often that is wrong, and how well it is right."""
    known, metrics = summary.get("unknown") or {}, {one.key: one for one in of_summary(summary)}
    if "threshold" not in known:
        return
    if known["threshold"] is None:
        yield (
            "unknown",
            f"no image is predicted as unknown: the {known['images']} images that nothing was trained on are too few "
            f"for false alarms of {known['rate']:.1%} ({math.ceil(1 / known['rate'] - 1 - 1e-9)} are needed)",
        )
    elif alarms := metrics.get("test_unknown_false_alarms"):
        yield (
            "unknown",
            f"{alarms.value:.1%} of the test images are predicted as unknown (95 % interval {_interval(alarms)}); "
            f"stated: {known['rate']:.1%}, from {known['images']:,} {known['fitted_on']} images",
        )
    if (area := metrics.get("unknown_auroc")) is None:
        return
    recall, passes, logit = (metrics.get(f"unknown_{name}") for name in ("recall", "fpr95", "auroc_max_logit"))
    words = [f"area under the curve {area.value:.3f} (95 % interval {area.low:.3f} to {area.high:.3f})"]
    words += [f"by the maximum logit {logit.value:.3f}"] if logit else []
    words += [f"{passes.value:.1%} of them pass where 95 % of the test images do"] if passes else []
    words += [f"{recall.value:.1%} are predicted as unknown"] if recall else []
    yield "images of no class", "; ".join(words)


def _interval(metric: MetricValue) -> str:
    return f"{metric.low:.1%} to {metric.high:.1%}"
