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
        """Whether it does of a run's value; of a run that has none only `!=` and `=null` do."""
        if self.operator in ("=", "!="):
            return any(_equal(of, one) for one in self.value.split(",")) == (self.operator == "=")
        if of is None:
            return False
        number, limit = _number(of), _number(self.value)
        one, other = (str(of), self.value) if number is None or limit is None else (number, limit)
        less, same = one < other, one == other  # type: ignore[operator]
        return (same and "=" in self.operator) or (less if "<" in self.operator else not less and not same)


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
    if operator in ("=", "!=") or key == "began":
        return Condition(key, operator, value)
    if _number(value) is None:
        raise RequestError(f"{word}: '{value}' is no number; {EXAMPLE}")
    return Condition(key, operator, value)


def wanted(runs: Sequence[ListedRun], conditions: Sequence[Condition]) -> list[ListedRun]:
    """The runs of which all conditions hold, in their order; the keys of configurations are looked at last.

    Raises:
        RequestError: no run has a key; the message names the nearest one that some run has.
    """
    quick = {name for run in runs for name in run.row} if conditions else set[str]()
    names = {key: _name(key, quick) for key in {one.key for one in conditions}}
    found = list(runs)
    for one in sorted(conditions, key=lambda each: names[each.key] not in quick):
        name = names[one.key]
        if name not in quick and name != "seed" and not any(name in run.configuration for run in found):
            _known(one.key, runs, quick)
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
