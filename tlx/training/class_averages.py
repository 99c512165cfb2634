"""Means over classes from a confusion matrix: recall and F1, with their bootstrap intervals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlx.core import bootstrap
from tlx.core.confusion_counts import ConfusionCounts

Floats = NDArray[np.floating[Any]]
Numbers = NDArray[Any]


def mean_recall(confusion: ConfusionCounts) -> float:
    """The mean recall of the classes that are a label, 0..1."""
    return float(_recall(confusion.correct, confusion.images))


def mean_f1(confusion: ConfusionCounts) -> float:
    """The mean F1 of the classes that are a label or a prediction, 0..1.

    As scikit-learn's `f1_score(average="macro")`: a class that is a label and never predicted has F1 0, and so has one
    that is predicted and never a label.
    """
    return float(_f1(confusion.correct, confusion.images, confusion.predicted))


def recall_interval(confusion: ConfusionCounts, resampled: tuple[Floats, Floats]) -> tuple[float, float]:
    """The 95 % interval of `mean_recall`; `resampled`: as `bootstrap.confusions` has it."""
    images = confusion.images
    hits = confusion.labels == confusion.predictions
    slopes = hits / np.maximum(images, 1)[confusion.labels] / (images > 0).sum()
    return bootstrap.of_share(mean_recall(confusion), _recall(resampled[0], images), slopes, confusion)


def f1_interval(confusion: ConfusionCounts, resampled: tuple[Floats, Floats]) -> tuple[float, float]:
    """The 95 % interval of `mean_f1`; `resampled`: as `bootstrap.confusions` has it."""
    both = confusion.images + confusion.predicted
    some = np.maximum(both, 1)
    # One more of a prediction: of its own class it is a hit, and in any class it makes predictions less precise.
    hits = (confusion.labels == confusion.predictions) * (2 / some)[confusion.labels]
    slopes = (hits - (2 * confusion.correct / some**2)[confusion.predictions]) / (both > 0).sum()
    correct, predicted = resampled
    return bootstrap.of_share(mean_f1(confusion), _f1(correct, confusion.images, predicted), slopes, confusion)


def _recall(correct: Numbers, images: Numbers) -> Any:
    there = images > 0
    return (correct[..., there] / images[there]).mean(-1)


def _f1(correct: Numbers, images: Numbers, predicted: Numbers) -> Any:
    both = images + predicted
    there = both > 0
    return (2 * correct / np.where(there, both, 1)).sum(-1) / there.sum(-1)
