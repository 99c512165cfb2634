"""Hydra's own keys: which of them have an effect here; the others are refused by name, whoever sets them."""

import re
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlx.config.override_quoting import keys
from tlx.core.errors import RequestError, empty

# What tlx reads: hydra.run.dir, hydra.sweep.dir and .subdir, hydra.launcher, hydra.sweeper.max_batch_size, and
# hydra.job.name and .config.override_dirname in the names of folders. The rest: a key's form → why it is refused.
_REFUSED = {
    r"hydra": "give its keys one by one, as in hydra.run.dir=…",
    r"hydra\.sweeper\.params(\..*)?": "",  # `_of_the_sweeper` says what to write
    r"hydra(\.sweeper\._target_|/sweeper)": "a sweep is made by tlx: -m for combinations, `search` for a search",
    r"hydra\.mode": "-m makes a sweep of several values; without it there is one run",
    r"hydra\.searchpath": "a folder with YAML of your own is given by --config-dir",
    r"hydra\.job\.chdir": "a run stays in the folder where it was started; its files go to hydra.run.dir",
    r"hydra(\.output_subdir|/output)": "config.yaml lies in the run's folder itself",
    r"hydra\.verbose": "what a run says is in tlx.log of its folder; HYDRA_FULL_ERROR=1 shows where an error is from",
    r"hydra[./](job_logging|hydra_logging)(\..*)?": "a run says what it does on stderr and in tlx.log of its folder",
    r"hydra[./]callbacks(\..*)?": "callbacks are not called; MLflow is written by the group tracking",
    r"hydra(\.job\.env_(set|copy)|[./]env)(\..*)?": "set variables in the shell, before the command",
    r"hydra[./](help|hydra_help)(\..*)?": "--help is written by tlx",
    r"hydra\.(runtime|overrides)(\..*)?": "is set by Hydra itself",
    r"hydra\.job\.(id|num|override_dirname|config_name)": "is set by Hydra itself",
}
# As it is in any case: these may be typed, and a YAML may have them.
_AS_IT_IS: dict[str, tuple[Any, ...]] = {
    "hydra.job.chdir": (False, None),
    "hydra.output_subdir": (None,),
    "hydra.verbose": (False,),
    "hydra.mode": (None,),
    "hydra.callbacks": ({},),
    "hydra.job.env_set": ({},),
    "hydra.job.env_copy": ([],),
    "hydra.job_logging": ({"version": 1, "root": None, "disable_existing_loggers": False},),
    "hydra.hydra_logging": ({"version": 1, "root": None, "disable_existing_loggers": False},),
}
_TYPED = {("hydra.job.chdir", "false"), ("hydra.output_subdir", "null"), ("hydra.verbose", "false")}
_TYPED |= {("hydra/sweeper", "basic"), ("hydra/job_logging", "none"), ("hydra/hydra_logging", "none")}


def refuse_typed(overrides: Sequence[str]) -> None:
    """Whether each of Hydra's own keys that was typed has an effect.

    Raises:
        RequestError: one has none; the line says what has.
    """
    for override in overrides:
        value = override.partition("=")[2]
        for key in keys(override) if re.match(r"[+~]*hydra\b", override) else ():
            if (key, value.lower()) not in _TYPED and (why := _why(key)) is not None:
                raise RequestError(f"{override}: {why or _of_the_sweeper(override)}")


def refuse_set(node: DictConfig) -> None:
    """Whether a YAML file sets one of Hydra's own keys that has no effect here, or a folder's name is empty.

    Raises:
        RequestError: it does, or is.
    """
    tree: Any = {"hydra": OmegaConf.to_container(node.hydra, resolve=False)}
    for key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"):
        if not str(reduce(getitem, key.split("."), tree) or "").strip():
            raise empty(f"{key}=")
    for key, usual in _AS_IT_IS.items():
        if reduce(getitem, key.split("."), tree) not in usual:
            raise RequestError(f"{key}: is set by a YAML file, but has no effect: {_why(key)}")


def _why(key: str) -> str | None:
    return next((why for form, why in _REFUSED.items() if re.fullmatch(form, key)), None)


def _of_the_sweeper(override: str) -> str:
    found = re.match(r"[+~]*hydra\.sweeper\.params\.?(.*)", override, re.DOTALL)
    typed = found[1] if found and re.match(r"[^=]+=", found[1]) else "<key>=<value>,<value>"
    return f"is not read here; write -m {typed}"
