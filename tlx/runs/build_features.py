"""The feature cache of a prepared run."""

import dataclasses
import json
import logging
from collections import Counter
from typing import TYPE_CHECKING

from tlx.core.device import reader_processes
from tlx.core.stopwatch import Clock
from tlx.runs import components
from tlx.runs.output_layout import output
from tlx.runs.prepare import Job

if TYPE_CHECKING:
    from tlx.datasets.images import Images
    from tlx.features.batches import Pixels
    from tlx.features.feature_cache import FeatureCache

log = logging.getLogger("tlx")


def features_of(job: Job, before: "FeatureCache | None" = None, clock: Clock | None = None) -> "FeatureCache":
    """The rows of a job's images, as they are and behind its frozen stages.

    `before`: the run's own, if it has some; both use the same files and clock, and one count of what was read.
    `clock`: counts the time in which rows are made.
    """
    from tlx.features.disk_cache import RowStore
    from tlx.features.feature_cache import FeatureCache

    config, data = job.config, job.data
    splits = {"train": pixels_of(job, data.train)}
    splits |= {split: pixels_of(job, getattr(data, split), measured=True) for split in ("val", "test")}
    if job.unknown is not None:
        splits["unknown"] = pixels_of(job, job.unknown, measured=True)
    random = random_views(job)
    settings = config.features
    views, epochs = settings.views, sum(phase.epochs or 0 for phase in config.strategy.phases.values())
    if views is not None and random is None:
        log.info("features.views=%d: without an augmentation each image has one view", views)
    return FeatureCache(
        splits,
        random,
        job.device,
        job.precision,
        settings.mode,
        None if views is None else min(views, max(epochs, 1)),  # no epoch sees another
        settings.budget,
        cuts=sorted({plan.cut for plan in job.plans.values()}),
        store=before.store
        if before
        else RowStore(output(config) / "features", settings.store, say=log.warning, shared=settings.shared),
        served=before.served if before else Counter(),
        about={"backbone": config.backbone.name, "data": data.name},
        architecture=json.dumps(dataclasses.asdict(dataclasses.replace(config.backbone, weights="none")), default=str),
        say=log.info,
        clock=before.clock if before else clock or Clock(),
    )


def pixels_of(job: Job, images: "Images", *, measured: bool = False) -> "Pixels":
    """The evaluation view of some of a job's images; with the further ones, where they are `measured`."""
    from tlx.features.batches import Pixels

    return Pixels(
        images,
        job.preprocessing,
        job.device,
        workers=reader_processes(job.config.runtime.workers, job.device),
        stay=job.config.features.mode == "live",
        spec=_spec(job),
        further=job.preprocessing.views if measured else (),
    )


def _spec(job: Job) -> str:
    """What an evaluation view depends on beside the image."""
    return json.dumps(dataclasses.replace(job.preprocessing, views=()).to_dict())


def random_views(job: Job) -> "Pixels | None":
    """The random views of a job's training images; None without an augmentation."""
    from tlx.features.batches import Pixels

    config = job.config
    transforms = components.transforms(config, job.preprocessing.input_size)
    if not transforms:
        return None
    what = [json.loads(_spec(job)), dataclasses.asdict(config.augmentation), config.seed]
    return Pixels(
        job.data.train,
        job.preprocessing,
        job.device,
        transforms=transforms,
        on=config.augmentation.input,
        seed=config.seed,
        workers=reader_processes(config.runtime.workers, job.device),
        stay=True,
        spec=json.dumps([*what, *components.written(transforms)]),
    )
