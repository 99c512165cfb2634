"""What a curve's runs have measured: a series of points, and resamples of their errors over seeds and test images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tlx.comparison.comparison import Configuration, Ranked, ranked
from tlx.comparison.crossed_effects import of_other_images, share_interval
from tlx.core.errors import RequestError

__all__ = ["CurvePoint", "CurveSeries", "resampled", "series"]
Values = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True)
class CurvePoint:
    """The runs of one number of training images.

    Attributes:
        size: its place among the numbers of images of the curve.
        images: training images of a run; of several seeds the most.
        val: validation images, so too.
        found: its runs, their mean accuracy and interval.
    """

    size: int
    images: int
    val: int
    found: Configuration


@dataclass(frozen=True)
class CurveSeries:
    """One configuration at several numbers of training images, ascending."""

    label: str
    points: Sequence[CurvePoint]

    @property
    def images(self) -> Values:
        """Of each point."""
        return np.array([point.images for point in self.points], dtype=np.float64)

    @property
    def errors(self) -> Values:
        """Of each point, 0..1."""
        return np.array([1 - point.found.mean for point in self.points])


def series(label: str, folders: Mapping[int, Sequence[Path]], pool: int) -> CurveSeries | None:
    """The points of a series, None where it has none.

    Args:
        folders: the finished runs of each size, by its place.
        pool: the training images that there are, of which each run has some.
    """
    points = []
    for size in sorted(folders):
        if runs := folders[size]:
            found = _one(ranked(runs), pool)
            counts = [run.summary["images"] for run in found.runs]
            points.append(
                CurvePoint(size, max(one["train"] for one in counts), max(one["val"] for one in counts), found)
            )
    return CurveSeries(label, points) if points else None


def _one(found: Ranked, pool: int) -> Configuration:
    """The only configuration of runs that differ in their seed alone.

    Where seeds have test images of their own, the correction for shared training images is that of runs with the whole
    pool: subsets share fewer, and the share of test images in a small subset would say otherwise.

    Raises:
        RequestError: they differ in more.
    """
    if len(found.configurations) > 1:
        raise RequestError(f"{found.configurations[1].runs[0].folder}: not a run of this curve; take another --name")
    one = found.configurations[0]
    if one.interval_of != "runs and all images":
        return one
    correct = [np.array(run.predicted.correct, dtype=np.float64) for run in one.runs]
    ratio = fmean(map(len, correct)) / pool
    low, high = share_interval(of_other_images(correct, ratio, [run.predicted.files for run in one.runs]))
    return replace(one, interval=(float(low), float(high)))


def resampled(measured: CurveSeries, seed: int = 0) -> Values:
    """Errors of each point in resamples of seeds and of test images, `[RESAMPLES, points]`.

    Seeds and images are drawn anew each, the same ones for all points (the pigeonhole bootstrap of Owen 2007, which is
    too wide rather than too narrow): subsets of one seed are nested, and all are measured on the same images. Only
    seeds that all points have are drawn; one seed alone says nothing of others.
    """
    runs = [{run.draw: run for run in point.found.runs} for point in measured.points]
    draws = [draw for draw in runs[0] if all(draw in of_point for of_point in runs)]
    if not draws:
        return np.tile(measured.errors, (RESAMPLES, 1))
    random = np.random.default_rng(seed)
    errors = np.empty((RESAMPLES, len(draws), len(runs)))
    alike = dict[tuple[str, ...], list[int]]()  # the seeds of each set of test images
    for place, draw in enumerate(draws):
        alike.setdefault(tuple(runs[0][draw].predicted.files), []).append(place)
    for places in alike.values():
        wrong = np.stack([1 - of_point[draws[place]].predicted.correct for place in places for of_point in runs])
        kinds, counts = np.unique(wrong.T, axis=0, return_counts=True)  # images that all runs have right or wrong alike
        drawn = random.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES) / counts.sum()
        errors[:, places] = (drawn @ kinds).reshape(RESAMPLES, len(places), len(runs))
    times = random.multinomial(len(draws), [1 / len(draws)] * len(draws), size=RESAMPLES) / len(draws)
    found = np.einsum("bd,bds->bs", times, errors)
    widened = math.sqrt(len(draws) / max(len(draws) - 1, 1))  # resamples of few seeds scatter too little
    moved: Values = np.clip(measured.errors + (found - errors.mean((0, 1))) * widened, 0.0, 1.0)
    return moved
