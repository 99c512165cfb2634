"""What a run's figures are worth, in words: its calibration, and which differences so many images can show."""

from collections.abc import Iterator, Mapping
from typing import Any

from tlx.core.metric import of_summary
from tlx.core.statistics import visible_in_words

TOGETHER = ("log_loss", "brier", "ece", "ece_floor")  # figures that have no row of their own, but one of calibration
SMALL = 1000  # test images below which it is said which differences they show


def worth(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of the closing table, as far as there is something to say."""
    known, images = summary["calibration"], summary["images"].get("test", 0)
    metrics = {one.key: one.value for one in of_summary(summary)}
    if "after" in known and "test_ece_floor" in metrics:
        before, after = known["before"], known["after"]
        source = f" from {known['images']:,} validation images" if "images" in known else ""
        yield (
            "calibration",
            f"temperature {known['temperature']:.2f}{source}; log loss "
            f"{before['log_loss']:.4f} to {after['log_loss']:.4f}, calibration error {before['ece']:.1%} to "
            f"{after['ece']:.1%} (of a calibrated model: {metrics['test_ece_floor']:.1%})",
        )
    if 0 < images < SMALL and "test_accuracy" in metrics:
        yield "note", visible_in_words(metrics["test_accuracy"] * images, images)
