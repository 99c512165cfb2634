"""Where a run stands between two epochs."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tlx.core.choose_by import DEFAULT


@dataclass
class Progress:
    """Where a run stands: what a display may look at while it goes on, and all that a checkpoint needs between epochs.

    No state of training lives elsewhere. Random draws need none: each epoch begins by seeding every generator from
    (seed, phase, epoch), an image's views come from (seed, epoch, index); a schedule is a function of the epoch, and
    bf16 needs no loss scale.
    """

    phase: str = ""
    doing: str = ""  # what is done between epochs, in words
    within: int = 0  # epochs done in this phase
    waited: int = 0  # of these, those since the best
    epoch: int = 0  # done, over all phases
    epochs: int = 0  # planned, over all phases
    choose_by: str = DEFAULT  # the figure of the validation images that chooses the epoch
    batch: int = 0
    batches: int = 0
    loss: Tensor | float = math.nan  # of the last batch, nats
    val_accuracy: float = math.nan
    images_per_second: float = math.nan
    seconds: float = 0.0  # spent in epochs that are done
    since: float = 0.0  # when the running epoch began, by time.perf_counter
    best_epoch: int = 0  # over all phases; 0: none yet
    best_score: float = -math.inf  # of that epoch, by `choose_by` (`choice.score`)
    best: dict[str, Tensor] = field(default_factory=dict)  # what can change in the phase, as it was then
    moved: set[str] = field(default_factory=set)  # the names of all tensors that any phase so far can have changed
    optimizer: torch.optim.Optimizer | None = None  # of this phase
    optimizer_state: dict[str, Any] | None = None  # what a checkpoint had; taken by the phase that goes on

    @property
    def eta(self) -> float:
        """Seconds left, by the mean of what is done."""
        running = self.batch / self.batches if self.batches else 0.0
        spent = self.seconds + (time.perf_counter() - self.since if running else 0.0)
        done = self.epoch + running
        return spent / done * max(self.epochs - done, 0) if done and spent else math.nan
