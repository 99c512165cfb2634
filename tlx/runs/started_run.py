"""A run that has started: what its steps share, from the first look at the test set to the last epoch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlx.core.stopwatch import Clock
from tlx.runs.prepare import Job
from tlx.runs.run_recorder import Record

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.features.feature_cache import FeatureCache
    from tlx.training.progress import Progress
    from tlx.training.train_state import TrainState


Judge = Callable[["StartedRun"], None]
Watch = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class StartedRun:
    """A run whose folder is there.

    Attributes:
        job: what was prepared.
        features: of its images.
        progress: what its display reads.
        record: what writes its folder.
        clock: what counts its time.
        show: is called with each epoch's row.
        untrained: what the phases can change, as it was before training, where a refit will need it.
        judge: is called with the network of the best epoch before a refit, and before the test set is looked at.
    """

    job: Job
    features: "FeatureCache"
    progress: "Progress"
    record: Record
    clock: Clock
    show: Watch
    untrained: "Mapping[str, Tensor]"
    judge: Judge | None = None

    @property
    def state(self) -> "TrainState":
        """Where its training stands."""
        return self.progress.state
