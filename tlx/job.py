"""One configuration, carried out: build, phases, save, measure. Used by the command line, a source task and a sweep."""

import dataclasses
import json
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tlx import tracking, weights
from tlx.config import Config, component, identity, source_task
from tlx.data import Data, split
from tlx.display import Display, lines, plan_lines
from tlx.errors import RequestError, reason
from tlx.record import Record, Summary
from tlx.runtime import device_name, device_of, precision_of, reader_processes, use_threads

if TYPE_CHECKING:
    import torch

    from tlx.evaluate import Scores
    from tlx.features import Features
    from tlx.pixels import Preprocessing
    from tlx.solvers import Progress
    from tlx.stages import Net
    from tlx.strategy import Plan

log = logging.getLogger("tlx")


def run(config: Config, folder: Path, *, command: str, name: str = "", within_sweep: bool = False) -> Summary:
    """Trains, saves and measures one model, in the new folder `folder`.

    `name`: what MLflow calls it, if not as the folder. `within_sweep`: Hydra has made the folder, which stays.

    Raises:
        RequestError: the request cannot be carried out; nothing is left behind.
        KeyboardInterrupt: what was done until then is kept, and named in the message.
    """
    clock = Clock()
    record = Record(folder, tracking.open(config.tracking, output(config)), command, within_sweep=within_sweep)
    name = name or _name(folder)
    with lines(), record.ending(name):
        job = prepare(config, clock)
        source = run_source(config, job, command)
        from tlx import model, trainer
        from tlx.solvers import Progress

        progress = Progress(epochs=sum(phase.epochs or 0 for phase in config.strategy.phases.values()))
        features, last = _features(job), list(config.strategy.phases)[-1]
        record.open(name, config, job.plan, job.data, _known(job, source))
        try:
            with Display(progress, record.summary, job.plan) as display:
                _look(record, job, features, "before", clock)
                for phase, settings in config.strategy.phases.items():
                    for row in trainer.train(job.net, job.plans[phase], settings, features, config, progress):
                        record.row(row)
                        display.row(row)
                    if config.evaluation.after_each_phase and phase != last:
                        _look(record, job, features, phase, clock)
                _save(record, job)
                # What is measured is what was saved: the network is built again from its files.
                job.net = model.load(record.folder, str(job.device)).net
                scores = _look(record, job, features, "after", clock)
                if config.evaluation.after_each_phase:
                    record.look(last, scores, job.data.test, table=True)
            clock.seconds |= {"features": features.seconds, "training": progress.seconds}
            _samples(record, config)
            record.close(scores, job.data.test, clock.total(), progress)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(_kept(record, job, progress)) from error
    return record.summary


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

    @property
    def plan(self) -> list[dict[str, Any]]:
        """As `plan.json` has it."""
        return [plan.to_dict() for plan in self.plans.values()]


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.seconds = {"data": 0.0, "features": 0.0, "training": 0.0, "evaluation": 0.0}

    def total(self) -> dict[str, float]:
        """The parts, and all of it."""
        return {**self.seconds, "total": time.perf_counter() - self.began}


def prepare(config: Config, clock: Clock) -> Job:
    """Everything that the configuration names: found, read, built and checked against each other.

    What can be answered without torch is answered before it is imported.
    """
    pretrained = config.source.dataset is None
    if pretrained:
        weights.locate(config.backbone, offline=config.runtime.offline)
    began = time.perf_counter()
    data = read(config)
    clock.seconds["data"] = time.perf_counter() - began
    use_threads(config.runtime.threads)
    from tlx import strategy

    device = device_of(config.runtime.device)
    precision = "fp32" if config.features.mode == "exact" else precision_of(config.runtime.precision, device)
    backbone = config.backbone if pretrained else dataclasses.replace(config.backbone, weights="none")
    net, preprocessing = _network(config, backbone, data, device)
    _try_out(config, preprocessing.input_size)
    plans = {
        name: strategy.plan(net, name, phase, classifier=net.layout.classifier, fine=net.fine)
        for name, phase in config.strategy.phases.items()
    }
    return Job(config, data, net, preprocessing, plans, device, precision)


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
            except (TypeError, ValueError, ZeroDivisionError) as error:
                given = getattr(phase, group)
                values = ", ".join(f"{key}={value}" for key, value in given.items() if key != "_target_")
                what = f"{group} of phase {name}: {given['_target_']} does not take {values or 'nothing'}"
                raise RequestError(f"{what}: {reason(error)}") from error
    _transforms(config, input_size)


def read(config: Config) -> Data:
    """The data set of a configuration, split; every image has been read once."""
    common = config.dataset
    reader = component(common.reader, "dataset", on_error=common.on_error, offline=config.runtime.offline)
    return split(reader(), common, config.seed)


def _network(config: Config, backbone: Any, data: Data, device: "torch.device") -> tuple["Net", "Preprocessing"]:
    import torch

    from tlx import backbones

    net, preprocessing = backbones.build(
        backbone, config.head, len(data.classes), seed=config.seed, offline=config.runtime.offline
    )
    return net.to(device).to(memory_format=torch.channels_last), preprocessing


def run_source(config: Config, job: Job, command: str) -> Path | None:
    """Trains the backbone on the source task, or finds that done, and puts it under the job; the run's folder."""
    task = source_task(config)
    if task is None:
        return None
    folder = output(config) / "sources" / f"{config.source.name}-{identify(prepare(task, Clock()))[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):  # jobs of a sweep share it
        if _finished(folder):
            log.info("source task %s: trained already, %s", config.source.name, folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # what a run that was stopped has left
            log.info("source task %s: training the backbone on it first", config.source.name)
            name = f"source {config.source.name}"
            run(task, folder, command=f"{command}  # its source task", name=name, within_sweep=True)
            log.info("source task %s: done, now the transfer", config.source.name)
    backbone = dataclasses.replace(config.backbone, weights=str(folder))
    job.net, job.preprocessing = _network(config, backbone, job.data, job.device)
    return folder


def _finished(folder: Path) -> bool:
    file = folder / "summary.json"
    return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["status"] == "finished"


def identify(job: Job) -> str:
    """The identity of a run: of its configuration with `auto` resolved, its data and the weights it starts from."""
    from tlx.features import fingerprint

    runtime = dataclasses.replace(job.config.runtime, device=job.device.type, precision=job.precision)
    config = dataclasses.replace(job.config, runtime=runtime)
    return identity(config, job.data.fingerprint, fingerprint(job.net))


def output(config: Config) -> Path:
    """Where all runs lie, absolute."""
    return Path(os.path.expanduser(config.output)).absolute()


def preview(config: Config) -> list[str]:
    """What a run would do, in lines, without doing it: plan, parameters, sizes of features, downloads."""
    from tlx import datasets

    downloads = [weights.would_download(config.backbone), datasets.would_download(config.dataset.reader)]
    lines = [f"would be downloaded: {what}" for what in downloads if what] or ["nothing would be downloaded"]
    if downloads[1]:
        return [*lines, "the plan depends on the classes of the data set, which is not here yet"]
    task = source_task(config)
    if task is not None:
        first = f"the source task {config.source.name} comes first, unless an identical one is done already:"
        lines = [first, *preview(task), "", "then the transfer:", *lines]
    if downloads[0]:
        config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights="none"))
    job = prepare(config, Clock())
    from tlx.features import feature_size, mib

    images = {part: len(getattr(job.data, part)) for part in ("train", "val", "test")}
    counts = ", ".join(f"{number} {part}" for part, number in images.items())
    lines.append(f"images: {counts}; classes: {', '.join(job.data.classes)}")
    for name, plan in job.plans.items():
        size = feature_size(job.net, plan.cut, job.preprocessing.input_size)
        total = mib(size * sum(images.values()))
        lines += ["", f"phase {name}: {plan.rows[plan.cut].stage} input, {size:,} bytes an image, {total} in all"]
        lines += plan_lines(plan.to_dict())
    return lines


def _name(folder: Path) -> str:
    """What the run is called in MLflow: its folder's name without the time or number before it."""
    return re.sub(r"^(\d+-)+", "", folder.name)


def _known(job: Job, source: Path | None) -> dict[str, Any]:
    """What is known about a run before it trains, by the names of `Summary`."""
    return {
        "identity": identify(job),
        "classes": list(job.data.classes),
        "images": {part: len(getattr(job.data, part)) for part in ("train", "val", "test")},
        "skipped": [list(pair) for pair in job.data.skipped],
        "precision": job.precision,
        "device": device_name(job.device),
        "source": None if source is None else str(source),
    }


def _features(job: Job) -> "Features":
    from tlx.features import Features
    from tlx.rows import Pixels

    config, data = job.config, job.data
    workers = reader_processes(config.runtime.workers, job.device)
    transforms = _transforms(config, job.preprocessing.input_size)
    parts = {
        part: Pixels(getattr(data, part), job.preprocessing, job.device, workers=workers)
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
        )
    mode, budget = config.features.mode, config.features.budget
    return Features(parts, random, job.device, job.precision, mode, budget, say=log.info)


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


def _pixels(value: Any, input_size: int) -> Any:
    found = re.fullmatch(r"(\d+)/(\d+)", value) if isinstance(value, str) else None
    return round(input_size * int(found[1]) / int(found[2])) if found else value


def _look(record: Record, job: Job, features: "Features", when: str, clock: Clock) -> "Scores":
    """Measures the test set, which chooses nothing, and keeps what it says."""
    from tlx.evaluate import logits, scores

    began, made = time.perf_counter(), features.seconds
    cut = next(iter(job.plans.values())).cut
    rows = features.rows(job.net, cut, "test")
    result = scores(logits(job.net[cut:], rows, job.precision), rows.y, job.data.classes)
    clock.seconds["evaluation"] += time.perf_counter() - began - (features.seconds - made)
    table = when == "after" or job.config.evaluation.after_each_phase
    record.look(when, result, job.data.test, table=table)
    return result


def _save(record: Record, job: Job) -> None:
    from tlx import model

    config, data = job.config, job.data
    facts = {"data": {"name": data.name, "fingerprint": data.fingerprint}, "identity": record.summary.identity}
    folder = record.folder / "model"
    model.save(folder, job.net, config.backbone, config.head, data.classes, job.preprocessing, job.precision, facts)


def _kept(record: Record, job: Job, progress: "Progress") -> str:
    """Saves the best epoch of an interrupted run; what to say about it."""
    from tlx.solvers import restore

    if not record.rows:
        return "nothing was trained yet, and nothing is kept"
    if not (record.folder / "model").is_dir():
        restore(job.net, progress.best)
        _save(record, job)
    measured = "" if record.summary.test_accuracy is not None else " (its test accuracy was not measured)"
    return (
        f"{len(record.rows)} of {progress.epochs} epochs are done; {record.folder} has them, "
        f"and the model of epoch {progress.best_epoch}{measured}"
    )


def _samples(record: Record, config: Config) -> None:
    """Draws the images that `evaluation.samples` asks for into the run's folder, and predicts them."""
    if config.evaluation.samples is None:
        return
    from PIL import Image

    from tlx import model

    images = component(config.evaluation.samples, "evaluation.samples")()
    folder = record.folder / "samples"
    folder.mkdir()
    files = []
    for i in range(len(images.test)):
        files.append(folder / f"{images.classes[images.test.labels[i]]}-{i}.png")
        Image.fromarray(images.test.decode(i)).save(files[-1])
    record.samples(list(model.load(record.folder).predict(files)))
