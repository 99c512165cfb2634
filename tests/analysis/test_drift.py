"""New images beside those of a test set: what is of the same kind is not taken for another one, and what is not is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tlx.analysis.drift import Drift, drift

CLASSES, SIZE = 3, 64


def drawn(rng: np.random.Generator, n: int, shares: tuple[float, ...] = (1, 1, 1), move: float = 0.0) -> Drift:
    """200 images, and `n` new ones with these shares of the classes, whose features are moved in one direction."""
    middles = np.random.default_rng(5).normal(0, 2, (CLASSES, SIZE))
    labels = [rng.choice(CLASSES, 200), rng.choice(CLASSES, n, p=np.array(shares) / sum(shares))]
    known, new = (middles[one] + rng.normal(0, 1, (len(one), SIZE)) for one in labels)
    direction: NDArray[np.float64] = np.ones(SIZE) / np.sqrt(SIZE)
    return drift(known, new + move * direction, (labels[0].tolist(), labels[1].tolist()), CLASSES)


def test_images_of_one_kind_are_not_separated() -> None:
    found = [drawn(np.random.default_rng(seed), 100) for seed in range(20)]
    assert not any(one.found for one in found)
    far = sum(one.far for one in found) / 2_000
    assert 0.02 < far < 0.1


@pytest.mark.parametrize("n", [40, 300])
def test_images_of_another_kind_are(n: int) -> None:
    found = drawn(np.random.default_rng(0), n, move=4.0)
    assert found.apart is not None
    assert found.apart.found
    assert not found.shares.differ
    assert found.far_interval[0] > 0.05


def test_other_class_shares_are_not_another_kind() -> None:
    found = drawn(np.random.default_rng(1), 300, shares=(8, 1, 1))
    assert found.shares.differ
    assert found.apart is not None
    assert not found.apart.found
    assert found.counts.sum(axis=1).tolist() == [200, 300]


def test_the_images_that_differ_are_the_least_similar() -> None:
    rng = np.random.default_rng(2)
    known, new = rng.normal(0, 1, (100, SIZE)), rng.normal(0, 1, (30, SIZE))
    new[:4] = -20 * rng.normal(0, 1, (4, SIZE)) @ np.diag(np.r_[np.ones(2), np.zeros(SIZE - 2)])
    new[:4] += known.mean(0)
    known[:, :2] *= 0.01
    found = drift(known, new, ([0] * 100, [0] * 30), 1)
    assert set(np.argsort(found.similarity)[:4].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("n", [2, 5])
def test_few_images_say_that_they_are_few(n: int) -> None:
    found = drawn(np.random.default_rng(3), n)
    assert found.apart is None
    assert len(found.similarity) == n
