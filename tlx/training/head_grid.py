"""Many new layers on one pass over the rows: learning rates × weight decays × seeds, trained together."""

import logging
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlx.features.batches import looks_of, shuffled
from tlx.training.probe_solvers import layer_of, one_linear_layer
from tlx.training.solver_context import SolverContext, Trained, checked_by
from tlx.training.weighted_loss import class_weights

log = logging.getLogger("tlx")

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
DECAYS = (0.0, 1e-3, 1e-2, 1e-1)
LOGITS = 1 << 24  # numbers that are kept at once, at most
AT_ONCE = 256  # rows
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
    of_all = _predicted(context, weights)
    for number in range(context.state.within, min(context.epochs, len(grid))):
        rate, decay, seed = grid[number]
        with torch.no_grad():
            layer.weight.copy_(weights[1:, number].T)
            layer.bias.copy_(weights[0, number])
        logits = None if of_all is None else of_all[:, number]
        yield Trained(float(losses[number]), rate, {"weight_decay": decay, "head_seed": seed}, logits)


@torch.no_grad()
def _predicted(context: SolverContext, weights: Tensor) -> Tensor | None:
    """The logits of the validation images by all layers at once, [M, H, classes]; None where they are too many."""
    rows = context.held_out
    if rows is None or looks_of(rows) > 1 or context.precision != "fp32":
        return None
    if len(rows.y) * weights[0].numel() > LOGITS:
        return None
    parts = torch.split(torch.arange(len(rows.y)), AT_ONCE)
    found = [torch.addmm(weights[0].flatten(), x.float(), weights[1:].flatten(1)) for x, _ in rows.batches(parts, 0)]
    return torch.cat(found).view(-1, *weights.shape[1:])


@torch.no_grad()
def _trained(
    context: SolverContext, layer: nn.Linear, grid: Sequence[tuple[float, float, int]], passes: int
) -> tuple[Tensor, Tensor]:
    """The layers, [1 + D, H, classes], biases first, and their mean losses in the last pass, [H]."""
    y, size, progress = context.fit.y, cast(int, context.phase.batch_size), context.progress
    classes, count = layer.out_features, len(grid)
    drawn = {seed: _drawn(layer, context.seed + seed) for seed in {seed for *_, seed in grid}}
    begun = torch.stack([drawn[seed] for *_, seed in grid], 1).to(y.device)
    # Of two classes the gradients are each other's negative, and so are Adam's steps: one column stands for both.
    shared = begun.mean(2, keepdim=True) if classes == 2 else torch.zeros_like(begun[..., :1])
    columns = 1 if classes == 2 else classes
    rates = begun.new_tensor([rate for rate, *_ in grid])
    kept = 1 - begun.new_tensor([decay for _, decay, _ in grid]) * rates
    decaying = bool((kept != 1).any())
    # In units of their rates, so that one operation makes the steps of all. Two dimensions, [1 + D, H · columns]: with
    # the classes apart, the operations on single numbers are slow.
    weights = ((begun - shared)[..., :columns] / rates[:, None]).flatten(1)
    of_column, shrink = rates.repeat_interleave(columns), kept.repeat_interleave(columns)
    weight = class_weights(y, context.training.class_weights)
    weights.grad = slope = torch.empty_like(weights)
    optimizer = torch.optim.Adam([weights], lr=1.0, betas=BETAS, eps=TINY, fused=True)
    step, losses = 0, weights.new_zeros(count)
    for number in range(passes):
        order = shuffled(len(y), size, torch.Generator().manual_seed(context.seed + number))
        progress.batches, total = len(order) * passes, torch.zeros_like(losses)
        for x, labels in context.fit.batches(order, number):
            x = x.float()
            scores = torch.addmm(weights[0], x, weights[1:]).mul_(of_column).view(len(x), count, columns)
            share = x.new_full((len(x),), 1 / len(x)) if weight is None else weight[labels] / weight[labels].sum()
            of_image, errors = (_of_two if classes == 2 else _of_many)(scores, labels)
            total += (share @ of_image) * len(x)
            errors = errors.flatten(1).mul_(share[:, None])
            torch.sum(errors, 0, out=slope[0])
            torch.mm(x.T, errors, out=slope[1:])
            if decaying:
                weights[1:].mul_(shrink)
            step += 1
            optimizer.step()
            progress.batch = step
        losses = total / len(y)
    found = weights.view(-1, count, columns) * rates[:, None]
    if classes != 2:
        return found, losses
    shared[1:] *= kept[:, None] ** step  # what both have alike has no gradient, and decays
    return torch.cat([shared + found, shared - found], 2), losses


def _of_many(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The losses [N, H] and their slopes in the scores [N, H, classes]."""
    logs, place = scores.log_softmax(2), labels[:, None, None].expand(-1, scores.shape[1], 1)
    return -logs.gather(2, place)[:, :, 0], logs.exp().scatter_add_(2, place, -torch.ones_like(logs[..., :1]))


def _of_two(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same of two classes whose scores are the given ones, [N, H, 1], and their negatives; slopes in the first."""
    sign = (1 - 2 * labels).to(scores)[:, None]
    margin = 2 * scores[..., 0] * sign
    return functional.softplus(-margin), (torch.sigmoid(-margin) * -sign)[..., None]


def _drawn(layer: nn.Linear, seed: int) -> Tensor:
    """A new layer's first weights, [1 + D, classes], the bias first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = nn.Linear(layer.in_features, layer.out_features)
    return torch.cat([new.bias[None], new.weight.T])
