"""A sweep from overrides as typed: planned, run, summed up; what did not go well is said on stderr."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tlx.config import tracking_uri
from tlx.config.command_line import command
from tlx.core.activity import doing
from tlx.core.errors import said
from tlx.distributed import launch
from tlx.reporting.log_lines import lines
from tlx.reporting.screen import live
from tlx.sweeps import sweep
from tlx.sweeps.sweep_plan import plan


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        folder: of the sweep.
        runs: the folders of its jobs.
        finished: how many of them are through.
        failed: the command of each job that failed, and why.
        unsaid: what of the comparison failed, in lines.
    """

    folder: Path
    runs: list[Path]
    finished: int
    failed: list[tuple[str, str]]
    unsaid: list[str]


@live("preparing the sweep")
def run_sweep(overrides: list[str], config_dir: str | None = None, *, table: bool = True) -> Outcome:
    """Runs every combination of the overrides' values, as `python -m tlx -m` does; with `table` it is printed.

    Raises:
        RequestError: the request is wrong.
    """
    launch.once("a sweep")
    overrides = tracking_uri.typed(overrides)
    with lines(quiet=True):
        with doing("composing the jobs"):
            jobs, folder = plan(overrides, config_dir)
        with doing("reading the data"):
            sweep.check_data(jobs)
    whole = sweep.open_sweep(jobs, folder, command(overrides, config_dir, multirun=True), config_dir)
    try:
        whole.launch()
        failed = whole.failed()
        with doing("comparing the runs"):
            unsaid = whole.close("failed" if failed else "finished", table=table)
    except KeyboardInterrupt:
        again = "; running the same command again resumes" if jobs[0].config.sweep.name is not None else ""
        print(f"{len(whole.finished())} of {len(jobs)} jobs finished, in {whole.folder}{again}", file=sys.stderr)
        whole.end("interrupted")
        raise
    except Exception as error:
        whole.end("failed", said(error))
        raise
    print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs finished, in {whole.folder}", file=sys.stderr)
    for reason in dict.fromkeys(reason for _, reason in failed):
        which = [job for job, why in failed if why == reason]
        numbers = ", ".join(str(jobs.index(job) + 1) for job in which)
        print(f"job{'s' if len(which) > 1 else ''} {numbers} failed: {reason}", file=sys.stderr)
        for job in which:
            print(f"  again: {job.command}", file=sys.stderr)
    if unsaid:
        print(f"all results are saved; to sum them up again: python -m tlx compare {whole.folder}", file=sys.stderr)
    runs = [whole.folder / job.folder for job in jobs]
    return Outcome(whole.folder, runs, len(whole.finished()), [(job.command, why) for job, why in failed], unsaid)
