"""Everything that a configuration names, found, read, built and checked: after this nothing is wrong with a request."""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx import ranks, weights
from tlx.clock import Clock
from tlx.config import Backbone, Config, component, identity
from tlx.data import Data, Parts, split
from tlx.data_range import scale
from tlx.decoding import allow
from tlx.errors import RequestError, reason
from tlx.images import Decoded
from tlx.runtime import device_of, precision_of, reader_processes, use_precision, use_threads

if TYPE_CHECKING:
    import torch

    from tlx.features import Features
    from tlx.pixels import Preprocessing
    from tlx.stages import Net
    from tlx.store import Store
    from tlx.strategy import Plan

log = logging.getLogger("tlx")


@dataclass
class Job:
    """A configuration whose parts exist; nothing has been written, and nothing is wrong with the request."""

    config: Config
    data: Data
    net: "Net"
    preprocessing: "Preprocessing"
    plans: dict[str, "Plan"]
    device: "torch.device"
    precision: str
    decoded: Decoded

    @property
    def plan(self) -> list[dict[str, Any]]:
        """As `plan.json` has it."""
        return [plan.to_dict() for plan in self.plans.values()]


def prepare(config: Config, clock: Clock) -> Job:
    """Everything that the configuration names: found, read, built and checked against each other.

    What can be answered without torch is answered before it is imported.
    """
    pretrained = config.source.dataset is None
    allow(config.runtime.max_pixels)
    with clock.part("data"):
        # A folder that is given is looked at before weights are fetched; weights are looked for before data is fetched.
        given = config.dataset.reader.get("root") is not None
        parts = found(config) if given else None
        if pretrained:
            weights.locate(config.backbone, offline=config.runtime.offline)
        decoded = Decoded.below(output(config)) if config.features.store else Decoded(None)
        data = split(parts or found(config), config.dataset, config.seed, decoded)
        span = scale(data, config.dataset.range)
    import torch

    use_threads(config.runtime.threads)
    torch.set_num_threads(ranks.share_of_threads(torch.get_num_threads()))
    device = ranks.place(device_of(config.runtime.device))
    precision = "fp32" if config.features.mode == "exact" else precision_of(config.runtime.precision, device)
    use_precision(precision)
    backbone = config.backbone if pretrained else dataclasses.replace(config.backbone, weights="none")
    with clock.part("network"):
        net, preprocessing = network(config, backbone, len(data.classes), device)
        preprocessing = dataclasses.replace(preprocessing, range=span)
        _try_out(config, preprocessing.input_size)
        plans = plans_of(config, net)
    return Job(config, data, net, preprocessing, plans, device, precision, decoded)


def found(config: Config, **more: Any) -> Parts:
    """The data set of a configuration as it lies there; no image has been read. `more`: for a reader that takes it.

    Raises:
        RequestError: `dataset.splits` names folders, but the data set is none of folders; or what the reader raises.
    """
    splits = {split: name for split, name in dataclasses.asdict(config.dataset.splits).items() if name is not None}
    reader = component(config.dataset.reader, "dataset", offline=config.runtime.offline, splits=splits, **more)
    if splits and "splits" not in getattr(reader, "keywords", {}):
        split, name = next(iter(splits.items()))
        raise RequestError(
            f"dataset.splits.{split}={name}: this data set is not read from folders of splits "
            f"({config.dataset.reader['_target_']}); leave it out"
        )
    parts: Parts = reader()
    return parts


def plans_of(config: Config, net: "Net") -> dict[str, "Plan"]:
    """The phases of a configuration, resolved for its network.

    Raises:
        RequestError: an unknown stage, a selection that nothing answers to, batches of one image for a BatchNorm.
    """
    from tlx import strategy

    plans = {}
    for name, phase in config.strategy.phases.items():
        plans[name] = strategy.plan(net, name, phase, classifier=net.layout.classifier, fine=net.fine)
        if plans[name].adapting and phase.batch_size == 1:
            raise RequestError(
                f"training.batch_size=1: BatchNorm learns from two images at least; take 2, or "
                f"strategy.phases.{name}.statistics=none"
            )
    return plans


def network(config: Config, backbone: Backbone, classes: int, device: "torch.device") -> tuple["Net", "Preprocessing"]:
    """The network of a configuration with the weights that `backbone` names, on the device, and its preprocessing.

    Raises:
        RequestError: it cannot be built, or images of the input size are too small for it.
    """
    import torch

    from tlx import backbones

    net, preprocessing = backbones.build(
        backbone, config.head, classes, seed=config.seed, offline=config.runtime.offline
    )
    size = preprocessing.input_size
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except RuntimeError as error:  # a map has shrunk to nothing before the last pooling
        raise RequestError(f"backbone.input_size={size}: {backbone.name} cannot take it ({reason(error)})") from error
    return net.to(device).to(memory_format=torch.channels_last), preprocessing


def identify(job: Job) -> str:
    """The identity of a run: of its configuration with `auto` resolved, its data and the weights it starts from."""
    from tlx.features import fingerprint

    runtime = dataclasses.replace(job.config.runtime, device=job.device.type, precision=job.precision)
    span = job.preprocessing.range  # measured, or given and of use
    dataset = dataclasses.replace(job.config.dataset, range=None if span is None else list(span))
    config = dataclasses.replace(job.config, runtime=runtime, dataset=dataset)
    return identity(config, job.data.fingerprint, fingerprint(job.net))


def features_of(job: Job, store: "Store | None" = None) -> "Features":
    """The rows of a job's images, as they are and behind its frozen stages. `store`: the run's own, if it has one."""
    from tlx.features import Features
    from tlx.rows import Pixels
    from tlx.store import Store

    config, data = job.config, job.data
    workers = reader_processes(config.runtime.workers, job.device)
    transforms = _transforms(config, job.preprocessing.input_size)
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
            spec=json.dumps([seen, dataclasses.asdict(config.augmentation), config.seed, *_written(transforms)]),
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
        store=store or Store(output(config) / "features", settings.store, say=log.warning),
        about={"backbone": config.backbone.name, "data": data.name},
        architecture=json.dumps(dataclasses.asdict(dataclasses.replace(config.backbone, weights="none")), default=str),
        say=log.info,
    )


def output(config: Config) -> Path:
    """Where all runs lie, absolute."""
    return Path(os.path.expanduser(config.output)).absolute()


def _try_out(config: Config, input_size: int) -> None:
    """Makes what a YAML names and nothing has made yet, so that a value it does not take is found before the run."""
    import torch

    from tlx.solvers import optimizer_for, schedule_for

    for name, phase in config.strategy.phases.items():
        assert phase.epochs is not None
        weights = [{"params": [torch.zeros(1, requires_grad=True)], "lr": phase.lr}]
        for group, attempt in (
            ("optimizer", partial(optimizer_for, phase.optimizer, weights)),
            ("schedule", partial(schedule_for(phase.schedule), 0.0, phase.epochs)),
        ):
            try:
                attempt()
            except (TypeError, ValueError, ZeroDivisionError, RuntimeError, IndexError) as error:
                given = getattr(phase, group)
                values = ", ".join(f"{key}={value}" for key, value in given.items() if key != "_target_")
                what = f"{group} of phase {name}: {given['_target_']} does not take {values or 'nothing'}"
                raise RequestError(f"{what}: {reason(error)}") from error
    _transforms(config, input_size)


def _transforms(config: Config, input_size: int) -> list[Any]:
    """The augmentation's transforms; a size such as `256/224` is a share of the network's input size."""
    made = []
    for number, node in enumerate(config.augmentation.transforms):
        sized = {name: _pixels(value, input_size) for name, value in node.items()}
        key = f"augmentation.transforms[{number}]"
        try:
            made.append(component(sized, key)())
        except (TypeError, ValueError) as error:
            raise RequestError(f"{key}: {node['_target_']} does not take these values: {reason(error)}") from error
    return made


def _written(transforms: Sequence[Any]) -> list[str]:
    """Digests of the files in which transforms of a person's own are written: what they do is not in the YAML."""
    files = set[str]()
    for transform in transforms:
        with contextlib.suppress(TypeError):  # built in
            kind = transform if inspect.isroutine(transform) else type(transform)
            if kind.__module__.partition(".")[0] not in ("tlx", "torch", "torchvision"):
                files.add(inspect.getfile(kind))
    return sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if os.path.isfile(file))


def _pixels(value: Any, input_size: int) -> Any:
    found = re.fullmatch(r"(\d+)/(\d+)", value) if isinstance(value, str) else None
    return round(input_size * int(found[1]) / int(found[2])) if found else value
