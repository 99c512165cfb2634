"""Each key's range, choices and help stand once: what refuses a value, comments and lists say the same."""

import dataclasses
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from tests.conftest import ROOT
from tlx.cli.main import main
from tlx.config import key_comments
from tlx.config.compose import compose, without_hydra
from tlx.config.key_rules import Rule, rules, values
from tlx.config.schema import Config
from tlx.config.validation import checked
from tlx.core.errors import RequestError

EVERY = {name: (field, rule) for name, field, rule in rules(Config)}
BOUND = {name: rule for name, (_, rule) in EVERY.items() if rule.allowed()}


def test_every_key_says_what_it_is_for() -> None:
    silent = {name for name, (_, rule) in EVERY.items() if not rule.help}
    assert silent == {"dataset.reader", "source.dataset.reader"}, "made when the YAML is read; nobody types them"
    assert all("\n" not in rule.help and not rule.help.endswith(".") for _, rule in EVERY.values())


def outside(rule: Rule) -> Any:
    """A value that the rule refuses."""
    if rule.choices or rule.form:
        return "/"
    return rule.above if rule.above is not None else (rule.minimum or 0) - 1


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    return without_hydra(compose(["source=shapes"]))


@pytest.mark.parametrize("name", BOUND)
def test_a_value_outside_is_refused_with_the_key_and_what_is_right(composed: DictConfig, name: str) -> None:
    field, rule = EVERY[name]
    key = name.replace("<name>", "train" if name.startswith("source.") else "probe")
    many = "list" in str(field.type)

    def said(value: Any) -> str:
        node = composed.copy()
        for beside, needed in (("fold", 0), ("folds", 9)):  # neither goes without the other
            if name.endswith((".fold", ".folds")):
                OmegaConf.update(node, f"{name.rpartition('.')[0]}.{beside}", needed)
        OmegaConf.update(node, key, [value] if many else value)
        with pytest.raises(RequestError) as refused:
            checked(node)
        return str(refused.value)

    line = said(outside(rule))
    assert line.startswith(f"{key}{':' if many else '='}")
    assert rule.allowed() in line
    if rule.maximum is not None:
        assert rule.allowed() in said(rule.maximum + 1)


def test_every_default_is_a_value_that_its_own_rule_takes(composed: DictConfig) -> None:
    config = checked(composed.copy())
    found = list(values(config))
    assert {name for name, *_ in found} >= {name for name in EVERY if "<name>" not in name}
    assert [problem for name, value, rule in found if (problem := rule.problem(name, value))] == []


def test_the_page_of_keys_is_the_schemas() -> None:
    written = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    assert written == key_comments.page(), "run `make keys`"
    for name, (_, rule) in EVERY.items():
        leaf = not any(other.startswith(f"{name}.") for other in EVERY)
        if leaf and rule.help and not name.startswith("source."):
            assert written.count(f"| `{name}` |") == 1


@pytest.mark.parametrize("preset", [None, "shapes_transfer"])
def test_the_configuration_is_printed_with_comments_and_is_still_the_same(
    preset: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"experiment={preset}"] if preset else []
    assert main(["--cfg", "job", *words]) == 0
    printed = capsys.readouterr().out
    plain = OmegaConf.to_yaml(without_hydra(compose(words)))
    assert yaml.safe_load(printed) == yaml.safe_load(plain)
    assert [line.partition("  # ")[0] for line in printed.splitlines()] == plain.splitlines()
    assert (
        "  batch_size: 32  # batch size: number of images (at least 1)\n" in printed or "batch_size: 32" not in printed
    )
    assert sum("  # " in line for line in printed.splitlines()) > 90
    main(["--cfg", "job", "--package", "runtime", *words])
    assert "offline: false  # never use the network (true, false)\n" not in (part := capsys.readouterr().out)
    assert "\noffline: false  # never use the network\n" in part


def test_values_of_several_lines_stay_what_they_are() -> None:
    tree = {
        "output": "a\n\nseed: 1",
        "sweep": {"name": "x\ny\n"},
        "backbone": {"mean": [1.0], "arguments": {}, "name": ""},
    }
    for style in (None, "|", ">", "'", '"'):
        text = yaml.dump(tree, default_style=style, width=20)  # quotes the keys, too
        assert yaml.safe_load(key_comments.commented(text)) == tree
        assert "# the folder of all runs" in key_comments.commented(text)


def test_the_help_lists_the_keys_that_no_group_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for group in ("training", "runtime", "evaluation", "features"):
        for field in dataclasses.fields(EVERY[group][0].type):
            below = "." if dataclasses.is_dataclass(field.type) else "="
            assert f"    {group}.{field.name}{below}" in listed
