"""Bootstrap intervals hold what is true as often as they say, and equal seeds give equal ones."""

import numpy as np
import pytest
from scipy import stats

from tests.core.confusion_matrices import counted
from tlx.core import bootstrap
from tlx.core.statistics import wilson


@pytest.mark.parametrize("n", [40, 1500])  # drawn as images, and in groups of nearly equal value
def test_the_interval_of_a_mean_is_that_of_scipy_widened_where_the_variance_is_uncertain(n: int) -> None:
    values = np.random.default_rng(0).exponential(size=n)
    found = bootstrap.of_mean(values, np.zeros(n, dtype=np.int64))
    other = stats.bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=0).confidence_interval
    squares = (values - values.mean()) ** 2
    wider = stats.t.ppf(0.975, 2 * squares.sum() ** 2 / (n * squares.var())) / stats.norm.ppf(0.975)
    middle = values.mean()
    expected = [middle + (end - middle) * wider for end in other]
    # Theirs scatters too little by the square root of (n - 1)/n, and both are drawn.
    assert found == pytest.approx(expected, abs=0.08 * (other.high - other.low))
    assert found == bootstrap.of_mean(values, np.zeros(n, dtype=np.int64))
    assert wider == pytest.approx(1.0, abs=0.01) if n == 1500 else wider > 1.05


def test_a_difference_between_classes_is_no_uncertainty() -> None:
    labels = np.repeat(np.arange(2), 100)
    values = 10.0 * labels + np.random.default_rng(0).normal(size=200)
    low, high = bootstrap.of_mean(values, labels)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.15)


def test_the_interval_of_a_mean_holds_the_truth() -> None:
    random, labels = np.random.default_rng(0), np.repeat(np.arange(2), 100)
    held = 0
    for _ in range(300):
        low, high = bootstrap.of_mean(random.gamma(2.0, size=200), labels, resamples=500)
        held += low <= 2.0 <= high
    assert 0.91 <= held / 300 <= 0.985  # 95 %, within what 300 draws scatter


def test_of_few_images_with_large_values_it_holds_the_truth_about_as_often() -> None:
    random, held, plain = np.random.default_rng(0), 0, 0
    labels, truth = np.zeros(60, dtype=np.int64), float(np.exp(0.5))
    for _ in range(300):
        values = random.lognormal(size=60)
        low, high = bootstrap.of_mean(values, labels, resamples=500)
        held += low <= truth <= high
        reach = 1.96 * values.std(ddof=1) / np.sqrt(60)
        plain += abs(values.mean() - truth) <= reach
    assert held / 300 >= 0.9
    assert held > plain


def test_a_value_that_does_not_vary_has_no_width() -> None:
    assert bootstrap.of_mean(np.full(7, 3.0), np.arange(7)) == (3.0, 3.0)


@pytest.mark.parametrize("of_class", [30, 3000])  # of which images or kinds are drawn
def test_resampled_matrices_scatter_as_test_sets_do(of_class: int) -> None:
    confusion = np.array([[8, 2, 0], [1, 6, 3], [0, 0, 0]]) * of_class // 10
    correct, predicted = bootstrap.confusions(counted(confusion))
    assert correct.shape == predicted.shape == (bootstrap.RESAMPLES, 3)
    assert predicted.sum(1) == pytest.approx(2 * of_class)
    assert correct.mean(0) == pytest.approx(confusion.diagonal(), rel=0.02)
    expected = [of_class**2 / (of_class - 1) * p * (1 - p) for p in (0.8, 0.6)]
    assert correct.var(0)[:2] == pytest.approx(expected, rel=0.15)


def test_where_nothing_is_wrong_the_interval_is_that_of_a_proportion() -> None:
    confusion = np.diag([10, 40])
    correct, _ = bootstrap.confusions(counted(confusion))
    found = bootstrap.of_share(1.0, (correct / [10, 40]).mean(1), np.array([1 / 20, 1 / 80]), counted(confusion))
    assert found == wilson(32, 32)  # the mean of two recalls, worth 4/(1/10 + 1/40) images
