"""How a phase learns: solvers train the part of a network behind the cut, an epoch at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from tlx.config.schema import Training
from tlx.core.device import autocast, training_precision
from tlx.core.seeding import seed_all
from tlx.distributed import process_group
from tlx.distributed.data_parallel import share, shared_statistics, sum_gradients
from tlx.features.batches import balanced, shuffled
from tlx.features.frozen_forward import as_input
from tlx.losses import cross_entropy
from tlx.training.averaging import averaging_for
from tlx.training.cuda_graphs import Gradients, recorder_for
from tlx.training.depthwise_precision import depthwise_in_fp32
from tlx.training.head_grid import heads
from tlx.training.nearest_neighbours import knn
from tlx.training.optimizers import go_on, optimizer_for, schedule_for
from tlx.training.phase_plan import groups
from tlx.training.probe_solvers import linear_probe
from tlx.training.solver_context import SolverContext, Trained
from tlx.training.weight_ties import LowRank, Tie, TowardsStart
from tlx.training.weighted_loss import Loss, class_weights, loss_for

__all__ = ["backward", "heads", "knn", "l2_sp", "linear_probe", "lora", "micro_batches", "sgd"]

_TIE, _AVERAGE = "tie", "average"  # in a checkpoint's state of the optimizer


def sgd(context: SolverContext) -> Iterator[Trained]:
    """Minibatch gradient descent on the loss of the context, by any torch optimizer.

    The part that learns is trained in the format that it profits from, at most in the precision of the context.
    """
    return _descent(context, None)


def lora(context: SolverContext, rank: int = 8, scale: float = 1.0) -> Iterator[Trained]:
    """As `sgd`, but the weights before the head change by a matrix of low rank: see `weight_ties.LowRank`.

    Args:
        context: of a phase that trains weights of linear layers and convolutions (`learns: [matrix]`).
        rank: of the change of each weight.
        scale: by what the product of the factors is multiplied, alpha / rank in the paper.
    """
    return _descent(context, partial(LowRank, rank=rank, scale=scale, seed=context.seed))


def l2_sp(context: SolverContext, strength: float = 0.1, on_head: float = 0.01) -> Iterator[Trained]:
    """As `sgd`, with a penalty on the distance from the weights of the phase's start: see `weight_ties.TowardsStart`.

    Args:
        context: of a phase that trains pretrained stages.
        strength: `strength ÷ 2 · |weights - start|²` is added to the loss.
        on_head: and `on_head ÷ 2 · |weights|²` of the new head.
    """
    return _descent(context, partial(TowardsStart, strength=strength, on_head=on_head))


def _descent(context: SolverContext, tied: Callable[..., Tie] | None) -> Iterator[Trained]:
    net, plan, fit, phase, training = context.net, context.plan, context.fit, context.phase, context.training
    epochs, batch_size, peak = cast(int, phase.epochs), cast(int, phase.batch_size), cast(float, phase.lr)
    state, progress, tail, device = context.state, context.progress, context.tail, fit.y.device
    known, of_weights = state.optimizer_state, groups(net, plan, phase.optimizer.get("weight_decay", 0.0))
    names = {parameter: name for name, parameter in net.named_parameters()}
    average = averaging_for(net, plan, training, epochs, (known or {}).get(_AVERAGE))
    tie = tied(of_weights, names, (known or {}).get(_TIE)) if tied is not None else None
    optimizer = optimizer_for(phase.optimizer, tie.groups() if tie is not None else of_weights)
    if tie is not None:
        optimizer.register_state_dict_post_hook(lambda _, found: {**found, _TIE: tie.tensors()})
    if average is not None:
        optimizer.register_state_dict_post_hook(lambda _, found: {**found, _AVERAGE: average.tensors()})
    factor = schedule_for(phase.schedule)
    rates = [group["lr"] for group in optimizer.param_groups]
    precision = training_precision(tail, device, context.precision)
    weight = class_weights(fit.y, training.class_weights)
    learning = [p for p in net.parameters() if p.requires_grad]
    if known is not None:
        go_on(optimizer, {name: value for name, value in known.items() if name not in (_TIE, _AVERAGE)})
    state.optimizer, state.optimizer_state = optimizer, None
    recorder = recorder_for(device, (context.epochs - state.within) * math.ceil(len(fit.y) / batch_size))
    loss_of = loss_for(context.loss, training, fit.y)
    compute = partial(backward, tail, weight=weight, training=training, precision=precision, loss_of=loss_of)
    changed = learning if tie is None else [p for group in optimizer.param_groups for p in group["params"]]
    order_of = _ORDERS[training.sampler]
    labels = fit.y.cpu()
    gradients = Gradients(compute, tail, learning, recorder)
    for epoch in range(state.within, context.epochs):
        order = order_of(labels, batch_size, torch.Generator().manual_seed(torch.initial_seed()))
        if process_group.rank():
            seed_all(context.seed, plan.phase, epoch, process_group.rank())  # dropout of its own
        progress.batches = len(order)
        total, lr = torch.zeros((), device=device), 0.0
        shares = [share(index, micro_batches(len(index), training.accumulate)) for index in order]
        # A rank with no row of a batch requests one, and takes none of it: it takes part in what all ranks do.
        requested = [mine if len(mine) else index[:1] for index, (mine, _) in zip(order, shares, strict=True)]
        for step, (x, y) in enumerate(fit.batches(requested, state.epoch)):
            index, (mine, sizes) = order[step], shares[step]
            scale = factor(epoch + step / len(order), epochs)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            lr = peak * scale
            whole = fit.y[index.to(device)] if process_group.count() > 1 else y
            loss = gradients(x[: len(mine)], y[: len(mine)], sizes=sizes, whole=whole)
            loss = sum_gradients(learning, loss)
            if tie is not None:
                tie.gradients()
            if training.clip_norm is not None:
                nn.utils.clip_grad_norm_(changed, training.clip_norm)
            optimizer.step()
            if tie is not None:
                tie.weights()
            if average is not None:
                average.step()
            total += loss * len(index)
            progress.step(step + 1, loss)
        # Fused optimizers do not count the changes they make in place; a fingerprint of the features does.
        torch.autograd.graph.increment_version(learning)
        train_loss = float(total) / len(fit.y)  # waits for the device
        if average is not None:
            average.epoch(epoch)
            again = zip(fit.batches(requested, state.epoch), shares, strict=True)
            average.into(tail, (x[: len(mine)] for (x, _), (mine, _) in again), precision)
        yield Trained(train_loss, lr)
        if average is not None:
            average.out()


def _shuffled(y: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    return shuffled(len(y), batch_size, generator)


_ORDERS: dict[str | None, Callable[[Tensor, int, torch.Generator], list[Tensor]]] = {
    None: _shuffled,
    "balanced": balanced,
}


def backward(
    tail: nn.Module,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    training: Training,
    precision: str,
    *,
    sizes: Sequence[int] | None = None,
    whole: Tensor | None = None,
    loss_of: Loss | None = None,
) -> Tensor:
    """Adds the gradient of the batch's mean loss, and gives that loss (0-d, not synchronised).

    In `training.accumulate` micro-batches, whose losses are summed and divided by the whole batch's weight: the mean of
    micro-batch means would weigh an image by the size of its micro-batch.

    Args:
        sizes: of the micro-batches in `x`; None: as `training` says.
        whole: the labels of the whole batch, where `x` is a rank's share of it: then gradient and loss are those of the
            share, and the sum of all shares is that of the batch.
        loss_of: the sum of some images' losses, each with the weight of its class; None: cross-entropy.
    """
    loss_of = loss_of or partial(cross_entropy, weight=weight, smoothing=training.label_smoothing)
    whole = y if whole is None else whole
    # Mixing exchanges images within a batch: the sum of the weights is that of the labels before.
    weights = None if weight is None else weight[whole] if whole.ndim == 1 else whole @ weight
    divisor = len(whole) if weights is None else weights.sum()
    total = torch.zeros((), device=y.device)
    sizes = share(torch.arange(len(y)), micro_batches(len(y), training.accumulate))[1] if sizes is None else sizes
    with shared_statistics(tail) as always:
        for some_x, some_y in zip(torch.split(x, list(sizes)), torch.split(y, list(sizes)), strict=True):
            if not len(some_y) and not always:
                continue
            with autocast(y.device, precision), depthwise_in_fp32(y.device, precision):
                logits = tail(as_input(some_x, precision))
            loss = loss_of(logits.float(), some_y)
            torch.autograd.backward(loss / divisor)
            total += loss.detach() / divisor
    return total


def micro_batches(n: int, accumulate: int) -> int:
    """In how many a batch of n images is computed: none has one image only, which BatchNorm refuses."""
    return max(1, min(accumulate, n // 2))
