"""Where a run stands at any moment, for a display; nothing of it is needed to go on with the run."""

import math
import time
from dataclasses import dataclass, field

from torch import Tensor

from tlx.training.train_state import TrainState


@dataclass
class Progress:
    """What a display reads from another thread: the training state between epochs, and what happens within one.

    Attributes:
        state: only read.
        batch, batches: of the running epoch.
        loss: of the last batch, nats.
        images_per_second: in the last epoch.
        since: when the running epoch began, by time.perf_counter.
    """

    state: TrainState = field(default_factory=TrainState)
    batch: int = 0
    batches: int = 0
    loss: Tensor | float = math.nan
    images_per_second: float = math.nan
    since: float = 0.0

    def step(self, number: int, loss: Tensor | float) -> None:
        """Says, from 1 within the epoch, that a batch is done, and its loss before that step."""
        self.batch, self.loss = number, loss

    @property
    def phase(self) -> str:
        """The name of the phase that has begun."""
        return self.state.phase

    @property
    def epoch(self) -> int:
        """Epochs done, over all phases."""
        return self.state.epoch

    @property
    def epochs(self) -> int:
        """Epochs planned, over all phases."""
        return self.state.epochs

    @property
    def best_epoch(self) -> int:
        """The best epoch so far, over all phases; 0: none yet."""
        return self.state.best_epoch

    @property
    def val_accuracy(self) -> float:
        """Of the last epoch, 0..1."""
        return self.state.val_accuracy

    @property
    def eta(self) -> float:
        """Seconds left, by the mean of what is done; NaN where nothing is."""
        running = self.batch / self.batches if self.batches else 0.0
        spent = self.state.seconds + (time.perf_counter() - self.since if running else 0.0)
        done = self.state.epoch + running
        return spent / done * max(self.state.epochs - done, 0) if done and spent else math.nan
