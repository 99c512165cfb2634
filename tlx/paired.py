"""Which of two is better on the same test images, with how much certainty: paired tests, and their correction.

Two chances are in a test accuracy: which images happened to be in the test set, and which seeds the training had.

- **One run of each**: McNemar's test in its exact form (McNemar 1947; recommended for one pair of models by Dietterich
  1998). It knows of images only. It compares two models; whether other seeds would say the same it cannot tell.
- **Several runs of each, on the same test images**: `crossed`. The differences d[seed, image] in {-1, 0, 1} are
  crossed random effects; their mean is measured against both variances by Student's t, with degrees of freedom after
  Satterthwaite. Radiology compares readers × cases so (Obuchowski & Rockette 1995; Hillis 2007, Statistics in Medicine
  26). To the table go two images more, one that either side alone has right in all runs (as Bonett & Price 2012 do
  for one pair): without them a handful of differing images is taken for certainty.
- **Several runs, each pair on test images of its own** (folds, test sets drawn by seed): `apart`, Student's t over the
  runs' differences with the correction of Nadeau & Bengio 2003, because the runs' training images overlap.

Not the bootstrap over seeds and images: three seeds have ten different resamples, their variance is too small by a
third, and percentiles know no degrees of freedom. Simulated with two equally good configurations (20 to 1,000 images,
five kinds of noise), its percentiles claim a difference at 5 % in up to 25 % of cases with 3 seeds and 16 % with 5;
`crossed` in 0 to 7 % with 3 seeds or more, in up to 12 % with 2. McNemar on one run of each, taken as a word about the
configurations and not about the two models, does so in up to 87 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from tlx.registry import exact

Differences = NDArray[np.float64]
CONFIDENCE = 0.95
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


def difference(runs: Sequence[Differences], *, same_images: bool, ratio: float) -> Difference:
    """Two configurations, compared by the method that their runs allow (see above).

    Args:
        runs: for each pair of runs, a number an image: 1 where the first alone is right, -1 the second, 0 neither.
        same_images: all pairs have the same images, in the same order.
        ratio: test images ÷ training images of a run.
    """
    if len(runs) == 1:
        return one(runs[0])
    return crossed(np.stack(runs)) if same_images else apart(runs, ratio)


def one(d: Differences) -> Difference:
    """One run of each: exact McNemar; the interval is that of Bonett & Price (2012)."""
    won, lost = int((d > 0).sum()), int((d < 0).sum())
    mean, half = float(d.mean()), NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * math.sqrt(_adjusted(d))
    return Difference(mean, *_around(mean, half), exact(lost, won), 1, len(d), True, "McNemar's exact test")


def crossed(d: Differences) -> Difference:
    """Several runs of each on the same images: `d` is `[runs, images]`, two runs at least."""
    runs, images = d.shape
    of_runs, of_images = _components(d)
    # How certain the variances are is read off what was seen, without the two images more.
    spread = of_runs**2 / (runs - 1) + of_images**2 / max(images - 1, 1)
    df = (of_runs + of_images) ** 2 / spread if spread else float(max(images - 1, 1))
    more = np.concatenate([d, np.ones((runs, 1)), -np.ones((runs, 1))], axis=1)
    error = math.sqrt(sum(_components(more)) / more.size)
    p, low, high = _by_student(float(d.mean()), error, df)
    return Difference(float(d.mean()), low, high, p, runs, images, True, f"t over {runs} runs and {images} images")


def apart(runs: Sequence[Differences], ratio: float) -> Difference:
    """Several runs of each, each pair on images of its own; at least as uncertain as the images alone make it."""
    means = [float(d.mean()) for d in runs]
    between = stdev(means) ** 2 * (1 / len(runs) + ratio)
    error = math.sqrt(max(between, _adjusted(np.concatenate(runs))))
    images = sum(map(len, runs)) // len(runs)
    words = f"corrected t over {len(runs)} runs with test images of their own"
    p, low, high = _by_student(fmean(means), error, len(runs) - 1)
    return Difference(fmean(means), low, high, p, len(runs), images, False, words)


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


def quantile(df: float) -> float:
    """How far from 0 Student's t with `df` degrees of freedom goes in 95 % of cases."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, df) > 1 - CONFIDENCE else (low, middle)
    return high


def _components(d: Differences) -> tuple[float, float]:
    """The mean squares that runs, and images beyond what is left to chance, add to the mean's variance × d.size."""
    runs, images = d.shape
    mean, by_run, by_image = d.mean(), d.mean(1), d.mean(0)
    rest = float(((d - by_run[:, None] - by_image + mean) ** 2).sum()) / max((runs - 1) * (images - 1), 1)
    of_images = runs * float(((by_image - mean) ** 2).sum()) / max(images - 1, 1)
    return images * float(((by_run - mean) ** 2).sum()) / (runs - 1), max(of_images - rest, 0.0)


def _adjusted(d: Differences) -> float:
    """The variance of the mean difference over images, with one image more that either side alone has right."""
    n = len(d) + 2
    return float(((d**2).sum() + 2) / n - (d.sum() / n) ** 2) / n


def _by_student(mean: float, error: float, df: float) -> tuple[float, float, float]:
    """p, and the ends of the interval."""
    return two_sided(mean / error, df), *_around(mean, quantile(df) * error)


def _around(mean: float, half: float) -> tuple[float, float]:
    return max(-1.0, mean - half), min(1.0, mean + half)
