"""Whether two splits have images of the same kind: can they be separated, and do they have the same class shares.

No torch here. Images are matched first, as many of a class from either split: else the classes would separate them.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tlx.datasets.images import Labels

Reals = NDArray[np.float64]

AT_MOST = 4_000  # matched images of each split
LEAST = 15  # matched images of each split, to say something
LEVEL = 0.001
LARGE = 0.65  # area under the curve from which a shift is large
SHARES_DIFFER = 0.1  # of the images that would have to be of another class, from which class shares are said to differ


@dataclass(frozen=True)
class Separability:
    """How well a score tells the images of one split from those of another.

    Attributes:
        area: under the ROC curve: the probability that an image of the second split has the larger score; 0..1.
        low, high: its interval, of 99.9 % unless another level is given.
    """

    area: float
    low: float
    high: float

    @property
    def found(self) -> bool:
        """The splits are separated, significantly and well."""
        return self.low > 0.5 and self.area >= LARGE


def matched(labels: Labels, second: NDArray[np.bool_], seed: int = 0, most: int = AT_MOST) -> Labels:
    """Rows with as many images of each class from either side, int64, sorted; at most about `most` of a side.

    Args:
        labels: int64 [N].
        second: bool [N]: which images are of the second split.
        seed: of the choice.
        most: images of a side.
    """
    count = np.bincount(labels)
    of_second = np.bincount(labels[second], minlength=len(count))
    wanted = np.minimum(of_second, count - of_second)
    wanted = np.ceil(wanted * min(1.0, most / max(int(wanted.sum()), 1))).astype(np.int64)
    side = labels * 2 + second
    order = np.lexsort((np.random.default_rng([seed, 13]).permutation(len(labels)), side))
    sizes = np.bincount(side, minlength=2 * len(count))
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows: Labels = np.sort(order[place < wanted[labels[order]]])
    return rows


def separability(scores: NDArray[np.floating], second: NDArray[np.bool_], level: float = LEVEL) -> Separability:
    """From the scores, after Hanley and McNeil 1982 with the variance of DeLong et al. 1988; ties count half.

    Args:
        scores: [N], larger for the second split; of images that the classifier was not trained on.
        second: bool [N]; two of either side, at least.
        level: 1 less the confidence of the interval.
    """
    n, m = int(second.sum()), int((~second).sum())
    ranks, own = _ranks(scores), np.empty(len(scores))
    own[second], own[~second] = _ranks(scores[second]), _ranks(scores[~second])
    placed = ranks - own  # images of the other side with a lower score
    of_second, of_first = placed[second] / m, 1 - placed[~second] / n
    area = float(of_second.mean())
    variance = of_second.var(ddof=1) / n + of_first.var(ddof=1) / m
    floor = (1 / 12 / n + 1 / 12 / m) / max(n, m)  # not 0 where all are separated
    far = NormalDist().inv_cdf(1 - level / 2) * math.sqrt(max(float(variance), floor))
    return Separability(area, max(0.0, area - far), min(1.0, area + far))


def _ranks(values: NDArray[np.floating]) -> Reals:
    """Ranks from 1, ties at their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found: Reals = (last - (count - 1) / 2)[place]
    return found


@dataclass(frozen=True)
class ClassShares:
    """How far the class shares of two splits are from each other.

    Attributes:
        p: that they differ as much by chance (chi-square).
        distance: the share of images that would have to be of another class: half the sum of differences, 0..1.
        label: the class whose share differs most.
        shares: of that class, in either split.
    """

    p: float
    distance: float
    label: int
    shares: tuple[float, float]

    @property
    def differ(self) -> bool:
        """They do, significantly and by much."""
        return self.p < LEVEL and self.distance >= SHARES_DIFFER


def class_shares(first: Labels, second: Labels, classes: int) -> ClassShares:
    """From the labels of two splits, int64 [N] and [M], neither empty."""
    table = np.stack([np.bincount(labels, minlength=classes) for labels in (first, second)]).astype(np.float64)
    shares = table / table.sum(axis=1, keepdims=True)
    there = table[:, table.sum(axis=0) > 0]
    expected = there.sum(axis=1, keepdims=True) * there.sum(axis=0) / there.sum()
    statistic, free = float(((there - expected) ** 2 / expected).sum()), there.shape[1] - 1
    far = np.abs(shares[0] - shares[1])
    label = int(far.argmax())
    p = beyond(statistic, free) if free else 1.0
    return ClassShares(p, float(far.sum()) / 2, label, (float(shares[0, label]), float(shares[1, label])))


def beyond(statistic: float, free: int) -> float:
    """The probability that chi-square with `free` degrees of freedom is larger, after Wilson and Hilferty 1931."""
    spread = 2 / (9 * free)
    return 1 - NormalDist().cdf(((statistic / free) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))
