"""The source task of a run, as a configuration of its own."""

import dataclasses

from tlx.config.evaluation_schema import Evaluation
from tlx.config.schema import CROSS_ENTROPY, Config, Head, Source


def source_task(config: Config) -> Config | None:
    """The run that trains the backbone on the source data set, or None where there is no source."""
    source = config.source
    if source.dataset is None:
        return None
    return dataclasses.replace(
        config,
        **{name: getattr(source, name) for name in _SOURCE_PARTS},
        backbone=dataclasses.replace(config.backbone, weights="none"),
        head=Head(),
        loss=dict(CROSS_ENTROPY),
        source=Source(dataset=None),
        evaluation=Evaluation(choose_by=config.evaluation.choose_by),
        tracking=dataclasses.replace(config.tracking, register=None),
    )


_SOURCE_PARTS = ("dataset", "augmentation", "strategy", "optimizer", "schedule", "training")
