"""`training.refit`: when validation has chosen, the phases once more from the start, on its images too.

Each phase lasts as many epochs as it took to its best one, at the rates of the schedule of all its epochs. No image is
held out, so nothing is chosen. The chosen model is in the run's folder until the new one takes its place. Between two
epochs a refit stands in the checkpoint as any phase does, under a name of its own.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlx.config.schema import Config
from tlx.core.choose_by import score_of
from tlx.datasets.images import joined
from tlx.distributed import process_group
from tlx.runs import model_saving
from tlx.runs.build_features import pixels_of, random_views
from tlx.runs.prepare import Job
from tlx.runs.started_run import StartedRun

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.training.train_state import TrainState

log = logging.getLogger("tlx")


def phases(config: Config) -> dict[str, str]:
    """The phases of a refit by their names in the checkpoint, each with that of the phase that it repeats."""
    return {f"refit {name}": name for name in config.strategy.phases} if config.training.refit else {}


def under_way(config: Config, state: "TrainState") -> bool:
    """Whether the choice is made, and the refit has begun."""
    return state.phase in phases(config)


def start(job: Job) -> "dict[str, Tensor]":
    """What the phases can change, as it is now: before training. Nothing, where the run has no refit."""
    from tlx.training.snapshots import snapshot

    plans = job.plans.values() if job.config.training.refit else ()
    return {name: tensor for plan in plans for name, tensor in snapshot(job.net, plan).items()}


def best_epochs(rows: Sequence[Mapping[str, Any]], names: Sequence[str], rule: str) -> dict[str, int]:
    """Phase → its best epoch, from 1 within the phase; of equals the first. `rows`: as a solver yields them."""
    scores = {name: [score_of(row, rule) for row in rows if row["phase"] == name] for name in names}
    return {name: found.index(max(found)) + 1 for name, found in scores.items()}


def run(started: StartedRun) -> Job:
    """Trains the network again, or goes on with that; the job with the images that it has learned from.

    The training images of its features become those of both splits.

    Raises:
        Diverged: the loss became infinite or not a number.
    """
    from tlx.training import trainer
    from tlx.training.snapshots import restore

    job, state, features, record, clock = started.job, started.state, started.features, started.record, started.clock
    again = dataclasses.replace(job, data=dataclasses.replace(job.data, train=joined([job.data.train, job.data.val])))
    features.train_on(pixels_of(again, again.data.train), random_views(again))
    repeated = phases(job.config)
    if not under_way(job.config, state):
        epochs = process_group.agreed(best_epochs(record.rows, list(job.phases), state.choose_by))
        with clock.part("saving"), process_group.first():
            model_saving.save(record, job, state)
        restore(job.net, started.untrained)
        state.epochs = state.epoch + sum(epochs.values())
        record.summary.refit = {"images": len(again.data.train), "epochs": epochs, "train_loss": []}
        words = ", ".join(f"{name} {number}" for name, number in epochs.items())
        log.info("refit: from the start on all %d train and val images; epochs: %s", len(again.data.train), words)
    done = list(repeated).index(state.phase) if state.phase in repeated else 0
    for name, of in list(repeated.items())[done:]:
        plan, last = dataclasses.replace(job.plans[of], phase=name), record.summary.refit["epochs"][of]
        rows = trainer.train(job.net, plan, job.phases[of], features, job.config, started.progress, last=last)
        for row in clock.each("training", rows):
            losses = [*record.summary.refit["train_loss"], row["train_loss"]]
            record.summary.refit = {**record.summary.refit, "train_loss": losses}
            with clock.part("saving"):
                record.keep(job.net, state)
            started.show(row)
    return again
