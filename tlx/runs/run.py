"""One configuration, carried out: build, phases, save, measure. Used by the command line, a source task and a sweep."""

import contextlib
import dataclasses
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from tlx.config import tracking_uri
from tlx.config.identity import from_tree
from tlx.config.schema import Config, Phase, source_task
from tlx.config.unread_keys import Typed
from tlx.core import folder_lock
from tlx.core.atomic_files import unwritable
from tlx.core.device import EMULATED, device_name, emulated
from tlx.core.errors import Diverged, RequestError
from tlx.core.version import __version__
from tlx.datasets.exact_copies import copies
from tlx.distributed import launch, process_group
from tlx.reporting.log_lines import lines
from tlx.reporting.run_display import Display
from tlx.runs import model_saving, refit, run_state
from tlx.runs.build_features import features_of
from tlx.runs.final_evaluation import as_saved, draw_samples, look
from tlx.runs.output_layout import output
from tlx.runs.prepare import Job, identify, network, prepare
from tlx.runs.run_recorder import Record, Silent
from tlx.runs.run_summary import Summary
from tlx.runs.stopwatch import Clock
from tlx.tracking import tracker as tracking
from tlx.training import checkpoint
from tlx.training.convergence import not_converged

if TYPE_CHECKING:
    from tlx.training.progress import Progress

log = logging.getLogger("tlx")


class Within(NamedTuple):
    """What a run is a part of: a sweep, or the run whose source task it is. Its folder is there, and nobody else works
    in it."""

    key: str = ""  # its MLflow run's name for good
    parent: "str | tracking.Tracker | None" = None  # its MLflow run's parent
    quiet: bool = False  # other runs go on beside it, and the screen is not its own


def run(
    config: Config,
    folder: Path,
    *,
    command: str,
    name: str = "",
    within: Within | None = None,
    resume: bool = False,
    job: Job | None = None,
    watch: Callable[[Mapping[str, Any]], None] = lambda row: None,
    typed: Typed | None = None,
) -> Summary:
    """Trains, saves and measures one model, in the new folder `folder`.

    `name`: what MLflow calls it, if not as the folder. `within`: what it is a part of. `resume`: go on with what
    `folder` has, if it has a checkpoint. `job`: what `prepare` made of the configuration, where that is done. `watch`:
    is shown each epoch's row, with the number of all `epochs` (the last one again when the run goes on), and may raise
    to end the run. `typed`: what was typed for it; what has no effect is logged, or refused.

    Raises:
        RequestError: the request cannot be carried out; nothing is left behind.
        KeyboardInterrupt: what was done until then is kept, and named in the message.
    """
    clock, part = Clock(whole=within is None), within or Within()
    writes = launch.writes()
    tracker = tracking.open(config.tracking, output(config)) if writes else tracking.Tracker()
    kind = Record if writes else Silent
    record = kind(folder, tracker, command, clock, within_sweep=within is not None, key=part.key, parent=part.parent)
    record.summary.requested = typed.requested() if typed else {}
    name = name or _name(folder)
    asked = {"tree": dataclasses.asdict(config), "folder": str(folder), "command": command, "resume": resume}

    def advice() -> str:
        return f"to go on: python -m tlx resume {record.folder}" if record.opened else f"again: {command}"

    with (
        lines(quiet=part.quiet or not writes),
        record.ending(name),
        launch.together(config.runtime, "tlx.runs.run:follow", asked, advice),
    ):
        for line in tracking_uri.lines(config.tracking) if writes and within is None else ():
            log.info("%s", line)
        for line in typed.warnings() if typed and writes else ():
            log.warning("%s", line)
        with process_group.first():
            if job is None:
                job = prepare(config, clock, typed if writes else None)
                if writes and emulated(job.precision, job.device):
                    log.warning("runtime.precision=bf16: %s; use runtime.precision=auto", EMULATED)
            with clock.part("network"):
                model_saving.try_out(job)
        with clock.part("start" if config.source.dataset is None else "source"):
            source = run_source(config, job, command, typed if writes else None)
        from tlx.inference import predictor
        from tlx.training import trainer
        from tlx.training.progress import Progress
        from tlx.training.solvers import restore

        known = _known(job, source)
        process_group.same("data or weights", known["identity"])
        before = process_group.agreed(
            run_state.claimed(record, config, job, known["identity"], resume) if writes else None
        )
        epochs = sum(phase.epochs or 0 for phase in job.phases.values())
        progress = Progress(epochs=epochs, choose_by=config.evaluation.choose_by)
        features, last = features_of(job), list(config.strategy.phases)[-1]
        features.doing = lambda line: setattr(progress, "doing", line)
        clock.counted("features", lambda: features.seconds)
        record.served = features.served
        record.before = before
        with clock.part("tracking"):
            record.open(name, config, job.plan, job.data, known)
        record.folder = record.summary.folder = Path(process_group.agreed(str(record.folder)))
        begin = refit.start(job)
        if before is not None:
            clock.add(before["seconds"])
            checkpoint.load(record.folder, before, job.net, progress)
            log.info("going on after epoch %d of %d", progress.epoch, progress.epochs)
            if record.rows:
                watch({**record.rows[-1], "epochs": progress.epochs})  # who was killed may not have seen it
        if writes:
            for images in (job.data.train, job.data.val, job.data.test):
                job.decoded.add(images.digests(), dict(images.levels()))

        try:
            with clock.part("other"), Display(progress, record.summary, job.plan) as display:
                if record.summary.accuracy_before_training is None:
                    look(record, job, features, "before", clock)
                lost: Diverged | None = None
                try:
                    for phase, settings in () if refit.under_way(config, progress) else _left(job.phases, progress):
                        rows = trainer.train(job.net, job.plans[phase], settings, features, config, progress)
                        for row in clock.each("training", rows):
                            with clock.part("saving"):
                                record.row(row)
                                record.keep(job.net if progress.epoch else None, progress)
                            display.row(row)
                            watch({**row, "epochs": progress.epochs})
                        final = phase == last and not config.training.refit
                        if config.evaluation.after_each_phase and not final and phase not in record.summary.after:
                            look(record, job, features, phase, clock)
                except Diverged as error:
                    if not progress.best_epoch:
                        raise
                    restore(job.net, progress.best)
                    lost = error
                if config.training.refit and lost is None:
                    job = refit.run(record, job, features, progress, begin, clock, display.row)
                with clock.part("saving"):
                    with process_group.first():
                        model_saving.save(record, job, progress)
                    # What is measured is what was saved: the network is built again from its files.
                    saved = predictor.load(record.folder, str(job.device))
                scores = look(record, *as_saved(job, saved, features), "after", clock)
                model_saving.describe(record, scores, len(job.data.test))
                if config.evaluation.after_each_phase and lost is None and not config.training.refit:
                    record.look(last, scores, job.data.test, table=True)
            if lost is None and (
                line := not_converged(record.rows, job.phases, config.training.label_smoothing, len(job.data.classes))
            ):
                record.summary.not_converged = line
                log.info("%s", line)
            with clock.part("pictures"):
                draw_samples(record, job, saved)
            record.close(scores, job.data.test, progress, "finished" if lost is None else "diverged")
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(model_saving.interrupted(record, job, progress)) from error
        if lost is not None:
            raise Diverged(model_saving.diverged(record, lost, progress)) from lost
    return record.summary


def follow(tree: Mapping[str, Any], folder: str, command: str, resume: bool) -> None:
    """What the ranks beside the first do: the same run, of which they write nothing."""
    from tlx.training import trainer  # noqa: F401  (takes seconds: while the first rank prepares)

    run(from_tree(tree), Path(folder), command=command, resume=resume)


def _left(phases: Mapping[str, Phase], progress: "Progress") -> Iterator[tuple[str, Phase]]:
    """The phases that are not through, in order, from the one in which the run stands."""
    names = list(phases)
    if progress.phase and progress.phase not in names:
        raise RequestError(f"{checkpoint.FILE}: damaged (phase {progress.phase}); remove it to start the run anew")
    start = names.index(progress.phase) if progress.phase else 0
    return ((name, phases[name]) for name in names[start:])


def run_source(config: Config, job: Job, command: str, typed: Typed | None = None) -> Path | None:
    """Trains the backbone on the source task, or finds that done, and puts it under the job; the run's folder."""
    task = source_task(config)
    if task is None:
        return None
    try:
        with process_group.first():
            first = prepare(task, Clock(), typed, prefix="source.")
    except RequestError as error:
        raise RequestError(f"source task {config.source.name}: {error}") from error
    made_by = "/".join(version(package) for package in ("torch", "torchvision", "timm"))
    known_by = hashlib.sha256(f"{identify(first)}/{__version__}/{made_by}".encode()).hexdigest()
    folder = output(config) / "sources" / f"{config.source.name}-{known_by[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder.parent, error) from error
    lock = FileLock(folder.with_name(f".{folder.name}.lock")) if process_group.rank() == 0 else contextlib.nullcontext()
    with lock:  # jobs of a sweep share it
        if process_group.agreed(run_state.finished(folder) is not None):
            log.info("source task %s: trained already, %s", config.source.name, folder)
        else:
            if why := process_group.agreed(run_state.diverged(folder)):
                raise Diverged(f"source task {config.source.name} diverged already, and would again: {why}")
            log.info("source task %s: training the backbone on it first", config.source.name)
            name = f"source {config.source.name}"
            told = f"{command}  # its source task"
            folder.mkdir(exist_ok=True)
            with folder_lock.alone(folder, wait=True) if process_group.rank() == 0 else contextlib.nullcontext():
                try:
                    run(task, folder, command=told, name=name, within=Within(known_by[:32]), resume=True, job=first)
                except Diverged as error:
                    raise Diverged(f"source task {config.source.name}: {error}") from error
            log.info("source task %s: done, now the transfer", config.source.name)
    backbone = dataclasses.replace(config.backbone, weights=str(folder))
    job.net, preprocessing = network(config, backbone, len(job.data.classes), job.device)
    job.preprocessing = dataclasses.replace(preprocessing, range=job.preprocessing.range)
    return folder


def _name(folder: Path) -> str:
    """What the run is called in MLflow: its folder's name without the time or number before it."""
    return re.sub(r"^(\d+-)+", "", folder.name)


def _known(job: Job, source: Path | None) -> dict[str, Any]:
    """What is known about a run before it trains, by the names of `Summary`."""
    return {
        "identity": identify(job),
        "choose_by": job.config.evaluation.choose_by,
        "classes": list(job.data.classes),
        "images": {part: len(getattr(job.data, part)) for part in ("train", "val", "test")},
        "splits": dict(job.data.origins),
        "range": None if job.preprocessing.range is None else list(job.preprocessing.range),
        "copies": copies({part: getattr(job.data, part) for part in ("train", "val", "test")}, job.data.classes),
        "skipped": [list(pair) for pair in job.data.skipped],
        "precision": job.precision,
        "device": device_name(job.device),
        "source": None if source is None else str(source),
    }
