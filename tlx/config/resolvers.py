"""What `${size:…}`, `${label:…}`, `${data:}` and `${first:…}` stand for in the YAML."""

import re
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf

from tlx.config.dataset_schema import data_name
from tlx.config.recipes import chosen

LONGEST = 40  # characters of a data set's name in that of a run's folder
NAMED = ("backbone", "strategy", "head", "augmentation", "dataset")  # groups by which people tell runs apart
GROUPS = (*NAMED, "optimizer", "schedule", "loss")  # whose choices a run keeps


def register() -> None:
    """Makes them known to OmegaConf."""
    OmegaConf.register_new_resolver("size", _size, replace=True)
    OmegaConf.register_new_resolver("label", _label, replace=True)
    OmegaConf.register_new_resolver("data", _data, replace=True)
    OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v is not None), replace=True)


def choices_of(node: DictConfig) -> Mapping[str, str]:
    """What is chosen of each group of `GROUPS`, as a run's folder calls it, and the recipes, if any.

    `node`: composed, with Hydra's node.
    """
    found = {group: _label(group, _root_=node) for group in GROUPS}
    recipes = "+".join(name for name in chosen(node) if name != "none")
    return {**found, "dataset": _data(_root_=node), **({"recipe": recipes} if recipes else {})}


def _size(numerator: int, denominator: int, *, _root_: DictConfig) -> int:
    """A number of pixels in proportion to the backbone's input size."""
    size: int = _root_.backbone.input_size
    return round(size * numerator / denominator)


def _label(group: str, *, _root_: DictConfig) -> str:
    """What a group's choice is called in a folder's name: the YAML's name, or the model's where that says more."""
    choice = str(_root_.hydra.runtime.choices[group])
    name = str(_root_[group].get("name", choice)) if group == "backbone" else choice
    return re.sub(r"[^\w.+-]+", "_", choice if choice in name else name)


def _data(*, _root_: DictConfig) -> str:
    """What the data set is called in a run's folder's name; the folders of a sweep's jobs keep the YAML's name."""
    node, choice = _root_.dataset, _label("dataset", _root_=_root_)
    name, root = node.get("name", choice), node.get("root")
    published = node.get("archive") is not None
    called = data_name(str(name), str(node.get("_target_")), None if root is None else str(root), published=published)
    return choice if called == name else re.sub(r"[^\w.+-]+", "_", called)[:LONGEST].strip("_.") or choice
