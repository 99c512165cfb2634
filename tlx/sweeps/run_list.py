"""The runs of an output folder as their small files say, newest first: quick with thousands of them.

A run's configuration, the one file that takes time, is read where a key of it is requested.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tlx.config.key_names import typed
from tlx.config.resolvers import GROUPS
from tlx.core.errors import RequestError
from tlx.core.folder_lock import held
from tlx.core.metric import of_summary
from tlx.core.trees import flat
from tlx.core.yaml_trees import read_yaml
from tlx.runs.run_reader import is_run
from tlx.sweeps.run_folders import is_sweep, recommendations, runs_below, sweeps
from tlx.tracking import run_facts
from tlx.training.checkpoint import FILE as CHECKPOINT

__all__ = ["COLUMNS", "ListedRun", "listed", "listed_run"]
# What a run of an earlier version chose, as far as its folder's name says it.
NAME = re.compile(
    r"(?:\d\d-\d\d-\d\d-)?(?P<backbone>.+)-(?P<dataset>[^-]+)-(?P<strategy>[^\W\d][^-]*?)(?:-[0-9a-f]{8}|-\d+)?"
)
DAY, TIME = re.compile(r"\d{4}-\d\d-\d\d"), re.compile(r"(\d\d)-(\d\d)-(\d\d)(-|$)")
DAMAGED = "damaged"
LOSS = "cross_entropy"
# What every run has, by the names of the columns; figures and keys of the configuration come beside them.
COLUMNS = ("folder", "status", "began", "sweep", *GROUPS, "seed", "seconds", "epochs", "best_epoch", "device")


@dataclass(frozen=True)
class ListedRun:
    """A run that has begun, finished or not.

    Attributes:
        status: as its summary has it; `running` only while a process works on it, `interrupted` where that has ended,
            `damaged` where the summary cannot be read.
        sweep: the folder's name of the sweep that it is a job of; "" for any other run.
    """

    folder: Path
    status: str
    summary: Mapping[str, Any]
    sweep: str = ""

    @cached_property
    def began(self) -> float:
        """Seconds since the epoch; of a run of an earlier version as its folder's name or its first file says."""
        if isinstance(known := self.summary.get("began"), int | float):
            return float(known)
        day, time = self.folder.parent.name, TIME.match(self.folder.name)
        if time and DAY.fullmatch(day):
            try:
                return datetime.fromisoformat(f"{day}T{time[1]}:{time[2]}:{time[3]}").timestamp()
            except ValueError:  # no such time of day
                pass
        if isinstance(known := self._mlflow.get("began"), int | float):
            return float(known)
        return max((file.stat().st_mtime for file in self._first_files() if file.is_file()), default=0.0)

    @cached_property
    def choices(self) -> dict[str, str]:
        """What is chosen of each group; earlier versions did not write the loss, which is `LOSS` unless typed."""
        loss = {} if self.status == DAMAGED else {"loss": self.requested.get("loss", LOSS)}
        if known := self.summary.get("choices") or self._mlflow.get("choices"):
            return {**loss, **{str(group): str(choice) for group, choice in known.items()}}
        found = NAME.fullmatch(self.folder.name)
        typed_ones = {key: value for key, value in self.requested.items() if key in GROUPS}
        return {**loss, **(found.groupdict() if found else {}), **typed_ones}

    @property
    def requested(self) -> dict[str, str]:
        """The overrides as typed, key → value."""
        known = self.summary.get("requested")
        return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}

    @cached_property
    def figures(self) -> dict[str, Any]:
        """Its figures, with their intervals, by their names in MLflow and in tables: `test_accuracy_low`."""
        try:
            found = {name: value for one in of_summary(self.summary) for name, value in one.flat().items()}
        except (RequestError, TypeError, ValueError):  # damaged
            return {}
        more = {name: self.summary.get(name) for name in ("val_accuracy", "val_loss", "accuracy_before_training")}
        return found | {name: value for name, value in more.items() if value is not None}

    @cached_property
    def row(self) -> dict[str, Any]:
        """`COLUMNS` without the seed, and the figures, as values; None where there is none."""
        summary, seconds = self.summary, self.summary.get("seconds")
        total = seconds.get("total") if isinstance(seconds, dict) else None
        moment = datetime.fromtimestamp(self.began).isoformat(" ", "seconds") if self.began else None
        known = {"folder": str(self.folder), "status": self.status, "began": moment, "sweep": self.sweep or None}
        known |= {group: self.choices.get(group) for group in GROUPS}
        known |= {"seconds": total, **{name: summary.get(name) for name in ("epochs", "best_epoch", "device")}}
        return known | self.figures

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Its configuration by dotted keys as they are typed; empty where it cannot be read."""
        try:
            tree = read_yaml(self.folder / "config.yaml")
            return {typed(str(key)): value for key, value in flat(dict(tree))}
        except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError, RecursionError):
            return {}

    @property
    def seed(self) -> Any:
        """As its configuration has it; where it was typed that is not read."""
        typed_one = self.requested.get("seed", "")
        return int(typed_one) if typed_one.isdecimal() else self.configuration.get("seed")

    def value(self, key: str) -> Any:
        """Of a column, a figure or a key of the configuration; None where the run has none."""
        if key == "seed":
            return self.seed
        return self.row[key] if key in self.row else self.configuration.get(key)

    @cached_property
    def _mlflow(self) -> dict[str, Any]:
        return run_facts.facts(self.folder)

    def _first_files(self) -> Iterator[Path]:
        yield from (self.folder / name for name in ("config.yaml", "summary.json"))


def listed(output: Path) -> list[ListedRun]:
    """All runs of an output folder, also the jobs of its sweeps, newest first.

    Raises:
        RequestError: there is no such folder, or it is too large or cannot be read.
    """
    if not output.is_dir():
        raise RequestError(f"{output}: no such folder, so there is no run in it; --output FOLDER names another folder")
    own = [listed_run(run) for run in runs_below(output, left_out=("sweeps", "recommendations"))]
    above = [place for place in (sweeps(output), recommendations(output)) if place.is_dir()]
    jobs = [listed_run(job) for place in above for job in runs_below(place)]
    return sorted([*own, *jobs], key=lambda run: (run.began, str(run.folder)), reverse=True)


def listed_run(folder: Path) -> ListedRun:
    """The run in a folder.

    Raises:
        RequestError: no run has begun there.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not is_run(folder):
            raise RequestError(f"{folder}: no run has begun there") from None
        summary = {"status": "running"}  # it is written a moment after the configuration
    except (OSError, ValueError, RecursionError):
        summary = None
    sweep = folder.parent.name if is_sweep(folder.parent) else ""
    if not isinstance(summary, dict):
        return ListedRun(folder, DAMAGED, {}, sweep)
    return ListedRun(folder, _status(folder, str(summary.get("status", "finished"))), summary, sweep)


def _status(folder: Path, said: str) -> str:
    """How a run stands, whose summary says that; one with a checkpoint has something to do still."""
    if said not in ("running", "finished") or not (said == "running" or (folder / CHECKPOINT).exists()):
        return said
    return "running" if held(folder) else "interrupted"
