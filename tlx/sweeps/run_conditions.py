"""Which runs of a list are wanted: `dataset=shapes test_accuracy>0.9 status=failed,interrupted`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tlx.core.errors import RequestError, nearest
from tlx.sweeps.run_list import COLUMNS, ListedRun

__all__ = ["Condition", "condition", "wanted"]
_FORM = re.compile(r"(?P<key>[\w./-]+?) *(?P<operator>!=|>=|<=|==?|>|<) *(?P<value>.*)", re.DOTALL)
BEGAN = "began"
EXAMPLE = "give KEY=VALUE, KEY!=VALUE, KEY>NUMBER or KEY<NUMBER, as in dataset=shapes 'test_accuracy>0.9'"


@dataclass(frozen=True)
class Condition:
    """What a value of a run must be.

    Attributes:
        operator: `=`, `!=`, `>`, `>=`, `<` or `<=`.
        value: as typed; after `=` and `!=` several, separated by commas, and patterns (`resnet*`).
    """

    key: str
    operator: str
    value: str

    def holds(self, of: Any) -> bool:
        """Whether it does of a run's value; of a run that has none only `!=` and `=null` do.

        Numbers have an order, and the moments when runs began, which are texts; no other text has one.
        """
        if not self.orders:
            return any(_equal(of, one) for one in self.value.split(",")) == (self.operator == "=")
        pair: tuple[Any, Any] = (of, self.value) if self.key == BEGAN else (_number(of), _number(self.value))
        one, other = pair
        if one is None or other is None:
            return False
        return (one == other and "=" in self.operator) or (one < other if "<" in self.operator else one > other)

    @property
    def orders(self) -> bool:
        """Whether it is one of order: `<`, `<=`, `>` or `>=`."""
        return self.operator not in ("=", "!=")


def condition(word: str) -> Condition:
    """The condition that was typed.

    Raises:
        RequestError: it is none, or has no value.
    """
    found = _FORM.fullmatch(word)
    if found is None:
        raise RequestError(f"{word}: no condition; {EXAMPLE}")
    key, operator, value = found["key"], found["operator"].replace("==", "="), found["value"].strip()
    if not value:
        raise RequestError(f"{word}: has no value; {EXAMPLE} (a shell needs the quotes around < and >)")
    typed = Condition(key, operator, value)
    if typed.orders and key != BEGAN and _number(value) is None:
        raise RequestError(f"{word}: '{value}' is no number; {EXAMPLE}")
    return typed


def wanted(runs: Sequence[ListedRun], conditions: Sequence[Condition]) -> list[ListedRun]:
    """The runs of which all conditions hold, in their order; the keys of configurations are looked at last.

    Raises:
        RequestError: no run has a key; the message names the nearest one that some run has. Or a condition has `<` or
            `>`, and the runs' values are no numbers.
    """
    quick = {name for run in runs for name in run.row} if conditions else set[str]()
    names = {key: _name(key, quick) for key in {one.key for one in conditions}}
    found = list(runs)
    for one in sorted(conditions, key=lambda each: names[each.key] not in quick):
        name = names[one.key]
        if name not in quick and name != "seed" and not any(name in run.configuration for run in found):
            _known(one.key, runs, quick)
        if one.orders and one.key != BEGAN:
            _ordered(one, name, runs if name in quick else found, quick)
        found = [run for run in found if one.holds(run.value(name))]
    return found


def _name(key: str, known: set[str]) -> str:
    """A figure may be named without `test_`."""
    return f"test_{key}" if key not in known and f"test_{key}" in known else key


def _known(key: str, runs: Sequence[ListedRun], quick: set[str]) -> None:
    """Whether some run has the key, though none of those that the other conditions leave."""
    every = {name for run in runs for name in run.configuration}
    if runs and key not in every:
        near = nearest(key, [*quick, "seed", *sorted(every)])
        raise RequestError(
            f"{key}: no run has such a key{near}; there are {', '.join(COLUMNS)}, figures (test_accuracy, val_loss, …) "
            "and the keys of the configuration"
        )


def _ordered(one: Condition, name: str, runs: Sequence[ListedRun], quick: set[str]) -> None:
    """Whether any run's value is a number; of other values no condition of order holds."""
    values = [value for run in runs if (value := run.value(name)) is not None]
    if values and all(_number(value) is None for value in values):
        figure = f", test_{name} is one" if f"test_{name}" in quick else ""
        word = f"{one.key}{one.operator}{one.value}"
        raise RequestError(f"{word}: {name} is no number ({values[0]}){figure}; < and > take numbers and {BEGAN}")


def _equal(of: Any, value: str) -> bool:
    if of is None or value in ("null", "None"):
        return of is None and value in ("null", "None")
    one, other = _number(of), _number(value)
    if one is not None and other is not None:
        return one == other
    text = str(of).lower() if isinstance(of, bool) else str(of)
    return fnmatchcase(text, value)


def _number(value: Any) -> float | None:
    """The number that a value or a text is; `90%` is 0.9."""
    if isinstance(value, bool):
        return None
    try:
        text = str(value).strip()
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
