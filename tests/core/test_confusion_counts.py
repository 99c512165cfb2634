"""A confusion matrix without its zeros says what the matrix says, and grows with the images alone."""

import numpy as np
import pytest

from tests.core.confusion_matrices import counted
from tlx.core import confusion_counts
from tlx.core.confusion_counts import ConfusionCounts


@pytest.mark.parametrize("dense", [0, 1 << 20])
def test_counts_are_those_of_the_matrix(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion_counts, "_DENSE", dense)
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 6, (2, 40))
    matrix = np.zeros((7, 7), dtype=np.int64)  # the last class has no image and no prediction
    np.add.at(matrix, (labels, predictions), 1)
    found = ConfusionCounts.of(labels, predictions, 7)
    assert np.array_equal(found.matrix(), matrix)
    assert found.written() == matrix.tolist()
    assert np.array_equal(found.images, matrix.sum(1))
    assert np.array_equal(found.predicted, matrix.sum(0))
    assert np.array_equal(found.correct, matrix.diagonal())
    assert np.array_equal(found.pooled(7), [[40]])
    assert found.pooled(2)[0, 1] == matrix[:2, 2:4].sum()
    assert np.array_equal(counted(matrix).matrix(), matrix)


def test_of_many_classes_it_has_a_figure_an_image_and_files_have_none() -> None:
    labels = np.arange(100_000)
    found = ConfusionCounts.of(labels, labels // 2, 100_000)
    assert len(found.counts) == 100_000
    assert found.correct.sum() == 1
    assert found.written() == []
    assert found.pooled(1_000).shape == (100, 100)
