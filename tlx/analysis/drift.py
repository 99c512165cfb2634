"""Whether new images are like those that a model was measured on: by its features and by what it predicts.

A classifier that is trained to separate the two sets, out of fold, says whether they are of one kind (Rabanser et al.
2019, "Failing Loudly"). Images are matched by the predicted class: other class shares alone are not another kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlx.analysis import distribution_shift as shift
from tlx.core.statistics import wilson
from tlx.datasets.images import Labels

__all__ = ["Drift", "Vectors", "drift"]
NEAREST = 5  # images of the test set that an image is compared with
FAR = 0.95  # of the test images that are nearer to the others than what is called far
CHUNK = 512
Vectors = NDArray[np.floating]


@dataclass(frozen=True)
class Drift:
    """What new images are like.

    Attributes:
        apart: how well the two sets are separated; None where too few images have the same predicted class.
        matched: images of either set that this was found with.
        far: new images that are farther from the test images than 95 % of these are from each other.
        far_interval: 95 %, of their share.
        similarity: of each new image, the mean cosine to its nearest test images.
        shares: how far the shares of predicted classes differ.
        counts: images that are predicted as each class, of the test set and of the new images, int64 [2, classes].
    """

    apart: shift.Separability | None
    matched: int
    far: int
    far_interval: tuple[float, float]
    similarity: NDArray[np.float64]
    shares: shift.ClassShares
    counts: NDArray[np.int64]

    @property
    def found(self) -> bool:
        """The new images are of another kind, or of other classes, significantly and by much."""
        return (self.apart is not None and self.apart.found) or self.shares.differ


def drift(
    known: Vectors, new: Vectors, predicted: tuple[Sequence[int], Sequence[int]], classes: int, *, seed: int = 0
) -> Drift:
    """Compares new images with those of a test set.

    Args:
        known, new: features, [N, D] and [M, D], neither empty.
        predicted: the class of each, its most probable one, in the same order.
        classes: their number.
        seed: of the choice of matched images, and of the folds.
    """
    of_known, of_new = (np.asarray(one, np.int64) for one in predicted)
    apart, matched = _apart(known, new, np.concatenate([of_known, of_new]), seed)
    middle = known.mean(axis=0)
    here, there = _unit(known - middle), _unit(new - middle)
    own, similarity = _similar(here, here, skip=True), _similar(there, here)
    far = int((similarity < np.quantile(own, 1 - FAR)).sum()) if len(known) > 1 else 0
    counts = np.stack([np.bincount(one, minlength=classes) for one in (of_known, of_new)])
    shares = shift.class_shares(of_known, of_new, classes)
    return Drift(apart, matched, far, wilson(far, len(new)), similarity, shares, counts)


def _apart(known: Vectors, new: Vectors, labels: Labels, seed: int) -> tuple[shift.Separability | None, int]:
    """How well matched images of the two sets are separated, and how many of either there are."""
    second = np.arange(len(labels)) >= len(known)
    rows = shift.matched(labels, second, seed)
    side = second[rows]
    number = int(side.sum())
    if number < shift.LEAST:
        return None, number
    from tlx.analysis.out_of_fold import out_of_fold

    logits = out_of_fold(np.concatenate([known, new])[rows], side.astype(np.int64), 2, seed=seed).logits
    return shift.separability(logits[:, 1] - logits[:, 0], side), number


def _similar(vectors: Vectors, known: Vectors, *, skip: bool = False) -> NDArray[np.float64]:
    """The mean cosine of unit vectors to the `NEAREST` of the known ones; `skip`: without the vector itself."""
    k, found = min(NEAREST, max(len(known) - skip, 1)), np.empty(len(vectors))
    for start in range(0, len(vectors), CHUNK):
        cosines = vectors[start : start + CHUNK] @ known.T
        if skip:
            rows = np.arange(len(cosines))
            cosines[rows, rows + start] = -np.inf
        found[start : start + CHUNK] = np.sort(np.partition(cosines, -k, axis=1)[:, -k:], axis=1).mean(axis=1)
    return found


def _unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found
