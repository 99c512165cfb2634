"""The stages of a model of timm: a chain of modules, or traced, or none; and where its last layer is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlx.backbones.stage_discovery import discover
from tlx.backbones.traced_stages import retraced, traced
from tlx.config.schema import Backbone
from tlx.core.errors import RequestError, reason

__all__ = ["OtherStages", "Traced", "stages_again", "stages_of"]


@dataclass(frozen=True)
class Traced:
    """What tracing found at another time: the stages before the head, and where the last layer is, or comes."""

    stages: tuple[str, ...]
    last: str


class OtherStages(Exception):
    """Tracing does not find what it found at another time."""


# What layers raise that are given maps of another size, and a network that is no classifier of everything.
UNFIT = (RuntimeError, ValueError, IndexError, AssertionError, AttributeError, TypeError)
Parts = Mapping[str, nn.Sequential]


def stages_of(model: Any, cfg: Backbone, size: int) -> tuple[dict[str, list[str]] | None, Parts | None, str | None]:
    """The stage table, or the traced stages, or neither; and the path of the last layer, None where it has none.

    `size`: pixels of a side. The last layer goes where without it the model does not give features [N, D].

    Raises:
        RequestError: the model cannot be run so, or gives no features.
    """
    sample = _sample(size)
    stages = parts = None
    path = model.pretrained_cfg.get("classifier")
    path = path if isinstance(path, str) and path in dict(model.named_modules()) else None
    try:
        stages = discover(model, sample[:2], path) if path else None
        if stages is None:
            parts = traced(model, sample, path) if path else None
        if stages is None and parts is None:
            path = _pooled(model, sample[:2], path)
            parts = traced(model, sample, None) if path is None else None
    except UNFIT as error:
        own_size = model.pretrained_cfg["input_size"][-1]
        if cfg.arguments:
            given = f"backbone.arguments={cfg.arguments}"
            raise RequestError(
                f"{given}: {cfg.name} cannot be used so ({reason(error)}), with images of {size} pixels"
            ) from error
        if size == own_size:
            raise RequestError(f"backbone.name={cfg.name}: {reason(error)}") from error
        raise RequestError(
            f"backbone.input_size={size}: {cfg.name} cannot take it ({reason(error)}); its own is {own_size}"
        ) from error
    return stages, parts, path


def stages_again(model: Any, size: int, known: Traced) -> tuple[Parts, str | None]:
    """The traced stages of a model that was traced before, and the path of the last layer; nothing is searched.

    Raises:
        OtherStages: they are others than `known`.
    """
    parts, path = None, known.last if isinstance(dict(model.named_modules()).get(known.last), nn.Linear) else None
    try:
        if path is not None:
            parts = retraced(model, _sample(size), path, known.stages)
        if parts is None:  # its last layer was taken off; the new one has the name of one that it had
            path = None
            model.reset_classifier(0)
            parts = retraced(model, _sample(size), None, known.stages)
    except UNFIT as error:
        raise OtherStages from error
    if parts is None:
        raise OtherStages
    return parts, path


def _sample(size: int) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def _pooled(model: nn.Module, sample: Tensor, path: str | None) -> str | None:
    """Where the last layer is, if without it the model gives features [N, D]; else it is taken off in timm's way."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if path is not None and isinstance(model.get_submodule(path), nn.Linear):
                expected = model(sample)
                seen: list[Tensor] = []
                handle = model.get_submodule(path).register_forward_hook(lambda _m, _a, output: seen.append(output))
                try:
                    model(sample)
                finally:
                    handle.remove()
                if len(seen) == 1 and seen[0].ndim == 2 and torch.equal(seen[0], expected):
                    return path
            model.reset_classifier(0)  # type: ignore[operator]
            features = model(sample)
    finally:
        model.train(training)
    if features.ndim != 2:
        raise RequestError(
            f"backbone.name: {type(model).__name__} gives features of the shape {list(features.shape)}, not [N, D]"
        )
    return None
