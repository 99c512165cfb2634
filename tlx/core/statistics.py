"""Intervals of an accuracy: how far the share of all such images may be from that of the test images."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

CONFIDENCE = 0.95


def wilson(correct: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a proportion after Wilson (1927), within [0, 1]; never empty, also for 0 or n of n."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = correct / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def pooled(files: Sequence[Sequence[str]], correct: Sequence[Sequence[int]]) -> tuple[tuple[float, float], int]:
    """Wilson's interval over the test images of several runs together, and how many different images these are.

    An image that several runs were tested on is no new image for the second of them: the share counts each answer, but
    the number of images is the effective one, (sum of times tested)² ÷ sum of squared times (Kish 1965). It is that of
    the different images where all were tested equally often, as in a cross-validation.

    Args:
        files: the images' names, of each run.
        correct: 1 or 0 for each of them.
    """
    times = Counter(file for some in files for file in some)
    answers = sum(times.values())
    effective = answers**2 / sum(count**2 for count in times.values())
    share = sum(int(sum(some)) for some in correct) / answers
    return wilson(share * effective, effective), len(times)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def holm(values: Sequence[float]) -> list[float]:
    """p-values so raised that all claims below a level hold together at that level, after Holm (1979).

    It asks for no independence, and holds for pairs that are looked at because of what the data said.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    found, so_far = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(values) - rank) * values[i]))
        found[i] = so_far
    return found


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of shares (0..1) by Student's t; two values at least.

    It says where the mean over many runs would lie, on these test images.
    """
    half = quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    low, high = clipped(fmean(values), half)
    return max(0.0, low), high


def two_sided(t: float, df: float) -> float:
    """The probability that Student's t with `df` >= 1 degrees of freedom is farther from 0 than `t`.

    With t = sqrt(df) tan(a) its density is one of cos(a)^(df - 1): a smooth integral, by Gauss's rule.
    """
    if math.isinf(t):
        return 0.0
    end = math.atan(abs(t) / math.sqrt(df))
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    # Where df is large the density is all in the first of a few pieces.
    edges = np.minimum(end, np.array([0, 2, 5, 10, 40, math.inf]) / math.sqrt(df))
    low, width = edges[:-1, None], np.diff(edges)[:, None]
    total = float((_WEIGHTS * np.cos(low + width * (_NODES + 1) / 2) ** (df - 1) * width / 2).sum())
    return min(1.0, max(0.0, 1 - 2 * scale * total))


@lru_cache(maxsize=256)
def quantile(df: float) -> float:
    """How far from 0 Student's t with `df` degrees of freedom goes in 95 % of cases."""
    return _root(lambda t: two_sided(t, df) - (1 - CONFIDENCE), 0.0, 1000.0)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, or the end that is nearest to it."""
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


def clipped(mean: float, half: float) -> tuple[float, float]:
    return max(-1.0, mean - half), min(1.0, mean + half)


def exact(lost: int, won: int) -> float:
    """The two-sided p-value of exact McNemar: that a fair coin thrown `lost + won` times is as lopsided, in 0..1."""
    n, term, tail = lost + won, 1, 0
    for k in range(min(lost, won) + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << n))
