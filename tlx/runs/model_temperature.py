"""The temperature of a run's model: from validation images, and with a refit from those out of fold, too."""

import logging
from typing import TYPE_CHECKING

import numpy as np

from tlx.analysis.folds import deal_folds
from tlx.core.activity import doing
from tlx.core.errors import Diverged
from tlx.datasets.images import Images, Labels
from tlx.distributed import process_group
from tlx.runs.refit import best_epochs
from tlx.runs.started_run import StartedRun

if TYPE_CHECKING:
    from tlx.features.batches import Rows
    from tlx.training.fold_logits import HeldOut

FOLDS = 4  # of training images, each about as many as the validation images are by default
ENOUGH = 500  # validation images from which on they are enough alone

log = logging.getLogger("tlx")


def calibrate(run: StartedRun) -> None:
    """Fits the temperature to images that the network as it is has not learned from, and keeps it.

    The validation images have chosen the epoch. With `training.refit` they are few beside those that the refitted model
    will have learned from: where features are frozen, the training images out of fold are taken as well.
    """
    import torch

    from tlx.training.evaluation import logits, temperature
    from tlx.training.fold_logits import HeldOut

    job = run.job
    with run.clock.part("evaluation"), doing("fitting the temperature"):
        cut = list(job.plans.values())[-1].cut
        rows = run.features.rows(job.net, cut, "val")
        more = _out_of_fold(run, rows) if job.config.training.refit and len(rows.y) < ENOUGH else []
        found = [HeldOut(logits(job.net[cut:], rows, job.precision), rows.y), *more]
        every, labels = (torch.cat([one[place] for one in found]) for place in (0, 1))
        fitted = process_group.agreed(temperature(every, labels))
    run.record.summary.calibration = {
        "temperature": fitted,
        "fitted_on": "val and train, out of fold" if more else "val",
        "images": len(labels),
        "val_loss": "after" if run.state.scaled else "before",
    }


def _out_of_fold(run: StartedRun, val: "Rows") -> "list[HeldOut]":
    """The training images' logits by networks that have not learned from them; none where that is not nearly free.

    It is for one phase that trains the classifier alone, on cached features without random views.
    """
    import torch

    from tlx.training.fold_logits import fold_logits

    job, features = run.job, run.features
    (name, plan), *others = job.plans.items()
    stages = [stage for stage, _ in job.net.named_children()]
    mixed, dealt = job.config.training.mixing is not None, folds_of(run)
    if others or mixed or dealt is None or plan.cut < stages.index(job.net.layout.classifier):
        return []
    rows = features.cached(job.net, plan.cut, "train")
    if not process_group.agreed(rows is not None) or rows is None:
        return []
    folds = torch.from_numpy(np.concatenate([dealt, np.full(len(val.y), -1)]))
    epochs = process_group.agreed(best_epochs(run.record.rows, [name], run.state.choose_by))[name]
    try:
        return list(
            fold_logits(
                job.net, plan, job.phases[name], [rows, val], folds, job.config, run.untrained,
                epochs=epochs, precision=job.precision,
            )
        )  # fmt: skip
    except Diverged as error:
        log.warning("the temperature is that of the validation images alone: without a fold, %s", error)
        return []


def folds_of(run: StartedRun) -> Labels | None:
    """The folds of the training images, int64 [N], where they are to help the validation images; else None.

    There are none where these are enough alone, where a fold would leave a class without any image, and where training
    sees random views of the images, or one view where several are averaged of the others.
    """
    job, train = run.job, run.job.data.train
    other_views = bool(job.preprocessing.views) or run.features.random is not None
    few = np.bincount(train.labels, minlength=len(job.data.classes)).min() < 2
    if few or other_views or len(job.data.val) >= ENOUGH:
        return None
    return deal_folds(train.labels, _groups(train), FOLDS, job.config.seed)


def _groups(images: Images) -> Labels | None:
    """The group of each image as a number; an image without one stands for itself."""
    if images.groups is None:
        return None
    names = [group or f"\0{number}" for number, group in enumerate(images.groups)]
    found: Labels = np.unique(names, return_inverse=True)[1]
    return found
