"""Intervals of an accuracy: how far the share of all such images may be from that of the test images."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95


def wilson(correct: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a proportion after Wilson (1927), within [0, 1]; never empty, also for 0 or n of n."""
    low, high = score(correct / n, NormalDist().inv_cdf(0.5 + confidence / 2) ** 2 / n)
    return float(low), float(high)


def visible(correct: float, n: int) -> tuple[float, float]:
    """The smallest differences of two accuracies that n test images can show at the 5 % level: unpaired, and paired.

    Unpaired: against a model that is measured on n other images, by Fisher's exact test. Paired: on the same images. By
    McNemar's exact test, fewer images that one model alone has right are no difference even where the other has none.
    1: no difference can be shown.
    """
    level, better = (
        1 - CONFIDENCE,
        max(round(correct), n - round(correct)),
    )  # the test is the same for the shares of wrong images
    apart = bisect_left(
        range(better + 1), True, key=lambda k: 2 * at_most(better - k, n, 2 * better - k, 2 * n) <= level
    )
    fewest = next(k for k in range(1, 1000) if exact(0, k) <= level)
    return (apart / n if apart <= better else 1.0), min(1.0, fewest / n)


def at_most(found: int, drawn: int, marked: int, of: int) -> float:
    """The probability that at most `found` of `drawn` images are marked, drawn from `of` of which `marked` are.

    Of two samples it is the one-sided p-value of Fisher's exact test.
    """
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, of + 1)))])
    least = max(0, drawn - (of - marked))
    counts = np.arange(least, found + 1)

    def choose(n: int, k: Any) -> Any:
        return logs[n] - logs[k] - logs[n - k]

    terms = choose(marked, counts) + choose(of - marked, drawn - counts) - choose(of, np.array([drawn]))
    return float(min(1.0, np.exp(terms).sum()))


def visible_in_words(correct: float, n: int) -> str:
    """`visible` as a sentence."""
    unpaired, paired = visible(correct, n)
    return (
        f"with {n:,} images, accuracy differences under {100 * unpaired:.1f} points are not visible between models "
        f"measured on different images, nor under {100 * paired:.1f} points on the same images"
    )


def score(share: Any, spread: Any) -> tuple[Any, Any]:
    """Wilson's interval of a share, or of an array of them; `spread` is z² ÷ the (effective) number of predictions."""
    centre = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)


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
    return root(lambda t: two_sided(t, df) - (1 - CONFIDENCE), 0.0, 1000.0)


def root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, or the end that is nearest to it."""
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


def exact(lost: int, won: int) -> float:
    """The two-sided p-value of exact McNemar: that a fair coin thrown `lost + won` times is as lopsided, in 0..1."""
    n, term, tail = lost + won, 1, 0
    for k in range(min(lost, won) + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << n))
