import numpy as np
import pytest

from tlx.analysis.distribution_shift import beyond, class_shares, matched, separability
from tlx.analysis.out_of_fold import out_of_fold


@pytest.mark.parametrize("seed", range(50))
def test_two_draws_of_one_kind_are_not_separated(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(size=(120, 20)).astype(np.float32)
    second = np.arange(120) % 2 == 1
    logits = out_of_fold(features, second.astype(np.int64), 2, strengths=[10.0, 1.0]).logits
    assert not separability(logits[:, 1] - logits[:, 0], second).found
    assert not class_shares(random.integers(0, 5, 300), random.integers(0, 5, 80), 5).differ


@pytest.mark.parametrize("seed", range(5))
def test_a_shifted_split_is_separated_from_the_other(seed: int) -> None:
    random = np.random.default_rng(seed)
    second = np.arange(200) % 2 == 1
    features = (random.normal(size=(200, 20)) + 0.5 * second[:, None]).astype(np.float32)
    logits = out_of_fold(features, second.astype(np.int64), 2).logits
    assert separability(logits[:, 1] - logits[:, 0], second).found


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(0)
    scores, second = random.integers(0, 20, 150), random.random(150) < 0.3
    pairs = scores[second][:, None] - scores[~second]
    found = separability(scores, second)
    assert found.area == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    assert found.low < found.area < found.high
    apart = separability(second.astype(float), second)
    assert apart.area == 1
    assert 0.9 < apart.low < 1


@pytest.mark.parametrize("most", [4000, 60])
def test_matched_rows_have_as_many_of_each_class_from_either_side(most: int) -> None:
    random = np.random.default_rng(0)
    labels, second = random.integers(0, 6, 500), random.random(500) < 0.2
    second[labels == 5] = False
    rows = matched(labels, second, most=most)
    one, other = (np.bincount(labels[rows][second[rows] == side], minlength=6) for side in (False, True))
    assert (one == other).all()
    assert one[5] == 0
    assert one.sum() <= most + 6
    if most == 4000:
        assert one.sum() == second.sum()


def test_class_shares_that_differ_are_named_with_the_class_that_does_most() -> None:
    found = class_shares(np.arange(400) % 4, np.minimum(np.arange(100) % 8, 3), 5)
    assert found.differ
    assert found.label == 3
    assert found.shares == (0.25, pytest.approx(0.61, abs=0.02))
    assert not class_shares(np.zeros(5, np.int64), np.zeros(5, np.int64), 1).differ


@pytest.mark.parametrize(("statistic", "free", "p"), [(3.841, 1, 0.05), (18.307, 10, 0.05), (29.588, 10, 0.001)])
def test_chi_square_is_as_in_tables(statistic: float, free: int, p: float) -> None:
    assert beyond(statistic, free) == pytest.approx(p, rel=0.1)
