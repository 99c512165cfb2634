"""What a user calls a run: its folder, `latest`, a sweep's or a recommendation's name or folder, or its id in MLflow.

Every subcommand that takes RUN finds it here. Names are looked up in the output folder, `outputs` where nothing else is
said. A sweep, where one run is needed, stands for the model that validation chooses: of its best configuration the best
seed, both by `evaluation.choose_by`.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlx.comparison.comparison import ranked
from tlx.core.errors import RequestError, empty, nearest
from tlx.reporting.text_table import near
from tlx.runs.run_reader import is_run, state
from tlx.sweeps import sweep_manifest
from tlx.sweeps.run_folders import is_sweep, jobs, recommendations, recommended, runs_below, sweeps

__all__ = ["LATEST", "OUTPUT", "NamedRun", "begun", "place_named", "run_named", "runs_named", "sweep_named"]
LATEST = "latest"
OUTPUT = "outputs"  # the configuration's default of `output`
SHOWN = 5  # sweeps that an error names
_ID = re.compile("[0-9a-f]{32}")  # as MLflow makes it


@dataclass(frozen=True)
class NamedRun:
    """A run that was requested by a name.

    Attributes:
        folder: of the run, as short as the name allows.
        why: a line that says which run this is, where the name alone does not; else "".
    """

    folder: Path
    why: str = ""


def run_named(word: str, output: str | Path = OUTPUT) -> NamedRun:
    """The one run that a word stands for; of a sweep the one that validation chooses.

    A folder that is there but holds nothing of a run is returned as it is: what is missing in it depends on what it is
    needed for.

    Raises:
        RequestError: nothing has that name, several things have it, no run of it is finished, or a file is broken.
    """
    place = _place(word, output)
    said = f"{word}: " if word == LATEST else ""
    if (chosen := recommended(place)) is not None:
        return NamedRun(chosen, f"{word}: what it recommends: {near(chosen)}")
    if is_run(place) or _has_model(place):
        return NamedRun(place, f"{said}{near(place)}" if said else "")
    if is_sweep(place):
        return _chosen(word, place)
    if found := sorted(runs_below(place)):
        how_many = "one run" if len(found) == 1 else f"{len(found)} runs"
        raise RequestError(f"{word}: holds {how_many}; give its folder, as {near(found[-1])}")
    return NamedRun(place)


def begun(word: str, output: str | Path = OUTPUT) -> NamedRun:
    """As `run_named`, but `latest` is the one that began last, finished or not, and no sweep stands for a run of it.

    Raises:
        RequestError: as `run_named`; a sweep.
    """
    place = _latest(output, unfinished=True) if word == LATEST else _place(word, output)
    if (chosen := recommended(place)) is not None:
        return NamedRun(chosen, f"{word}: what it recommends: {near(chosen)}")
    if is_sweep(place):
        command = sweep_manifest.read(place).get("command")
        raise RequestError(
            f"{word}: a sweep{f' ({near(place)})' if word == LATEST else ''}; running its command again resumes it"
            f"{f': {command}' if command else ''}"
        )
    return NamedRun(place, f"{LATEST}: {near(place)}" if word == LATEST else "")


def place_named(word: str, output: str | Path = OUTPUT) -> Path:
    """The folder of the run or the sweep that a word names, as a whole.

    Raises:
        RequestError: nothing has that name, or it is neither.
    """
    place = _place(word, output)
    place = recommended(place) or place
    if not is_run(place) and not is_sweep(place):
        raise RequestError(f"{word}: neither a run's folder nor a sweep's; give one, as in outputs/<date>/<run>")
    return place


def runs_named(words: Sequence[str], output: str | Path = OUTPUT) -> list[Path]:
    """The folders of all runs that words stand for, each once: a sweep's jobs, the runs below any other folder.

    Raises:
        RequestError: a word names nothing, or its folder is too large or cannot be read.
    """
    found = [folder for word in words for folder in _all_of(word, _place(word, output))]
    return list({folder.resolve(): folder for folder in found}.values())


def sweep_named(words: Sequence[str], output: str | Path = OUTPUT) -> Path | None:
    """The folder of the one sweep that is named; None for runs as such.

    Raises:
        RequestError: a word names nothing.
    """
    places = [_place(word, output) for word in words]
    return places[0] if len(places) == 1 and is_sweep(places[0]) else None


def _place(word: str, output: str | Path) -> Path:
    """The folder that a word names: a run's, a sweep's or any other one."""
    if not word.strip():
        raise empty("RUN")
    output = Path(os.path.expanduser(output))
    if word == LATEST:
        return _latest(output)
    here = Path(os.path.expanduser(word))
    # A bare word is a sweep's name first; what has a slash is a folder.
    bare = os.sep not in word and word not in (".", "..")
    sweep = next((above / word for above in (sweeps(output), recommendations(output)) if (above / word).is_dir()), None)
    if bare and sweep is not None:
        if _is_used(here) and not here.samefile(sweep):
            raise RequestError(
                f"{word}: both a sweep and a folder here; give {near(sweep)} or {os.path.join('.', word)}"
            )
        return sweep
    if here.is_dir():
        return here
    if _ID.fullmatch(word):
        return _by_id(word, output)
    raise RequestError(_unknown(word, here, output) if bare else _no_folder(word, here))


def _latest(output: str | Path, *, unfinished: bool = False) -> Path:
    """The run or sweep that was finished last; with `unfinished` the one that began last."""
    output = Path(os.path.expanduser(output))
    mark = "config.yaml" if unfinished else "predictions.csv"  # neither is written again later
    found = [(when, place, runs) for place, runs in _known(output) if (when := _newest(runs, mark))]
    for _, place, runs in sorted(found, key=lambda one: (one[0], one[1]), reverse=True):
        if unfinished or any(map(_finished, runs)):
            return place
    what = "run has begun" if unfinished else "run is finished"
    raise RequestError(
        f"{LATEST}: no {what} in {output}; python -m tlx makes one, --output FOLDER names another folder"
    )


def _finished(run: Path) -> bool:
    try:
        return not state(run)
    except RequestError:  # its summary is broken
        return False


def _known(output: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each run of an output folder with itself, and each sweep with the runs of it that have begun."""
    if output.is_dir():
        yield from (
            (run, [run]) for run in sorted(runs_below(output, left_out=("sweeps", "recommendations", "curves")))
        )
        many = [file for above in (sweeps, recommendations) for file in above(output).glob(f"*/{sweep_manifest.FILE}")]
        for file in sorted(many):
            yield file.parent, [run for run in jobs(file.parent) if is_run(run)]


def _newest(runs: Sequence[Path], mark: str) -> float:
    """When the last of these files was written, seconds since the epoch; 0 where there is none."""
    return max((file.stat().st_mtime for file in (run / mark for run in runs) if file.is_file()), default=0.0)


def _by_id(word: str, output: Path) -> Path:
    """The run or the sweep that has this id in MLflow, as its own files have it."""
    found = []
    for place, runs in _known(output):
        files = [run / name for run in runs for name in ("mlflow.json", "summary.json")]
        of = {file.parent for file in files if word in _ids(file)}
        found += [place] if word in _ids(place / sweep_manifest.FILE) else sorted(of)
    if len(found) > 1:  # a copied folder
        raise RequestError(f"{word}: the id of {len(found)} folders: {', '.join(map(near, found[:SHOWN]))}; give one")
    if not found:
        raise RequestError(
            f"{word}: no run in {output} has this id in MLflow; give the run's folder, or --output FOLDER where it lies"
        )
    return found[0]


def _ids(file: Path) -> tuple[str, ...]:
    try:
        known: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(str(known.get(key)) for key in ("run_id", "mlflow_run_id")) if isinstance(known, dict) else ()


def _unknown(word: str, here: Path, output: Path) -> str:
    """Why a bare word names nothing, with the nearest name that does."""
    place = sweeps(output)
    names = sorted(entry.name for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []
    beside = [entry.name for entry in here.parent.iterdir() if _is_used(entry)]
    there = f"sweeps there: {', '.join(names[-SHOWN:])}" if names else "there is none yet"
    near_it = nearest(word, [*names, *beside, LATEST])
    return (
        f"{word}: no such folder, and no such sweep in {place}{near_it}; {there}; "
        f"RUN is a run's folder, {LATEST}, a sweep's name or an MLflow run id"
    )


def _no_folder(word: str, here: Path) -> str:
    above = here.parent
    names = [entry.name for entry in above.iterdir() if entry.is_dir()] if above.is_dir() else []
    near_it = nearest(here.name, names) if names else f"; there is no {above} either" if not above.is_dir() else ""
    return f"{word}: no such folder{near_it}; give a run's folder, as in outputs/<date>/<run>, or {LATEST}"


def _all_of(word: str, place: Path) -> list[Path]:
    if is_run(place):
        return [place]
    if not (found := jobs(place)):
        raise RequestError(
            f"{word}: neither a run's folder (no summary.json in it) nor one that holds runs; "
            "give a sweep's name, or runs' folders, as in outputs/<date>/<run>"
        )
    return found


def _chosen(word: str, sweep: Path) -> NamedRun:
    """The run of a sweep whose model is used."""
    try:
        found = ranked(jobs(sweep))
    except RequestError as error:
        raise RequestError(f"{word}: no model can be chosen from {near(sweep)}: {error}") from error
    best = found.configurations[0]
    run = best.run(found.rule)
    draws = [f"{name} {value}" for name, value in zip(("seed", "fold"), run.draw, strict=True) if value is not None]
    which = f"{', '.join(draws)} of {best.n} runs" if best.n > 1 else ", ".join(draws)
    among = f"{best.label} of {len(found.configurations)} configurations, " if len(found.configurations) > 1 else ""
    return NamedRun(run.folder, f"{word}: chosen by validation ({found.rule}): {among}{which}: {near(run.folder)}")


def _has_model(folder: Path) -> bool:
    """Whether a saved model lies in the folder, or in its `model/`."""
    return any((folder / name).is_file() for name in ("model.json", os.path.join("model", "model.json")))


def _is_used(folder: Path) -> bool:
    """Whether the folder can be a RUN."""
    return folder.is_dir() and (is_run(folder) or is_sweep(folder) or _has_model(folder))
