"""One configuration, carried out: build, phases, save, measure. Used by the command line, a source task and a sweep."""

import dataclasses
import json
import logging
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tlx import tracking, weights
from tlx.build import Clock, Job, features_of, identify, network, prepare
from tlx.config import Config, component, source_task
from tlx.display import Display, lines, plan_lines
from tlx.record import Record, Summary
from tlx.runtime import device_name

if TYPE_CHECKING:
    from tlx.evaluate import Scores
    from tlx.features import Features
    from tlx.solvers import Progress

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
        features, last = features_of(job), list(config.strategy.phases)[-1]
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
    job.net, job.preprocessing = network(config, backbone, job.data, job.device)
    return folder


def _finished(folder: Path) -> bool:
    file = folder / "summary.json"
    return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["status"] == "finished"


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
