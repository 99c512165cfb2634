"""What more training images would give, by a fitted power law; or why that cannot be said."""

from dataclasses import dataclass

import numpy as np

from tlx.curves.measured_points import CurveSeries, Values, resampled
from tlx.curves.power_law import FEWEST, PowerLaw, fit

__all__ = ["MORE", "Forecast", "forecast"]
MORE = 2.0  # times the images that were measured at most
MISS = 0.01  # an error of the fit, in accuracy, that alone is no reason to say nothing


@dataclass(frozen=True)
class Forecast:
    """A fitted curve, and the accuracy that is expected of more images.

    Attributes:
        law: through all points; None where there are too few.
        refusal: why nothing is expected of more images, in words; empty where something is.
        images: the number that the rest is of.
        accuracy: with its 95 % interval, 0..1.
        low, high: of the accuracy.
        gain: against the largest number that was measured, both by the law; with its interval.
        gain_low, gain_high: of the gain.
        checked: the accuracy that the law of all points but the last expects of that; None where it has too few.
        band: the interval of the accuracy with each of `band_images`: all low and all high ends.
    """

    law: PowerLaw | None
    refusal: str = ""
    images: int = 0
    accuracy: float = 0.0
    low: float = 0.0
    high: float = 0.0
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    checked: float | None = None
    band_images: tuple[float, ...] = ()
    band: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


def forecast(measured: CurveSeries, seed: int = 0) -> Forecast:
    """The forecast for `MORE` times the images of the last point.

    The interval is of resampled seeds and test images (`resampled`), widened by what the same fit without the last
    point misses that one by: a law that fits is not thereby the right one.
    """
    images, errors = measured.images, measured.errors
    if len(images) < FEWEST:
        return Forecast(None, f"{_numbers(len(images))} of training images; a power law needs {FEWEST + 1}")
    drawn = resampled(measured, seed)
    variances = drawn.var(0)
    weights = 1 / np.maximum(variances + np.median(variances), 1e-9)  # of few seeds each own variance is a guess
    law = fit(images, errors, weights)
    if len(images) == FEWEST:
        return Forecast(law, f"{_numbers(len(images))} of training images fit any power law; it takes {FEWEST + 1}")
    low, high = np.quantile(drawn[:, 0] - drawn[:, -1], [0.025, 0.975])
    if low <= 0:
        gained = 100 * (errors[0] - errors[-1])
        return Forecast(
            law,
            f"{images[-1] / images[0]:.3g} times the images made no difference that these runs show ({gained:+.1f} "
            f"points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f})",
        )
    before = fit(images[:-1], errors[:-1], weights[:-1])
    miss = float(before.error(images[-1]) - errors[-1])
    missed = fit(images[:-1], drawn[:, :-1], weights[:-1]).error(images[-1]) - drawn[:, -1]
    low, high = np.quantile(missed, [0.025, 0.975])
    checked = 1 - float(before.error(images[-1]))
    if abs(miss) > MISS and not low <= 0 <= high:
        return Forecast(
            law,
            f"no power law: that of the smaller numbers expects {checked:.1%} of {images[-1]:,.0f} images, where "
            f"{1 - errors[-1]:.1%} was measured",
            checked=checked,
        )
    return _extrapolated(law, fit(images, drawn, weights), images[-1], miss, checked)


def _extrapolated(law: PowerLaw, resampled_laws: PowerLaw, most: float, miss: float, checked: float) -> Forecast:
    target = MORE * most
    expected = 1 - float(law.error(target))
    low, high = _interval(1 - resampled_laws.error(target), expected, miss)
    gain = expected - (1 - float(law.error(most)))
    gains = resampled_laws.error(most) - resampled_laws.error(target)
    gain_low, gain_high = _interval(gains, gain, miss)
    places = np.geomspace(most, target, 12)
    band = [
        _interval(1 - resampled_laws.error(at), 1 - float(law.error(at)), miss * np.log(at / most) / np.log(MORE))
        for at in places.tolist()
    ]
    return Forecast(
        law, "", round(target), expected, low, high, gain, gain_low, gain_high, checked,
        tuple(places.tolist()), (tuple(one[0] for one in band), tuple(one[1] for one in band)),
    )  # fmt: skip


def _interval(drawn: Values, value: float, miss: float) -> tuple[float, float]:
    """Of resamples about a value, widened by an error that the fit has made (both are added as squares)."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    below, above = np.hypot(max(value - low, 0.0), miss), np.hypot(max(high - value, 0.0), miss)
    return max(value - float(below), -1.0), min(value + float(above), 1.0)


def _numbers(count: int) -> str:
    return f"{count} number{'' if count == 1 else 's'}"
