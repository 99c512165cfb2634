"""How candidates are judged: by images that they were not trained on, in pairs; the test set has no part in it.

- A probe of frozen features says something of each training and validation image, each from folds that it is not in.
- What is fine-tuned is judged on the validation images alone, by what it changes there: its estimate is that of its
  network's probe over all images plus the paired difference to that probe on the validation images (a control variate:
  both are right and wrong on much the same images, so the difference is known better than the accuracy itself). A gain
  counts as far as it is above its standard error (the positive part of James and Stein 1961): of many noisy gains the
  largest is large by chance.
- Two candidates are not distinguishable where McNemar's exact test on the same images, after Holm's correction for all
  comparisons with the best, does not reject that they are equally good (`comparison.paired_tests`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlx.comparison.comparison import LEVEL
from tlx.comparison.paired_tests import one
from tlx.core.statistics import holm, wilson

__all__ = ["Judgement", "distinguishable", "fine_tuned", "probed"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """What validation says of a candidate.

    Attributes:
        score: by the rule that chooses; higher is better.
        accuracy: estimated, 0..1.
        low, high: its 95 % interval.
        correct: of each image that it was judged on, 1 or 0; the validation images last.
        values: of each of these images: what `score` is the mean of.
        val: how many of them are validation images.
    """

    score: float
    accuracy: float
    low: float
    high: float
    correct: Floats
    values: Floats
    val: int


def probed(correct: Floats, values: Floats, val: int) -> Judgement:
    """A probe's, out of fold. `values`: of each image, higher is better; `val`: so many at the end validate."""
    low, high = wilson(float(correct.sum()), len(correct))
    return Judgement(float(values.mean()), float(correct.mean()), low, high, correct, values, val)


def fine_tuned(probe: Judgement, correct: Floats, values: Floats) -> Judgement:
    """That of a network that was trained further. `correct`, `values`: of the validation images, in order."""
    changed = values - probe.values[-probe.val :]
    gain = float(changed.mean())
    error = float(changed.std(ddof=1)) / math.sqrt(len(changed)) if len(changed) > 1 else math.inf
    counts = max(0.0, 1.0 - (error / gain) ** 2) if gain else 0.0
    found = one(correct - probe.correct[-probe.val :])
    accuracy = min(max(probe.accuracy + found.mean, 0.0), 1.0)
    # The squares of both halves are added (Zou and Donner 2008).
    low = accuracy - math.hypot(probe.accuracy - probe.low, found.mean - found.low)
    high = accuracy + math.hypot(probe.high - probe.accuracy, found.high - found.mean)
    return Judgement(
        probe.score + counts * gain, accuracy, max(low, 0.0), min(high, 1.0), correct, values, len(correct)
    )


def distinguishable(pairs: Sequence[tuple[Judgement, Judgement]]) -> list[bool]:
    """Whether the two of each pair differ beyond chance; the validation images, which both have, come last."""
    values = []
    for best, other in pairs:
        n = min(len(best.correct), len(other.correct))
        values.append(one(best.correct[-n:] - other.correct[-n:]).p)
    return [p < LEVEL for p in holm(values)]
