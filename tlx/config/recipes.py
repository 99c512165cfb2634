"""The recipes that a configuration is composed of (`recipe=ema`, `recipe=[ema,mixup]`), and the keys that they set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tlx.core.trees import flat
from tlx.core.yaml_trees import read_yaml

GROUP = "recipe"


def chosen(node: DictConfig) -> list[str]:
    """The names of the chosen recipes; `node`: composed, with Hydra's node. Hydra keeps a single choice only."""
    choice = node.hydra.runtime.choices.get(GROUP)
    if choice is not None:
        return [str(choice)]
    given = [str(one).partition("=")[2] for one in node.hydra.overrides.task if str(one).startswith(f"{GROUP}=")]
    return [name.strip() for name in given[-1].strip("[]").split(",")] if given else []


def keys_of(name: str, folders: Sequence[Path]) -> list[str]:
    """The dotted keys that a recipe sets; none of a recipe that is in none of the folders."""
    files = [folder / GROUP / f"{name}.yaml" for folder in folders]
    found: Any = next((read_yaml(file) for file in files if file.is_file()), None)
    return [key for key, _ in flat(found or {}) if not key.startswith("defaults")]


def folders_of(node: DictConfig) -> list[Path]:
    """Where Hydra looks for YAML files."""
    return [Path(source.path) for source in node.hydra.runtime.config_sources if source.schema == "file"]
