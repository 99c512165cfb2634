"""A learning-rate range test: the loss over steps whose rate rises, on a copy of the network (Smith 2017).

https://arxiv.org/abs/1506.01186; the rate rises exponentially, as in https://arxiv.org/abs/1803.09820.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from tlx.config.schema import Config, Phase
from tlx.core.errors import RequestError
from tlx.core.seeding import kept_generators, seed_all
from tlx.features.batches import Rows, in_order
from tlx.training.optimizers import solver_for
from tlx.training.phase_plan import Plan, prepare, set_mode
from tlx.training.progress import Progress
from tlx.training.solver_context import SolverContext

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0  # rates
WIDTH = 3.0  # steps: the standard deviation of the window by which the curve is smoothed
FIRST = 10  # steps: their median loss is what it was at first
# How much the loss changes, by the loss of guessing: the smoothed one where it diverges, and where it has fallen; that
# of a step, at which the test ends.
DIVERGES, FALLS, ENDS = 0.25, 0.25, 3.0
DONE = 0.75  # of the fall
PART = 10.0  # the rate is at most this part of the one at which the loss diverges


@dataclass(frozen=True)
class RangeTest:
    """What a range test has found.

    Attributes:
        lr: the rate to train at, of two digits.
        rates: of the steps, rising; `losses`: of each step's batch before it, nats; `smooth`: the smoothed curve.
    """

    lr: float
    rates: list[float]
    losses: list[float]
    smooth: list[float]


def range_test(net: nn.Sequential, plan: Plan, phase: Phase, fit: Rows, config: Config, precision: str) -> RangeTest:
    """Trains a copy of what learns in a phase at rising rates, and reads the rate to take off the losses.

    Neither the network nor any random generator is changed.

    Args:
        net, plan, phase: the plan is that of the phase at the rate `HIGHEST`, which is that of the head: with
            `lr_decay` the other stages follow it.
        fit: the training rows as they come out of `net[:plan.cut]`.

    Raises:
        RequestError: the phase's solver reports no steps, or the loss is no number at the lowest rates already.
    """
    steps = len(in_order(len(fit.y), phase.batch_size or 1))  # of an epoch
    steps -= steps > 1 and len(fit.y) % (phase.batch_size or 1) == 1  # a last batch of one joins the one before
    schedule = {"_target_": f"{__name__}.rising", "steps": steps}
    epochs = math.ceil(STEPS / steps)
    training = dataclasses.replace(config.training, ema=None, average_last=None)
    with kept_generators():
        # What is frozen is shared.
        tried = copy.deepcopy(net, {id(stage): stage for stage in net[: plan.cut]})
        prepare(tried, plan)
        progress = _Losses(guessing=math.log(int(fit.y.max()) + 1))
        trial = dataclasses.replace(phase, lr=HIGHEST, schedule=schedule, epochs=epochs)
        context = SolverContext(
            tried, plan, fit, trial, training, epochs, progress, config.seed, precision, config.loss
        )
        solver = solver_for(phase.solver)(context)
        try:
            for epoch in itertools.count():
                seed_all(config.seed, "range test", plan.phase, epoch)
                set_mode(tried, plan)
                if next(solver, None) is None:
                    break
                progress.state.within, progress.state.epoch = epoch + 1, epoch + 1
        except _Through:
            pass
        finally:
            solver.close()  # type: ignore[attr-defined]
    rates = [HIGHEST * rising(step / steps, epochs, steps) for step in range(len(progress.losses))]
    return chosen(rates, progress.losses, progress.guessing, f"strategy.phases.{plan.phase}.lr")


def rising(epoch: float, epochs: int, steps: int) -> float:
    """A schedule: from `LOWEST` to `HIGHEST` in `STEPS` steps, as a share of `HIGHEST`; `steps`: of an epoch."""
    share = min(1.0, epoch * steps / (STEPS - 1))
    return math.exp(math.log(LOWEST / HIGHEST) * (1 - share))


def chosen(rates: Sequence[float], losses: Sequence[float], guessing: float, key: str) -> RangeTest:
    """A tenth of the rate at which the smoothed loss diverges; or where it falls before that, the rate at which three
    quarters of the fall are done, if this is less.

    A phase that begins with a small loss, as after a probe, has nothing that falls: then only the point of divergence
    means something. Of features that a layer separates the loss diverges late or never, and a tenth of that is too
    much. docs/training.md has what this rule and others cost.

    Args:
        guessing: the loss of finding all classes equally likely, nats.
        key: of the rate.

    Raises:
        RequestError: there are too few steps.
    """
    if len(losses) < STEPS // 4:
        why = "its solver reports no steps" if not losses else f"the loss is {losses[-1]} at a rate of {rates[-1]:.2g}"
        raise RequestError(f"{key}=auto: no rate can be found, {why}; give one, as {key}=1e-4")
    smooth = _smoothed(np.array(losses))
    first, lowest = float(np.median(losses[:FIRST])), int(np.argmin(smooth))
    high = np.flatnonzero(smooth[lowest:] > first + DIVERGES * guessing)
    rate = rates[lowest + high[0] if len(high) else -1] / PART
    if first - smooth[lowest] > FALLS * guessing:
        rate = min(rate, rates[int(np.argmax(smooth <= first - DONE * (first - smooth[lowest])))])
    return RangeTest(float(f"{rate:.2g}"), list(rates), list(losses), smooth.tolist())


def _smoothed(losses: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """By a window about each step, which does not shift the curve as a moving average over earlier steps does."""
    places = np.arange(len(losses))
    weights = np.exp(-(((places[:, None] - places) / WIDTH) ** 2) / 2)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = weights @ losses / weights.sum(1)
    return found


class _Through(Exception):
    """The test has seen enough."""


@dataclass
class _Losses(Progress):
    """Keeps the loss of each step. `guessing`: see `chosen`."""

    guessing: float = 0.0
    losses: list[float] = field(default_factory=list)

    def step(self, number: int, loss: Tensor | float) -> None:
        value = float(loss)
        if not math.isfinite(value):
            raise _Through
        self.losses.append(value)
        first = float(np.median(self.losses[:FIRST]))
        if len(self.losses) == STEPS or (len(self.losses) > FIRST and value > first + ENDS * self.guessing):
            raise _Through
