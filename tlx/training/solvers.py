"""How a phase learns: a solver takes the part of a network behind the cut and yields one row an epoch."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlx.config.schema import Phase, Training
from tlx.core.choose_by import score
from tlx.core.device import autocast, training_precision
from tlx.core.errors import Diverged
from tlx.core.seeding import seed_all
from tlx.distributed import process_group
from tlx.distributed.data_parallel import share, shared_statistics, sum_gradients
from tlx.features.batches import Rows, shuffled
from tlx.features.frozen_forward import as_input
from tlx.training.cuda_graphs import Gradients, recorder_for
from tlx.training.evaluation import logits, validation
from tlx.training.optimizers import go_on, optimizer_for, schedule_for
from tlx.training.phase_plan import Plan, groups, set_mode
from tlx.training.progress import Progress

Row = dict[str, Any]


def sgd(
    net: nn.Sequential,
    plan: Plan,
    fit: Rows,
    held_out: Rows | None,
    phase: Phase,
    training: Training,
    progress: Progress,
    *,
    seed: int,
    precision: str,
    last: int | None = None,
) -> Iterator[Row]:
    """Minibatch gradient descent on cross-entropy, by any torch optimizer.

    Args:
        net: all stages; only `net[plan.cut:]` runs.
        fit, held_out: rows as they come out of `net[:plan.cut]`; nothing held out: nothing is chosen, the last epoch is
            the one whose state is in `best`.
        progress: kept up to date within an epoch; `best` holds the state of the best epoch by its `choose_by`. A phase
            of which `within` epochs are done goes on after these.
        precision: the format of evaluation, and of training where the part that learns profits from it.
        last: the epoch after which the phase ends; None: its own last one. The schedule is that of all its epochs.

    Yields:
        A row an epoch: phase, epoch (from 1, over all phases), train_loss and, where images are held out, val_loss
        (nats), val_accuracy and the figure that chooses (0..1), lr (of the head), images_per_second, seconds.

    Raises:
        Diverged: the loss became infinite or not a number.
    """
    epochs, batch_size, peak = cast(int, phase.epochs), cast(int, phase.batch_size), cast(float, phase.lr)
    tail, device = net[plan.cut :], fit.y.device
    optimizer = optimizer_for(phase.optimizer, groups(net, plan, phase.optimizer.get("weight_decay", 0.0)))
    factor = schedule_for(phase.schedule)
    rates = [group["lr"] for group in optimizer.param_groups]
    trains_in = training_precision(tail, device, precision)
    weight = class_weights(fit.y, training.class_weights)
    learning = [p for p in net.parameters() if p.requires_grad]
    if progress.optimizer_state is not None:
        go_on(optimizer, progress.optimizer_state)
    progress.optimizer, progress.optimizer_state = optimizer, None
    ends = epochs if last is None else last
    recorder = recorder_for(device, (ends - progress.within) * math.ceil(len(fit.y) / batch_size))
    compute = partial(backward, tail, weight=weight, training=training, precision=trains_in)
    gradients = Gradients(compute, tail, learning, recorder)
    patience = math.inf if held_out is None or phase.patience is None else phase.patience
    while progress.within < ends and progress.waited < patience:
        epoch = progress.within
        began = progress.since = time.perf_counter()
        seed_all(seed, plan.phase, epoch)
        set_mode(net, plan)
        order = shuffled(len(fit.y), batch_size, torch.Generator().manual_seed(torch.initial_seed()))
        if process_group.rank():
            seed_all(seed, plan.phase, epoch, process_group.rank())  # dropout of its own
        progress.phase, progress.batch, progress.batches = plan.phase, 0, len(order)
        total, lr = torch.zeros((), device=device), 0.0
        shares = [share(index, micro_batches(len(index), training.accumulate)) for index in order]
        # A rank with no row of a batch asks for one, and takes none of it: it has its part in what all ranks do.
        asked = [mine if len(mine) else index[:1] for index, (mine, _) in zip(order, shares, strict=True)]
        for step, (x, y) in enumerate(fit.batches(asked, progress.epoch)):
            index, (mine, sizes) = order[step], shares[step]
            scale = factor(epoch + step / len(order), epochs)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            lr = peak * scale
            whole = fit.y[index.to(device)] if process_group.count() > 1 else y
            loss = gradients(x[: len(mine)], y[: len(mine)], sizes=sizes, whole=whole)
            loss = sum_gradients(learning, loss)
            if training.clip_norm is not None:
                nn.utils.clip_grad_norm_(learning, training.clip_norm)
            optimizer.step()
            total += loss * len(index)
            progress.batch, progress.loss = step + 1, loss
        # Fused optimizers do not count the changes they make in place; a fingerprint of the features does.
        torch.autograd.graph.increment_version(learning)
        train_loss = float(total) / len(fit.y)  # waits for the device
        trained = time.perf_counter() - began
        figures: dict[str, float] = {}
        if held_out is not None:
            figures = validation(logits(tail, held_out, precision), held_out.y, progress.choose_by)
        train_loss, figures = process_group.agreed((train_loss, figures))  # every rank decides alike
        val_loss = figures.get("val_loss", 0.0)
        took = time.perf_counter() - began
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.val_accuracy = figures.get("val_accuracy", math.nan)
        progress.seconds, progress.images_per_second = progress.seconds + took, len(fit.y) / trained
        if not math.isfinite(train_loss) or not math.isfinite(val_loss):
            rate = "" if lr == peak else f" at a learning rate of {lr:.3g}"
            validated = f" (validation {val_loss})" if figures else ""
            clip = "" if training.clip_norm is not None else ", or training.clip_norm=1"
            raise Diverged(
                f"phase {plan.phase}, epoch {progress.epoch}: the loss is {train_loss}{validated}{rate}; "
                f"take a lower learning rate than {peak:g} (as strategy.phases.{plan.phase}.lr={peak / 10:.3g}){clip}"
            )
        progress.within, progress.waited = epoch + 1, progress.waited + 1
        if held_out is None:
            progress.best = snapshot(net, plan)
        elif (found := score(figures, progress.choose_by)) > progress.best_score:
            best = snapshot(net, plan)
            # Together: who interrupts this finds the epoch and its tensors, or those before.
            progress.best, progress.best_score, progress.best_epoch, progress.waited = best, found, progress.epoch, 0
        yield {
            "phase": plan.phase,
            "epoch": progress.epoch,
            "train_loss": train_loss,
            **figures,
            "lr": lr,
            "images_per_second": progress.images_per_second,
            "seconds": took,
        }
    progress.epochs -= ends - progress.within  # those that patience saved


SOLVERS = {"sgd": sgd}


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
) -> Tensor:
    """Adds the gradient of the batch's mean loss, and gives that loss (0-d, not synchronised).

    In `training.accumulate` micro-batches, whose losses are summed and divided by the whole batch's weight: the mean of
    micro-batch means would weigh an image by the size of its micro-batch.

    Args:
        sizes: of the micro-batches in `x`; None: as `training` says.
        whole: the labels of the whole batch, where `x` is a rank's share of it: then gradient and loss are those of the
            share, and the sum of all shares is that of the batch.
    """
    whole = y if whole is None else whole
    divisor = weight[whole].sum() if weight is not None else len(whole)
    total = torch.zeros((), device=y.device)
    sizes = share(torch.arange(len(y)), micro_batches(len(y), training.accumulate))[1] if sizes is None else sizes
    with shared_statistics(tail) as always:
        for some_x, some_y in zip(torch.split(x, list(sizes)), torch.split(y, list(sizes)), strict=True):
            if not len(some_y) and not always:
                continue
            with autocast(y.device, precision):
                answers = tail(as_input(some_x, precision))
            loss = summed_loss(answers.float(), some_y, weight, training.label_smoothing)
            torch.autograd.backward(loss / divisor)
            total += loss.detach() / divisor
    return total


def summed_loss(answers: Tensor, y: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """The sum (0-d) of the images' cross-entropies in nats, each times the weight of the image's own class.

    torch weights the smoothed part by all classes' weights instead: a rare class's large weight then pulls every image
    towards it (https://github.com/pytorch/pytorch/issues/104776).

    Args:
        answers: float logits `[N, classes]`.
        y: int64 `[N]`.
        weight: `[classes]`; None: all 1.
        smoothing: the share of the target that is spread evenly over all classes.
    """
    if weight is None or not smoothing:
        return functional.cross_entropy(answers, y, weight, reduction="sum", label_smoothing=smoothing)
    return (functional.cross_entropy(answers, y, reduction="none", label_smoothing=smoothing) * weight[y]).sum()


def micro_batches(n: int, accumulate: int) -> int:
    """In how many a batch of n images is computed: none has one image only, which BatchNorm refuses."""
    return max(1, min(accumulate, n // 2))


def class_weights(y: Tensor, kind: str | None) -> Tensor | None:
    """Weights `[classes]` that give every class the same share of the loss (mean 1 over the images), or None.

    `y`: int64 `[N]`, with every class in it.
    """
    if kind is None:
        return None
    counts = torch.bincount(y)
    return len(y) / (len(counts) * counts.float())


def snapshot(net: nn.Sequential, plan: Plan) -> dict[str, Tensor]:
    """Copies of every tensor that the phase can change."""
    moving = {*plan.learning}
    norms = tuple(f"{name}." for name in plan.adapting)
    return {n: t.detach().clone() for n, t in net.state_dict().items() if n in moving or n.startswith(norms)}


def restore(net: nn.Sequential, state: Mapping[str, Tensor]) -> None:
    """Puts a snapshot back, in place."""
    own = net.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
