"""A power law through errors, and what it says of more images: where it holds, and where it says nothing."""

from pathlib import Path

import numpy as np
import pytest

from tlx.comparison.comparison import Configuration
from tlx.curves.forecast import forecast
from tlx.curves.measured_points import CurvePoint, CurveSeries, resampled
from tlx.curves.power_law import fit
from tlx.runs.run_reader import Predictions, Run

SIZES = np.array([50, 100, 200, 400, 800, 1600])


@pytest.mark.parametrize(("a", "b", "c"), [(0.08, 0.1, 0.5), (0.0, 0.2, 0.3), (0.3, 0.01, 1.1)])
def test_it_finds_the_law_that_errors_follow(a: float, b: float, c: float) -> None:
    errors = a + b * (SIZES / SIZES[-1]) ** -c
    found = fit(SIZES.astype(float), errors, np.ones(len(SIZES)))
    assert [float(found.error(n)) for n in SIZES] == pytest.approx(errors.tolist(), abs=0.002)
    assert float(found.error(3200)) == pytest.approx(a + b * 2.0**-c, abs=0.005)


def test_many_rows_are_fitted_as_each_alone() -> None:
    errors = np.random.default_rng(0).uniform(0.1, 0.5, (5, len(SIZES)))
    weights = np.arange(1.0, 7.0)
    every = fit(SIZES.astype(float), errors, weights)
    for row, one in enumerate(errors):
        alone = fit(SIZES.astype(float), one, weights)
        assert (every.a[row], every.b[row], every.c[row]) == (alone.a, alone.b, alone.c)
    assert (every.a >= 0).all()
    assert (every.b >= 0).all()


def measured(errors: "list[float]", images: int = 2000, seeds: int = 3, noise: float = 0.0) -> CurveSeries:
    """A series whose runs have these errors on the same test images."""
    random = np.random.default_rng(1)
    hard = random.uniform(size=images)  # an image is hard for all runs alike
    files = [f"test/{place}" for place in range(images)]
    points = []
    for place, error in enumerate(errors):
        correct = [(hard >= error + noise * random.standard_normal()).astype(np.int8) for _ in range(seeds)]
        said = [Predictions(files, [], [], [], one) for one in correct]
        runs = [Run(Path(), {}, {}, {}, (seed, None), 1, None, [], one, "", "") for seed, one in enumerate(said)]
        table = np.stack(correct).astype(float)
        one = Configuration("", runs, float(table.mean()), 0.0, (0.0, 1.0), "", 0, 0, 0, 1, None, images)
        points.append(CurvePoint(place, int(SIZES[place]), 10, one))
    return CurveSeries("a", points)


def test_the_interval_of_twice_the_images_has_the_truth_where_a_power_law_holds() -> None:
    errors = [float(0.06 + 0.1 * (n / 1600) ** -0.5) for n in SIZES]
    found = forecast(measured(errors, noise=0.004))
    assert found.refusal == ""
    assert found.images == 3200
    assert found.low <= 1 - (0.06 + 0.1 * 2**-0.5) <= found.high
    assert found.gain_low <= found.gain <= found.gain_high
    assert found.high - found.low < 0.1


def test_nothing_is_extrapolated_from_few_points_flat_curves_or_another_law() -> None:
    assert "needs 4" in forecast(measured([0.5, 0.4])).refusal
    assert "takes 4" in forecast(measured([0.5, 0.4, 0.35])).refusal
    assert "no difference" in forecast(measured([0.3, 0.301, 0.299, 0.3, 0.3, 0.3])).refusal
    assert "no power law" in forecast(measured([0.5, 0.49, 0.48, 0.47, 0.46, 0.2])).refusal


def test_resamples_scatter_as_means_over_images_do() -> None:
    drawn = resampled(measured([0.4, 0.3, 0.2, 0.1], images=1000, seeds=1))
    assert drawn.std(0) == pytest.approx([np.sqrt(p * (1 - p) / 1000) for p in (0.4, 0.3, 0.2, 0.1)], rel=0.15)
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] > 0.5  # the same images
