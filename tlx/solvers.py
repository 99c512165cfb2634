"""How a phase learns: a solver takes the part of a network behind the cut and yields one row an epoch."""

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlx.config import Phase, Training, component
from tlx.evaluate import logits
from tlx.forward import as_input
from tlx.rows import Rows, shuffled
from tlx.runtime import autocast, seed_all, training_precision
from tlx.strategy import Plan, groups, set_mode


@dataclass
class Progress:
    """Where a run stands: what a display may look at while the run goes on, and what a phase leaves behind."""

    phase: str = ""
    doing: str = ""  # what is done between epochs, in words
    epoch: int = 0  # done, over all phases
    epochs: int = 0  # planned, over all phases
    batch: int = 0
    batches: int = 0
    loss: Tensor | float = math.nan  # of the last batch, nats
    val_accuracy: float = math.nan
    images_per_second: float = math.nan
    seconds: float = 0.0  # spent in epochs that are done
    since: float = 0.0  # when the running epoch began, by time.perf_counter
    best_epoch: int = 0  # over all phases; 0: none yet
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)  # what can change in the phase, as it was then

    @property
    def eta(self) -> float:
        """Seconds left, by the mean of what is done."""
        running = self.batch / self.batches if self.batches else 0.0
        spent = self.seconds + (time.perf_counter() - self.since if running else 0.0)
        done = self.epoch + running
        return spent / done * max(self.epochs - done, 0) if done and spent else math.nan


class Diverged(Exception):
    """The loss is no longer a number."""


Row = dict[str, Any]


def sgd(
    net: nn.Sequential,
    plan: Plan,
    fit: Rows,
    held_out: Rows,
    phase: Phase,
    training: Training,
    progress: Progress,
    *,
    seed: int,
    precision: str,
) -> Iterator[Row]:
    """Minibatch gradient descent on cross-entropy, by any torch optimizer.

    Args:
        net: all stages; only `net[plan.cut:]` runs.
        fit, held_out: rows as they come out of `net[:plan.cut]`.
        progress: kept up to date within an epoch; `best` holds the state of the best epoch by validation loss.
        precision: the format of evaluation, and of training where the part that learns profits from it.

    Yields:
        A row an epoch: phase, epoch (from 1, over all phases), train_loss and val_loss (nats), val_accuracy (0..1),
        lr (of the head), images_per_second, seconds.

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
    waited = 0
    learning = [p for p in net.parameters() if p.requires_grad]
    for epoch in range(epochs):
        began = progress.since = time.perf_counter()
        seed_all(seed, plan.phase, epoch)
        set_mode(net, plan)
        order = shuffled(len(fit.y), batch_size, torch.Generator().manual_seed(torch.initial_seed()))
        progress.phase, progress.batch, progress.batches = plan.phase, 0, len(order)
        total, lr = torch.zeros((), device=device), 0.0
        for step, (x, y) in enumerate(fit.batches(order, progress.epoch)):
            scale = factor(epoch + step / len(order), epochs)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            lr = peak * scale
            optimizer.zero_grad(set_to_none=True)
            loss = backward(tail, x, y, weight, training, trains_in)
            if training.clip_norm is not None:
                nn.utils.clip_grad_norm_(learning, training.clip_norm)
            optimizer.step()
            total += loss * len(y)
            progress.batch, progress.loss = step + 1, loss
        # Fused optimizers do not count the changes they make in place; a fingerprint of the features does.
        torch.autograd.graph.increment_version(learning)
        train_loss = float(total) / len(fit.y)  # waits for the device
        trained = time.perf_counter() - began
        answers = logits(tail, held_out, precision)
        val_loss = float(functional.cross_entropy(answers, held_out.y))
        val_accuracy = float((answers.argmax(1) == held_out.y).float().mean())
        took = time.perf_counter() - began
        progress.epoch, progress.batch, progress.val_accuracy = progress.epoch + 1, 0, val_accuracy
        progress.seconds, progress.images_per_second = progress.seconds + took, len(fit.y) / trained
        if not math.isfinite(train_loss) or not math.isfinite(val_loss):
            raise Diverged(
                f"phase {plan.phase}, epoch {progress.epoch}: the loss is {train_loss} (validation {val_loss}); "
                f"take a lower learning rate than {peak:g}, or training.clip_norm=1"
            )
        waited += 1
        if val_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch, waited = val_loss, progress.epoch, 0
            progress.best = snapshot(net, plan)
        yield {
            "phase": plan.phase,
            "epoch": progress.epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "lr": lr,
            "images_per_second": progress.images_per_second,
            "seconds": took,
        }
        if phase.patience is not None and waited >= phase.patience:
            progress.epochs -= epochs - epoch - 1
            return


SOLVERS = {"sgd": sgd}


def backward(
    tail: nn.Module, x: Tensor, y: Tensor, weight: Tensor | None, training: Training, precision: str
) -> Tensor:
    """Adds the gradient of the batch's mean loss, and gives that loss (0-d, not synchronised).

    In `training.accumulate` micro-batches, whose losses are summed and divided by the whole batch's weight: the mean of
    micro-batch means would weigh an image by the size of its micro-batch. None has one image only, which BatchNorm
    refuses.
    """
    whole = weight[y].sum() if weight is not None else len(y)
    total = torch.zeros((), device=y.device)
    parts = max(1, min(training.accumulate, len(x) // 2))
    for some_x, some_y in zip(torch.tensor_split(x, parts), torch.tensor_split(y, parts), strict=True):
        with autocast(y.device, precision):
            answers = tail(as_input(some_x, precision))
        loss = functional.cross_entropy(
            answers.float(), some_y, weight, reduction="sum", label_smoothing=training.label_smoothing
        )
        torch.autograd.backward(loss / whole)
        total += loss.detach() / whole
    return total


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


def optimizer_for(node: Mapping[str, Any], parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer that a YAML names by `_target_`, fused where it can be (several times faster on wide layers)."""
    make = component(node, "optimizer")
    chosen = {"fused", "foreach", "differentiable"} & node.keys()
    if (
        "fused" in inspect.signature(make).parameters
        and not chosen
        and all(p.is_floating_point() for group in parameters for p in group["params"])
    ):
        make = partial(make, fused=True)
    optimizer: torch.optim.Optimizer = make(parameters)
    return optimizer


def schedule_for(node: Mapping[str, Any]) -> Callable[[float, int], float]:
    """The schedule that a YAML names by `_target_`: (epochs done, of how many) → factor."""
    return component(node, "schedule")
