"""`--dry-run`: what a run would do, in lines; nothing is run."""

import dataclasses
import logging
from typing import TYPE_CHECKING

from tlx.backbones import pretrained_weights
from tlx.config.schema import Config
from tlx.config.source_task import source_task
from tlx.config.unread_keys import Typed
from tlx.core.device import EMULATED, device_of, emulated, precision_of
from tlx.core.stopwatch import Clock
from tlx.datasets.exact_copies import copies
from tlx.reporting.run_display import counted, doubts, plan_lines
from tlx.runs.build_features import features_of
from tlx.runs.model_saving import try_out
from tlx.runs.prepare import network, plans_of, prepare

if TYPE_CHECKING:
    from tlx.backbones.staged_network import Net
    from tlx.features.feature_cache import FeatureCache
    from tlx.training.phase_plan import Plan

log = logging.getLogger("tlx")


def preview(config: Config, typed: Typed | None = None) -> list[str]:
    """The plan of a configuration, its parameters, sizes of features, downloads.

    `typed`: what was typed for it; what has no effect is logged.
    """
    for line in typed.warnings() if typed else ():
        log.warning("%s", line)
    from tlx.datasets import readers
    from tlx.features.disk_cache import mib
    from tlx.features.feature_rows import outline
    from tlx.training.mixing import mixes_before

    downloads = [pretrained_weights.would_download(config.backbone), readers.would_download(config.dataset.reader)]
    lines = [f"would be downloaded: {what}" for what in downloads if what] or ["nothing would be downloaded"]
    task = source_task(config)
    if task is not None:
        first = f"the source task {config.source.name} comes first, unless an identical one is done already:"
        lines = [first, *preview(task), "", "then the transfer:", *lines]
    if downloads[0]:
        config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights="none"))
    device = device_of(config.runtime.device)
    precision = "fp32" if config.features.mode == "exact" else precision_of(config.runtime.precision, device)
    if emulated(precision, device) and task is None:
        lines.append(f"runtime.precision=bf16: {EMULATED}; use runtime.precision=auto")
    images = {"train": 0, "val": 0, "test": 0}
    cached, mixed = dict[str, list[str]](), set[str]()  # `mixed`: phases whose training rows cannot be cached
    if downloads[1]:
        net, preprocessing = network(config, dataclasses.replace(config.backbone, weights="none"), 2, device)
        plans = plans_of(config, net)
        shown = [plan.to_dict() for plan in plans.values()]
        lines.append("the data set is not here yet: this is the plan for two classes")
    else:
        job = prepare(config, Clock(), typed)
        try_out(job)
        net, preprocessing, plans, precision = job.net, job.preprocessing, job.plans, job.precision
        features = features_of(job)
        mixed = {name for name, plan in plans.items() if mixes_before(config, job.phases[name], plan)}
        cached = {name: _cached(features, net, plan, mixed=name in mixed) for name, plan in plans.items()}
        shown = job.plan
        sets = {split: getattr(job.data, split) for split in images}
        images = {split: len(found) for split, found in sets.items()}
        lines.append(f"images: {counted(images, job.data.origins)}; classes: {', '.join(job.data.classes)}")
        lines += job.data.notes
        lines += doubts(job.data.classes, copies(sets, job.data.classes))
    for (name, plan), phase in zip(plans.items(), shown, strict=True):
        size = outline(net, plan.cut, preprocessing.input_size, precision, device).row_bytes
        views = 1 if not config.augmentation.transforms else config.features.views or 0
        views = 0 if name in mixed else views
        kept = {
            split: n * (views if split == "train" else 1) for split, n in images.items() if split != "train" or views
        }
        total = f", {mib(size * sum(kept.values()))} in all" if any(kept.values()) else ""
        what = "mixed" if name in mixed else "augmented"
        anew = "" if "train" in kept else f"; training images are {what} anew in each epoch"
        lines += ["", f"phase {name}: {plan.rows[plan.cut].stage} input, {size:,} bytes an image{total}{anew}"]
        lines += cached.get(name, [])
        lines += plan_lines(phase)
    return lines


def _cached(features: "FeatureCache", net: "Net", plan: "Plan", *, mixed: bool) -> list[str]:
    """A line for each split that a phase reads: whether its rows are cached, where, and what they come from."""
    cuts = {"train": 0 if mixed else plan.cut, "val": plan.cut}
    plans = [features.plan(net, cut, split, training=split == "train") for split, cut in cuts.items()]
    return [f"  {next(found.lines())}" for found in plans]
