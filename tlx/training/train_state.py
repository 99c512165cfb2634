"""Where the training of a run stands between two epochs: all that its checkpoint holds."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from tlx.core.choose_by import DEFAULT


@dataclass
class TrainState:
    """The training state: with it and the weights, an interrupted run comes to the same result.

    No state of training lives elsewhere. Random draws need none: each epoch begins by seeding every generator from
    (seed, phase, epoch), an image's views come from (seed, epoch, index); a schedule is a function of the epoch, and
    bf16 needs no loss scale.

    Attributes:
        choose_by: the figure of the validation images that chooses the epoch.
        scaled: whether the validation loss is after the temperature; not in a run that an earlier version has begun.
        phase: the name of the one that has begun; "" before the first.
        within: epochs done in it; `waited`: of these, those since the best.
        epoch: done, over all phases; `epochs`: planned.
        seconds: spent in epochs that are done.
        val_accuracy: of the last epoch, 0..1.
        best_epoch: over all phases; 0: none yet. `best_score`: of that epoch, by `choose_by` (`core.choose_by.score`).
        best: the tensors that can change in the phase, as they were then.
        moved: the names of all tensors that any phase so far can have changed.
        optimizer: of the phase, None where its solver has none; `optimizer_state`: what a checkpoint had, until the
            phase that goes on takes it.
    """

    choose_by: str = DEFAULT
    scaled: bool = True
    phase: str = ""
    within: int = 0
    waited: int = 0
    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    val_accuracy: float = math.nan
    best_epoch: int = 0
    best_score: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    optimizer: Optimizer | None = None
    optimizer_state: dict[str, Any] | None = None

    def begin(self, phase: str, now: dict[str, Tensor]) -> None:
        """Begins a phase.

        `now`: the tensors that it can change, as they are. Until it has an epoch of its own, they are the best: the
        caller may stop in the first.
        """
        self.phase, self.within, self.waited = phase, 0, 0
        self.optimizer = self.optimizer_state = None
        self.best, self.best_score = now, -math.inf
        self.moved |= now.keys()
