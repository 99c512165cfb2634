"""A figure of a model as a value: its name, the images it was measured on, its interval, which direction is better.

Everything that shows or stores figures iterates over such values and knows none of them by name.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlx.core.errors import RequestError


@dataclass(frozen=True)
class MetricValue:
    """One figure.

    Attributes:
        name: `accuracy`, `loss`, …; a share (0..1) where higher is better; in nats where the name ends in `loss`.
        split: the images that it was measured on: `test`, `val`, …
        low, high: its 95 % interval; None where there is none.
    """

    name: str
    split: str
    value: float
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True

    @property
    def key(self) -> str:
        """Its name in MLflow and in tables: `test_accuracy`."""
        return f"{self.split}_{self.name}"

    def flat(self) -> dict[str, float]:
        """The value and, where there is one, the interval: `{test_accuracy, test_accuracy_low, test_accuracy_high}`."""
        found = {self.key: self.value, f"{self.key}_low": self.low, f"{self.key}_high": self.high}
        return {name: value for name, value in found.items() if value is not None}

    def shown(self, images: int) -> str:
        """The figure for a person, of so many images: percent, or a number with its unit."""
        text = self._text(self.value)
        if self.low is None or self.high is None:
            return text
        return f"{text}  (95 % interval {self._text(self.low)} to {self._text(self.high)}, {images} images)"

    def _text(self, value: float) -> str:
        if self.higher_is_better:
            return f"{value:.1%}"
        return f"{value:.4f}{' nats' if self.name.endswith('loss') else ''}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return dataclasses.asdict(self)


def of_summary(summary: Mapping[str, Any]) -> list[MetricValue]:
    """The figures of a run's summary; those of a version that did not list them are read from their own keys.

    Raises:
        RequestError: an entry of the list is not a figure.
    """
    listed = summary.get("metrics")
    if listed:
        return [_read(one) for one in listed] if isinstance(listed, list) else [_read(listed)]
    low, high = summary.get("test_accuracy_interval") or (None, None)
    accuracy, loss = summary.get("test_accuracy"), summary.get("test_loss")
    found = [] if accuracy is None else [MetricValue("accuracy", "test", accuracy, low, high)]
    return found + ([] if loss is None else [MetricValue("loss", "test", loss, higher_is_better=False)])


def _read(one: Any) -> MetricValue:
    names = {field.name for field in dataclasses.fields(MetricValue)}
    try:
        found = MetricValue(**{name: value for name, value in one.items() if name in names})
        value = float(found.value)
        low, high = (None if end is None else float(end) for end in (found.low, found.high))
        if not isinstance(found.name, str) or not isinstance(found.split, str) or not found.name:
            raise ValueError(found.name)
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestError(f"metrics: {str(one)[:80]} is not a figure with name, split and value") from error
    return dataclasses.replace(found, value=value, low=low, high=high)
