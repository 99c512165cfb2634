"""A confusion matrix as the counts that the code takes."""

import numpy as np
from numpy.typing import NDArray

from tlx.core.confusion_counts import ConfusionCounts


def counted(matrix: NDArray[np.int64]) -> ConfusionCounts:
    """Of a matrix `[label, prediction]`."""
    labels, predictions = np.repeat(np.argwhere(matrix), matrix[matrix > 0], axis=0).T
    return ConfusionCounts.of(labels, predictions, len(matrix))
