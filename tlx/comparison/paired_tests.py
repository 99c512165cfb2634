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
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from tlx.core.statistics import CONFIDENCE, _root, clipped, exact, quantile, two_sided

Differences = NDArray[np.float64]


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
    return Difference(mean, *clipped(mean, half), exact(lost, won), 1, len(d), True, "McNemar's exact test")


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
    return Difference(mean, *clipped(mean, half), p, runs, images, True, f"t over {runs} runs and {images} images")


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
    return Difference(fmean(means), *clipped(fmean(means), half), p, len(runs), images, False, words)


def _degrees(t: float, low: float, high: float) -> float:
    """The degrees of freedom, between two, with which Student's t goes as far as `t` in 95 % of cases."""
    return _root(lambda df: two_sided(t, df) - (1 - CONFIDENCE), min(low, high), max(low, high))


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
