"""Phases in order: plan, frozen features, solver, and the best epoch put back."""

import math
from collections.abc import Iterator

from torch import nn

from tlx.config.schema import Config, Phase
from tlx.features.feature_cache import Features
from tlx.training.phase_plan import Plan, prepare
from tlx.training.progress import Progress
from tlx.training.solvers import SOLVERS, Row, restore, snapshot


def train(
    net: nn.Sequential,
    plan: Plan,
    phase: Phase,
    features: Features,
    config: Config,
    progress: Progress,
    *,
    last: int | None = None,
) -> Iterator[Row]:
    """Trains one phase and yields a row an epoch; when it is through, `net` is as it was in its best epoch.

    `last`: the epoch of the phase, from 1, after which it ends whatever it has reached. Then no image is held out,
    nothing is chosen, and `net` is as it is after that epoch.

    The caller may stop between two rows: `progress.best` has the best epoch so far. With the `progress` of a checkpoint
    and the network as it was then, the phase goes on where it stood.
    """
    prepare(net, plan)
    if progress.phase != plan.phase:
        # Until the phase has an epoch of its own, the best is what it starts from: the caller may stop in the first.
        progress.best, progress.best_score = snapshot(net, plan), -math.inf
        progress.phase, progress.within, progress.waited = plan.phase, 0, 0
        progress.moved |= progress.best.keys()
    fit = features.rows(net, plan.cut, "train", training=True)
    held_out = features.rows(net, plan.cut, "val") if last is None else None
    solver = SOLVERS[phase.solver]
    yield from solver(
        net, plan, fit, held_out, phase, config.training, progress, seed=config.seed, precision=features.precision,
        last=last,
    )  # fmt: skip
    restore(net, progress.best)
