"""What makes two runs the same: the configuration without what cannot change a result, and its hash."""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tlx.config.dataset_schema import PLACES, DatasetConfig, Splits
from tlx.config.evaluation_schema import UnknownImages
from tlx.config.key_names import own, typed
from tlx.config.schema import CROSS_ENTROPY, Config, Phase, Phases, Runtime, Source
from tlx.core.errors import RequestError
from tlx.core.trees import flat


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key was X, is Y` for every leaf in which two configurations differ, with the key as it is typed."""
    one, two = dict(flat(before)), dict(flat(now))
    differing = [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]
    return [f"{typed(key)} was {one.get(key)}, is {two.get(key)}" for key in own(differing)]


def identity(config: Config, fingerprint: str, weights: str, last: str = "") -> str:
    """A hash of everything that can change the result: 64 hex digits.

    Left out is where things lie and how fast they are computed; the data is in it by its content's `fingerprint`, the
    starting weights by their digest. `last`: the stage where `last` begins, if it is another one than in versions that
    took no more than one stage for it.
    """
    tree = results(config)
    tree.pop("source")
    for place in PLACES:
        tree["dataset"]["reader"].pop(place, None)
    tree["backbone"]["weights"], tree["dataset"]["fingerprint"] = weights, fingerprint
    if last:
        tree["last"] = last
    return _digest(tree)


def key(config: Config) -> str:
    """A hash of what is requested, data and weights by their names: what a sweep knows a job by; 64 hex digits."""
    return _digest(results(config))


# What cannot change a result: where things lie, how fast they are computed, what is only logged.
ASIDE = (
    *("output", "tracking", "resume", "sweep", "seeds", "folds", "backbone.licence", "backbone.url"),
    *("runtime.workers", "runtime.threads", "runtime.devices", "runtime.offline", "features.budget", "features.store"),
    "features.shared",
    *("runtime.max_pixels", "dataset.audit", "source.dataset.audit"),
    *("dataset.pretraining_overlap", "source.dataset.pretraining_overlap"),
)


# Keys that a later version has added, each with the value at which a run is what it was before: they are left out of
# what a run, a job and a configuration are known by, and a tree of before is read with them. `*` is any name.
ADDED: dict[str, Any] = {
    **{f"{prefix}dataset.splits": dataclasses.asdict(Splits()) for prefix in ("", "source.")},
    **{f"{prefix}dataset.{name}": None for prefix in ("", "source.") for name in ("range", "group", "exclude")},
    **{f"{prefix}dataset.pretraining_overlap": None for prefix in ("", "source.")},
    **{f"{prefix}dataset.drop_duplicates": False for prefix in ("", "source.")},
    **{f"{prefix}dataset.audit": "warn" for prefix in ("", "source.")},
    "runtime.max_pixels": Runtime().max_pixels,
    "evaluation.choose_by": "val_loss",
    **{
        f"{prefix}{key}": 0
        for prefix in ("", "source.")
        for key in ("training.min_steps", "strategy.phases.*.min_steps")
    },
    **{f"{prefix}training.refit": False for prefix in ("", "source.")},
    **{f"{prefix}training.{name}": None for prefix in ("", "source.") for name in ("sampler", "ema", "average_last")},
    **{f"{prefix}training.mixing": None for prefix in ("", "source.")},
    **{f"{prefix}training.mix_at": "pixels" for prefix in ("", "source.")},
    "loss": CROSS_ENTROPY,
    # What it adds to a model changes nothing that was there before.
    "evaluation.unknown": dataclasses.asdict(UnknownImages()),
    "head.stages": [],
    "evaluation.views": [],
    "head.references": 0,
    "features.shared": False,
}


def results(config: Config) -> dict[str, Any]:
    """The configuration as a tree, without what cannot change the result (`ASIDE`, and `ADDED` where that is unset)."""
    tree = dataclasses.asdict(config)
    for path in ASIDE:
        for node, leaf in _holders(tree, path):
            node.pop(leaf)
    return without_added(tree)


def without_added(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of a configuration without those keys of `ADDED` that are at the values there; it is changed."""
    for path, unset in ADDED.items():
        for node, leaf in _holders(tree, path):
            if leaf in node and node[leaf] == unset:
                del node[leaf]
    return tree


def _holders(tree: Any, path: str) -> Iterator[tuple[Any, str]]:
    """The mappings in which a dotted key lies, or would lie, each with its last name; `*` is any name."""
    name, _, below = path.partition(".")
    if not isinstance(tree, Mapping):
        return
    if not below:
        yield tree, name
        return
    for inner in tree.values() if name == "*" else [tree.get(name)]:
        yield from _holders(inner, below)


def from_tree(tree: Mapping[str, Any]) -> Config:
    """The configuration that `dataclasses.asdict` made the tree of.

    Raises:
        RequestError: another version of tlx made it.
    """
    try:
        whole = copy.deepcopy(dict(tree))
        for path, unset in ADDED.items():
            for node, leaf in _holders(whole, path):
                node.setdefault(leaf, copy.deepcopy(unset))
        config: Config = _made(Config, whole)
    except (TypeError, KeyError, AttributeError) as error:
        raise RequestError(f"the configuration is of another version of tlx ({error}); start the run anew") from error
    return config


def _made(kind: Any, tree: Mapping[str, Any]) -> Any:
    values = {}
    for field in dataclasses.fields(kind):
        value = tree[field.name]
        data = kind in (Config, Source) and field.name == "dataset" and value is not None
        of = DatasetConfig if data else field.type
        if dataclasses.is_dataclass(of):
            value = _made(of, value)
        elif of == Phases:
            value = {name: _made(Phase, phase) for name, phase in value.items()}
        values[field.name] = value
    if unknown := tree.keys() - values.keys():
        raise KeyError(", ".join(sorted(unknown)))
    return kind(**values)


def _digest(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()
