"""The feature cache of a prepared run."""

import dataclasses
import json
import logging
from collections import Counter
from typing import TYPE_CHECKING

from tlx.core.device import reader_processes
from tlx.runs import components
from tlx.runs.output_layout import output
from tlx.runs.prepare import Job

if TYPE_CHECKING:
    from tlx.features.feature_cache import Features

log = logging.getLogger("tlx")


def features_of(job: Job, before: "Features | None" = None) -> "Features":
    """The rows of a job's images, as they are and behind its frozen stages.

    `before`: the run's own, if it has some; both use the same files, and one count of what was read.
    """
    from tlx.features.batches import Pixels
    from tlx.features.disk_cache import Store
    from tlx.features.feature_cache import Features

    config, data = job.config, job.data
    workers = reader_processes(config.runtime.workers, job.device)
    transforms = components.transforms(config, job.preprocessing.input_size)
    seen = job.preprocessing.to_dict()
    parts = {
        part: Pixels(
            getattr(data, part),
            job.preprocessing,
            job.device,
            workers=workers,
            stay=config.features.mode == "live",
            spec=json.dumps(seen),
        )
        for part in ("train", "val", "test")
    }
    random = None
    if transforms:
        random = Pixels(
            data.train,
            job.preprocessing,
            job.device,
            transforms=transforms,
            on=config.augmentation.input,
            seed=config.seed,
            workers=workers,
            stay=True,
            spec=json.dumps(
                [seen, dataclasses.asdict(config.augmentation), config.seed, *components.written(transforms)]
            ),
        )
    settings = config.features
    views, epochs = settings.views, sum(phase.epochs or 0 for phase in config.strategy.phases.values())
    if views is not None and not transforms:
        log.info("features.views=%d: without an augmentation each image has one view", views)
    return Features(
        parts,
        random,
        job.device,
        job.precision,
        settings.mode,
        None if views is None else min(views, max(epochs, 1)),  # no epoch sees another
        settings.budget,
        cuts=sorted({plan.cut for plan in job.plans.values()}),
        store=before.store if before else Store(output(config) / "features", settings.store, say=log.warning),
        served=before.served if before else Counter(),
        about={"backbone": config.backbone.name, "data": data.name},
        architecture=json.dumps(dataclasses.asdict(dataclasses.replace(config.backbone, weights="none")), default=str),
        say=log.info,
    )
