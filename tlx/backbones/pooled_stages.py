"""Features of several stages together, as one vector (Head2Toe, Evci et al. 2022; DINOv2's linear evaluation)."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tlx.backbones.staged_network import Net
from tlx.core.errors import RequestError, nearest

ALL = "all"  # in place of names: every stage before the head


class PooledStages(nn.Sequential):
    """Stages one after the other → [N, ΣD]: what the chosen ones give, averaged over places or tokens."""

    def __init__(self, stages: Mapping[str, nn.Module], chosen: Collection[str]) -> None:
        super().__init__(OrderedDict(stages))
        self.chosen = frozenset(chosen)

    def extra_repr(self) -> str:
        """The names of the chosen stages: two networks with other ones are not the same."""
        return f"of {', '.join(name for name in self._modules if name in self.chosen)}"

    def forward(self, x: Tensor) -> Tensor:
        """The network's input → [N, ΣD]."""
        found = []
        for name, stage in self.named_children():
            x = stage(x)
            if name in self.chosen:
                found.append(_pooled(x))
        return torch.cat(found, 1)


def with_pooled(net: Net, chosen: Sequence[str]) -> Net:
    """`net` with the stages before its head as one, `body`, that gives the pooled features of the chosen ones.

    Raises:
        RequestError: no such stage.
    """
    stages = dict(net.named_children())
    head = stages.pop("head")
    for name in chosen:
        if name not in stages and name != ALL:
            raise RequestError(
                f"head.stages: {name} is no stage before the head{nearest(name, stages)}; {', '.join(stages)}, or all"
            )
    body = PooledStages(stages, stages if ALL in chosen else chosen)
    paths = {
        prefix if prefix.startswith("head.") else f"body.0.{prefix}": original
        for prefix, original in net.layout.paths.items()
    }
    merged = {"body": nn.Sequential(body), "head": head}
    return Net(merged, replace(net.layout, paths=paths, classifier="head", merged=True))


def _pooled(x: Tensor) -> Tensor:
    return x.flatten(2).mean(2) if x.ndim > 3 else x.mean(1) if x.ndim == 3 else x
