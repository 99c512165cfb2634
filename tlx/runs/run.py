"""One run: prepare, train, save, measure, record. Used by the command line, a source task and a sweep."""

import contextlib
import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from tlx.config import tracking_uri
from tlx.config.identity import from_tree
from tlx.config.resolvers import NAMED
from tlx.config.schema import Config
from tlx.config.source_task import source_task
from tlx.config.unread_keys import Typed
from tlx.core import folder_lock
from tlx.core.activity import doing
from tlx.core.atomic_files import unwritable
from tlx.core.deferred_compiler import compiler_deferred
from tlx.core.device import EMULATED, emulated
from tlx.core.errors import Diverged, RequestError
from tlx.core.stopwatch import Clock
from tlx.core.version import __version__, version_of
from tlx.distributed import launch, process_group
from tlx.reporting.log_lines import lines
from tlx.reporting.run_display import Display
from tlx.reporting.screen import live
from tlx.runs import audit_before_run, final_page, model_saving, refit, run_state
from tlx.runs.build_features import features_of
from tlx.runs.final_evaluation import as_saved, draw_samples, look
from tlx.runs.output_layout import output
from tlx.runs.prepare import Job, identify, known_before, network, prepare
from tlx.runs.run_name import run_name
from tlx.runs.run_recorder import Record
from tlx.runs.run_summary import Summary
from tlx.runs.silent_record import Silent
from tlx.runs.started_run import Judge, StartedRun, Watch
from tlx.runs.train_phases import TrainedRun, train_phases
from tlx.tracking import tracker as tracking
from tlx.training import checkpoint
from tlx.training.convergence import not_converged

if TYPE_CHECKING:
    from tlx.inference.predictor import Model
    from tlx.training.metrics import Scores
    from tlx.training.train_state import TrainState

log = logging.getLogger("tlx")


class Within(NamedTuple):
    """What a run is a part of: a sweep, or the run whose source task it is. Its folder is there, and nobody else works
    in it."""

    key: str = ""  # its MLflow run's name for good; a sweep's job begins with the sweep's
    quiet: bool = False  # other runs go on beside it, and the screen is not its own


@compiler_deferred()
def run(
    config: Config,
    folder: Path,
    *,
    command: str,
    name: str = "",
    within: Within | None = None,
    resume: bool = False,
    job: Job | None = None,
    watch: Watch = lambda row: None,
    typed: Typed | None = None,
    judge: Judge | None = None,
) -> Summary:
    """Trains, saves and measures one model, in the new folder `folder`.

    `name`: what MLflow calls it, if not as the folder. `within`: what it is a part of. `resume`: go on with what
    `folder` has, if it has a checkpoint. `job`: what `prepare` made of the configuration. `watch`: sees each epoch's
    row, with the number of all `epochs` (the last one again when the run goes on), and may raise to end the run.
    `typed`: what was typed; what has no effect is logged, or refused. `judge`: sees the best epoch before the test set
    is looked at, and may leave the run there by KeyboardInterrupt.

    Raises:
        RequestError: the request cannot be run; nothing is left behind.
        KeyboardInterrupt: what was done until then is kept, and named in the message; all but the page, if that was
            being written.
    """
    clock, part, writes = Clock(whole=within is None), within or Within(), launch.writes()
    tracker = tracking.open(config.tracking, output(config)) if writes else tracking.Tracker()
    kind = Record if writes else Silent
    record = kind(folder, tracker, command, clock, within_sweep=within is not None, key=part.key)
    record.summary.began = time.time()
    if typed is not None:
        record.summary.requested, record.summary.choices = typed.requested(), dict(typed.choices)
        record.tracked.choices = {group: typed.choices[group] for group in NAMED if group in typed.choices}
    name, said = name or run_name(folder, typed), typed if writes else None
    to_others = {"tree": dataclasses.asdict(config), "folder": str(folder), "command": command, "resume": resume}
    quiet = part.quiet or not writes
    with (
        contextlib.nullcontext() if quiet else live("preparing the run"),
        lines(quiet=quiet),
        record.ending(name),
        launch.together(config.runtime, "tlx.runs.run:follow", to_others, partial(_advice, record, command)),
    ):
        for line in tracking_uri.lines(config.tracking) if writes and within is None else ():
            log.info("%s", line)
        for line in said.warnings() if said else ():
            log.warning("%s", line)
        job = _prepared(config, clock, job, said)
        job, source = _after_source(config, clock, job, command, said)
        started = _start(record, job, source, resume, name, watch, judge)
        try:
            with clock.part("other"), Display(started.progress, record.summary, job.plan) as display:
                started = dataclasses.replace(started, show=partial(_show, display, watch, started.state))
                audit_before_run.look(record, job, alone=within is None)
                if record.summary.accuracy_before_training is None and judge is None:
                    look(record, job, started.features, "before", clock)
                trained = train_phases(started)
                learned, lost = trained.job, trained.lost
                model, scores = _save_and_measure(started, trained)
            missing = _close(started, learned, model, scores, lost)
        except KeyboardInterrupt as error:
            raise type(error)(model_saving.interrupted(record, job, started.state)) from error
        if lost is not None:
            raise Diverged(model_saving.diverged(record, lost, started.state)) from lost
    if missing:  # the run has finished, but who waits for it has to stop: a sweep, a script
        raise KeyboardInterrupt(missing)
    return record.summary


def _prepared(config: Config, clock: Clock, job: Job | None, typed: Typed | None) -> Job:
    """What `prepare` makes of the configuration, where that is not done; a model of it can be saved and opened."""
    with process_group.first():
        if job is None:
            job = prepare(config, clock, typed)
            if launch.writes() and emulated(job.precision, job.device):
                log.warning("runtime.precision=bf16: %s; use runtime.precision=auto", EMULATED)
        with clock.part("network"), doing("trying out whether the model can be saved"):
            model_saving.try_out(job)
    return job


def _after_source(config: Config, clock: Clock, job: Job, command: str, typed: Typed | None) -> tuple[Job, Path | None]:
    """The job with the backbone that has learned the source task, and the task's folder; without one the job itself."""
    with clock.part("start" if config.source.dataset is None else "source"):
        folder = run_source(config, command, typed)
        if folder is None:
            return job, None
        backbone = dataclasses.replace(config.backbone, weights=str(folder))
        net, preprocessing = network(config, backbone, len(job.data.classes), job.device)
        preprocessing = dataclasses.replace(preprocessing, range=job.preprocessing.range)
        return dataclasses.replace(job, net=net, preprocessing=preprocessing), folder


def _start(
    record: Record,
    job: Job,
    source: Path | None,
    resume: bool,
    name: str,
    watch: Watch,
    judge: Judge | None,
) -> StartedRun:
    """Makes the run's folder, or goes on with that of an interrupted run, its network and its training state."""
    from tlx.training.progress import Progress
    from tlx.training.train_state import TrainState

    config, clock, known = job.config, record.clock, known_before(job, source)
    process_group.same("data or weights", known["identity"])
    claimed = run_state.claimed(record, config, job, known["identity"], resume) if record.writes else None
    before = process_group.agreed(claimed)
    epochs = sum(phase.epochs or 0 for phase in job.phases.values())
    progress = Progress(TrainState(epochs=epochs, choose_by=config.evaluation.choose_by))
    features = features_of(job, clock=clock)
    with clock.part("tracking"), doing("making the run's folder"):
        record.open(name, config, job.plan, job.data, known, before, features.served)
    record.folder = record.summary.folder = Path(process_group.agreed(str(record.folder)))
    untrained = refit.start(job)
    if before is not None:
        clock.add(before["seconds"])
        if record.summary.accuracy_before_training is None and judge is None:  # it was left to be judged first
            look(record, job, features, "before", clock)
        checkpoint.load(record.folder, before, job.net, progress.state)
        log.info("resuming after epoch %d of %d", progress.epoch, progress.epochs)
        if record.rows:
            watch({**record.rows[-1], "epochs": progress.epochs})  # who was killed may not have seen it
    if record.writes:
        for images in (job.data.train, job.data.val, job.data.test):
            job.decoded.add(images.digests(), dict(images.levels()))
    return StartedRun(job, features, progress, record, clock, watch, untrained, judge)


def _show(display: Display, watch: Watch, state: "TrainState", row: Mapping[str, Any]) -> None:
    display.row(row)
    watch({**row, "epochs": state.epochs})


def _save_and_measure(run: StartedRun, trained: TrainedRun) -> tuple["Model", "Scores"]:
    """Saves the network as it is now. What is measured is what was saved: it is built again from its files."""
    from tlx.inference import predictor

    record, learned, config = run.record, trained.job, trained.job.config
    with run.clock.part("saving"), doing("saving the model"):
        with process_group.first():
            model_saving.save(record, learned, run.state, trained.unknown)
        with doing("opening the saved model"):
            model = predictor.load(record.folder, str(learned.device))
    scores = look(record, *as_saved(learned, model, run.features), "after", run.clock, model)
    model_saving.describe(record, scores, len(learned.data.test))
    if config.evaluation.after_each_phase and trained.lost is None and not config.training.refit:
        record.look(list(learned.phases)[-1], scores, learned.data.test, table=True)
    return model, scores


def _close(run: StartedRun, learned: Job, model: "Model", scores: "Scores", lost: Diverged | None) -> str:
    """Writes what is left of the run's folder: pictures, the summary, the page. What is missing of the page, in words,
    if the user has interrupted it."""
    import torch

    from tlx.training.weighted_loss import guessing

    record, data, smoothing = run.record, learned.data, learned.config.training.label_smoothing
    guessed = guessing(learned.config.loss, learned.config.training, torch.from_numpy(data.train.labels))
    if learned.config.training.mixing is not None:
        guessed = math.inf  # of mixed images it says nothing: their loss stays high
    line = not_converged(record.rows, learned.phases, smoothing, len(data.classes), guessed)
    if lost is None and line:
        record.summary.not_converged = line
        log.info("%s", line)
    with run.clock.part("pictures"), doing("drawing and predicting samples"):
        draw_samples(record, learned, model)
    record.close(scores, data.test, run.state, "finished" if lost is None else "diverged")
    return final_page.write(record, learned, run.features, scores) if record.writes else ""


def _advice(record: Record, command: str) -> str:
    """What to do when a rank has died."""
    return f"to resume: python -m tlx resume {record.folder}" if record.opened else f"again: {command}"


def follow(tree: Mapping[str, Any], folder: str, command: str, resume: bool) -> None:
    """What the ranks beside the first do: the same run, of which they write nothing."""
    from tlx.training import trainer  # noqa: F401  (takes seconds: while the first rank prepares)

    run(from_tree(tree), Path(folder), command=command, resume=resume)


def run_source(config: Config, command: str, typed: Typed | None = None) -> Path | None:
    """Trains the backbone on the source task, or finds that done; the folder of that run, None without a source."""
    task = source_task(config)
    if task is None:
        return None
    try:
        with process_group.first():
            first = prepare(task, Clock(), typed, prefix="source.")
    except RequestError as error:
        raise RequestError(f"source task {config.source.name}: {error}") from error
    made_by = "/".join(version_of(package) for package in ("torch", "torchvision", "timm"))
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
            label = f"{command}  # its source task"
            folder.mkdir(exist_ok=True)
            with folder_lock.alone(folder, wait=True) if process_group.rank() == 0 else contextlib.nullcontext():
                try:
                    run(task, folder, command=label, name=name, within=Within(known_by[:32]), resume=True, job=first)
                except Diverged as error:
                    raise Diverged(f"source task {config.source.name}: {error}") from error
            log.info("source task %s: done, now the transfer", config.source.name)
    return folder
