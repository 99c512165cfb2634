"""Hydra within this process: started for tlx's folder of YAML, and put back as it was found."""

import contextlib
import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tlx.config import resolvers
from tlx.config.hydra_errors import explained
from tlx.config.override_quoting import quote
from tlx.config.schema import Config
from tlx.core.errors import RequestError

_HERE = Path(__file__).resolve().parent.parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"


@cache
def _register() -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    resolvers.register()


@contextlib.contextmanager
def initialized() -> Iterator[None]:
    """Hydra knows tlx's YAML and schema while the block lasts."""
    _register()
    # A run may be started from inside a Hydra job: put back what was there.
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3", job_name="tlx"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


@contextlib.contextmanager
def hydra_commands() -> Iterator[Any]:
    """Hydra's own commands, without its way to leave the process; its logging does not outlive them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with initialized():
            yield GlobalHydra.instance().hydra
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def search_path(config_dir: str | None) -> list[str]:
    """The override by which Hydra searches a user's folder, too. Raises `RequestError` where it does not exist."""
    if config_dir is None:
        return []
    folder = Path(os.path.expanduser(config_dir)).resolve()
    if not folder.is_dir():
        raise RequestError(f"--config-dir {config_dir}: no such folder")
    return [f"hydra.searchpath=[{quote('file://' + str(folder))}]"]


def composed(typed: list[str]) -> DictConfig:
    """What Hydra composes of these overrides, within `initialized`. Raises `RequestError` for what it refuses."""
    try:
        return hydra.compose("config", typed, return_hydra_config=True)
    # ValueError: a group that is a number. AssertionError: a node of Hydra's own that is none any more.
    except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
        raise explained(error, typed) from error
    except yaml.YAMLError as error:
        raise RequestError(f"a YAML file cannot be read: {' '.join(str(error).split())}") from error
