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
from tlx.core.errors import RequestError
from tlx.core.folder_lock import held
from tlx.reporting.text_table import near
from tlx.sweeps.run_list import ListedRun, listed, listed_run
from tlx.sweeps.run_removal import Removal, begun_with, end, remove
from tlx.tracking import tracker
from tlx.tracking.deleted_rows import Deleted, deleted

__all__ = ["KINDS", "Attempt", "Leftovers", "leftovers"]
KINDS = ("interrupted", "failed", "temporary", "mlflow")
DEPTH = 4  # folders below the output folder in which temporary files are looked for: sweeps/<name>/<job>/model
OLD = 3600.0  # seconds since which nobody has written into a temporary folder: no process does
WITHOUT = ("mlartifacts",)


@dataclass(frozen=True)
class Attempt:
    """What came of the attempt to remove a leftover.

    Attributes:
        count: how many things it is: all that is deleted in MLflow is removed at once.
        bytes: that they took.
        why: a line that says why it stays; "" where it is gone.
    """

    kind: str
    count: int
    bytes: int
    why: str


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

    def removed(self, kinds: Sequence[str]) -> Iterator[Attempt]:
        """Removes what is left over of some kinds, and yields what became of each thing.

        A user may have taken long to agree: what is no leftover any more stays.
        """
        some = [(kind, one) for kind in kinds for one in self.runs.get(kind, ())]
        users = begun_with(listed(self.output)) if some else {}
        for kind, one in some:
            taken = one.bytes
            why = _run_removed(one, kind, users.get(end(one.place), ()), self.output)
            yield Attempt(kind, 1, taken, f"{one.what}: not removed: {why}" if why else "")
        for path in self.temporary if "temporary" in kinds else ():
            taken = bytes_of(path)
            if _forgotten(path):
                shutil.rmtree(path, ignore_errors=True)
            yield Attempt("temporary", 1, taken, f"{near(path)}: not removed" if path.exists() else "")
        if "mlflow" in kinds and self.rows:
            store = tracker.open(Tracking(system_metrics=False), self.output)
            why = store.remove([("", run) for run in self.rows.runs], self.rows.models)
            yield Attempt("mlflow", len(self.rows), self.rows.bytes, f"MLflow ({store.uri}): {why}" if why else "")


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


def _run_removed(one: Removal, status: str, users: Sequence[Path], output: Path) -> str:
    """Removes a run that still has its status and that no other begins with; why it stays, "" where it is gone."""
    try:
        if (now := listed_run(one.place).status) != status:
            return f"it is {now} now"
        if users:
            return f"{near(users[0])} begins with its weights"
        return remove(one, str(output))
    except RequestError as error:
        return str(error)


def _temporary(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """What `atomic_files` makes beside a file that it writes, where nobody writes any more."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            path = Path(entry)
            if is_temporary(path):
                if _forgotten(path):
                    yield path
            elif depth and entry.name not in WITHOUT:
                yield from _temporary(path, depth - 1)


def _forgotten(folder: Path) -> bool:
    """Whether nobody writes into a temporary folder any more."""
    return is_temporary(folder) and _newest(folder) < time.time() - OLD


def _newest(folder: Path) -> float:
    """When something in a folder was written last, seconds since the epoch."""
    files = [folder, *folder.rglob("*")]
    return max((file.lstat().st_mtime for file in files if file.exists()), default=0.0)
