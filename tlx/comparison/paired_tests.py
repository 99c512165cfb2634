"""Which of two is better on the same test images, with how much certainty: paired tests, and their correction.

Two chances are in a test accuracy: which images happened to be in the test set, and which seeds the training had.

- **One run of each**: McNemar's test in its exact form (McNemar 1947; recommended for one pair of models by Dietterich
  1998). It knows of images only. It compares two models; whether other seeds would say the same it cannot tell.
- **Several runs of each**: the difference that is expected over runs and images, by `crossed_effects`: `crossed` where
  all pairs have the same test images, `apart` where each has its own (folds, test sets drawn by seed).

Simulated (`python -m bench.claims 1000`): of 420 cells without a difference `crossed` claims one in 2.5 % of cases in
the mean, 6.5 % at most (standard error 0.75), `apart` in 1.1 and 5.3 %. What the intervals hold: `crossed_effects`.
Not the bootstrap over seeds and images: three seeds have ten different resamples, their variance is too small by a
third, and percentiles know no degrees of freedom; they claim a difference at 5 % in up to 25 % of cases with 3 seeds
and 16 % with 5. McNemar on one run of each, taken as a word about the configurations and not about the two models, does
so in up to 87 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlx.comparison.crossed_effects import (
    Spread,
    Values,
    difference_interval,
    of_one_run,
    of_other_images,
    of_the_same_images,
)
from tlx.core.statistics import CONFIDENCE, exact, root, two_sided

_MANY = 1e6  # degrees of freedom of the normal distribution


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
    runs: Sequence[Values], *, same_images: bool, ratio: float, files: Sequence[Sequence[str]] | None = None
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


def one(d: Values) -> Difference:
    """One run of each: exact McNemar, and the interval of the score type for `d`, `[images]`."""
    won, lost = int((d > 0).sum()), int((d < 0).sum())
    return _difference(of_one_run(d), exact(lost, won), 1, len(d), True, "McNemar's exact test")


def crossed(d: Values) -> Difference:
    """Several runs of each on the same images: `d` is `[runs, images]`, two runs at least."""
    runs, images = d.shape
    found = of_the_same_images(d)
    return _difference(found, _p(found, runs), runs, images, True, f"t over {runs} runs and {images} images")


def apart(runs: Sequence[Values], ratio: float, files: Sequence[Sequence[str]] | None = None) -> Difference:
    """Several runs of each, each pair on images of its own; `ratio` and `files` as in `difference`."""
    found, images = of_other_images(runs, ratio, files), sum(map(len, runs)) // len(runs)
    words = f"corrected t over {len(runs)} runs with test images of their own"
    return _difference(found, _p(found, len(runs)), len(runs), images, False, words)


def _difference(found: Spread, p: float, runs: int, images: int, same_images: bool, method: str) -> Difference:
    low, high = difference_interval(found.mean, found.square, found.wide)
    return Difference(float(found.mean), float(low), float(high), p, runs, images, same_images, method)


def _p(found: Spread, runs: int) -> float:
    """The p-value that is below 5 % where the 95 % interval does not hold 0.

    That of Student's t with as many degrees of freedom as give this interval, for the interval that ends at 0.
    """
    if found.mean == 0:
        return 1.0
    at_zero = root(lambda wide: float(difference_interval(abs(found.mean), found.square, wide)[0]), 0.0, 100.0)
    t, most = (math.sqrt(wide / found.unit) for wide in (at_zero, found.wide))
    return two_sided(t, root(lambda df: two_sided(most, df) - (1 - CONFIDENCE), runs - 1, _MANY))
