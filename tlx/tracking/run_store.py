"""The MLflow store of a run that has ended: as its folder says, or as it was typed again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tlx.config.schema import Tracking
from tlx.core.errors import RequestError
from tlx.core.yaml_trees import read_yaml

__all__ = ["KEYS", "UntrackedError", "settings_of", "store_beside", "typed_places"]
KEYS = ("tracking.uri", "tracking.experiment")


class UntrackedError(RequestError):
    """A run was made with `tracking=none`, and no store is typed."""


def typed_places(words: Sequence[str], subcommand: str) -> dict[str, str]:
    """Where MLflow is, of `key=value` as typed. Raises `RequestError` for another key, or none."""
    typed = dict(word.partition("=")[::2] for word in words)
    for key in typed.keys() - set(KEYS):
        raise RequestError(f"{key}=…: {subcommand} takes {' and '.join(KEYS)} only")
    return typed


def settings_of(folder: Path, typed: Mapping[str, str], *, default: bool = False) -> Tracking:
    """How a run or the first job of a sweep is tracked, with what was typed.

    `default`: one that was made with `tracking=none` goes to the store of its output folder.

    Raises:
        UntrackedError: it was made with `tracking=none`, and no store is typed.
        RequestError: its configuration cannot be read.
    """
    configs = [folder / "config.yaml", *sorted(folder.glob("*/config.yaml"))]
    file = next((file for file in configs if file.is_file()), configs[0])
    tree = _tree(file).get("tracking") or {}
    if not isinstance(tree, dict):
        raise RequestError(f"{file}: cannot be read: tracking is {tree!r}, and must be a mapping of its keys")
    known = {name: tree[name] for name in ("enabled", "uri", "experiment", "model", "register") if name in tree}
    settings = Tracking(**known, system_metrics=False)
    if "tracking.uri" in typed:
        settings.uri, settings.enabled = typed["tracking.uri"], True
    if "tracking.experiment" in typed:
        settings.experiment = typed["tracking.experiment"]
    settings.enabled = settings.enabled or default
    if not settings.enabled:
        raise UntrackedError(f"{folder}: was made with tracking=none; say where to send it: tracking.uri=…")
    return settings


def store_beside(folder: Path, output: Path) -> Path:
    """The folder of the default store: it lies beside the runs, wherever they have been moved; else `output`."""
    return next((above for above in folder.absolute().parents if (above / "mlflow.db").is_file()), output)


def _tree(file: Path) -> dict[str, Any]:
    """A run's configuration; empty for one that has failed before it began.

    Raises:
        RequestError: it cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        tree = read_yaml(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RequestError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(tree, dict):
        raise RequestError(f"{file}: cannot be read: it holds no keys")
    return tree
