"""How sure a mean over runs and test images is: variance components, and intervals of the score type.

A value for each run and image: 1 or 0 (right or wrong), or the difference of two such (-1, 0, 1). What is estimated is
its expectation over runs *and* images: other seeds, and other images of the same kind. Runs and images are crossed
random effects, as readers and cases are in radiology (Obuchowski & Rockette 1995; Hillis 2007, Statistics in Medicine
26): the variance of the mean is that of the images, and beyond it that of the runs.

- **Images**: their variance, each image counted once, at the normal quantile.
- **Runs**: what the variance of the run means is beyond what chance alone gives them, at Student's quantile for their
  degrees of freedom; the squares of both halves are added (Banerjee 1960, Sankhya 22; Graybill & Wang 1980, JASA 75,
  subtract so). Of few runs chance is only partly subtracted: with two, a small variance says nothing. Satterthwaite's
  degrees of freedom come from the same few runs; with two they claimed a difference that is none in up to 12 %.
- **Scale**: the half width becomes an effective number of predictions, n = p (1 - p) / variance, for Wilson's interval,
  as with complex surveys (Korn & Graubard 1998, Survey Methodology 24; Franco et al. 2019, J. Survey Statistics and
  Methodology 7). Near 100 % it is as lopsided as the truth; a symmetric one misses low accuracies there. A difference
  is that of two shares, right in the first alone and in the second alone; their intervals are joined after Newcombe
  (1998, Statistics in Medicine 17) and Zou & Donner (2008, Statistics in Medicine 27).

`python -m bench.claims` simulates it: 2 to 10 runs, 20 to 1,000 images, seven kinds of noise, six pairs of accuracies,
1,000 draws in each of 840 cells. Outside 93 to 98 % by more than two standard errors are

- differences on the same images: 4 cells below (86 to 91 %), where each fifth run fails, with 1,000 images: runs that
  did not happen to fail do not show that others do. 186 above; 156 of them have 20 or 60 images, of which so few differ
  that no interval without 0 is possible (five images that differ are p = 0.06 at best); the others have two or three
  runs that hardly differ, and Student's quantile of so few degrees of freedom. Differences on folds: none below, 555
  above: the correction for shared training images also widens what comes of the images, which are not shared;
- accuracies, on the same images 100 cells below and on folds 47: 113 where runs fail (down to 49 %) and 32 where the
  runs' luck is half of all there is (86 to 91 %, on folds 77 to 91 %), because their accuracies have a tail near 100 %
  that 2 to 10 of them do not show; of the other 1,200 cells 2, at 90 and 91 %. Above: 80, and on folds 398, as above.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlx.core.statistics import CONFIDENCE, quantile, score

Values = NDArray[np.float64]
_NORMAL = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) ** 2
_LEAST = 0.1  # of the images' variance: a smaller one of the runs is not seen, and makes no difference
_PRIOR = 0.25  # the variance of an image that is right or wrong by chance: one is added, so that none is not certainty


@dataclass(frozen=True)
class Spread:
    """A mean and its certainty; arrays where there are several tables.

    Attributes:
        mean: of the values.
        square: mean of their squares.
        wide: what Wilson's interval takes for z² ÷ n, at 95 %: the half width² ÷ the variance of one prediction.
        unit: the same for a quantile of 1, the standard error² ÷ the variance of one prediction.
    """

    mean: Any
    square: Any
    wide: Any
    unit: Any


def of_one_run(values: Values) -> Spread:
    """Of `[..., images]`: a sample of images."""
    images = values.shape[-1]
    return Spread(values.mean(-1), (values**2).mean(-1), _NORMAL / images, 1 / images)


def of_the_same_images(values: Values) -> Spread:
    """Of `[..., runs, images]`, two runs at least."""
    runs, images = values.shape[-2:]
    mean, by_run, by_image = values.mean((-2, -1)), values.mean(-1), values.mean(-2)
    square = (values**2).mean((-2, -1))
    of_runs, of_images = by_run.var(-1), by_image.var(-1)
    rest = np.maximum(square - mean**2 - of_runs - of_images, 0) / (runs - 1)
    return _spread(mean, square, images, of_runs / (runs - 1), of_images / images, rest / images, runs)


def of_other_images(runs: Sequence[Values], ratio: float, files: Sequence[Sequence[str]] | None = None) -> Spread:
    """Of runs that have test images of their own, each `[..., images]`; two runs at least.

    The runs' training images overlap, as in a cross-validation: the correction of Nadeau & Bengio (2003, Machine
    Learning 52) for that. An image that several runs were tested on counts once.

    Args:
        runs: the values of each.
        ratio: test images ÷ training images of a run.
        files: the images' names, for each run; None: no image comes twice.
    """
    values = np.concatenate(runs, axis=-1)
    tested = values.shape[-1]
    names = range(tested) if files is None else [file for some in files for file in some]
    _, place, times = np.unique(np.array([*map(str, names)]), return_inverse=True, return_counts=True)
    mean, square = values.mean(-1), (values**2).mean(-1)
    order, first = np.argsort(place, kind="stable"), np.cumsum(times) - times
    sums = np.add.reduceat((values - mean[..., None])[..., order], first, axis=-1)
    of_images = (sums**2).sum(-1) / tested**2
    of_runs = np.stack([each.mean(-1) for each in runs]).var(0, ddof=1) * (1 / len(runs) + ratio)
    effective = tested**2 / float((times**2).sum())  # Kish 1965: the number of images, where all come equally often
    return _spread(mean, square, effective, of_runs, of_images, (square - mean**2) / tested, len(runs))


def share_interval(found: Spread) -> tuple[Any, Any]:
    """The 95 % interval of an accuracy, within 0..1."""
    return score(found.mean, found.wide)


def difference_interval(mean: Any, square: Any, wide: Any) -> tuple[Any, Any]:
    """The interval of a difference, within -1..1, by the attributes of a `Spread`."""
    first, second = np.maximum(square + mean, 0) / 2, np.maximum(square - mean, 0) / 2
    (first_low, first_high), (second_low, second_high) = score(first, wide), score(second, wide)
    # An image that the first alone has right is none that the second alone has: they are correlated.
    together = np.sqrt(first * second / np.maximum((1 - first) * (1 - second), 1e-12))

    def half(one: Any, other: Any) -> Any:
        return np.sqrt(np.maximum(one**2 + other**2 + 2 * together * one * other, 0))

    return mean - half(first - first_low, second_high - second), mean + half(first_high - first, second - second_low)


def _spread(mean: Any, square: Any, images: float, of_runs: Any, of_images: Any, chance: Any, runs: int) -> Spread:
    """From the variances of the mean by runs, by images, and by what is left to chance (which is in both)."""
    # From simulations: with two runs a tenth of what chance gives is subtracted, with ten seven tenths.
    sure = 1 - 0.9 / math.sqrt(runs - 1)
    seen = sure * chance + _LEAST * np.maximum(of_images - chance, 0)
    beyond = np.maximum(of_runs - seen, 0)
    prior = _PRIOR / images
    variance = np.maximum(square - mean**2, 0) + prior
    wide = _NORMAL * (of_images + prior / images) + quantile(runs - 1) ** 2 * beyond
    return Spread(mean, square, wide / variance, (of_images + prior / images + beyond) / variance)
