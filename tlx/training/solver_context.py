"""What a solver gets and what it yields. A solver is a function that a YAML names by `_target_`; see `solvers.sgd`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from tlx.config.schema import CROSS_ENTROPY, Phase, Training
from tlx.features.batches import Rows
from tlx.training.phase_plan import Plan
from tlx.training.progress import Progress
from tlx.training.train_state import TrainState


@dataclass(frozen=True)
class SolverContext:
    """A phase to be trained.

    Attributes:
        net: all stages. What learns requires gradients already; nothing else may change.
        plan: what learns, and the cut.
        fit: the training images' rows as they come out of `net[:plan.cut]`.
        phase: with its optimizer, schedule, rate and batch size.
        training: what all phases share.
        epochs: how many to train at most; the schedule is that of `phase.epochs`.
        progress: its `batch`, `batches` and `loss` are shown while an epoch goes on.
        seed: of the run. The trainer seeds all generators before each epoch.
        precision: the format of evaluation.
        loss: what training minimises, by `_target_`.
        held_out: the validation images' rows, where the epoch is chosen by them; a solver may only predict them.
        folds: of each training image, int64 [N] on the CPU, where they are few enough to choose by predictions out of
            fold, too; else None.
    """

    net: nn.Sequential
    plan: Plan
    fit: Rows
    phase: Phase
    training: Training
    epochs: int
    progress: Progress = field(default_factory=Progress)
    seed: int = 0
    precision: str = "fp32"
    loss: Mapping[str, Any] = field(default_factory=lambda: CROSS_ENTROPY)
    held_out: Rows | None = None
    folds: Tensor | None = None

    @property
    def state(self) -> TrainState:
        """The training state: read `within` (epochs done: the first to train) and `optimizer_state` (of a checkpoint;
        set to None where it is used), write `optimizer`."""
        return self.progress.state

    @property
    def tail(self) -> nn.Sequential:
        """The stages behind the cut."""
        return self.net[self.plan.cut :]


class Trained(NamedTuple):
    """An epoch of a solver.

    Attributes:
        train_loss: the mean over the images, nats.
        lr: of the head in the last step; None where the solver has none.
        figures: further ones for the epoch's row, such as the strength of a penalty.
        logits: of the validation images, where the solver has them already, float32 [M, classes].
        out_of_fold: of the training images by what has not learned from their folds, float32 [N, classes], with their
            labels: they choose the epoch together with the validation images.
    """

    train_loss: float
    lr: float | None
    figures: Mapping[str, float] = MappingProxyType({})
    logits: Tensor | None = None
    out_of_fold: tuple[Tensor, Tensor] | None = None


# Trains the tail in place and yields after each epoch. It may end before `context.epochs`, where it has converged.
Solver = Callable[[SolverContext], Iterator[Trained]]
F = TypeVar("F", bound=Callable[..., Iterator[Trained]])
# (network, plan of the phase, its key): raises RequestError where a solver cannot train that.
Check = Callable[[nn.Sequential, Plan, str], None]
_LINEAR = partial(nn.Linear, 2, 2)


def checked_by(check: Check, layer: Callable[[], nn.Module] = _LINEAR) -> Callable[[F], F]:
    """Has a solver's phases checked before anything is trained.

    `layer`: a small one that it trains, from two features to two classes, to try out its values on.
    """

    def mark(solver: F) -> F:
        solver.check, solver.layer = check, layer  # type: ignore[attr-defined]
        return solver

    return mark
