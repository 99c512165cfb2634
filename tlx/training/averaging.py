"""Averages of weights: they are what is validated, chosen and saved; training goes on with the weights themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from tlx.config.schema import Training
from tlx.core.device import autocast
from tlx.distributed.data_parallel import shared_statistics
from tlx.features.frozen_forward import as_input
from tlx.training.phase_plan import Plan

_COUNT = "count"  # in a checkpoint, beside the tensors


class Averaging:
    """The average of the weights that learn in a phase; of what is frozen there is none, it stays as it is.

    `training.ema`: an exponential moving average over the steps (Polyak and Juditsky 1992). In step n it takes 1 - d of
    the weights, d = min(ema, (1 + n) / (10 + n)): the first steps are soon forgotten, also where a phase is short.
    `training.average_last`: the mean of the weights after each of the last epochs (SWA, Izmailov et al. 2018,
    https://arxiv.org/abs/1803.05407); until then the weights as they are.

    Statistics of BatchNorms that adapt are those of the averaged weights: between two epochs they are measured anew on
    the training images, as `torch.optim.swa_utils.update_bn` does.
    """

    def __init__(
        self, net: nn.Sequential, plan: Plan, training: Training, epochs: int, known: Mapping[str, Any] | None
    ) -> None:
        """`epochs`: of the phase. `known`: `tensors` of a checkpoint, whose network has the averages."""
        learning, modules = set(plan.learning), dict(net.named_modules())
        self._weights = {name: p for name, p in net.named_parameters() if name in learning}
        self._norms = [norm for name in plan.adapting if isinstance(norm := modules[name], _BatchNorm)]
        self._statistics = {f"{name}.{n}": b for name in plan.adapting for n, b in modules[name].named_buffers()}
        self._decay, self._from = training.ema, epochs - (training.average_last or 0)
        self._averages = [p.detach().clone() for p in self._weights.values()]
        self._count = int(known[_COUNT]) if known else 0
        self._own: dict[str, Tensor] = {}  # weights and statistics of training, while the network has the averages
        if known:
            self._own = {name: tensor for name, tensor in known.items() if name != _COUNT}
            self.out()

    def step(self) -> None:
        """After a step of the optimizer."""
        if self._decay is not None:
            decay = min(self._decay, (1 + self._count) / (10 + self._count))
            self._add(get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    def epoch(self, number: int) -> None:
        """After an epoch, from 0, of the phase."""
        if self._decay is None and number >= self._from:
            self._add(get_swa_multi_avg_fn())  # type: ignore[no-untyped-call]

    def into(self, tail: nn.Module, batches: Iterable[Tensor], precision: str) -> None:
        """Puts the averages into the network, and measures the statistics on `batches` of what `tail` takes.

        `out` must follow before training goes on.
        """
        if not self._count:
            return
        moving = {**self._weights, **self._statistics}
        self._own = {name: tensor.detach().clone() for name, tensor in moving.items()}
        with torch.no_grad():
            for weight, average in zip(self._weights.values(), self._averages, strict=True):
                weight.copy_(average)
        if self._norms:
            self._measure(tail, batches, precision)

    def out(self) -> None:
        """Puts the weights and statistics of training back."""
        moving = {**self._weights, **self._statistics}
        with torch.no_grad():
            for name, tensor in self._own.items():
                moving[name].copy_(tensor)
        self._own = {}

    def tensors(self) -> dict[str, Any]:
        """What a checkpoint holds between two epochs, beside the network."""
        return {_COUNT: self._count, **self._own}

    def _add(self, average: Any) -> None:
        weights = [p.detach() for p in self._weights.values()]
        if self._count:
            average(self._averages, weights, self._count)
        else:
            for mean, weight in zip(self._averages, weights, strict=True):
                mean.copy_(weight)
        self._count += 1

    def _measure(self, tail: nn.Module, batches: Iterable[Tensor], precision: str) -> None:
        momenta = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over the batches
        with torch.no_grad(), shared_statistics(tail) as always:
            for x in batches:
                if len(x) or always:
                    with autocast(x.device, precision):
                        tail(as_input(x, precision))
        for norm, momentum in zip(self._norms, momenta, strict=True):
            norm.momentum = momentum


def averaging_for(
    net: nn.Sequential, plan: Plan, training: Training, epochs: int, known: Mapping[str, Any] | None
) -> Averaging | None:
    """The averaging that `training` requests; None where it requests none."""
    wanted = training.ema is not None or training.average_last is not None
    return Averaging(net, plan, training, epochs, known) if wanted else None
