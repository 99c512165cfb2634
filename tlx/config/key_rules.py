"""What a configuration's keys may be: a rule beside each field of the schema, for validation, comments and tables."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tlx.core.errors import nearest

__all__ = ["Rule", "key", "rule_of", "rules", "values"]

_RULE = "rule"  # its name in a field's metadata


@dataclass(frozen=True)
class Rule:
    """What a key is for, and which values it takes. Null is always left to the key's type.

    Attributes:
        help: in a line: what it is, its unit, what null means. Empty for what nobody types.
        minimum, above, maximum: of numbers, also of those in a list: `minimum` and `maximum` are allowed themselves.
        choices: the only texts allowed, also in a list.
        form: a regular expression that the whole text matches.
        words: `form` in words.
        also: texts beside numbers.
        fewer: what to do instead of a number less than `minimum`.
        of: the dataclass of what is below the key, where its annotation does not say so.
        each: the dataclass of each named thing below the key.
    """

    help: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    form: str = ""
    words: str = ""
    also: tuple[str, ...] = ()
    fewer: str = ""
    of: type | None = None
    each: type | None = None

    def allowed(self) -> str:
        """The values in words, as `more than 0 and at most 0.9`; empty where only the type says what they are."""
        low = f"more than {self.above}" if self.above is not None else f"at least {self.minimum}"
        bounds = [low] if self.above is not None or self.minimum is not None else []
        bounds += [f"at most {self.maximum}"] if self.maximum is not None else []
        beside = f", or {', '.join(self.also)}" if self.also else ""
        return (", ".join(self.choices) or self.words or " and ".join(bounds)) + beside

    def problem(self, name: str, value: Any) -> str | None:
        """The line that says what is wrong with the value of the key `name`; None where nothing is."""
        if value is None:
            return None
        for one in value if isinstance(value, list) else [value]:
            if self._takes(one):
                continue
            if self.also and not _number(one):
                return f"{name}={one}: must be a number, or {', '.join(self.also)}{nearest(str(one), self.also)}"
            if not isinstance(value, list):
                instead = f"; {self.fewer}" if self.fewer and one < self.minimum else ""
                return f"{name}={one}: must be {self.allowed()}{nearest(str(one), self.choices)}{instead}"
            if self.choices:
                return f"{name}: {one} is not one of {', '.join(self.choices)}{nearest(str(one), self.choices)}"
            return f"{name}: each must be {self.allowed()}, not {one}"
        return None

    def _takes(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.also and not _number(value):
            return value in self.also
        if self.form:
            return re.fullmatch(self.form, str(value)) is not None
        return not isinstance(value, int | float) or (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
        )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def key(default: Any = dataclasses.MISSING, *, factory: Callable[[], Any] | None = None, **rule: Any) -> Any:
    """A field of the schema with its default and its `Rule`. `factory`: makes a default that can be changed."""
    metadata = {_RULE: Rule(**rule)}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Rule]]:
    """Every key of a typed configuration as (dotted key, value, rule), in the schema's order."""
    for field in dataclasses.fields(node):
        name, value = f"{prefix}{field.name}", getattr(node, field.name)
        yield name, value, field.metadata[_RULE]
        below = value.items() if isinstance(value, dict) else [("", value)]
        for of, inner in below:
            if dataclasses.is_dataclass(inner):
                yield from values(inner, f"{name}.{of}." if of else f"{name}.")


def rules(kind: type, prefix: str = "") -> Iterator[tuple[str, "dataclasses.Field[Any]", Rule]]:
    """Every key of a dataclass of the schema as (dotted key, field, rule); a name of the user's is `<name>`."""
    for field in dataclasses.fields(kind):
        name, rule = f"{prefix}{field.name}", field.metadata[_RULE]
        yield name, field, rule
        if rule.each is not None:
            yield from rules(rule.each, f"{name}.<name>.")
        elif (below := _below(field, rule)) is not None:
            yield from rules(below, f"{name}.")


def rule_of(kind: type, name: str) -> Rule | None:
    """The rule of a dotted key below a dataclass of the schema; None where the schema does not know it."""
    first, _, rest = name.partition(".")
    field = next((field for field in dataclasses.fields(kind) if field.name == first), None)
    if field is None:
        return None
    rule: Rule = field.metadata[_RULE]
    if not rest:
        return rule
    if rule.each is not None:
        inner = rest.partition(".")[2]  # what is below the user's own name
        return rule_of(rule.each, inner) if inner else None
    below = _below(field, rule)
    return None if below is None else rule_of(below, rest)


def _below(field: "dataclasses.Field[Any]", rule: Rule) -> type | None:
    """The dataclass of what is below a field; None where it has a value of its own."""
    if rule.of is not None:
        return rule.of
    return field.type if isinstance(field.type, type) and dataclasses.is_dataclass(field.type) else None
