"""Phases in order: plan, frozen features, solver, and the best epoch put back."""

import math
from collections.abc import Iterator

from torch import nn

from tlx.config import Config, Phase
from tlx.features import Features
from tlx.solvers import SOLVERS, Progress, Row, restore
from tlx.strategy import Plan, prepare


def train(
    net: nn.Sequential,
    plan: Plan,
    phase: Phase,
    features: Features,
    config: Config,
    progress: Progress,
) -> Iterator[Row]:
    """Trains one phase and yields a row an epoch; when it is through, `net` is as it was in its best epoch.

    The caller may stop between two rows: `progress.best` has the best epoch so far.
    """
    progress.best, progress.best_loss = {}, math.inf
    prepare(net, plan)
    fit = features.rows(net, plan.cut, "train", training=True)
    held_out = features.rows(net, plan.cut, "val")
    solver = SOLVERS[phase.solver]
    yield from solver(
        net, plan, fit, held_out, phase, config.training, progress, seed=config.seed, precision=features.precision
    )
    restore(net, progress.best)
