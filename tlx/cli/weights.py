"""`python -m tlx weights`: what each backbone needs, whether it is here and where it comes from; `fetch` gets it."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlx.backbones.huggingface import portable_name
from tlx.backbones.pretrained_weights import locate, needed
from tlx.backbones.weight_sources import torch_cache
from tlx.cli import catalog
from tlx.config.schema import Backbone, Config
from tlx.config.value_types import refused
from tlx.core.disk_size import size
from tlx.core.errors import RequestError

ACTIONS = ("fetch",)


def weights(request: catalog.Request, to: str | None = None, config_dir: str | None = None) -> int:
    """Prints the list of backbones and their files, or fetches the files of the backbones that are requested.

    `to`: a folder to put them in, to carry them to another machine; `config_dir`: a folder with YAML of the user's own.

    Returns:
        0.

    Raises:
        RequestError: no such backbone, a file that cannot be had or written; the other files are fetched first.
    """
    if not request.action:
        return _list(config_dir)
    configs = {name: catalog.config_of([f"backbone={name}", *request.overrides], config_dir) for name in request.names}
    failed: list[RequestError] = []
    for name, config in configs.items():  # what can be had is fetched, whatever else cannot
        try:
            _fetch(name, config, request.overrides, to)
        except RequestError as error:
            failed.append(error)
    for before in failed[:-1]:
        print(f"tlx: {before}", file=sys.stderr)
    if failed:
        raise failed[-1]
    return 0


def _list(config_dir: str | None) -> int:
    catalog.show_all("backbone", config_dir, _row)
    print(f"\nfetched to {torch_cache()} (TORCH_HOME) and the Hugging Face cache (HF_HOME); checked when used")
    return 0


def _row(choice: str, keys: dict[str, Any]) -> list[str]:
    try:
        backbone = OmegaConf.merge(OmegaConf.structured(Backbone), keys)
    except OmegaConfBaseException as error:
        raise RequestError(refused(error, "backbone.")) from error
    licence = f"licence: {backbone.licence}"
    if backbone.weights == "none":
        return ["needs no file: starts from random weights", licence]
    if OmegaConf.is_missing(backbone, "name"):
        return [f"the file depends on the model: python -m tlx weights fetch {choice} backbone.name=…", licence]
    found = needed(backbone)
    assert found is not None
    if found.here is None:
        return [f"{found.file}: not here; from {', or '.join(found.sources)}", licence]
    return [f"{found.file}, {size(found.here.stat().st_size)}: {found.here}", licence]


def _fetch(choice: str, config: Config, overrides: tuple[str, ...], to: str | None) -> None:
    path = locate(config.backbone, offline=config.runtime.offline)
    if path is None:
        print(f"{choice}: needs no file")
        return
    if to is None:
        print(f"{choice}: {path}")
        return
    target = Path(os.path.expanduser(to)) / portable_name(path)
    catalog.put(path, target, to)
    command = shlex.join(["python", "-m", "tlx", f"backbone={choice}", *overrides, f"backbone.weights={target.name}"])
    print(f"{choice}: {target}\n  on the other machine: {command}")
    if target.name == path.name:
        print(f"  or put it into TORCH_HOME/hub/checkpoints there, where backbone={choice} finds it")


SUBCOMMAND = catalog.subcommand(
    "weights", "list the weights that backbones need, and fetch them", "backbones", ACTIONS, weights
)
