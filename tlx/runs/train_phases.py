"""The training of a run: its phases, and the refit where it is requested, each epoch recorded and shown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tlx.config.schema import Phase
from tlx.core.errors import Diverged, RequestError
from tlx.runs import refit
from tlx.runs.final_evaluation import look
from tlx.runs.learning_rate import find_rate, known_rates
from tlx.runs.model_temperature import calibrate, folds_of
from tlx.runs.prepare import Job
from tlx.runs.started_run import StartedRun
from tlx.training import checkpoint

if TYPE_CHECKING:
    from tlx.inference.unknown_score import UnknownScore

__all__ = ["TrainedRun", "train_phases"]


class TrainedRun(NamedTuple):
    """A run whose network is as the model is saved.

    Attributes:
        job: with the images that the model has learned from.
        lost: what ended the training before its end; then the network is as it was in its best epoch.
        unknown: its score for images of none of the classes, where one is requested.
    """

    job: Job
    lost: Diverged | None
    unknown: "UnknownScore | None"


def train_phases(run: StartedRun) -> TrainedRun:
    """Trains what is left of a run.

    Raises:
        Diverged: in the first epoch; there is no model.
    """
    from tlx.runs import unknowns
    from tlx.training.snapshots import restore

    unknown = None
    known_rates(run)
    try:
        if not refit.under_way(run.job.config, run.state):
            _choose(run)
            calibrate(run)
            if run.judge is not None:
                run.judge(run)
            unknown = unknowns.fit(run.record, run.job, run.features, run.clock)
    except Diverged as error:
        if not run.state.best_epoch:
            raise
        restore(run.job.net, run.state.best)
        calibrate(run)
        return TrainedRun(run.job, error, unknowns.fit(run.record, run.job, run.features, run.clock))
    if not run.job.config.training.refit:
        return TrainedRun(run.job, None, unknown)
    again = refit.run(run)
    return TrainedRun(again, None, unknowns.fit(run.record, again, run.features, run.clock))


def _choose(run: StartedRun) -> None:
    """The phases with validation, from the one in which the run stands."""
    import torch

    from tlx.training import trainer

    job, config, record, clock, folds = run.job, run.job.config, run.record, run.clock, folds_of(run)
    dealt = None if folds is None else torch.from_numpy(folds)
    for name in _left(job.phases, run.state.phase):
        find_rate(run, name)
        phase, plan = job.phases[name], job.plans[name]
        rows = trainer.train(job.net, plan, phase, run.features, config, run.progress, folds=dealt)
        for row in clock.each("training", rows):
            with clock.part("saving"):
                record.row(row)
                record.keep(job.net, run.state)
            run.show(row)
        final = name == list(job.phases)[-1] and not config.training.refit
        if config.evaluation.after_each_phase and not final and name not in record.summary.after:
            look(record, job, run.features, name, clock)


def _left(phases: Mapping[str, Phase], begun: str) -> list[str]:
    """The phases that are not through, in order; `begun`: the last one that has begun, "" where none has."""
    names = list(phases)
    if begun and begun not in names:
        raise RequestError(f"{checkpoint.FILE}: damaged (phase {begun}); remove it to start the run anew")
    return names[names.index(begun) if begun else 0 :]
