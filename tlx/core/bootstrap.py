"""Intervals of figures that are no proportions: stratified bootstrap, bias-corrected and accelerated (BCa).

Each class is resampled by itself, so that resamples have the classes in the shares of the test set. What is drawn are
counts and not images wherever that is enough. Resamples of a class with n images scatter by √((n - 1)/n) too little
about it, and are moved away from it by as much. How wide a test set's resamples are depends on the few images far from
the mean, which another test set may lack: Student's quantile in place of the normal one, with as many degrees of
freedom as that variance is worth (after Satterthwaite; Hesterberg 2015, "What teachers should know about the
bootstrap", for the expansion). Equal seeds give equal intervals.
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlx.core.confusion_counts import ConfusionCounts
from tlx.core.statistics import quantile, wilson

Floats = NDArray[np.floating[Any]]
Counts = NDArray[np.int64]
Interval = tuple[float, float]

RESAMPLES = 2000
_CELLS = 1 << 21  # numbers that are drawn at a time
_MANY = 1024  # images of a class from which on those of nearly the same value are drawn together, in so many groups:
_GROUPS = 64
_CHEAP = 16  # images are drawn in the time that the number of images of one kind takes
_LEAST, _MOST = 2.0, 1e6  # degrees of freedom
_NORMAL = NormalDist()


def bca(estimate: float, resampled: Floats, influences: Floats, counts: Floats) -> Interval | None:
    """The 95 % interval of an estimate after Efron (1987), expanded; None where the resamples do not differ.

    Args:
        resampled: the estimate of each resample.
        influences: by how much an image more of a kind moves the estimate, less the mean of its class.
        counts: the images of each kind.
    """
    spread = float((counts * influences**2).sum())
    if not spread or not np.ptp(resampled):
        return None
    acceleration = float((counts * influences**3).sum()) / (6 * spread**1.5)
    # Of resamples that are equal to the estimate, half count as below.
    below = float((resampled < estimate).mean() + (resampled == estimate).mean() / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(resampled)), 1 - 0.5 / len(resampled)))
    reach = quantile(_freedom(spread, influences, counts))
    ends = (bias + at / max(1 - acceleration * at, 1e-6) for at in (bias - reach, bias + reach))
    low, high = np.quantile(resampled, [_NORMAL.cdf(end) for end in ends])
    return float(low), float(high)


def _freedom(spread: float, influences: Floats, counts: Floats) -> float:
    """The degrees of freedom of the variance: 2 · variance² ÷ how much that scatters from one test set to another.

    Of a normal distribution they are the number of images, of a skew one with few large values far fewer.
    """
    scatter = float((counts * influences**4).sum()) - spread**2 / float(counts.sum())
    return min(max(2 * spread**2 / scatter, _LEAST), _MOST) if scatter > 0 else _MOST


def confusions(confusion: ConfusionCounts, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Floats, Floats]:
    """Of resamples of a confusion matrix, the diagonal and the images of each prediction: `[resamples, classes]`."""
    random, k = np.random.default_rng(seed), confusion.classes
    correct, predicted = np.zeros((k, resamples)), np.zeros((k, resamples))
    there, starts = np.unique(confusion.labels, return_index=True)
    for label, start, end in zip(there, starts, [*starts[1:], len(confusion.labels)], strict=True):
        to, row = confusion.predictions[start:end], confusion.counts[start:end]
        drawn = _counts(row, random, resamples).T
        moved = row[:, None] + (drawn - row[:, None]) * _widening(int(row.sum()))
        predicted[to] += moved
        correct[label] = moved[to == label].sum(0)
    return correct.T, predicted.T


def _counts(row: Counts, random: np.random.Generator, resamples: int) -> Counts:
    """How often each kind is in resamples of a class, `[resamples, kinds]`; `row`: how many images are of each."""
    n, kinds = int(row.sum()), len(row)
    if n > _CHEAP * kinds:
        return random.multinomial(n, row / n, size=resamples)
    picked = np.repeat(np.arange(kinds), row)[random.integers(0, n, (resamples, n), dtype=np.int32)]
    picked += np.arange(resamples)[:, None] * kinds
    return np.bincount(picked.ravel(), minlength=resamples * kinds).reshape(resamples, kinds)


def of_share(estimate: float, resampled: Floats, slopes: Floats, confusion: ConfusionCounts) -> Interval:
    """The interval of a figure of a confusion matrix that is a mean over classes, 0..1.

    Args:
        resampled: the figure of each of `confusions`.
        slopes: by how much one image more of a pair of `confusion` moves the figure: `[pairs]`.
    """
    images, counts = confusion.images, confusion.counts
    means = np.bincount(confusion.labels, counts * slopes, confusion.classes) / np.maximum(images, 1)
    found = bca(estimate, resampled, slopes - means[confusion.labels], counts.astype(np.float64))
    if found is not None:
        return max(0.0, found[0]), min(1.0, found[1])
    # Where all is right, or all wrong, resamples do not differ: as of a proportion, by as many images as a mean over
    # the classes is worth.
    there = images[images > 0]
    worth = len(there) ** 2 / float((1 / there).sum())
    return wilson(estimate * worth, worth)


def of_mean(values: Floats, labels: Counts, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The interval of the mean of a number of each image.

    Args:
        values: float `[N]`, at least one.
        labels: int64 `[N]`, the classes that are resampled each by itself.
    """
    random, values = np.random.default_rng(seed), np.asarray(values, dtype=np.float64)
    sums, influences = np.zeros(resamples), np.empty(len(values))
    for label in np.unique(labels):
        of_class = labels == label
        own = values[of_class]
        influences[of_class] = own - own.mean()
        drawn = (_grouped if len(own) >= _MANY else _drawn)(own, random, resamples)
        sums += own.sum() + (drawn - own.sum()) * _widening(len(own))
    estimate = float(values.mean())
    return bca(estimate, sums / len(values), influences, np.ones(len(values))) or (estimate, estimate)


def _drawn(own: Floats, random: np.random.Generator, resamples: int) -> Floats:
    """The sum of each resample of a class."""
    size = max(1, _CELLS // len(own))
    shapes = ((min(size, resamples - begin), len(own)) for begin in range(0, resamples, size))
    return np.concatenate([own[random.integers(0, len(own), shape, dtype=np.int32)].sum(1) for shape in shapes])


def _grouped(own: Floats, random: np.random.Generator, resamples: int) -> Floats:
    """As `_drawn`, of many images: how many are drawn of each group is exact, their sum is normal about its mean."""
    own = np.sort(own)
    starts = np.arange(_GROUPS) * len(own) // _GROUPS
    sizes = np.diff([*starts, len(own)])
    means = np.add.reduceat(own, starts) / sizes
    variances = np.add.reduceat((own - np.repeat(means, sizes)) ** 2, starts) / sizes
    counts = random.multinomial(len(own), sizes / len(own), size=resamples)
    found: Floats = counts @ means + np.sqrt(counts @ variances) * random.standard_normal(resamples)
    return found


def _widening(n: int) -> float:
    """By what resamples of n images are to be moved away from them; a single image does not scatter at all."""
    return math.sqrt(n / max(n - 1, 1))
