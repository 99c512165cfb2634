"""What a search varies: keys and their values, typed in Hydra's sweep syntax (`training.lr=interval(1e-5,1e-2)`)."""

import contextlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tlx.config.override_quoting import as_typed
from tlx.core.errors import RequestError

DECADES = 2.0  # an interval of positive numbers that is so wide is searched on a log scale
_MANY = 10_000  # points that are worth counting one by one
_FUNCTION = re.compile(r"[^=]+=\s*(interval|range|choice|tag|sort|shuffle|glob)\s*\(.*", re.DOTALL)


class Draws(Protocol):
    """Who chooses values: an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """One of `choices`."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number, both ends included."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number, both ends included."""


@dataclass(frozen=True)
class Axis:
    """A key and its values: those of `choices`, or the numbers from `low` to `high`, both included."""

    key: str  # as typed, with what stands before it (`+`)
    choices: tuple[str, ...] = ()
    low: float = 0.0  # an int where the values are whole numbers; so are `high` and `step`
    high: float = 0.0
    step: float | None = None
    log: bool = False

    def draw(self, trial: Draws) -> str | float:
        """Has the trial choose a value."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def text(self, value: str | float) -> str:
        """A value as it would be typed; four digits of a number between two others."""
        if isinstance(value, float):
            short = float(f"{value:.10g}" if self.step else f"{value:.4g}")
            return str(min(max(short, self.low), self.high))
        return str(value)

    def value(self, text: str) -> str | float:
        """The value that has this text."""
        return text if self.choices else type(self.low)(text)

    def ends(self) -> list[str]:
        """Values that stand for all: every choice, or the lowest and the highest number."""
        return list(self.choices) or [str(self.low), str(self.high)]

    def all(self) -> list[str] | None:
        """Every value, as `text` says it; None where they are too many to count."""
        if self.choices:
            return list(self.choices)
        step = self.step or (1 if isinstance(self.low, int) else None)
        if step is None or (self.high - self.low) / step > _MANY:
            return None
        number = round((self.high - self.low) / step) + 1
        return [self.text(self.low + i * step) for i in range(number)]

    def __str__(self) -> str:
        """In words: `1e-05 to 0.01, log scale`."""
        if self.choices:
            return ", ".join(self.choices)
        step = f", steps of {self.step:.10g}" if self.step not in (None, 1) else ""
        return f"{self.low:.10g} to {self.high:.10g}{step}{', log scale' if self.log else ''}"


def read(overrides: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """The overrides that name one value, and an axis for each that names several.

    Raises:
        RequestError: a space that cannot be read or searched, or none; a key that is given twice.
    """
    fixed, axes, keys = list[str](), list[Axis](), set[str]()
    for override in overrides:
        axis = _axis(override)
        key = override.partition("=")[0].lstrip("+~")
        if key in keys and (axis is not None or key in {a.key.lstrip("+") for a in axes}):
            raise RequestError(f"{override}: {key} is given twice")
        keys.add(key)
        if axis is None:
            fixed.append(override)
        elif len(axis.choices) == 1:
            fixed.append(f"{axis.key}={axis.choices[0]}")
        else:
            axes.append(axis)
    if not axes:
        raise RequestError(
            "search: there is nothing to search; give a key several values, as in training.lr=interval(1e-5,1e-2) "
            "or strategy=feature_extraction,finetune"
        )
    return fixed, axes


def points(axes: Sequence[Axis]) -> list[tuple[str, ...]] | None:
    """Every point of the space, one value for each axis; None where they are too many to count."""
    values = [axis.all() for axis in axes]
    known = [v for v in values if v is not None]
    if len(known) < len(values) or math.prod(len(v) for v in known) > _MANY:
        return None
    return list(product(*known))


def typed(axes: Sequence[Axis], values: Sequence[str]) -> list[str]:
    """A point as overrides."""
    return [f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)]


def _axis(override: str) -> Axis | None:
    parsed = _parsed(override)
    if parsed is None or not parsed.is_sweep_override():
        return None
    key, found = parsed.get_key_element(), parsed.value()
    tags = set(getattr(found, "tags", None) or ())
    if not isinstance(found, IntervalSweep) and tags:
        raise RequestError(f"{override}: only an interval takes a tag, as in {key}=tag(log, interval(1e-5,1e-2))")
    if isinstance(found, IntervalSweep):
        return _interval(override, key, found, tags)
    if isinstance(found, RangeSweep):
        return _range(override, key, found)
    if not parsed.is_discrete_sweep() or not hasattr(found, "list"):
        raise RequestError(f"{override}: name the choices, as in {key}=choice(a,b)")
    return Axis(key, tuple(dict.fromkeys(parsed.sweep_string_iterator())))


def _interval(override: str, key: str, found: IntervalSweep, tags: set[str]) -> Axis:
    low, high = found.start, found.end
    assert low is not None
    assert high is not None
    if not math.isfinite(low) or not math.isfinite(high) or low >= high:
        raise RequestError(f"{override}: the interval's low end must be less than its high end")
    if tags - {"log", "linear"} or len(tags) > 1:
        raise RequestError(f"{override}: the tag of an interval is log or linear")
    if tags == {"log"} and low <= 0:
        raise RequestError(
            f"{override}: a log scale needs a low end above 0, as in {key}=tag(log, interval(1e-5,1e-2))"
        )
    wide = low > 0 and math.log10(high / low) >= DECADES
    return Axis(key, low=low, high=high, log=tags == {"log"} or (wide and not tags))


def _range(override: str, key: str, found: RangeSweep) -> Axis | None:
    step = found.step
    number = math.ceil((found.stop - found.start) / step - 1e-9) if step else 0  # type: ignore[operator]
    if number < 1:
        raise RequestError(f"{override}: the range has no values; range(16,65,16) is 16, 32, 48 and 64")
    first = found.start
    last = first + (number - 1) * step  # type: ignore[operator]
    if number == 1:
        return Axis(key, (str(first),))
    if not isinstance(last, int):
        last = float(f"{last:.10g}")
    assert first is not None
    return Axis(key, low=min(first, last), high=max(first, last), step=abs(step))


def _parsed(override: str) -> Override | None:
    """The override in Hydra's grammar; None for what that does not know, and which is taken as typed."""
    for text in (override, as_typed(override, multirun=True)):
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return OverridesParser.create().parse_override(text)
        except (HydraException, OmegaConfBaseException) as error:
            if _FUNCTION.fullmatch(text):
                said = re.sub(r"^.*?:\s+", "", str(error).strip().splitlines()[0]).rstrip(":")
                raise RequestError(
                    f"{override}: cannot be read ({said}); write interval(low,high), range(start,stop,step), "
                    "choice(a,b) or a,b"
                ) from error
    return None


def described(axes: Sequence[Axis]) -> Mapping[str, str]:
    """The space in words, by key: two spaces are the same if these are."""
    return {axis.key: str(axis) for axis in axes}
