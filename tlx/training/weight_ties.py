"""What ties learning weights to those that they had when their phase began: a low rank of the change, or a penalty."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

Group = dict[str, Any]  # of an optimizer: `params`, with `lr` and `weight_decay`


class Tie(Protocol):
    """Stands between the gradients of weights and an optimizer."""

    def groups(self) -> list[Group]:
        """What the optimizer changes."""

    def gradients(self) -> None:
        """After the weights have their gradients: gives them to what the optimizer changes."""

    def weights(self) -> None:
        """After a step of the optimizer: makes the weights of what it has changed."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it beside the optimizer's state."""


class LowRank:
    """LoRA (Hu et al. 2022, https://arxiv.org/abs/2106.09685): a weight is what it was, plus a product of two factors.

    The weights in the network are always the sums, so that whatever is saved or measured of it has the original's keys
    and needs no merging. Convolutions are taken as matrices [out, in · height · width]. A weight that is smaller than
    its factors, as of a depthwise convolution, learns as it is.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        names: Mapping[Tensor, str],
        known: Mapping[str, Tensor] | None,
        *,
        rank: int,
        scale: float,
        seed: int,
    ) -> None:
        """`names`: of the weights. `known`: `tensors` of a checkpoint. `seed`: of the factors' first values."""
        if rank < 1 or scale <= 0:
            raise ValueError("rank must be at least 1, and scale above 0")
        self._scale, self._given, self._names = scale, groups, names
        self._parts = dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]()  # weight, start, inner and outer factor
        draw = torch.Generator().manual_seed(seed)
        for group in groups:
            for weight in group["params"]:
                name = names[weight]
                rows, columns = weight.flatten(1).shape if weight.ndim > 1 else (len(weight), 1)
                if name.startswith("head.") or rank * (rows + columns) >= rows * columns:
                    continue
                found = known or {
                    f"{name}/start": weight.detach(),
                    # As a linear layer is initialised; the other factor is 0, so that nothing has changed yet.
                    f"{name}/in": (torch.rand(rank, columns, generator=draw) * 2 - 1) / columns**0.5,
                    f"{name}/out": torch.zeros(rows, rank),
                }
                start, inner, outer = (found[f"{name}/{part}"].to(weight, copy=True) for part in ("start", "in", "out"))
                self._parts[name] = weight, start, inner.requires_grad_(), outer.requires_grad_()

    def groups(self) -> list[Group]:
        """The factors in place of their weights."""
        found = []
        for group in self._given:
            params = list[Tensor]()
            for weight in group["params"]:
                name = self._names[weight]
                params += self._parts[name][2:] if name in self._parts else [weight]
            found.append({**group, "params": params})
        return found

    def gradients(self) -> None:
        """By the chain rule."""
        for weight, _, inner, outer in self._parts.values():
            assert weight.grad is not None
            slope = weight.grad.flatten(1) * self._scale
            inner.grad, outer.grad = outer.detach().T @ slope, slope @ inner.detach().T

    def weights(self) -> None:
        """The starting weights plus the products."""
        with torch.no_grad():
            for weight, start, inner, outer in self._parts.values():
                weight.copy_(start + self._scale * (outer @ inner).view(weight.shape))

    def tensors(self) -> dict[str, Tensor]:
        """The starting weights and the factors."""
        found = dict[str, Tensor]()
        for name, (_, *parts) in self._parts.items():
            found |= {f"{name}/{part}": t.detach() for part, t in zip(("start", "in", "out"), parts, strict=True)}
        return found


class TowardsStart:
    """L2-SP (Li et al. 2018, https://arxiv.org/abs/1802.01483): a penalty on the distance from the starting weights.

    The new head has none, and is drawn to 0.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        names: Mapping[Tensor, str],
        known: Mapping[str, Tensor] | None,
        *,
        strength: float,
        on_head: float,
    ) -> None:
        """The penalty is `strength ÷ 2 · |weights - start|²`, of the head `on_head ÷ 2 · |weights|²`."""
        if min(strength, on_head) < 0:
            raise ValueError("strength and on_head must be at least 0")
        self._given, self._strength, self._on_head = groups, strength, on_head
        self._of = {names[p]: p for group in groups for p in group["params"]}
        tied = (n for n in self._of if not n.startswith("head."))
        self._start = {n: (known[n] if known else self._of[n].detach()).to(self._of[n], copy=True) for n in tied}

    def groups(self) -> list[Group]:
        """The weights."""
        return list(self._given)

    def gradients(self) -> None:
        """Adds that of the penalty."""
        for name, weight in self._of.items():
            assert weight.grad is not None
            if name in self._start:
                weight.grad.add_(weight.detach() - self._start[name], alpha=self._strength)
            else:
                weight.grad.add_(weight.detach(), alpha=self._on_head)

    def weights(self) -> None:
        """They are what the optimizer changes."""

    def tensors(self) -> dict[str, Tensor]:
        """The starting weights."""
        return self._start
