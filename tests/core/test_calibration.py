"""A temperature is right where it can be known, and the calibration error is what chance leaves of it."""

import numpy as np
import pytest

from tlx.core import calibration
from tlx.core.calibration import Floats, Labels


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    found: Floats = weights / weights.sum(1, keepdims=True)
    return found


def calibrated(n: int, classes: int = 10, seed: int = 0) -> tuple[Floats, Labels]:
    """Logits, and labels that are drawn from their probabilities."""
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=(n, classes))
    return logits, (softmax(logits).cumsum(1) > random.random((n, 1))).argmax(1)


def log_loss(logits: Floats, labels: Labels, temperature: float) -> float:
    return float(-np.log(softmax(logits / temperature)[np.arange(len(labels)), labels]).mean())


def test_calibrated_logits_have_the_temperature_one_and_others_what_they_were_multiplied_by() -> None:
    logits, labels = calibrated(50_000)
    assert calibration.temperature(logits, labels) == pytest.approx(1, abs=0.02)
    for factor in (0.2, 0.5, 2.0, 8.0):
        assert calibration.temperature(factor * logits, labels) == pytest.approx(factor, rel=0.02)
    assert calibration.temperature(logits + 100.0, labels) == pytest.approx(calibration.temperature(logits, labels))


@pytest.mark.parametrize("n", [1, 5, 50, 500])
@pytest.mark.parametrize("factor", [0.1, 1.0, 4.0])
def test_a_temperature_is_the_maximum_a_posteriori(n: int, factor: float) -> None:
    logits, labels = calibrated(n, 3, seed=n)
    found = calibration.temperature(factor * logits, labels)

    def cost(temperature: float) -> float:
        return n * log_loss(factor * logits, labels, temperature) + np.log(temperature) ** 2 / (2 * 0.25**2)

    grid = np.exp(np.linspace(-3, 3, 6001))
    assert found == pytest.approx(grid[np.argmin([cost(one) for one in grid])], rel=2e-3)


def test_without_images_or_with_what_is_no_number_the_temperature_is_one() -> None:
    logits, labels = calibrated(10)
    assert calibration.temperature(logits[:0], labels[:0]) == 1
    assert calibration.temperature(logits[:, :1], labels * 0) == 1
    logits[3, 2] = np.nan
    assert calibration.temperature(logits, labels) == 1
    all_right = 50 * np.eye(4)
    assert 1 / 20 <= calibration.temperature(all_right, np.arange(4)) <= 1
    assert 1 <= calibration.temperature(all_right, np.arange(4)[::-1].copy()) <= 20


def test_few_images_do_not_harm() -> None:
    # As the measurement in bench/intervals.py, of fewer draws: calibrated logits are the worst case.
    logits, labels = calibrated(4000)
    random, before = np.random.default_rng(1), log_loss(logits, labels, 1.0)
    after = []
    for _ in range(50):
        some = random.permutation(len(labels))[:50]
        after.append(log_loss(logits, labels, calibration.temperature(logits[some], labels[some])))
    assert np.mean(after) < 1.02 * before
    assert max(after) < 1.1 * before


def test_bins_have_equal_numbers_of_images_and_hold_all_of_them() -> None:
    random = np.random.default_rng(0)
    for n in (1, 2, 14, 15, 153, 1000):
        sure, correct = random.random(n), random.random(n) < 0.5
        found = calibration.reliability(sure, correct)
        assert found.images.sum() == n
        assert np.ptp(found.images) <= 1
        assert len(found.images) == min(n, calibration.BINS)
        assert (np.diff(found.probability) >= 0).all()
        assert found.probability @ found.images == pytest.approx(sure.sum())
        assert found.accuracy @ found.images == pytest.approx(correct.sum())
        assert [row["images"] for row in found.rows()] == found.images.tolist()


def test_the_error_of_a_calibrated_model_is_the_floor_in_the_mean() -> None:
    random = np.random.default_rng(0)
    sure = np.sort(0.5 + random.random(300) / 2)
    errors = [calibration.reliability(sure, random.random(300) < sure).error for _ in range(400)]
    floor = calibration.floor(sure)
    assert floor.mean == pytest.approx(np.mean(errors), rel=0.1)
    assert np.mean([floor.low <= error <= floor.high for error in errors]) == pytest.approx(0.95, abs=0.03)
    assert calibration.floor(sure) == floor
    assert calibration.floor(np.repeat(sure, 20)).mean < floor.mean / 2, "more images"


def test_the_error_of_a_model_that_is_too_sure_is_that_of_all_images_and_the_plain_one_is_too_large() -> None:
    random, sure = np.random.default_rng(0), np.linspace(0.6, 1.0, 600)
    errors, plain = [], []
    for _ in range(200):
        table = calibration.reliability(sure, random.random(600) < sure - 0.05)
        errors.append(table.error)
        plain.append(float((table.images * abs(table.accuracy - table.probability)).sum() / 600))
    assert abs(np.mean(errors) - 0.05) < abs(np.mean(plain) - 0.05)
    assert np.mean(errors) == pytest.approx(0.05, abs=0.01)
