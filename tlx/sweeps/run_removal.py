"""Runs and sweeps removed for good: their folders, and what MLflow has of them."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlx.config.schema import Tracking
from tlx.core import folder_lock
from tlx.core.atomic_files import unwritable
from tlx.core.disk_size import bytes_of
from tlx.core.errors import RequestError
from tlx.reporting.text_table import near
from tlx.runs.run_reader import content, is_run
from tlx.sweeps.named_runs import place_named
from tlx.sweeps.run_folders import is_sweep, jobs
from tlx.sweeps.run_list import DAY, ListedRun, listed, listed_run
from tlx.sweeps.sweep_manifest import FILE
from tlx.tracking import run_facts, tracker
from tlx.tracking.run_store import UntrackedError, settings_of, store_beside

__all__ = ["Removal", "begun_with", "end", "removals", "remove"]
_WEIGHTS = re.compile(r"^\s+weights: *(\S*)", re.MULTILINE)


@dataclass(frozen=True)
class Removal:
    """What is to be removed.

    Attributes:
        place: the folder of a run or of a sweep.
        runs: the run itself, or the sweep's jobs that have begun.
    """

    place: Path
    runs: Sequence[Path]

    @property
    def bytes(self) -> int:
        """That its folder takes."""
        return bytes_of(self.place)

    @property
    def what(self) -> str:
        """In words, with its folder."""
        if self.place in self.runs:
            return near(self.place)
        return f"{near(self.place)} (a sweep of {len(self.runs)} run{'' if len(self.runs) == 1 else 's'})"


def removals(words: Sequence[str], output: str, *, forced: bool = False) -> list[Removal]:
    """What words name, each once; nothing is removed yet.

    `forced`: also runs whose weights other runs begin with.

    Raises:
        RequestError: a word names neither run nor sweep, or one that a process works on, a job of a sweep that is not
            named itself, or a run whose weights another run's configuration names.
    """
    places = list({place.resolve(): place for place in (place_named(word, output) for word in words)}.values())
    sweeps = {place.resolve() for place in places if is_sweep(place)}
    found = []
    for place in places:
        above = place.parent
        if above.resolve() in sweeps:  # it goes with the sweep
            continue
        if is_sweep(above):
            raise RequestError(
                f"{near(place)}: a job of the sweep {above.name}, which would lack it; to remove all of the sweep: "
                f"python -m tlx runs remove {above.name}"
            )
        found.append(Removal(place, [job for job in jobs(place) if is_run(job)] if is_sweep(place) else [place]))
    for run in (run for one in found for run in one.runs):
        if folder_lock.held(run):
            raise RequestError(f"{near(run)}: a process works on this run; wait for it, or stop it")
    if not forced:
        every = listed(Path(os.path.expanduser(output))) if Path(os.path.expanduser(output)).is_dir() else []
        users = begun_with(every) if found else {}
        own = {run.resolve() for one in found for run in one.runs}
        for run in (run for one in found for run in one.runs):
            for user in (user for user in users.get(end(run), ()) if user.resolve() not in own):
                raise RequestError(
                    f"{near(run)}: {near(user)} begins with its weights; --force removes it all the same, and that one "
                    "can be used, but not repeated"
                )
    return found


def begun_with(every: Iterable[ListedRun]) -> dict[tuple[str, ...], list[Path]]:
    """The runs that begin with the weights of another run, by that one's `end`."""
    found: dict[tuple[str, ...], list[Path]] = {}
    for run in every:
        named = [str(run.summary.get("source") or "")]
        if _names_weights(run.folder / "config.yaml"):
            named += [str(run.configuration.get(key) or "") for key in ("backbone.weights", "source.backbone.weights")]
        weights = [Path(os.path.expanduser(text)).absolute() for text in named if text]
        for place in {end(place) for one in weights for place in (one, *one.parents)}:
            found.setdefault(place, []).append(run.folder)
    return found


def end(folder: Path) -> tuple[str, ...]:
    """A folder's last two names, by which it is known wherever runs have been moved."""
    return folder.absolute().parts[-2:]


def remove(one: Removal, output: str, *, forced: bool = False, files_only: bool = False) -> str:
    """Removes a run or a sweep; why that failed, "" where it is gone.

    What MLflow has goes first: where it cannot be removed, or a configuration cannot be read that says where it is, the
    folder stays. `forced`: also what is in MLflow's
    registry. `files_only`: what MLflow has stays.

    Raises:
        RequestError: a process works on it, it cannot be removed, MLflow's server does not answer.
    """
    with contextlib.ExitStack() as alone:
        for run in one.runs:
            alone.enter_context(folder_lock.alone(run))
        if not files_only and (why := _from_mlflow(one, Path(os.path.expanduser(output)), forced=forced)):
            return why
        try:
            hidden = Path(tempfile.mkdtemp(prefix=f".{one.place.name}.", dir=one.place.parent))
            one.place.rename(hidden / one.place.name)  # a run is there as a whole or not at all
        except OSError as error:
            raise unwritable(one.place, error) from error
    shutil.rmtree(hidden, ignore_errors=True)
    if DAY.fullmatch(one.place.parent.name):
        with contextlib.suppress(OSError):  # other runs of that day
            one.place.parent.rmdir()
    return ""


def _from_mlflow(one: Removal, output: Path, *, forced: bool) -> str:
    """Removes what MLflow has; why that failed, or ""."""
    every = [*one.runs, *([] if one.place in one.runs else [one.place])]
    known = [(folder, ids) for folder in every if (ids := _ids(folder))]
    stores: dict[tuple[str, str], tuple[Tracking, list[tuple[str, str]]]] = {}
    for folder, ids in known:
        try:
            settings = settings_of(folder, {})
        except UntrackedError:
            continue
        except RequestError as error:
            return f"where MLflow has it is unknown: {error}"
        stores.setdefault((settings.uri or "", settings.experiment or ""), (settings, []))[1].append(ids)
    for settings, some in stores.values():
        opened = tracker.open(settings, store_beside(one.place, output.absolute()))
        if why := opened.remove(some, forced=forced):
            return f"MLflow ({opened.uri}): {why}"
    return ""


def _ids(folder: Path) -> tuple[str, str] | None:
    """What MLflow knows a run or a sweep by: its name for good and its id; None where it knows none."""
    if is_sweep(folder):
        book = content(folder / FILE, dict)
        found = str(book.get("mlflow_key") or ""), str(book.get("mlflow_run_id") or "")
    else:
        facts = run_facts.facts(folder)
        known = facts.get("run_id") or listed_run(folder).summary.get("mlflow_run_id")
        found = str(facts.get("key") or ""), str(known or "")
    return found if any(found) else None


def _names_weights(file: Path) -> bool:
    """Whether a configuration may name weights of one's own: quick, as its text says."""
    try:
        words = _WEIGHTS.findall(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(word not in ("imagenet", "none", "null") for word in words)
