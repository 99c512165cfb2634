"""What the packages behind Hydra's launchers need around them: a process that dies costs its own job and no other,
an interrupt ends the jobs, and nothing stays behind.

The packages are extras; each is imported where its launcher is used.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlx.core import output_streams
from tlx.core.device import import_from_here
from tlx.core.errors import RequestError

# Hydra's name of a launcher → our preset, the package that brings it, our extra.
KNOWN = {
    "joblib": ("joblib", "hydra-joblib-launcher", "joblib"),
    "submitit_slurm": ("slurm", "hydra-submitit-launcher", "slurm"),
    "submitit_local": ("slurm_local", "hydra-submitit-launcher", "slurm"),
    "ray": ("ray", "hydra-ray-launcher", "ray"),
}


@dataclass(frozen=True)
class LostJob:
    """In place of a job's result: its process died before it returned one. What it had done is in its folder."""

    reason: str


def missing(launcher: str) -> RequestError | None:
    """What to say where Hydra does not know a launcher: its package is missing. None for a name that is nobody's."""
    if launcher not in KNOWN:
        return None
    preset, package, extra = KNOWN[launcher]
    return RequestError(f"launch={preset}: needs the package {package}; pip install 'tlx-transfer[{extra}]'")


def reachable(launcher: str, settings: Mapping[str, Any]) -> None:
    """Whether what is to start the jobs answers; it is called before there are files.

    Args:
        launcher: Hydra's name of it; `settings` are `hydra.launcher`.

    Raises:
        RequestError: it does not, within 5 seconds.
    """
    if launcher == "submitit_slurm":
        absent = next((command for command in ("sbatch", "srun", "sinfo") if shutil.which(command) is None), None)
        if absent is not None:
            raise RequestError(f"launch=slurm: this machine has no {absent}; launch=slurm_local needs no cluster")
        try:
            status = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, errors="replace", timeout=5)
            why = "" if status.returncode == 0 else _line(status.stderr) or f"exit code {status.returncode}"
        except subprocess.TimeoutExpired:
            why = "sinfo waited 5 s"
        if why:
            raise RequestError(f"launch=slurm: SLURM's controller does not answer ({why})")
    if launcher == "ray":
        address = settings["ray"]["init"].get("address") or os.environ.get("RAY_ADDRESS") or ""
        if found := re.fullmatch(r"(?:ray://)?([\w.-]+):(\d+)", address):  # Ray itself would try for minutes
            try:
                socket.create_connection((found[1], int(found[2])), timeout=5).close()
            except (OSError, OverflowError) as error:
                raise RequestError(f"launch=ray: no cluster answers at {address} ({error})") from error


def collected(launcher: str, settings: DictConfig, start: Callable[[], Sequence[Any]], jobs: int) -> Sequence[Any]:
    """What `start` gives back, one value for each of the `jobs`; `LostJob` for a job whose process died.

    Args:
        launcher: Hydra's name of it; `settings` are `hydra.launcher`.

    Raises:
        RequestError: it cannot be launched with these settings, or not from here.
    """
    reachable(launcher, settings)
    guard = {"joblib": _joblib, "submitit_local": _submitit, "submitit_slurm": _submitit, "ray": _ray}.get(launcher)
    try:
        with guard(settings) if guard else contextlib.nullcontext():
            return start()
    except BrokenExecutor:
        return [LostJob("a worker process died (out of memory, or killed), and that ends all of them")] * jobs
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:  # jobs' own errors are in their answers
        raise RequestError(
            f"launch={KNOWN.get(launcher, [launcher])[0]}: {_line(error) or type(error).__name__}"
        ) from error


class Elsewhere:
    """A task for a process that a launcher has started: in the folder, and stopped by the signal, of this one."""

    def __init__(self, task: Callable[[Any], Any]) -> None:
        self.task, self.folder = task, os.getcwd()

    def __call__(self, node: Any) -> Any:
        output_streams.use()
        try:
            os.chdir(self.folder)  # relative paths mean what they meant where they were typed
        except OSError:
            return LostJob(f"{self.folder} is not on {os.uname().nodename}; several machines need a shared folder")
        import_from_here()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as with Ctrl-C: what is done is saved
        return self.task(node)


@contextlib.contextmanager
def _joblib(_: DictConfig) -> Iterator[None]:
    from joblib.externals.loky import get_reusable_executor

    try:
        yield
    finally:  # idle processes would keep their memory, a GPU's too, for minutes
        get_reusable_executor().shutdown(kill_workers=True)


@contextlib.contextmanager
def _submitit(_: DictConfig) -> Iterator[None]:
    """The launcher waits for one job after the other, stops at the first that died, and leaves the others running."""
    from submitit import AutoExecutor

    started: list[Any] = []
    executor: Any = AutoExecutor
    submit = executor.map_array

    def map_array(*arguments: Any) -> list[Any]:
        started.extend(submit(*arguments))
        return [_Answer(job) for job in started[-len(arguments[2]) :]]

    executor.map_array = map_array
    try:
        yield
    except BaseException:
        for job in started:
            job.cancel(check=False)
        raise
    finally:
        del executor.map_array  # the inherited one


class _Answer:
    """A job of submitit that gives `LostJob` where it has died."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def results(self) -> list[Any]:
        from submitit.core.utils import UncompletedJobError
        from submitit.slurm.slurm import SlurmJob

        if isinstance(self.job, SlurmJob):
            _leaves_the_queue(self.job)
        try:
            found: list[Any] = self.job.results()
        except UncompletedJobError:
            log = self.job.paths.stderr
            lines = log.read_text(errors="replace").split("\n") if log.exists() else []
            last = next((line for line in reversed(lines) if line.strip()), "nothing")
            return [LostJob(f"ended without an answer; the last line of {log}: {last}")]
        return found


def _leaves_the_queue(job: Any) -> None:
    """Waits for a job's answer, or that SLURM knows it no more.

    submitit calls `sacct`, which knows jobs only where SLURM records accounts: elsewhere it waits for ever for a job
    that has died.
    """
    checked_at = 0.0
    while not job.paths.result_pickle.exists():
        if time.monotonic() - checked_at > 10:
            checked_at = time.monotonic()
            command = ["squeue", "--noheader", "--format=%T", "--jobs", job.job_id]
            queue = subprocess.run(command, capture_output=True, text=True, check=False)
            if "Invalid job id" in queue.stderr or (queue.returncode == 0 and not queue.stdout.strip()):
                job.done = lambda force_check=False: True
                return
        time.sleep(1)


@contextlib.contextmanager
def _ray(settings: DictConfig) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's developers
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # all that the jobs say is shown
    import ray

    get, ours, handler = ray.get, not ray.is_initialized(), signal.getsignal(signal.SIGTERM)
    if ours:
        options: Any = OmegaConf.to_container(settings.ray.init, resolve=True)
        try:
            ray.init(**options)
        except (RuntimeError, ray.exceptions.RayError) as error:
            hint = "a cluster with a token needs RAY_AUTH_MODE=token and its ~/.ray/auth_token here, too"
            raise RequestError(f"launch=ray: {_line(error) or type(error).__name__}; {hint}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would leave the process at once

    def answer(*arguments: Any, **named: Any) -> Any:
        try:
            return get(*arguments, **named)
        except ray.exceptions.RayTaskError as error:  # the launcher's own; a task's error is in its answer
            return LostJob(str(error).strip().splitlines()[-1])
        except ray.exceptions.RayError as error:
            return LostJob(_line(error) or type(error).__name__)

    ray.get = answer
    try:
        yield
    finally:
        ray.get = get
        if ours:
            ray.shutdown()


def _line(text: object) -> str:
    """The first line that says something."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")
