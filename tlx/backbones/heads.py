"""New last layers for a network of stages."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from tlx.backbones.neighbours_head import NeighbourVote
from tlx.backbones.staged_network import Net, free_name
from tlx.core.errors import RequestError

__all__ = ["replace_head"]


def replace_head(
    net: Net,
    classes: int,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    append: bool = False,
    sample: Tensor | None = None,
    references: int = 0,
) -> None:
    """Gives `net` a new head, drawn from torch's global generator: [N, D] → [N, classes].

    `hidden`: widths of the layers before the last, each followed by ReLU and `dropout` (0..1); without any, `dropout`
    comes before the last layer. `references`: it has no layers, and keeps so many images. `append`: the network's own
    last layer stays, as the stage `logits`, and the head comes after it. `sample`: an input of the network, needed
    where it has no fully-connected last layer.

    Raises:
        RequestError: `append` where there is no fully-connected last layer.
    """
    layers = [m for m in net[-1].modules() if any(True for _ in m.parameters(recurse=False))]
    if append:
        width = _keep_last(net, layers)
    elif layers and isinstance(layers[0], nn.Linear) and not net.layout.merged:
        width = layers[0].in_features
    else:
        width = _pooled_width(net, layers, sample)
    device = next(net.parameters()).device
    widths = [width, *hidden]
    new: list[nn.Module] = []
    for before, after in pairwise(widths):
        new += [nn.Linear(before, after, device=device), nn.ReLU(), nn.Dropout(dropout)]
    if dropout and not hidden:
        new.append(nn.Dropout(dropout))
    if references:
        new.append(NeighbourVote(widths[-1], classes, references, device))
    else:
        new.append(nn.Linear(widths[-1], classes, device=device))
    net.add_module("head", nn.Sequential(*new))
    # A single layer takes the original's keys; of several, each has its number behind them (`fc.0.weight`).
    paths = {prefix: original for prefix, original in net.layout.paths.items() if not prefix.startswith("head.")}
    paths["head." if hidden else f"head.{len(new) - 1}."] = f"{net.layout.last}."
    net.layout = replace(net.layout, paths=paths)


def _keep_last(net: Net, layers: Sequence[nn.Module]) -> int:
    """Renames the last stage `logits` and puts an empty `head` behind it; the width of what it gives."""
    last = layers[-1] if layers else None
    stages = dict(net.named_children())
    if not isinstance(last, nn.Linear) or "logits" in stages:
        raise RequestError(
            "head=append: this backbone has no fully-connected last layer to keep; take head=linear or mlp"
        )
    free = free_name("head", net.original_state())
    net.add_module("logits", stages["head"])
    net._modules["head"] = net._modules.pop("head")  # behind it
    layout = net.layout
    net.layout = replace(
        layout,
        paths={re.sub(r"^head\.", "logits.", prefix): original for prefix, original in layout.paths.items()},
        last=free,
        classifier="logits" if layout.classifier == "head" else layout.classifier,
        pointwise=False,
    )
    return last.out_features


def _pooled_width(net: Net, layers: Sequence[nn.Module], sample: Tensor | None) -> int:
    """D of the features [N, D] before the head; maps [N, D, H, W] get their pooling at the end of the stage before."""
    if sample is None:
        raise RequestError(
            "head: this backbone has no fully-connected last layer, so the width of its features is unknown"
        )
    body = net[:-1]
    training = [module for module in body.modules() if module.training]
    with torch.no_grad():
        features = body.eval()(sample)
    for module in training:
        module.training = True
    if features.ndim == 4:
        net[-2].append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten(1))
    elif features.ndim != 2:
        raise RequestError(f"head: this backbone's features have the shape {list(features.shape)}, not [N, D]")
    pointwise = bool(layers) and isinstance(layers[-1], nn.Conv2d)
    net.layout = replace(net.layout, pointwise=net.layout.pointwise or pointwise)
    return int(features.shape[1])
