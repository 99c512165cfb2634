"""Everything that a configuration names, found, read, built and checked: after this nothing is wrong with a request."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.backbones import pretrained_weights
from tlx.config.identity import identity
from tlx.config.instantiate import component
from tlx.config.schema import Backbone, Config, Phase
from tlx.config.unread_keys import Typed
from tlx.core.activity import doing, importing
from tlx.core.device import device_name, device_of, precision_of, use_precision, use_threads
from tlx.core.errors import RequestError, reason
from tlx.core.stopwatch import Clock
from tlx.datasets.content_digests import Decoded
from tlx.datasets.data_range import scale
from tlx.datasets.exact_copies import copies
from tlx.datasets.image_decoding import allow
from tlx.datasets.images import Images
from tlx.datasets.splits import Data, Parts
from tlx.datasets.splits import unread as data_keys
from tlx.distributed import process_group
from tlx.runs import components
from tlx.runs.output_layout import output
from tlx.runs.split_data import split_data
from tlx.runs.unknown_images import unknown_images

if TYPE_CHECKING:
    import torch

    from tlx.backbones.staged_network import Net
    from tlx.datasets.preprocessing import Preprocessing
    from tlx.training.phase_plan import Plan

log = logging.getLogger("tlx")


@dataclass(frozen=True)
class Job:
    """A configuration whose parts exist; nothing has been written, and nothing is wrong with the request."""

    config: Config
    data: Data
    net: "Net"
    preprocessing: "Preprocessing"
    phases: dict[str, Phase]  # as long as they are on these data
    plans: dict[str, "Plan"]
    device: "torch.device"
    precision: str
    decoded: Decoded
    samples: Parts | None = None  # of `evaluation.samples`
    unknown: Images | None = None  # of `evaluation.unknown.dataset`

    @property
    def plan(self) -> list[dict[str, Any]]:
        """As `plan.json` has it."""
        lengths = {name: {"epochs": phase.epochs, "min_steps": phase.min_steps} for name, phase in self.phases.items()}
        again = {"refit": True} if self.config.training.refit else {}
        return [plan.to_dict() | lengths[name] | again for name, plan in self.plans.items()]


def prepare(config: Config, clock: Clock, typed: Typed | None = None, prefix: str = "") -> Job:
    """Everything that the configuration names: found, read, built and checked against each other.

    What can be answered without torch is answered before it is imported.

    Args:
        typed: what was typed for it; what has no effect with these data or this network is logged, or refused.
        prefix: of the task's keys: `source.`, or nothing.
    """
    pretrained = config.source.dataset is None
    allow(config.runtime.max_pixels)
    with clock.part("data"), doing("reading the data"):
        # A folder that is given is looked at before weights are fetched; weights are looked for before data is fetched.
        given = config.dataset.reader.get("root") is not None
        parts = found(config) if given else None
        if pretrained:
            pretrained_weights.locate(config.backbone, offline=config.runtime.offline)
        decoded = Decoded.below(output(config)) if config.features.store else Decoded(None)
        parts = parts or found(config)
        _warn(typed, data_keys(parts, config.dataset, f"{prefix}dataset"))
        data = split_data(parts, config, config.seed, decoded)
        unknown = unknown_images(config)
        span = scale(data, config.dataset.range)
        if unknown is not None:
            unknown.store.span = span
        if span is None and typed and typed.strict:  # `scale` has warned
            _warn(typed, {f"{prefix}dataset.range": "no image has more than 8 bits; leave it out"})
    with importing("torch"):
        import torch

        from tlx.training.phase_length import lengthened

    use_threads(config.runtime.threads)
    torch.set_num_threads(process_group.share_of_threads(torch.get_num_threads()))
    device = process_group.place(device_of(config.runtime.device))
    precision = "fp32" if config.features.mode == "exact" else precision_of(config.runtime.precision, device)
    use_precision(precision)
    backbone = config.backbone if pretrained else dataclasses.replace(config.backbone, weights="none")
    with clock.part("network"), doing("building the network"):
        net, preprocessing = network(config, backbone, len(data.classes), device)
        preprocessing = dataclasses.replace(preprocessing, range=span)
        components.try_out(config, preprocessing.input_size)
        transforms = components.transforms(config, preprocessing.input_size)
        components.try_views(config, data.train, preprocessing, transforms, net)
        samples = components.samples(config)
        plans = plans_of(config, net)
        phases = lengthened(config.strategy.phases, len(data.train))
        _warn(typed, unread(config, net, plans, f"{prefix}strategy.phases"))
    return Job(config, data, net, preprocessing, phases, plans, device, precision, decoded, samples, unknown)


def unread(config: Config, net: "Net", plans: Mapping[str, "Plan"], key: str = "strategy.phases") -> dict[str, str]:
    """The keys of phases that change nothing in this network, each with the reason and what to type.

    `key`: of the phases in the configuration.
    """
    from tlx.training import phase_plan

    idle = {}
    for name, phase in config.strategy.phases.items():
        plain = {"learns": ["all"], "statistics": "learning", "lr_decay": 1.0}
        for option, value in plain.items():
            other = dataclasses.replace(phase, **{option: value})  # type: ignore[arg-type]
            found = phase_plan.plan(net, name, other, classifier=net.layout.classifier, fine=net.fine)
            if other != phase and found == plans[name]:
                idle[f"{key}.{name}.{option}"] = (
                    f"no trainable layer from {phase.train_from} on is of that kind; change {key}.{name}.train_from"
                )
    return idle


def _warn(typed: Typed | None, keys: Mapping[str, str]) -> None:
    for line in typed.warnings(keys) if typed else ():
        log.warning("%s", line)


def found(config: Config, **more: Any) -> Parts:
    """The data set of a configuration as it lies there; no image has been read. `more`: for a reader that takes it.

    Raises:
        RequestError: `dataset.splits` names folders, but the data set is none of folders; or what the reader raises.
    """
    splits = {split: name for split, name in dataclasses.asdict(config.dataset.splits).items() if name is not None}
    changed = {"group": config.dataset.group, "on_error": config.dataset.on_error}  # for readers of tables
    more |= {name: value for name, value in changed.items() if value not in (None, "fail")}
    reader = component(config.dataset.reader, "dataset", offline=config.runtime.offline, splits=splits, **more)
    if splits and "splits" not in getattr(reader, "keywords", {}):
        split, name = next(iter(splits.items()))
        raise RequestError(
            f"dataset.splits.{split}={name}: this data set is not read from folders of splits "
            f"({config.dataset.reader['_target_']}); leave it out"
        )
    return components.parts("dataset", config.dataset.reader, reader)


def plans_of(config: Config, net: "Net") -> dict[str, "Plan"]:
    """The phases of a configuration, resolved for its network.

    Raises:
        RequestError: an unknown stage, a selection that nothing answers to, batches of one image for a BatchNorm.
    """
    from tlx.training import phase_plan
    from tlx.training.optimizers import check_solver

    plans = {}
    for name, phase in config.strategy.phases.items():
        plans[name] = phase_plan.plan(net, name, phase, classifier=net.layout.classifier, fine=net.fine)
        if plans[name].adapting and phase.batch_size == 1:
            raise RequestError(
                f"training.batch_size=1: BatchNorm needs at least two images in a batch; take 2, or "
                f"strategy.phases.{name}.statistics=none"
            )
        check_solver(phase.solver, net, plans[name])
    return plans


def network(config: Config, backbone: Backbone, classes: int, device: "torch.device") -> tuple["Net", "Preprocessing"]:
    """The network of a configuration with the weights that `backbone` names, on the device, and its preprocessing.

    Raises:
        RequestError: it cannot be built, or images of the input size are too small for it.
    """
    import torch

    with importing("torchvision"):
        from tlx.backbones import factories
        from tlx.backbones.memory_layout import channels_last
        from tlx.datasets.further_views import FurtherView

    net, preprocessing = factories.build(
        backbone, config.head, classes, seed=config.seed, offline=config.runtime.offline
    )
    views = tuple(FurtherView(**view) for view in config.evaluation.views)
    preprocessing = dataclasses.replace(preprocessing, views=views)
    size = preprocessing.input_size
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except RuntimeError as error:  # a map has shrunk to nothing before the last pooling
        raise RequestError(f"backbone.input_size={size}: {backbone.name} cannot take it ({reason(error)})") from error
    channels_last(net.to(device))
    return net, preprocessing


def identify(job: Job) -> str:
    """The identity of a run: of its configuration with `auto` resolved, its data and the weights it starts from."""
    from tlx.features.weight_fingerprint import fingerprint
    from tlx.training.phase_plan import longer_last

    runtime = dataclasses.replace(job.config.runtime, device=job.device.type, precision=job.precision)
    span = job.preprocessing.range  # measured, or given and of use
    dataset = dataclasses.replace(job.config.dataset, range=None if span is None else list(span))
    config = dataclasses.replace(job.config, runtime=runtime, dataset=dataset)
    layout = job.net.layout
    last = longer_last(job.net, job.phases.values(), classifier=layout.classifier, fine=job.net.fine)
    return identity(config, job.data.fingerprint, fingerprint(job.net), last)


def known_before(job: Job, source: Path | None) -> dict[str, Any]:
    """What is known about a run before it trains, by the names of `Summary`."""
    sets = {split: getattr(job.data, split) for split in ("train", "val", "test")}
    return {
        "identity": identify(job),
        "choose_by": job.config.evaluation.choose_by,
        "classes": list(job.data.classes),
        "images": {split: len(images) for split, images in sets.items()},
        "splits": dict(job.data.origins),
        "range": None if job.preprocessing.range is None else list(job.preprocessing.range),
        "notes": list(job.data.notes),
        "copies": copies(sets, job.data.classes),
        "skipped": [list(pair) for pair in job.data.skipped],
        "precision": job.precision,
        "device": device_name(job.device),
        "source": None if source is None else str(source),
    }
