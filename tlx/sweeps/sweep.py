"""Runs that belong together: every combination once, whatever happens on the way.

A sweep is a folder. A job is known by a hash of what is requested, and has a sub-folder of that name, so that the same
command, run again after a crash, skips finished jobs, resumes interrupted ones and runs missing ones.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tlx.config import multirun, tracking_uri
from tlx.config.hydra_launchers import LostJob, reachable
from tlx.config.schema import Config
from tlx.config.source_task import source_task
from tlx.config.unread_keys import refuse
from tlx.core import activity
from tlx.core.atomic_files import unwritable
from tlx.core.errors import RequestError, said
from tlx.datasets.splits import Parts, unread
from tlx.runs.output_layout import new_folder
from tlx.runs.split_data import split_data
from tlx.sweeps import sweep_job, sweep_manifest
from tlx.sweeps.sweep_plan import Planned, all_differ
from tlx.sweeps.sweep_progress import JobsBeside, SweepProgress, kind
from tlx.tracking import run_facts
from tlx.tracking import tracker as tracking
from tlx.tracking.network_disk import fit_for_many


@dataclass
class SweepFolder:
    """A sweep's folder, opened."""

    folder: Path
    name: str
    jobs: list[Planned]  # of this launch
    config_dir: str | None
    tracker: tracking.Tracker
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)  # by job key: {"error", "skipped"}

    def launch(self, jobs: Sequence[Planned] | None = None, *, brief: bool = False) -> None:
        """Runs the jobs (all, if none are given) by the configured launcher; one whose process died is run again.

        `brief`: a line a job, and not the lines of its run.
        """
        left = [j for j in (self.jobs if jobs is None else jobs) if not self._settled(j)]
        if not left:
            return
        inside = left[0].launcher == "basic"
        if not inside:  # other processes find the sweep's MLflow run by its key: it must be there before theirs
            with activity.doing("starting MLflow"):
                _ = self.tracker.run_id
        job = partial(
            sweep_job.task,
            jobs={
                j.folder: {"number": i + 1, "of": len(self.jobs), "typed": j.typed, **sweep_manifest.facts(j)}
                for i, j in enumerate(self.jobs)
            },
            key=self.book()["mlflow_key"],
            beside=min(left[0].beside, len(left)),
            quiet=brief or not inside,
        )
        if inside:  # composed already
            progress, kinds = SweepProgress("job", len(self.jobs)), [kind(j) for j in left]
            with activity.whole(progress.now):
                for i, j in enumerate(left):
                    with progress.job(len(self.jobs) - len(left) + i, kinds[i], kinds[i + 1 :]):
                        self.outcomes[j.key] = job(j.node, folder=self.folder / j.folder)
            return
        # One process that dies may take others along: all of them again, and then each for itself.
        lost = [j for some in self._launched(job, [left]) for j in some]
        lost = [j for some in self._launched(job, [lost]) for j in some]
        for _ in self._launched(job, [[j] for j in lost]):
            pass

    def _settled(self, planned: Planned) -> bool:
        """Whether the job is finished, or can never be in this sweep: it diverged, or its images have changed since."""
        from tlx.runs import run_state
        from tlx.sweeps import sweep_summary

        folder = self.folder / planned.folder
        head, error = f"job {self.jobs.index(planned) + 1} of {len(self.jobs)}", run_state.diverged(folder)
        if error:
            print(f"{head}: diverged already, and would again", file=sys.stderr)
            self.outcomes[planned.key] = {"error": error, "skipped": True}
            return True
        if (done := run_state.finished(folder)) is None:
            return False
        try:
            run_state.unchanged(planned.config, done, folder)
            print(f"{head}: finished already, {sweep_summary.accuracy(done)}", file=sys.stderr)
        except Exception as refused:  # one job's reason is not the others'
            error = said(refused)
            print(f"tlx: {error}", file=sys.stderr)
        self.outcomes[planned.key] = {"error": error, "skipped": True}
        return True

    def _launched(self, job: Callable[..., Any], batches: Sequence[list[Planned]]) -> Iterator[list[Planned]]:
        """Runs the jobs, a batch after the other, and yields of each those whose process died."""
        for batch in filter(None, batches):
            typed = [
                [
                    *j.overrides,
                    *tracking_uri.overrides(j.config.tracking, j.overrides),
                    f"hydra.sweep.subdir={j.folder}",
                ]
                for j in batch
            ]
            with activity.doing(JobsBeside(batch, self.folder).now):
                found = multirun.launch(typed, job, self.folder, self.config_dir)
            lost = [j for j, outcome in zip(batch, found, strict=True) if isinstance(outcome, LostJob)]
            for j, outcome in zip(batch, found, strict=True):
                self.outcomes[j.key] = {"error": outcome.reason, "skipped": False} if j in lost else outcome
            yield lost

    def add(self, job: Planned) -> None:
        """One more job, which was not known when the sweep was opened."""
        sweep_manifest.write(self.folder, {}, sweep_manifest.entries([job]))

    def failed(self) -> list[tuple[Planned, str]]:
        """The jobs that did not finish, and why."""
        return [
            (j, self.outcomes[j.key]["error"])
            for j in self.jobs
            if j.key in self.outcomes and self.outcomes[j.key]["error"]
        ]

    def finished(self) -> list[Planned]:
        """The jobs of this launch that are through."""
        from tlx.runs.run_state import finished

        return [j for j in self.jobs if finished(self.folder / j.folder)]

    def book(self) -> dict[str, Any]:
        """The content of the sweep's own file."""
        return sweep_manifest.read(self.folder)

    def close(self, status: str, *, table: bool = True) -> list[str]:
        """Writes (and, with `table`, prints) what all finished jobs found; the sweep's MLflow run ends.

        Returns what of this failed, in lines.
        """
        from tlx.sweeps import sweep_summary

        failed = []
        if self.finished():
            failed = sweep_summary.sum_up(self.folder, self.book()["jobs"], table=table)
        self.end(status)
        return failed

    def measured(self, figures: Mapping[str, float], step: int) -> None:
        """Adds to the figures of the sweep's MLflow run."""
        sweep_manifest.write(self.folder, {"metrics": [*self.book().get("metrics", []), [figures, step]]})
        self.tracker.changed()

    def end(self, status: str, error: str = "") -> None:
        """Ends the sweep's MLflow run; `status`: finished, failed or interrupted, `error`: why."""
        sweep_manifest.write(self.folder, {"status": status, "error": error, "ended": time.time()})
        with activity.doing("waiting until MLflow has everything"):
            why = self.tracker.finish()
        if self.tracker.uri:
            sweep_manifest.write(self.folder, {"mlflow_run_id": self.tracker.run_id, "mlflow_sent": not why})
        if why:
            print(f"to send MLflow what it has not got: python -m tlx sync {self.folder}", file=sys.stderr)
        (self.folder / run_facts.LOCK).unlink(missing_ok=True)


def check_data(jobs: Sequence[Planned]) -> None:
    """Finds out before the first job whether the data is there and can be split, and what of the request is about it.

    Where jobs run on other machines these may see what this one does not: nothing is fetched here, and data that is
    not here is not checked.

    Raises:
        RequestError: no job can have its data, or an override has no effect with it.
    """
    from tlx.runs.prepare import found

    here = jobs[0].launcher == "basic"
    problems, listed = list[RequestError](), dict[str, Parts]()
    splits, known = False, []
    for job in jobs:
        idle = dict(job.typed.unread)
        for prefix, config in (("", job.config), ("source.", source_task(job.config))):
            if config is None:
                continue
            if not here:
                config = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, offline=True))
            common = config.dataset
            reader = repr((common.reader, common.splits, common.group, common.on_error))
            try:
                parts = listed[reader] = listed.get(reader) or found(config)
                if here and not splits and not prefix:
                    split_data(parts, config, config.seed, decode=())
                    splits = True
            except RequestError as error:
                problems += [error] if here and not prefix else []
            if reader in listed:
                idle |= unread(listed[reader], config.dataset, f"{prefix}dataset")
        known.append(dataclasses.replace(job.typed, unread=idle))
    if problems and not splits:
        raise problems[0]
    refuse(known)
    if here:
        with activity.doing("trying out the configurations"):
            _try_out(jobs)


def _try_out(jobs: Sequence[Planned]) -> None:
    """Makes whatever the configurations name, each once, for jobs that run on this machine.

    Raises:
        RequestError: something cannot be made, or jobs differ only in what is the same on this machine.
    """
    from tlx.core.device import device_of, precision_of
    from tlx.runs import components

    with activity.importing("torch"):
        import torch  # noqa: F401

    resolved = []
    for job in jobs:
        runtime = job.config.runtime
        device = device_of(runtime.device)
        exact = job.config.features.mode == "exact"
        precision = "fp32" if exact else precision_of(runtime.precision, device)
        runtime = dataclasses.replace(runtime, device=device.type, precision=precision)
        resolved.append((dataclasses.replace(job.config, runtime=runtime), job.overrides))
    all_differ(resolved)
    named = {}
    for config in (job.config for job in jobs):
        phases = [(phase.optimizer, phase.schedule, phase.epochs) for phase in config.strategy.phases.values()]
        named[repr((phases, config.augmentation, config.evaluation.samples, config.backbone.input_size))] = config
    for config in named.values():
        components.try_out(
            config, config.backbone.input_size or 224
        )  # null: as the weights say, which no size here has
        components.samples(config)


def open_sweep(
    jobs: list[Planned],
    folder: Path,
    command_line: str,
    config_dir: str | None,
    *,
    growing: bool = False,
) -> SweepFolder:
    """Makes the sweep's folder and its MLflow run, or finds them.

    `growing`: `jobs` is an example; those that run come one by one (`SweepFolder.add`), from one who knows what belongs
    together.

    Raises:
        RequestError: the folder holds a sweep of another configuration, or cannot be written, or the launcher does not
            answer.
    """
    config = jobs[0].config
    reachable(jobs[0].launcher, jobs[0].settings)
    if config.sweep.name is None:
        folder = new_folder(folder)
    for line in tracking_uri.lines(config.tracking):
        print(line, file=sys.stderr)
    tracker = tracking.open(config.tracking, _output(config))
    if jobs[0].launcher != "basic":
        fit_for_many(config.tracking, _output(config))
    new = {} if growing else sweep_manifest.entries(jobs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if not growing and (folder / "study.db").exists():
        raise RequestError(f"sweep.name={folder.name}: holds a search; take another name, or remove {folder}")
    if not growing:
        known = sweep_manifest.read(folder)["jobs"] if (folder / sweep_manifest.FILE).is_file() else {}
        sweep_manifest.no_clash(folder, known, new)
    unsent = {"mlflow_sent": False} if tracker.uri else {}
    state = {"name": folder.name, "command": command_line, "status": "running", "error": "", **unsent}
    sweep_manifest.write(folder, state, new)
    tracker.start(folder, shared=True)
    return SweepFolder(folder, folder.name, jobs, config_dir, tracker)


def _output(config: Config) -> Path:
    return Path(os.path.expanduser(config.output)).absolute()
