"""Logits of training images by networks that have not learned from them: a phase repeated without a fold of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tlx.config.schema import Config, Phase
from tlx.features.batches import CachedRows, Rows
from tlx.training import trainer
from tlx.training.evaluation import logits
from tlx.training.phase_plan import Plan, prepare
from tlx.training.progress import Progress
from tlx.training.snapshots import restore, snapshot
from tlx.training.solver_context import SolverContext


class HeldOut(NamedTuple):
    """Of the images of a fold: logits, float32 `[n, classes]`, and labels, int64 `[n]`."""

    logits: Tensor
    labels: Tensor


def fold_logits(
    net: nn.Sequential,
    plan: Plan,
    phase: Phase,
    parts: Sequence[Rows],
    folds: Tensor,
    config: Config,
    untrained: Mapping[str, Tensor],
    *,
    epochs: int,
    precision: str,
) -> Iterator[HeldOut]:
    """What each fold's images are taken for by the phase's network that has learned from all others.

    The network is afterwards as it was before.

    Args:
        parts: of the images, as `net[plan.cut:]` takes them; few enough to be in memory.
        folds: of each of their images, int64 `[N]` on the CPU, from 0; below 0: learned from each time.
        untrained: what the phase can change, as it was before it.
        epochs: of each training, at the rates of the schedule of all the phase's epochs.

    Raises:
        Diverged: a loss became infinite or not a number.
    """
    before = snapshot(net, plan)
    whole = [next(iter(rows.batches([torch.arange(len(rows.y))], 0))) for rows in parts]
    x, y = torch.cat([x for x, _ in whole]), torch.cat([y for _, y in whole])
    try:
        for fold in range(int(folds.max()) + 1):
            inside = (folds == fold).to(y.device)
            restore(net, untrained)
            prepare(net, plan)
            progress = Progress()
            progress.state.begin(plan.phase, snapshot(net, plan))
            fit = CachedRows([x[~inside]], y[~inside])
            context = SolverContext(
                net, plan, fit, phase, config.training, epochs, progress, config.seed, precision, config.loss
            )
            for _ in trainer.epochs(context, None):
                pass
            restore(net, progress.state.best)
            held_out = CachedRows([x[inside]], y[inside])
            yield HeldOut(logits(net[plan.cut :], held_out, precision), held_out.y)
    finally:
        restore(net, before)
