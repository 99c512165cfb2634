"""Which of two is better on the same test images, with how much certainty: paired tests, and their correction.

Two chances are in a test accuracy: which images happened to be in the test set, and which seeds the training had.

- **One run of each**: McNemar's test in its exact form (McNemar 1947; recommended for one pair of models by Dietterich
  1998). It knows of images only. It compares two models; whether other seeds would say the same it cannot tell.
- **Several runs of each, on the same test images**: `crossed`. The differences d[seed, image] in {-1, 0, 1} are
  crossed random effects; their mean is measured against the mean squares of both. Radiology compares readers × cases so
  (Obuchowski & Rockette 1995; Hillis 2007, Statistics in Medicine 26). Their error is at least what the images alone
  make it. A few runs say little about what runs differ by, so each of the two variances has Student's quantile of its
  own degrees of freedom, and the squares of the two halves are added (Banerjee 1960, Sankhya 22): Satterthwaite's
  degrees of freedom come from the same few runs, and claimed a difference in up to 12 % of cases with two. To the table
  go two images more, one that either side has right (as Bonett & Price 2012 do for one pair), as clearly as the
  clearest that differs: without them a handful of differing images is taken for certainty.
- **Several runs, each pair on test images of its own** (folds, test sets drawn by seed): `apart`, Student's t over the
  runs' differences with the correction of Nadeau & Bengio 2003, because the runs' training images overlap; at least
  what the images alone make it, each counted once.

Simulated (`python -m bench.claims`: 2 to 10 runs, 20 to 1,000 images, seven kinds of noise, three levels of accuracy):
by kind of noise and number of runs `crossed` claims a difference that is none in 0.4 to 3.4 % of cases, and its
intervals hold the true one in 94 to 99.6 %; single cells down to 89 %, where accuracies are near 100 %.
Not the bootstrap over seeds and images: three seeds have ten different resamples, their variance is too small by a
third, and percentiles know no degrees of freedom; they claim a difference at 5 % in up to 25 % of cases with 3 seeds
and 16 % with 5. McNemar on one run of each, taken as a word about the configurations and not about the two models, does
so in up to 87 %.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from tlx.intervals import CONFIDENCE
from tlx.registry import exact

Differences = NDArray[np.float64]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True)
class Difference:
    """How much more the first has right than the second.

    Attributes:
        mean: share of the images, -1..1; positive where the first is better.
        low, high: its 95 % interval.
        p: two-sided p-value, 0..1, before any correction.
        runs: pairs of runs that it rests on.
        images: test images of each.
        same_images: whether all pairs of runs have the same ones.
        method: in words.
    """

    mean: float
    low: float
    high: float
    p: float
    runs: int
    images: int
    same_images: bool
    method: str


def difference(
    runs: Sequence[Differences], *, same_images: bool, ratio: float, files: Sequence[Sequence[str]] | None = None
) -> Difference:
    """Two configurations, compared by the method that their runs allow (see above).

    Args:
        runs: for each pair of runs, a number an image: 1 where the first alone is right, -1 the second, 0 neither.
        same_images: all pairs have the same images, in the same order.
        ratio: test images ÷ training images of a run.
        files: the images' names, for each pair of runs; None: no image comes twice.
    """
    if len(runs) == 1:
        return one(runs[0])
    return crossed(np.stack(runs)) if same_images else apart(runs, ratio, files)


def one(d: Differences) -> Difference:
    """One run of each: exact McNemar; the interval is that of Bonett & Price (2012)."""
    won, lost = int((d > 0).sum()), int((d < 0).sum())
    mean, half = float(d.mean()), NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * math.sqrt(_adjusted(d))
    return Difference(mean, *_around(mean, half), exact(lost, won), 1, len(d), True, "McNemar's exact test")


def crossed(d: Differences) -> Difference:
    """Several runs of each on the same images: `d` is `[runs, images]`, two runs at least."""
    runs, images = d.shape
    # The image that is added on either side differs as the clearest one does, in one run at least.
    size = max(float(np.abs(d.mean(0)).max()), 1 / runs) if d.any() else 1.0
    more = np.concatenate([d, np.full((runs, 1), size), np.full((runs, 1), -size)], axis=1)
    of_runs, of_images, rest = (square / more.size for square in _mean_squares(more))
    beyond = max(of_images - rest, 0.0)
    by_runs, by_images = quantile(runs - 1), quantile(max(images - 1, 1))
    error = math.sqrt(max(of_runs + beyond, of_images))
    half = math.sqrt(max(by_runs**2 * of_runs + by_images**2 * beyond, by_images**2 * of_images))
    mean = float(d.mean())
    # p is that of Student's t with as many degrees of freedom as give this interval.
    p = two_sided(mean / error, _degrees(half / error, runs - 1, max(images - 1, 1)))
    return Difference(mean, *_around(mean, half), p, runs, images, True, f"t over {runs} runs and {images} images")


def apart(runs: Sequence[Differences], ratio: float, files: Sequence[Sequence[str]] | None = None) -> Difference:
    """Several runs of each, each pair on images of its own; at least as uncertain as the images alone make it.

    `files`: the images' names; one that several runs have been tested on is one image.
    """
    means, d = [float(each.mean()) for each in runs], np.concatenate(runs)
    names = range(len(d)) if files is None else [file for some in files for file in some]
    _, place = np.unique(np.array([*map(str, names)]), return_inverse=True)
    of_images = _adjusted(np.bincount(place, weights=d).astype(np.float64), np.bincount(place))
    between = stdev(means) ** 2 * (1 / len(runs) + ratio)
    by_runs, by_images = quantile(len(runs) - 1), quantile(max(int(place.max()), 1))
    error = math.sqrt(max(between, of_images))
    half = math.sqrt(max(by_runs**2 * between, by_images**2 * of_images))
    p = two_sided(fmean(means) / error, _degrees(half / error, len(runs) - 1, max(int(place.max()), 1)))
    images = sum(map(len, runs)) // len(runs)
    words = f"corrected t over {len(runs)} runs with test images of their own"
    return Difference(fmean(means), *_around(fmean(means), half), p, len(runs), images, False, words)


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
    low, high = _around(fmean(values), half)
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


def _degrees(t: float, low: float, high: float) -> float:
    """The degrees of freedom, between two, with which Student's t goes as far as `t` in 95 % of cases."""
    return _root(lambda df: two_sided(t, df) - (1 - CONFIDENCE), min(low, high), max(low, high))


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, or the end that is nearest to it."""
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


def _mean_squares(d: Differences) -> tuple[float, float, float]:
    """Of runs, of images, and of what is left to chance: the analysis of variance of `[runs, images]`."""
    runs, images = d.shape
    mean, by_run, by_image = d.mean(), d.mean(1), d.mean(0)
    rest = float(((d - by_run[:, None] - by_image + mean) ** 2).sum()) / ((runs - 1) * (images - 1))
    of_images = runs * float(((by_image - mean) ** 2).sum()) / (images - 1)
    return images * float(((by_run - mean) ** 2).sum()) / (runs - 1), of_images, rest


def _adjusted(d: Differences, times: NDArray[np.integer] | None = None) -> float:
    """The variance of the mean difference over images, with one image more that either side alone has right.

    `times`: how often each image was tested, where `d` has sums over these; an image counts as one all the same.
    """
    times = np.ones(len(d), dtype=np.int64) if times is None else times
    sums = np.append(d, [times.mean(), -times.mean()])
    weights = np.append(times, [times.mean()] * 2)
    return float(((sums - weights * sums.sum() / weights.sum()) ** 2).sum() / weights.sum() ** 2)


def _around(mean: float, half: float) -> tuple[float, float]:
    return max(-1.0, mean - half), min(1.0, mean + half)
