"""One job of a sweep, in this process: run, or found finished, and what became of it."""

import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tlx.config import multirun
from tlx.config.schema import Config
from tlx.config.validation import checked
from tlx.core import folder_lock
from tlx.core.device import device_of, free_bytes
from tlx.core.errors import said
from tlx.reporting.screen import of_whole_lines


def task(
    node: DictConfig,
    *,
    folder: Path | None = None,
    jobs: Mapping[str, Mapping[str, Any]],
    key: str,
    beside: int,
    quiet: bool,
) -> dict[str, Any]:
    """One job, in whatever process: what became of it. Never raises but for an interruption.

    Run twice, killed and run again, or started by two launches at once, it is done once. `folder`: where; None: where
    Hydra's launcher says.
    """
    from tlx.distributed import launch

    launch.once("a sweep")
    folder = folder or multirun.job_folder()
    with of_whole_lines(beside=quiet):
        return _done(node, folder, jobs[folder.name], key, beside, quiet=quiet)


def _done(
    node: DictConfig, folder: Path, known: Mapping[str, Any], key: str, beside: int, *, quiet: bool
) -> dict[str, Any]:
    from tlx.reporting.run_display import closing
    from tlx.runs import run, run_state
    from tlx.runs.run_name import run_name
    from tlx.sweeps import sweep_summary

    head = f"job {known['number']} of {known['of']}"
    if not quiet:
        between = "\n" if known["number"] > 1 else ""
        print(f"{between}{head}{': ' if known['name'] else ''}{known['name']}", file=sys.stderr)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config = checked(node)
        if beside > 1 and config.features.budget is None:
            config.features.budget = _fair(config, beside)
        with folder_lock.alone(folder, wait=True):
            if run_state.finished(folder) is not None:
                (folder / folder_lock.LOCK).unlink(missing_ok=True)
                print(f"{head}: finished by another process", file=sys.stderr)
                return {"error": "", "skipped": True}
            part = run.Within(f"{key}/{known['key'][:16]}", quiet)
            summary = run.run(
                config, folder, command=known["command"], name=run_name(folder, known["typed"], known["name"]),
                within=part, resume=True, typed=known["typed"],
            )  # fmt: skip
    except Exception as error:  # a failed job does not stop the others
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exception(error)
        print(f"{head} failed: {said(error)}" if quiet else f"tlx: {said(error)}", file=sys.stderr)
        return {"error": said(error), "skipped": False}
    if quiet:
        print(f"{head} finished: {known['name']}: {sweep_summary.accuracy(summary.to_dict())}", file=sys.stderr)
    else:
        closing(summary, sys.stderr)  # stdout is for what the sweep finds
    return {"error": "", "skipped": False}


def _fair(config: Config, beside: int) -> int:
    """Bytes of features that a job may keep in memory: what all jobs at once would take is half of what is free."""
    places = {device_of(config.runtime.device), device_of("cpu")}
    return min(map(free_bytes, places)) // (2 * beside)
