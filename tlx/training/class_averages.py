"""Means over classes from a confusion matrix: recall and F1, with their bootstrap intervals."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlx.core import bootstrap

Floats = NDArray[np.floating[Any]]


def confusion_of(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts, int64 `[label, prediction]`, of labels and predictions int64 `[N]`."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def mean_recall(confusion: Tensor) -> float:
    """The mean recall of the classes that are a label, 0..1."""
    images = confusion.sum(1).cpu().numpy()
    return float(_recall(confusion.diagonal().cpu().numpy(), images))


def mean_f1(confusion: Tensor) -> float:
    """The mean F1 of the classes that are a label or a prediction, 0..1.

    As scikit-learn's `f1_score(average="macro")`: a class that is a label and never predicted has F1 0, and so has one
    that is predicted and never a label.
    """
    images, predicted = confusion.sum(1).cpu().numpy(), confusion.sum(0).cpu().numpy()
    return float(_f1(confusion.diagonal().cpu().numpy(), images, predicted))


def recall_interval(confusion: Tensor, resampled: tuple[Floats, Floats]) -> tuple[float, float]:
    """The 95 % interval of `mean_recall`; `resampled`: as `bootstrap.confusions` has it."""
    counts = confusion.numpy()
    images, correct = counts.sum(1), resampled[0]
    slopes = np.diag(1 / np.maximum(images, 1)) / (images > 0).sum()
    return bootstrap.of_share(mean_recall(confusion), _recall(correct, images), slopes, counts)


def f1_interval(confusion: Tensor, resampled: tuple[Floats, Floats]) -> tuple[float, float]:
    """The 95 % interval of `mean_f1`; `resampled`: as `bootstrap.confusions` has it."""
    counts = confusion.numpy()
    both = np.maximum(counts.sum(1) + counts.sum(0), 1)
    # One more of a prediction: of its own class it is a hit, and in any class it makes predictions less precise.
    slopes = (np.diag(2 / both) - 2 * counts.diagonal() / both**2) / (counts.sum(1) + counts.sum(0) > 0).sum()
    correct, predicted = resampled
    return bootstrap.of_share(mean_f1(confusion), _f1(correct, counts.sum(1), predicted), slopes, counts)


def _recall(correct: Floats, images: Floats) -> Any:
    there = images > 0
    return (correct[..., there] / images[there]).mean(-1)


def _f1(correct: Floats, images: Floats, predicted: Floats) -> Any:
    both = images + predicted
    there = both > 0
    return (2 * correct / np.where(there, both, 1)).sum(-1) / there.sum(-1)
