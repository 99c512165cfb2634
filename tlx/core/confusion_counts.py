"""How often images of a label have a prediction, as the pairs that occur: never as many figures as classes squared."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

_DENSE = 1 << 20  # cells of a matrix that are counted faster than pairs are sorted
WRITTEN = 100  # classes up to which the matrix is written into files


@dataclass(frozen=True, eq=False)
class ConfusionCounts:
    """A confusion matrix without its zeros.

    Attributes:
        labels, predictions: of each pair that occurs, int64 `[pairs]`, in the order of a matrix's cells.
        counts: the images of each pair, int64 `[pairs]`, 1 at least.
        classes: how many there are.
    """

    labels: Counts
    predictions: Counts
    counts: Counts
    classes: int

    @classmethod
    def of(cls, labels: Counts, predictions: Counts, classes: int) -> "ConfusionCounts":
        """Of the images with these labels and predictions, int64 `[N]`."""
        cells = labels * classes + predictions
        if classes**2 <= _DENSE:
            counted = np.bincount(cells, minlength=1)
            found = np.flatnonzero(counted)
            counts = counted[found]
        else:
            found, counts = np.unique(cells, return_counts=True)
        return cls(found // classes, found % classes, counts.astype(np.int64), classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfusionCounts) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def images(self) -> Counts:
        """The images of each label, int64 `[classes]`."""
        return self._summed(self.labels, self.counts)

    @cached_property
    def predicted(self) -> Counts:
        """The images of each prediction, int64 `[classes]`."""
        return self._summed(self.predictions, self.counts)

    @cached_property
    def correct(self) -> Counts:
        """The images of each label that are predicted so, int64 `[classes]`."""
        hits = self.labels == self.predictions
        return self._summed(self.labels[hits], self.counts[hits])

    def matrix(self) -> Counts:
        """Counts, int64 `[label, prediction]`."""
        return self.pooled(1)

    def pooled(self, each: int) -> Counts:
        """The matrix of groups of `each` classes that follow each other; the last may be of fewer."""
        groups = -(-self.classes // each)
        cells = (self.labels // each) * groups + self.predictions // each
        found = np.zeros(groups**2, dtype=np.int64)
        np.add.at(found, cells, self.counts)
        return found.reshape(groups, groups)

    def written(self) -> list[list[int]]:
        """The matrix as files have it: empty where there are more than `WRITTEN` classes.

        Of 5,000 classes it would be 150 MB; `predictions.csv` says the same of each image.
        """
        return self.matrix().tolist() if self.classes <= WRITTEN else []

    def _summed(self, of: Counts, counts: Counts) -> Counts:
        found = np.zeros(self.classes, dtype=np.int64)
        np.add.at(found, of, counts)
        return found
