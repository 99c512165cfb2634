"""A learning curve for a person: the table, and what more images would give, in sentences."""

from collections.abc import Iterator, Sequence

from tlx.core.errors import printable
from tlx.curves.forecast import MORE, Forecast
from tlx.curves.measured_points import CurvePoint, CurveSeries
from tlx.reporting.text_table import aligned, duration

__all__ = ["HEAD", "MADE", "cells", "lines", "notes", "sentence"]
HEAD = ("series", "training images", "test accuracy", "95 % interval", "runs", "time a run")
Found = Sequence[tuple[CurveSeries, Forecast]]
MADE = (
    "Extrapolation: a power law a + b · n^-c through the errors of the measured numbers. Its interval has what other "
    "seeds and other test images would change, and the error that the same fit makes for the largest number when that "
    "is left out; it does not have what a new kind of image would change."
)


def cells(label: str, point: CurvePoint) -> list[str]:
    """A row of the table."""
    found = point.found
    low, high = found.interval
    return [
        printable(label),
        f"{point.images:,}",
        f"{found.mean:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{found.n}",
        duration(found.seconds),
    ]


def lines(found: Found) -> Iterator[str]:
    """The table, and a sentence for each series."""
    rows = [cells(measured.label, point) for measured, _ in found for point in measured.points]
    yield from aligned([HEAD, *rows], left=1)
    yield ""
    for measured, expected in found:
        yield sentence(measured, expected)
    yield from notes(found)


def sentence(measured: CurveSeries, expected: Forecast) -> str:
    """What is known of a series, and what twice the images would give."""
    last = measured.points[-1]
    now = f"{printable(measured.label)}: {last.found.mean:.1%} with {last.images:,} training images"
    if expected.refusal:
        return f"{now}; not extrapolated: {expected.refusal}"
    return (
        f"{now}; {'twice' if MORE == 2 else f'{MORE:g} times'} as many ({expected.images:,}) would give about "
        f"{expected.accuracy:.1%} (95 % interval {expected.low:.1%} to {expected.high:.1%}; {100 * expected.gain:+.1f} "
        f"points, {100 * expected.gain_low:+.1f} to {100 * expected.gain_high:+.1f}), extrapolated by a power law"
    )


def notes(found: Found) -> Iterator[str]:
    """What the intervals are of."""
    kinds = {point.found.interval_of for measured, _ in found for point in measured.points}
    if kinds == {"images"}:
        yield "intervals are over the test images of one run; seeds=5 adds what other training images would change"
