"""Old and new accuracy of an extended run: on the old test images, paired, and on the new ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlx.comparison.paired_tests import Difference, one
from tlx.core.statistics import wilson
from tlx.runs.run_reader import predicted

__all__ = ["Accuracy", "SideBySide", "measured"]


@dataclass(frozen=True)
class Accuracy:
    """Of a model on some test images: a share with its 95 % interval; `images`: how many."""

    value: float
    low: float
    high: float
    images: int

    @classmethod
    def of(cls, correct: Any) -> "Accuracy":
        """Of images that are right (1) or wrong (0), at least one."""
        right, images = int(correct.sum()), len(correct)
        return cls(right / images, *wilson(right, images), images)

    def __str__(self) -> str:
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%}, {self.images} images)"


@dataclass(frozen=True)
class SideBySide:
    """What the old model and the new one are worth.

    Attributes:
        old, new: on the old test images.
        difference: of the new from the old, on the same images.
        added: the new model on the new test images, None where there are none.
        classes: the new model on the test images of each new class.
    """

    old: Accuracy
    new: Accuracy
    difference: Difference
    added: Accuracy | None
    classes: dict[str, Accuracy]

    def lines(self) -> list[str]:
        """For a person."""
        d = self.difference
        found = [
            f"old test images, old model   {self.old}",
            f"old test images, new model   {self.new}",
            f"difference                   {100 * d.mean:+.1f} points (95 % interval {100 * d.low:+.1f} to "
            f"{100 * d.high:+.1f}, p = {d.p:.2g}, {d.method})",
        ]
        if self.added is not None:
            found.append(f"new test images, new model   {self.added}")
        return [*found, *(f"  of them {name}: {accuracy}" for name, accuracy in self.classes.items())]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def measured(parent: Path, folder: Path, old_images: int, new_classes: Sequence[str]) -> SideBySide:
    """From the predictions of two finished runs; the first `old_images` test images of the new run are the old ones."""
    before, after = predicted(parent / "predictions.csv"), predicted(folder / "predictions.csv")
    old, new = before.correct[:old_images].astype(int), after.correct.astype(int)
    of_label = np.array(after.labels)
    added = new[old_images:]
    classes = {name: Accuracy.of(new[of_label == name]) for name in new_classes if (of_label == name).any()}
    return SideBySide(
        Accuracy.of(old),
        Accuracy.of(new[:old_images]),
        one((new[:old_images] - old).astype(np.float64)),
        Accuracy.of(added) if len(added) else None,
        classes,
    )
