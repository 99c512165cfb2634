"""Many new layers on one pass over the rows: learning rates × weight decays × seeds, trained together."""

import logging
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tlx.features.batches import shuffled
from tlx.training.probe_solvers import layer_of, one_linear_layer
from tlx.training.solver_context import SolverContext, Trained, checked_by
from tlx.training.weighted_loss import class_weights

log = logging.getLogger("tlx")

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
DECAYS = (0.0, 1e-3, 1e-2, 1e-1)
BETAS, TINY = (0.9, 0.999), 1e-8  # of Adam


@checked_by(one_linear_layer)
def heads(
    context: SolverContext,
    rates: Sequence[float] = RATES,
    decays: Sequence[float] = DECAYS,
    seeds: int = 2,
    passes: int = 10,
) -> Iterator[Trained]:
    """Linear layers by AdamW (Loshchilov and Hutter 2019), trained as one problem; an epoch for each of them.

    A batch's rows are read once for all. Layers of one seed begin with the same weights, and all see the same batches.
    Each is what `sgd` with `optimizer=adamw` makes of its rate and decay, up to the order of the batches and rounding.

    Args:
        context: of a phase that trains one linear layer; of as many epochs as there are layers, else fewer are trained.
        rates: learning rates.
        decays: weight decays, of the weights alone.
        seeds: of the first weights, how many; from the run's seed on.
        passes: over the training images.
    """
    grid = [(rate, decay, seed) for seed in range(seeds) for decay in decays for rate in rates]
    if (planned := context.phase.epochs or 0) < len(grid):
        key = f"strategy.phases.{context.plan.phase}.epochs"
        log.warning("%s=%d: the first %d of %d layers are trained", key, planned, planned, len(grid))
    layer = layer_of(context)
    # A run that goes on trains them once more, to the same bits: that takes less time than keeping them.
    weights, losses = _trained(context, layer, grid[: context.epochs], passes)
    for number in range(context.state.within, min(context.epochs, len(grid))):
        rate, decay, seed = grid[number]
        with torch.no_grad():
            layer.weight.copy_(weights[1:, number].T)
            layer.bias.copy_(weights[0, number])
        yield Trained(float(losses[number]), rate, {"weight_decay": decay, "head_seed": seed})


@torch.no_grad()
def _trained(
    context: SolverContext, layer: nn.Linear, grid: Sequence[tuple[float, float, int]], passes: int
) -> tuple[Tensor, Tensor]:
    """The layers, [1 + D, H, classes], biases first, and their mean losses in the last pass, [H]."""
    y, size, progress = context.fit.y, cast(int, context.phase.batch_size), context.progress
    classes, count = layer.out_features, len(grid)
    begun = {seed: _drawn(layer, context.seed + seed) for *_, seed in grid}
    # Two dimensions, [1 + D, H · classes]: with the classes apart, the operations on single numbers are slow.
    weights = torch.stack([begun[seed] for *_, seed in grid], 1).flatten(1).to(y.device)
    rates = weights.new_tensor([rate for rate, *_ in grid]).repeat_interleave(classes)
    kept = 1 - weights.new_tensor([decay for _, decay, _ in grid]).repeat_interleave(classes) * rates
    weight = class_weights(y, context.training.class_weights)
    slopes, squares, losses = torch.zeros_like(weights), torch.zeros_like(weights), weights.new_zeros(count)
    slope, step = torch.empty_like(weights), 0
    for number in range(passes):
        order = shuffled(len(y), size, torch.Generator().manual_seed(context.seed + number))
        progress.batches, total = len(order) * passes, torch.zeros_like(losses)
        for x, labels in context.fit.batches(order, number):
            x = x.float()
            logs = torch.addmm(weights[0], x, weights[1:]).view(len(x), count, classes).log_softmax(2)
            share = x.new_full((len(x),), 1 / len(x)) if weight is None else weight[labels] / weight[labels].sum()
            place = labels[:, None, None].expand(-1, count, 1)
            total += -(logs.gather(2, place)[:, :, 0].T @ share) * len(x)
            errors = logs.exp().scatter_add_(2, place, logs.new_full((), -1.0).expand(place.shape))
            errors = errors.flatten(1).mul_(share[:, None])
            torch.sum(errors, 0, out=slope[0])
            torch.mm(x.T, errors, out=slope[1:])
            step += 1
            slopes.lerp_(slope, 1 - BETAS[0])
            squares.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
            weights[1:].mul_(kept)
            # The bias corrections and the rates are in the denominator, so that one operation makes the step.
            of_rate = (1 - BETAS[0] ** step) / rates
            torch.sqrt(squares, out=slope)
            torch.addcmul(TINY * of_rate, slope, of_rate / (1 - BETAS[1] ** step) ** 0.5, out=slope)
            weights.addcdiv_(slopes, slope, value=-1)
            progress.batch = step
        losses = total / len(y)
    return weights.view(-1, count, classes), losses


def _drawn(layer: nn.Linear, seed: int) -> Tensor:
    """A new layer's first weights, [1 + D, classes], the bias first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = nn.Linear(layer.in_features, layer.out_features)
    return torch.cat([new.bias[None], new.weight.T])
