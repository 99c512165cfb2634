"""A phase of a run: plan, frozen features, the solver's epochs, validation, and the best epoch put back."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from tlx.config.schema import Config, Phase
from tlx.core.choose_by import CHOICE, score, score_of
from tlx.core.errors import Diverged
from tlx.core.seeding import seed_all
from tlx.distributed import process_group
from tlx.features.batches import Rows
from tlx.features.feature_cache import FeatureCache
from tlx.training.evaluation import logits, validation
from tlx.training.mixing import rows_of
from tlx.training.optimizers import solver_for
from tlx.training.phase_plan import Plan, prepare, set_mode
from tlx.training.progress import Progress
from tlx.training.snapshots import restore, snapshot
from tlx.training.solver_context import SolverContext, Trained

Row = dict[str, Any]


def train(
    net: nn.Sequential,
    plan: Plan,
    phase: Phase,
    features: FeatureCache,
    config: Config,
    progress: Progress,
    *,
    last: int | None = None,
    folds: Tensor | None = None,
) -> Iterator[Row]:
    """Trains one phase and yields a row an epoch; when it is through, `net` is as it was in its best epoch.

    The caller may stop between two rows: `progress.state.best` has the best epoch so far. With the state of a
    checkpoint and the network as it was then, the phase goes on where it stood.

    `last`: the epoch of the phase, from 1, after which it ends whatever it has reached. Then no image is held out,
    nothing is chosen, and `net` is as it is after that epoch.

    `folds`: of each training image, as `SolverContext` has them.

    Yields and raises as `epochs`.
    """
    state = progress.state
    prepare(net, plan)
    if state.phase != plan.phase:
        state.begin(plan.phase, snapshot(net, plan))
    fit = rows_of(net, plan, phase, features, config)
    held_out = features.rows(net, plan.cut, "val") if last is None else None
    planned = cast(int, phase.epochs) if last is None else last
    yield from epochs(
        SolverContext(
            net,
            plan,
            fit,
            phase,
            config.training,
            planned,
            progress,
            config.seed,
            features.precision,
            config.loss,
            folds=folds,
        ),
        held_out,
    )
    restore(net, state.best)


def epochs(context: SolverContext, held_out: Rows | None) -> Iterator[Row]:
    """Trains by the phase's solver, validates each epoch and keeps the best one; a row an epoch.

    Args:
        context: its state and progress are kept up to date; epochs that are done are not trained again.
        held_out: the validation images' rows as they come out of `net[:plan.cut]`. None: nothing is chosen, the last
            epoch is the one whose tensors are in `state.best`.

    Yields:
        A row an epoch: phase, epoch (from 1, over all phases), train_loss and, where images are held out, val_loss
        (nats), val_accuracy and the figure that chooses (0..1), the score where other images choose, too, lr (of the
        head) or what else the solver says of the epoch, images_per_second, seconds.

    Raises:
        Diverged: the loss became infinite or not a number.
    """
    net, plan, state, progress = context.net, context.plan, context.state, context.progress
    patience = math.inf if held_out is None or context.phase.patience is None else context.phase.patience
    solver = solver_for(context.phase.solver)(dataclasses.replace(context, held_out=held_out))
    while state.within < context.epochs and state.waited < patience:
        began = progress.since = time.perf_counter()
        progress.batch = 0
        seed_all(context.seed, plan.phase, state.within)
        set_mode(net, plan)
        trained = next(solver, None)
        if trained is None:  # it has converged
            break
        rate = len(context.fit.y) / (time.perf_counter() - began)
        figures = _validated(context, held_out, trained)
        train_loss, figures = process_group.agreed((trained.train_loss, figures))  # every rank decides alike
        seconds = time.perf_counter() - began
        state.epoch, state.seconds = state.epoch + 1, state.seconds + seconds
        state.val_accuracy = figures.get("val_accuracy", math.nan)
        progress.batch, progress.images_per_second = 0, rate
        if not math.isfinite(train_loss) or not math.isfinite(figures.get("val_loss", 0.0)):
            raise _diverged(context, Trained(train_loss, trained.lr), figures)
        state.within, state.waited = state.within + 1, state.waited + 1
        if held_out is None:
            state.best = snapshot(net, plan)
        elif (found := score_of(figures, state.choose_by)) > state.best_score:
            best = snapshot(net, plan)
            # Set together: an interruption finds this epoch with its tensors, or the one before with its own.
            state.best, state.best_score, state.best_epoch, state.waited = best, found, state.epoch, 0
        yield {
            "phase": plan.phase,
            "epoch": state.epoch,
            "train_loss": train_loss,
            **figures,
            **({} if trained.lr is None else {"lr": trained.lr}),
            **trained.figures,
            "images_per_second": rate,
            "seconds": seconds,
        }
    state.epochs -= context.epochs - state.within  # those that patience saved


def _validated(context: SolverContext, held_out: Rows | None, trained: Trained) -> dict[str, float]:
    """The figures of the validation images, and the score that chooses where it is not of them alone."""
    if held_out is None:
        return {}
    state, y = context.state, held_out.y
    found = logits(context.tail, held_out, context.precision) if trained.logits is None else trained.logits
    figures = validation(found, y, state.choose_by, scaled=state.scaled)
    if trained.out_of_fold is None:
        return figures
    more, labels = trained.out_of_fold
    every = validation(torch.cat([found, more]), torch.cat([y, labels]), state.choose_by, scaled=state.scaled)
    return figures | {CHOICE: score(every, state.choose_by)}


def _diverged(context: SolverContext, trained: Trained, figures: dict[str, float]) -> Diverged:
    """What to say, and to change."""
    phase, peak = context.plan.phase, context.phase.lr
    if trained.lr is None or peak is None:
        return Diverged(f"phase {phase}, epoch {context.state.epoch}: the loss is {trained.train_loss}")
    rate = "" if trained.lr == peak else f" at a learning rate of {trained.lr:.3g}"
    validated = f" (validation {figures['val_loss']})" if figures else ""
    clip = "" if context.training.clip_norm is not None else ", or training.clip_norm=1"
    return Diverged(
        f"phase {phase}, epoch {context.state.epoch}: the loss is {trained.train_loss}{validated}{rate}; "
        f"take a lower learning rate than {peak:g} (as strategy.phases.{phase}.lr={peak / 10:.3g}){clip}"
    )
