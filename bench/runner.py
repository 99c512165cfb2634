"""One contender, once: a process of its own, timed and weighed from outside."""

import contextlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.works import Work, python
from tlx.core.errors import RequestError

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = 2  # epochs of a loop that are run unless all are requested


class Unmeasured(Exception):
    """What the figures need to be compared with is not known."""


def answered(measure: Callable[[], str]) -> int:
    """Prints what is measured. Exit codes as tlx's: 0 all well, 1 it failed, 2 the request was wrong."""
    try:
        print(measure())
    except (RequestError, Unmeasured) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    return 0


@dataclass
class Done:
    """A process that has ended."""

    code: int
    out: str
    error: str  # the last line of stderr
    wall: float  # seconds
    busy: float  # seconds of processors
    peak_mib: float  # resident memory of the largest process
    own_mib: float  # the most of it that is no page of a file, of this process; 0 where the system does not tell


def process(words: Sequence[str], most: float | None = None) -> Done:
    """Runs one command line from the repository's root and waits for it; after `most` seconds it is interrupted."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        child = subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        sizes, ended = [0], threading.Event()
        threading.Thread(target=_weigh, args=(child.pid, sizes, ended), daemon=True).start()
        if most is not None:
            threading.Thread(target=_interrupt, args=(child.pid, most, ended), daemon=True).start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:  # interrupted: nothing stays behind
            child.kill()
            child.wait()
            raise
        finally:
            ended.set()
        wall = time.perf_counter() - began
        busy = usage.ru_utime + usage.ru_stime
        child.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, errors):
            file.seek(0)
        said = [line.strip() for line in errors.read().splitlines() if line.strip()]
        unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
        return Done(
            child.returncode,
            out.read(),
            said[-1] if said else "",
            wall,
            busy,
            usage.ru_maxrss / unit,
            max(sizes) / 2**10,
        )


def _interrupt(number: int, most: float, ended: threading.Event) -> None:
    if not ended.wait(most):
        os.kill(number, signal.SIGINT)


def _weigh(number: int, sizes: list[int], ended: threading.Event) -> None:
    """Appends the KiB that a process has in memory and that are in no file, ten times a second, as Linux says it."""
    status = Path(f"/proc/{number}/status")
    while not ended.wait(0.1):
        with contextlib.suppress(OSError):
            sizes += [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon:")]


def facts(archs: Sequence[str]) -> dict[str, Any]:
    """What `bench.machine` says.

    Raises:
        Unmeasured: it failed.
    """
    done = process(python(["-m", "bench.machine", *archs]))
    if done.code:
        raise Unmeasured(f"the machine cannot be measured: {done.error}")
    found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return found


def absent(work: Work, contender: str) -> str | None:
    """The package that a contender needs and that is not installed."""
    needs = {"lightning": "lightning", "fastai": "fastai"}.get(contender if contender in work.loops else "")
    if needs is None and contender not in work.loops and "tracking=sqlite" in work.overrides:
        needs = "mlflow"
    return needs if needs and importlib.util.find_spec(needs) is None else None


def repetition(work: Work, contender: str, data: Path, machine: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """Figures of one process: `seconds` (as the work measures it), `wall`, `images_per_second`, `peak_share`,
    `peak_mib`, `accuracy`; `failed` has a line instead where it ended badly."""
    with tempfile.TemporaryDirectory(prefix="tlx-bench-") as output:
        if contender in work.loops:
            epochs = work.epochs if whole else min(work.epochs, SAMPLE)
            workers = min(8, machine["cores"]) if machine["gpu"] else 0
            words = work.loop(contender, data, epochs, workers)
        else:
            words = ["-m", "tlx", *work.tlx(contender, data, Path(output))]
        done = process(python(words))
        if done.code:
            return {"failed": done.error or f"exit code {done.code}", "wall": done.wall}
        own = {"wall": done.wall, "peak_mib": done.peak_mib}
        try:
            if contender in work.loops:
                return own | loop_figures(work, contender, json.loads(done.out.splitlines()[-1]), done.wall, machine)
            files = sorted(Path(output).rglob("summary.json"))
            return own | tlx_figures(work, [json.loads(file.read_text()) for file in files], done.wall, machine)
        except (LookupError, ValueError) as error:
            return {"failed": f"its figures cannot be read: {type(error).__name__}: {error}", "wall": done.wall}


def loop_figures(
    work: Work, name: str, said: Mapping[str, Any], wall: float, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """A loop's figures. Epochs that were not run take as long as the median of those after the first."""
    if name == "synthetic":
        share = said["images_per_second"] * flops(work, machine)[0] / machine["peak"]["bf16"]
        return {"images_per_second": said["images_per_second"], "batch": said["batch"], "peak_share": share}
    first, *later = said["epochs"]
    epochs = first + (work.epochs - 1) * (statistics.median(later) if later else first)
    seconds = said["data"] + epochs
    train, test = said["images"]
    frozen, tail = flops(work, machine)
    work_done = work.epochs * (train * (frozen + 3 * tail) + test * (frozen + tail))  # a backward pass counts twice
    precision = "bf16" if name == "careful" else "fp32"
    return {
        "training": seconds,
        "seconds": seconds if work.measure == "training" else wall - sum(said["epochs"]) + epochs,
        "epochs_run": len(said["epochs"]),
        "images": {"train": train, "test": test},
        "images_per_second": work.epochs * (train + test) / seconds,
        "peak_share": work_done / seconds / machine["peak"][precision],
        "accuracy": [said["accuracy"]],
    }


def tlx_figures(
    work: Work, summaries: Sequence[Mapping[str, Any]], wall: float, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """tlx's figures, from its `summary.json`: one, or those of a sweep's jobs (by seed, where they are for accuracy).

    Images a second count what each epoch trains and validates on, as if all had gone through the network, so that they
    compare with a loop's; `peak_share` is of the feature pass: FLOPs of the frozen part for every image that it took.
    Where nothing is frozen it is of training, as a loop's.
    """
    jobs = sorted(summaries, key=lambda job: job["command"])
    if not jobs or any(job["status"] != "finished" for job in jobs):
        raise ValueError("no finished run")
    accuracy = {"accuracy": [job["test_accuracy"] for job in jobs]}
    parts = jobs[0]["seconds"]
    training = parts["data"] + parts["features"] + parts["training"]
    if work.measure == "accuracy" or len(jobs) > 1:
        return {"seconds": wall, "jobs": len(jobs), **accuracy}
    images, views = jobs[0]["images"], next((int(w[15:]) for w in work.overrides if w.startswith("features.views=")), 1)
    passed = views * images["train"] + images["val"] + images["test"]
    rate = passed / parts["features"] if parts["features"] else 0.0
    peak, (frozen, tail) = machine["peak"][jobs[0]["precision"]], flops(work, machine)
    share = rate * frozen / peak
    if not frozen:
        share = work.epochs * (images["train"] * 3 + images["val"]) * tail / training / peak
    compared = work.epochs * (images["train"] + images["val"]) / training
    return {
        "training": training,
        "seconds": wall if work.measure == "command" else training,
        "parts": parts,
        "images": images,
        "images_per_second": rate if work.measure == "rate" else compared,
        "peak_share": share,
        **accuracy,
    }


def flops(work: Work, machine: Mapping[str, Any]) -> tuple[int, int]:
    """FLOPs of one image's forward pass: of what is frozen, and of what learns."""
    counts = machine["flops"][work.arch]
    tail = sum(counts[name] for name in work.train)
    return counts[""] - tail, tail
