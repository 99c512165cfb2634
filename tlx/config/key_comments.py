"""What each key of a configuration is for, as comments in its YAML, in --help, and as the page docs/keys.md.

`python -m tlx.config.key_comments > docs/keys.md` writes the page anew.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import MISSING

from tlx.config.key_rules import Rule, rule_of, rules
from tlx.config.schema import Config

IN_HELP = ("training", "features", "evaluation", "runtime")  # groups whose keys --help lists; no YAML chooses them
AGAIN = "source."  # its keys are those of the run once more


def commented(text: str, above: str = "") -> str:
    """The YAML of a configuration with the comment of each key that the schema knows; it says the same.

    `above`: the dotted key that the YAML is the value of.
    """
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for line, name in _lines_of_keys(root, f"{above}." if above else ""):
        rule = rule_of(Config, name)
        if rule is not None and rule.help:
            lines[line] += f"  # {comment(rule)}"
    return "".join(f"{line}\n" for line in lines)


def comment(rule: Rule) -> str:
    """What a key is for and which values it takes, in a line."""
    return f"{rule.help} ({rule.allowed()})" if rule.allowed() else rule.help


def help_lines() -> list[str]:
    """The keys that no group's YAML holds, with their defaults and comments."""
    found = [
        (f"{name}={shown}", comment(rule))
        for name, field, rule in rules(Config)
        if name.partition(".")[0] in IN_HELP or "." not in name or name == "sweep.name"
        if (shown := _default(field)) is not None
    ]
    return [f"    {name:<34}{about}" for name, about in found]


def page() -> str:
    """docs/keys.md: every key of the schema with its default and its values."""
    found = [(name, field, rule) for name, field, rule in rules(Config) if rule.help and not name.startswith(AGAIN)]
    lines = [
        "# The keys of a configuration",
        "",
        "Made from the schema (`tlx/config/schema.py`) by `make keys`. Defaults are those of the schema; the YAML of a",
        "group (`conf/`) may set others: `python -m tlx --cfg job` prints what a run has, with comments. Readers,",
        "optimizers, schedules, losses and transforms have the keys of the function or class which their `_target_`",
        "names.",
    ]
    above = {name.rpartition(".")[0].removesuffix(".<name>") for name, *_ in found}  # have no value of their own
    groups = dict.fromkeys(name.partition(".")[0] for name, *_ in found)
    leaves = {
        group: [one for one in found if one[0].startswith(f"{group}.") and one[0] not in above] for group in groups
    }
    _section(lines, "A run", [one for one in found if "." not in one[0]])
    for group in filter(leaves.get, groups):
        _section(lines, f"`{group}`", leaves[group])
    lines += [
        "",
        "## `source`",
        "",
        "A task that the backbone is trained on first, from scratch. `source.dataset`, `.augmentation`,",
    ]
    lines += [
        "`.strategy`, `.optimizer`, `.schedule` and `.training` have the keys above; `source.name=none`: no such task."
    ]
    return "\n".join([*lines, ""])


def _section(lines: list[str], title: str, found: list[tuple[str, "dataclasses.Field[Any]", Rule]]) -> None:
    lines += ["", f"## {title}", "", "| key | default | values | meaning |", "|---|---|---|---|"]
    for name, field, rule in found:
        shown = _default(field)
        default = "" if shown is None else f"`{shown}`"
        cells = (f"`{name}`", default, rule.allowed() or _kind(field.type), rule.help)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")


def _default(field: "dataclasses.Field[Any]") -> str | None:
    """A field's default as it is typed; None where a group's YAML gives it, or keys below it have their own."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        if dataclasses.is_dataclass(value) or (isinstance(value, dict) and value):
            return None
    if value == MISSING:
        return None
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kind(annotation: Any) -> str:
    """The type of a key's values in words; nothing for what has keys of its own."""
    said = str(
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else annotation
    )
    said = said.removesuffix(" | None")
    words = {"bool": "true, false", "int": "a whole number", "float": "a number", "str": "text"}
    lists = {"list[float]": "numbers", "list[int]": "whole numbers", "list[str]": "texts"}
    return (words | lists).get(said, "")


def _lines_of_keys(node: Any, prefix: str) -> Iterator[tuple[int, str]]:
    """The line on which a comment can follow each key of a YAML's mappings, and the dotted key."""
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return
    for name, value in node.value:
        whole = f"{prefix}{name.value}"
        many = isinstance(value, yaml.CollectionNode) and not value.flow_style
        lines = getattr(value, "style", None) in ("|", ">")  # a comment stands before these: within, it would be text
        yield (name if many or lines else value).end_mark.line, whole
        yield from _lines_of_keys(value, f"{whole}.")


if __name__ == "__main__":
    print(page(), end="")
