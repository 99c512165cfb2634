"""Where pretrained weights come from: a file, an earlier run, a cache, an installed package, a download; checked.

Imports no torch, so that weights which cannot be had are reported at once.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from tlx.backbones.huggingface import guessed, mirror, timm_source
from tlx.backbones.weight_sources import PackageFile, Place, WebFile, file_name, torch_cache
from tlx.core.errors import RequestError, nearest, reason
from tlx.core.http_download import intact, probe
from tlx.core.safe_archive import Refused

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Needed", "locate", "needed", "official", "read", "would_download"]

log = logging.getLogger(__name__)


class Wanted(Protocol):
    """What is read of `config.Backbone`."""

    name: str
    weights: str
    url: str | None


@dataclass(frozen=True)
class Needed:
    """A file that a backbone needs.

    `here`: where it is, found by its name alone and not checked. `sources`: where it would come from, best first.
    """

    file: str
    here: Path | None
    sources: tuple[str, ...]


def locate(cfg: Wanted, *, offline: bool = False) -> Path | None:
    """The file of `cfg`'s weights, fetched if need be; None for `weights=none`.

    An explicit file or an earlier run's folder; else, for `weights=imagenet`, what is in torch's (TORCH_HOME) and the
    Hugging Face cache (HF_HOME), or in an installed package; else it is fetched. `cfg.url` says from where:
    `package://module/path`, `hub://timm` (what timm names for `cfg.name`), or a web address, for which the hub's copy
    of the same weights stands in where there is one. A file whose name has the first digits of its sha256, or that the
    hub's cache keeps by its sha256, is checked each time. `offline` never touches the network.

    Raises:
        RequestError: the file is not there and cannot be had; says which file, from where, and where to put it.
    """
    if cfg.weights == "none":
        return None
    if cfg.weights != "imagenet":
        return _given(cfg)
    places = _places(cfg)
    for path in (path for place in places for path in place.found()):
        if intact(path):
            return path
        log.warning("%s is damaged (its sha256 is not the one in its name): it is not used", path)
    urls = [url for place in places for url in place.urls]
    responses = probe(urls) if urls and not offline else {}
    reasons: list[str] = []
    for place in places:
        try:
            if offline and place.urls:
                raise Refused("runtime.offline=true")
            return place.fetch(responses)
        except Refused as refused:
            reasons.append(f"{place.label}: {refused}" if reasons and not offline else str(refused))
        except OSError as error:
            target = torch_cache() / place.file
            raise RequestError(
                f"{target}: cannot be written ({reason(error)}); TORCH_HOME names another folder"
            ) from error
    first = places[0]
    raise RequestError(
        f"backbone.weights=imagenet: {first.label} is not here and cannot be "
        f"fetched ({'; '.join(dict.fromkeys(reasons))}): get {first.urls[0]} and {first.remedy}, "
        "or give its path as backbone.weights; backbone=efficientnet_lite0 needs no download"
    )


def needed(cfg: Wanted) -> Needed | None:
    """What a run with `cfg` needs, as far as it is known without a network, a checksum or timm; None for nothing."""
    if cfg.weights == "none":
        return None
    if cfg.weights != "imagenet":
        path = _given(cfg)
        return Needed(path.name, path, ())
    places: Sequence[Place] = guessed(cfg.name) if (cfg.url or "").startswith("hub:") else _places(cfg)
    here = next((path for place in places for path in place.found()), None)
    return Needed(places[0].file, here, tuple(place.source for place in places))


def would_download(cfg: Wanted) -> str | None:
    """What a run with `cfg` would fetch, from where to where, in one line; None for nothing. Asks no network."""
    places = _places(cfg) if cfg.weights == "imagenet" else ()
    if any(intact(path) for place in places for path in place.found()):
        return None
    return next((str(place) for place in places if place.urls), None)


def read(path: Path) -> "dict[str, Tensor]":
    """The tensors of a file by name, for no network in particular; see `state_dicts.read`.

    Raises:
        RequestError: the file is damaged or holds something else.
    """
    from tlx.backbones import state_dicts  # imports torch

    return state_dicts.read(path)


def official(cfg: Wanted, path: Path) -> bool:
    """Whether a file has the name of `cfg`'s published weights: digits in any other name may mean something else."""
    return cfg.url is not None and path.name == file_name(cfg.url)


def _given(cfg: Wanted) -> Path:
    path = Path(os.path.expanduser(cfg.weights))
    for candidate in (path, path / "model" / "model.safetensors", path / "model.safetensors"):
        if candidate.is_file():
            if official(cfg, candidate) and not intact(candidate):
                raise RequestError(
                    f"backbone.weights={cfg.weights}: not the published file (its sha256 is not the one in "
                    "its name): get it again, or give it a name of its own"
                )
            return candidate
    if path.is_dir():
        raise RequestError(
            f"backbone.weights={cfg.weights}: not a finished run's folder (no model/model.safetensors in it)"
        )
    hint = nearest(cfg.weights, ["imagenet", "none"])
    raise RequestError(f"backbone.weights={cfg.weights}: no such file{hint}; imagenet, none, a file or a run's folder")


def _places(cfg: Wanted) -> tuple[Place, ...]:
    """Where the imagenet weights may be had, best first."""
    if cfg.url is None:
        raise RequestError(
            f"backbone.weights=imagenet: no ImageNet weights are known for {cfg.name} (backbone.url=null); "
            "take backbone.weights=none or a file"
        )
    url = urlsplit(cfg.url)
    if url.scheme == "package":
        return (PackageFile(url.netloc, url.path.strip("/")),)
    if url.scheme == "hub":
        source = timm_source(cfg.name)
        return (WebFile(source) if isinstance(source, str) else source,)
    if url.scheme in ("http", "https") and file_name(cfg.url):
        copy = mirror(file_name(cfg.url))
        return (WebFile(cfg.url), copy) if copy else (WebFile(cfg.url),)
    raise RequestError(f"backbone.url={cfg.url}: must be https://…, package://<module>/<path> or hub://timm")
