"""What is left over in an output folder: runs that came to nothing, temporary files, rows that MLflow has deleted."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlx.config.schema import Tracking
from tlx.core.atomic_files import is_temporary
from tlx.core.disk_size import bytes_of
from tlx.core.folder_lock import held
from tlx.sweeps.run_list import ListedRun, listed
from tlx.sweeps.run_removal import Removal, begun_with, end, remove
from tlx.tracking import tracker
from tlx.tracking.deleted_rows import Deleted, deleted

__all__ = ["KINDS", "Leftovers", "leftovers"]
KINDS = ("interrupted", "failed", "temporary", "mlflow")
DEPTH = 4  # folders below the output folder in which temporary files are looked for: sweeps/<name>/<job>/model
OLD = 3600.0  # seconds since which nobody has written into a temporary folder: no process does
WITHOUT = ("mlartifacts",)


@dataclass(frozen=True)
class Leftovers:
    """What is left over, by kind.

    Attributes:
        runs: those that were interrupted and those that failed, by status; no job of a sweep, whose command runs it
            again, and none whose weights another run begins with.
        temporary: files and folders that a process was writing when it was killed.
        rows: what is deleted in MLflow's database.
    """

    output: Path
    runs: dict[str, list[Removal]]
    temporary: list[Path]
    rows: Deleted

    def summed(self) -> dict[str, tuple[int, int]]:
        """How many there are of each kind, and their bytes."""
        runs = {kind: (len(some), sum(one.bytes for one in some)) for kind, some in self.runs.items()}
        temporary = len(self.temporary), sum(map(bytes_of, self.temporary))
        return {**runs, "temporary": temporary, "mlflow": (len(self.rows), self.rows.bytes)}

    def removed(self, kinds: Sequence[str]) -> Iterator[str]:
        """Removes what is left over of some kinds; yields a line for each thing that could not be removed."""
        for kind in kinds:
            for one in self.runs.get(kind, ()):
                if why := remove(one, str(self.output)):
                    yield f"{one.what}: not removed: {why}"
        if "temporary" in kinds:
            for path in self.temporary:
                shutil.rmtree(path, ignore_errors=True)
                if path.exists():
                    yield f"{path}: cannot be removed"
        if "mlflow" in kinds and self.rows:
            store = tracker.open(Tracking(system_metrics=False), self.output)
            if why := store.remove([("", run) for run in self.rows.runs], self.rows.models):
                yield f"MLflow ({store.uri}): {why}"


def leftovers(output: Path) -> Leftovers:
    """What is left over in an output folder; nothing is changed.

    Raises:
        RequestError: there is no such folder, or it cannot be read.
    """
    every = listed(output)
    runs = {kind: [Removal(run.folder, [run.folder]) for run in _ended(kind, every)] for kind in KINDS[:2]}
    return Leftovers(output, runs, list(_temporary(output)), deleted(output / "mlflow.db"))


def _ended(status: str, every: Sequence[ListedRun]) -> Iterator[ListedRun]:
    """The runs that ended so, without the jobs of sweeps and those that others need."""
    some = [run for run in every if run.status == status and not run.sweep and not held(run.folder)]
    users = begun_with(every) if some else {}
    yield from (run for run in some if end(run.folder) not in users)


def _temporary(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """What `atomic_files` makes beside a file that it writes, where nobody writes any more."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            path = Path(entry)
            if is_temporary(path):
                if _newest(path) < time.time() - OLD:
                    yield path
            elif depth and entry.name not in WITHOUT:
                yield from _temporary(path, depth - 1)


def _newest(folder: Path) -> float:
    """When something in a folder was written last, seconds since the epoch."""
    files = [folder, *folder.rglob("*")]
    return max((file.lstat().st_mtime for file in files if file.exists()), default=0.0)
