"""A data set and what has been added to it: each split as it was, and the new images behind it."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlx.config.dataset_schema import PLACES, DatasetConfig, Limit, Splits
from tlx.config.instantiate import component
from tlx.core.errors import RequestError
from tlx.datasets.images import Images, joined
from tlx.datasets.splits import Data, Parts, split

__all__ = ["extended", "node", "of_node"]


def extended(
    root: str | None,
    *,
    name: str,
    base: Mapping[str, Any],
    more: Mapping[str, Any],
    seed: int,
    offline: bool = False,
) -> Parts:
    """The splits of `base`, each with those of `more` behind it; classes that are new come behind the old ones.

    Args:
        root: not read; every data set has it.
        name: what the data set is called.
        base, more: data sets as `node` writes them; they are split as runs of their own would split them.
        seed: by which both are split.

    Raises:
        RequestError: what a reader or `split` raises of either.
    """
    old, new = (_data(of_node(each), seed, offline) for each in (base, more))
    return together(old, new, name)


def together(old: Data, new: Data, name: str) -> Parts:
    """Two data sets that are split, as one."""
    classes = (*old.classes, *(known for known in new.classes if known not in old.classes))
    place = np.array([classes.index(known) for known in new.classes], dtype=np.int64)
    sets = dict[str, Images]()
    for part in ("train", "val", "test"):
        ours, theirs = getattr(old, part), getattr(new, part)
        moved: Images = theirs.subset(range(len(theirs)))
        moved.labels = place[theirs.labels]
        sets[part] = joined([ours, moved])
    skipped, source = (*old.skipped, *new.skipped), f"{old.source}, {new.source}"
    return Parts(name, classes, sets["train"], sets["val"], sets["test"], skipped, source)


def node(config: DatasetConfig) -> dict[str, Any]:
    """A data set as JSON and YAML take it; its places are absolute, so that it is found from any folder."""
    tree = dataclasses.asdict(config)
    for place in PLACES:
        if tree["reader"].get(place) is not None:
            tree["reader"][place] = str(Path(os.path.expanduser(tree["reader"][place])).absolute())
    return tree


def of_node(tree: Mapping[str, Any]) -> DatasetConfig:
    """The data set that `node` wrote."""
    known = dict(tree)
    return DatasetConfig(**{**known, "splits": Splits(**known["splits"]), "limit": Limit(**known["limit"])})


def _data(config: DatasetConfig, seed: int, offline: bool) -> Data:
    splits = {part: name for part, name in dataclasses.asdict(config.splits).items() if name is not None}
    more = {"group": config.group, "on_error": config.on_error, "fewest": 1, "splits": splits}
    given = {key: value for key, value in more.items() if value not in (None, "fail", {})}
    found = component(config.reader, "dataset", offline=offline, **given)()
    if not isinstance(found, Parts):
        raise RequestError(f"dataset: {config.reader.get('_target_')} gives {type(found).__name__}, not Parts")
    return split(found, config, seed, decode=())
