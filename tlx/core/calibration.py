"""How far probabilities are to be believed: a temperature for logits, the calibration error, and its floor.

A model is calibrated where, of the images that it is p sure of, the share p is right.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]

PRIOR = 0.25  # standard deviation of the logarithm of the temperature, before any image is seen
RANGE = math.log(20.0)  # the logarithm of a temperature lies within plus and minus this
BINS = 15
DRAWS = 200  # of labels, for what a calibrated model would show
_STEPS = 100  # of Newton's method, where the interval is halved otherwise
_CELLS = 1 << 22  # numbers that are worked on at a time


def temperature(logits: Floats, labels: Labels, prior: float = PRIOR) -> float:
    """What the logits are to be divided by: the maximum a posteriori, with log T ~ N(0, prior²); 1 without images.

    With few images the prior keeps it near 1, where their likelihood alone would follow chance. In the logarithm of
    1/T the slope is known exactly, and the only zero of it is found by Newton's method within a shrinking interval.

    Args:
        logits: float [N, classes]; where one is no finite number, T is 1.
        labels: int64 [N].
        prior: a standard deviation, above 0.

    Source: Guo et al. (2017), "On calibration of modern neural networks", for the temperature.
    """
    z = np.asarray(logits, dtype=np.float64)
    if not len(z) or z.shape[1] < 2 or not np.isfinite(z).all():
        return 1.0
    z = z - z.max(1, keepdims=True)
    wanted = float(z[np.arange(len(z)), labels].sum())
    low, high, at = -RANGE, RANGE, 0.0  # of log(1/T)
    for _ in range(_STEPS):
        scale = math.exp(at)
        weights = np.exp(z * scale)
        weights /= weights.sum(1, keepdims=True)
        mean = np.einsum("nk,nk->n", weights, z)
        square = np.einsum("nk,nk,nk->n", weights, z, z)
        first = scale * (float(mean.sum()) - wanted)
        slope = first + at / prior**2
        curvature = first + scale**2 * float((square - mean**2).sum()) + 1 / prior**2
        low, high = (low, at) if slope > 0 else (at, high)
        step = at - slope / curvature if curvature > 0 else math.inf
        following = step if low < step < high else (low + high) / 2
        if abs(following - at) < 1e-9:
            break
        at = following
    return math.exp(-at)


@dataclass(frozen=True)
class Reliability:
    """Images in bins of equal numbers, by the probability of the predicted class, lowest first.

    Attributes:
        images: of each bin.
        probability: the mean of the bin's images, 0..1.
        accuracy: the share of them that is right, 0..1.
    """

    images: NDArray[np.int64]
    probability: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error, debiased, 0..1."""
        return float(_debiased(self.images, self.probability, self.accuracy))

    def rows(self) -> list[dict[str, float]]:
        """As JSON takes it: `images, probability, accuracy` of each bin."""
        columns = zip(self.images.tolist(), self.probability.tolist(), self.accuracy.tolist(), strict=True)
        return [{"images": n, "probability": p, "accuracy": a} for n, p, a in columns]


def reliability(probability: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """The reliability table of images, at least one.

    Args:
        probability: of the predicted class, float [N].
        correct: whether that is the label, [N].
        bins: their number; fewer, where there are fewer images. Images of equal probability may lie in two bins.
    """
    order = np.argsort(probability, kind="stable")
    starts = _starts(len(order), bins)
    images = np.diff([*starts, len(order)])
    return Reliability(
        images,
        np.add.reduceat(np.asarray(probability, dtype=np.float64)[order], starts) / images,
        np.add.reduceat(np.asarray(correct, dtype=np.float64)[order], starts) / images,
    )


@dataclass(frozen=True)
class Floor:
    """What the calibration error of a perfectly calibrated model would be, with as many images as sure as these.

    Attributes:
        mean: over many draws of their labels.
        low, high: 95 % of the draws lie between.
    """

    mean: float
    low: float
    high: float


def floor(probability: Floats, bins: int = BINS, seed: int = 0, draws: int = DRAWS) -> Floor:
    """The error that chance alone makes: each image is right with its own probability, which is drawn many times.

    Args:
        probability: of the predicted class, float [N], at least one.
    """
    p = np.sort(np.asarray(probability, dtype=np.float64))
    starts, random = _starts(len(p), bins), np.random.default_rng(seed)
    images = np.diff([*starts, len(p)])
    means = np.add.reduceat(p, starts) / images
    errors = []
    size = max(1, _CELLS // len(p))
    for begin in range(0, draws, size):
        right = random.random((min(size, draws - begin), len(p))) < p
        errors.append(_debiased(images, means, np.add.reduceat(right, starts, axis=1, dtype=np.float64) / images))
    found = np.concatenate(errors)
    low, high = np.quantile(found, [0.025, 0.975])
    return Floor(float(found.mean()), float(low), float(high))


def _starts(n: int, bins: int) -> NDArray[np.int64]:
    """Where each bin of n images begins: their numbers differ by one at most."""
    count = min(n, bins)
    return np.arange(count) * n // count


def _debiased(images: NDArray[np.int64], probability: Floats, accuracy: Floats) -> Floats:
    """The mean over images of the bins' |accuracy - probability|, less what chance adds to it; at least 0.

    An accuracy a of n images scatters by s = √(a(1 - a)/n), so that |d| is too large by what the mean of |N(d, s²)| is
    above |d|. After Kumar, Liang, Ma (2019), "Verified uncertainty calibration", in closed form; in s, a is that of two
    images more which are as right as the probability says: bins without an error scatter too. `accuracy` may have
    further axes in front.
    """
    gap = np.abs(accuracy - probability)
    expected = (images * accuracy + 2 * probability) / (images + 2)
    spread = np.sqrt(expected * (1 - expected) / images)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(spread > 0, gap / spread, np.inf)
    density = np.exp(-(np.minimum(ratio, 40.0) ** 2) / 2) / math.sqrt(2 * math.pi)
    folded = 2 * spread * density + gap * (2 * _normal(ratio) - 1)
    share = images / images.sum()
    found: Floats = np.maximum(0.0, ((2 * gap - folded) * share).sum(-1))
    return found


def _normal(x: Floats) -> Floats:
    """The standard normal distribution function of numbers from 0 on, to 1e-7 (Abramowitz, Stegun 26.2.17)."""
    x = np.minimum(x, 40.0)
    t = 1 / (1 + 0.2316419 * x)
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    found: Floats = 1 - np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * series
    return found
