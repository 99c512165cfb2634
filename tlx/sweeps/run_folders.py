"""Where runs lie: below any folder, and in a sweep's; no file of a run is opened here but a sweep's list of jobs."""

import os
from collections.abc import Iterator
from pathlib import Path

from tlx.core.errors import RequestError, reason
from tlx.runs.run_reader import RECOMMENDATION, content, is_run
from tlx.sweeps.sweep_manifest import FILE

__all__ = ["is_sweep", "jobs", "recommendations", "recommended", "runs_below", "sweeps"]
NO_RUNS = ("features", "sources", "mlartifacts")  # beside runs in their folder, and large
MOST = 10_000  # folders without a run that are looked at, in search of runs


def is_sweep(folder: Path) -> bool:
    """Whether a sweep has begun in the folder."""
    return (folder / FILE).is_file()


def sweeps(output: Path) -> Path:
    """The folder of all sweeps."""
    return output / "sweeps"


def recommendations(output: Path) -> Path:
    """The folder of all recommendations."""
    return output / "recommendations"


def recommended(folder: Path) -> Path | None:
    """The folder of the run that a recommendation has chosen; None where the folder is none of a recommendation.

    Raises:
        RequestError: it has chosen none yet, or its summary cannot be read.
    """
    if not (folder / RECOMMENDATION).is_file():
        return None
    if not (folder / "summary.json").is_file():
        raise RequestError(f"{folder}: this recommendation has chosen nothing yet; its command goes on with it")
    return folder / str(content(folder / "summary.json", dict).get("run"))


def jobs(folder: Path) -> list[Path]:
    """The folders of a sweep's jobs, also of those that have not begun, and of any run that lies below it.

    Of a folder that is no sweep's: the runs below it.

    Raises:
        RequestError: the folder is too large, or cannot be read.
    """
    listed = content(folder / FILE, dict).get("jobs") if is_sweep(folder) else None
    every = listed.values() if isinstance(listed, dict) else ()
    planned = [str(job["folder"]) for job in every if isinstance(job, dict) and "folder" in job]
    begun = [str(run.relative_to(folder)) for run in runs_below(folder)]
    return [folder / name for name in sorted({*planned, *begun})]


def runs_below(folder: Path, left_out: tuple[str, ...] = ()) -> Iterator[Path]:
    """The runs up to two levels below a folder, as in outputs/<date>/<run>.

    In a run there is no other, and none in `NO_RUNS`, in `left_out` or in a folder whose name begins with a dot.

    Raises:
        RequestError: the folder is too large, or cannot be read.
    """
    looked = 0

    def below(inside: Path, levels: int) -> Iterator[Path]:
        nonlocal looked
        with os.scandir(inside) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        for inner in (inside / name for name in names):
            if is_run(inner):
                yield inner
                continue
            looked += 1
            if looked > MOST:
                raise RequestError(f"{folder}: more than {MOST:,} folders in it; give those of runs, or one with fewer")
            if levels > 1 and inner.name not in (*NO_RUNS, *left_out):
                yield from below(inner, levels - 1)

    try:
        yield from below(folder, 2)
    except OSError as error:
        raise RequestError(f"{error.filename or folder}: cannot be read: {reason(error)}") from error
