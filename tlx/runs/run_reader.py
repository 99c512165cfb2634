"""Finished runs, as their folders hold them: no torch, no MLflow."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from yaml import YAMLError

from tlx.config.identity import ASIDE, without_added
from tlx.core import csv_cells
from tlx.core.choose_by import DEFAULT, RULES
from tlx.core.errors import RequestError, precomposed, reason
from tlx.core.metric import of_summary
from tlx.core.trees import flat
from tlx.core.yaml_trees import read_yaml

# What runs of one configuration may differ in beside `ASIDE`: the draw.
DRAW = ("seed", "dataset.fold")
RECOMMENDATION = "recommendation.json"  # in the folder of one
PARTS = ("data", "features", "training", "evaluation")
COLUMNS = ["sample", "file", "label", "prediction", "probability", "correct"]


@dataclass(frozen=True)
class Predictions:
    """`predictions.csv`: what a run's model says of each test image, in order."""

    files: list[str]
    labels: list[str]
    predictions: list[str]
    probabilities: list[str]
    correct: NDArray[np.int8]  # 1 or 0

    @cached_property
    def images(self) -> str:
        """A digest of the images' names and labels; data sets may lie elsewhere."""
        files = (os.path.basename(file) for file in self.files)
        names = [(precomposed(file), precomposed(label)) for file, label in zip(files, self.labels, strict=True)]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        values: the flat configuration, without what does not make it another one.
        requested: the overrides as typed, key → value, without the same; none of a run of an earlier version.
        draw: seed and fold.
        trained: parameters that learned in some phase.
        reused: share of the cached features that were read and not computed, 0..1; None where the run cached none or
            is of an earlier version.
        rows: an epoch each, as `metrics.jsonl` has them: `epoch` and the figures of the validation images.
        test, val: fingerprints of the test and the validation images, "" where the saved model is gone or older.
    """

    folder: Path
    summary: Mapping[str, Any]
    values: Mapping[str, Any]
    requested: Mapping[str, str]
    draw: tuple[Any, Any]
    trained: int
    reused: float | None
    rows: Sequence[Mapping[str, Any]]
    predicted: Predictions
    test: str
    val: str

    @property
    def choose_by(self) -> str:
        """The figure of the validation images that chose the epoch."""
        return str(self.values.get("evaluation.choose_by", DEFAULT))

    def validation(self, rule: str) -> float | None:
        """A figure of the validation images in the epoch whose model is kept; None where the run has not computed it.

        The summary of an earlier version has the accuracy alone; the rows have the others.
        """
        if isinstance(known := self.summary.get(rule), int | float):
            return float(known)
        best = [row for row in self.rows if row["epoch"] == self.summary.get("best_epoch")]
        if not best:
            best = [max(self.rows, key=lambda row: -row["val_loss"])]
        return best[0].get(rule)

    @property
    def scaled(self) -> bool:
        """Whether `val_loss` is after the temperature; not in a run that an earlier version has begun."""
        known = self.summary.get("calibration") or {}
        return bool(known) and known.get("val_loss") != "before"

    @cached_property
    def configuration(self) -> str:
        """Equal for runs that differ in their draw only."""
        return json.dumps(self.values, sort_keys=True, default=str)

    @property
    def seconds(self) -> float:
        """That its parts took; not `total`: of a sweep's jobs the first alone starts a process and imports."""
        return float(sum(self.summary["seconds"][part] for part in PARTS))

    @property
    def accuracy(self) -> float:
        """Of the test set, 0..1."""
        return float(self.summary["test_accuracy"])

    def same_images(self, other: "Run") -> bool:
        """Whether both were tested on the same images, in the same order."""
        named = self.predicted.images == other.predicted.images
        return named and (not self.test or not other.test or self.test == other.test)


def is_run(folder: Path) -> bool:
    """Whether a run has begun in the folder; a recommendation, which has a summary of its own, is none."""
    return not (folder / RECOMMENDATION).is_file() and any(
        (folder / name).is_file() for name in ("config.yaml", "summary.json")
    )


def state(folder: Path) -> str:
    """Why a run has no place in a comparison, in words; "" for a finished one.

    Raises:
        RequestError: its summary cannot be read.
    """
    if not is_run(folder):
        return "not begun"
    if not (folder / "summary.json").is_file():
        return "not finished"
    summary = content(folder / "summary.json", dict)
    error = f": {summary['error']}" if summary.get("error") else ""
    if (folder / "checkpoint.safetensors").exists():
        return f"not finished{error}"
    if summary.get("status") != "finished":
        return f"{summary.get('status', 'not finished')}{error}"
    return ""


def read(folder: Path) -> Run:
    """A finished run.

    Raises:
        RequestError: a file of it is missing or is not what a run writes; the message names it.
    """
    summary, values = content(folder / "summary.json", dict), _values(folder / "config.yaml")
    _check_summary(folder / "summary.json", summary)
    said = predicted(folder / "predictions.csv")
    return Run(
        folder,
        summary,
        {key: value for key, value in values.items() if not _below(key, (*DRAW, *ASIDE))},
        _requested(summary),
        (values.get("seed"), values.get("dataset.fold")),
        _trained(folder / "plan.json"),
        _reused(summary),
        _rows(folder / "metrics.jsonl"),
        said,
        _fingerprint(folder / "model" / "model.json", "test"),
        _fingerprint(folder / "model" / "model.json", "val"),
    )


def content(file: Path, kind: type) -> Any:
    """What a JSON file holds, a `kind`.

    Raises:
        RequestError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{file}: cannot be read: {reason(error)}") from error
    if not isinstance(found, kind):
        raise RequestError(f"{file}: holds {type(found).__name__}, not {kind.__name__}: no run writes it so")
    return found


def _check_summary(file: Path, summary: Mapping[str, Any]) -> None:
    def at(key: str, *inner: str | int) -> tuple[str, Any]:
        value = summary.get(key)
        for step in inner:
            try:
                value = value[step]  # type: ignore[index]
            except (TypeError, KeyError, IndexError):
                value = None
        return key + "".join(f"[{step}]" for step in inner), value

    shares = [at(key) for key in ("test_accuracy", "val_accuracy")]
    shares += [at("test_accuracy_interval", end) for end in (0, 1)]
    limits = [(0.0, 1.0, *found) for found in shares]
    limits += [(0.0, float("inf"), *at("seconds", part)) for part in PARTS]
    limits += [(1.0, float("inf"), *at("images", "train"))]
    if summary.get("features"):
        limits += [(0.0, float("inf"), *at("features", name)) for name in ("rows", "read")]
    for low, high, key, value in limits:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise RequestError(f"{file}: {key} is {value!r}, not a number from {low:g} to {high:g}")
    try:
        of_summary(summary)
    except RequestError as error:
        raise RequestError(f"{file}: {error}") from error


def _values(file: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(file)
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        raise RequestError(f"{file}: cannot be read: {reason(error)}") from error
    if not isinstance(tree, dict):
        raise RequestError(f"{file}: no configuration of a run")
    return dict(flat(without_added({str(key): value for key, value in tree.items()})))


def _requested(summary: Mapping[str, Any]) -> dict[str, str]:
    """The overrides by key, without those that do not make another configuration; none of an earlier version."""
    known = summary.get("requested", {})
    return {key: str(value) for key, value in known.items() if not _below(key, (*DRAW, *ASIDE, "hydra", "launch"))}


def _below(key: str, keys: Iterable[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def _trained(file: Path) -> int:
    """Parameters that learn in some phase: of each stage, those of the phase where most of it learns."""
    stages: dict[str, int] = {}
    try:
        for phase in content(file, list):
            for stage in phase["stages"]:
                stages[stage["stage"]] = max(stages.get(stage["stage"], 0), int(stage["learns"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{file}: no plan of a run: {reason(error)}") from error
    return sum(stages.values())


def _reused(summary: Mapping[str, Any]) -> float | None:
    counts = summary.get("features") or {}
    return counts["read"] / counts["rows"] if counts.get("rows") else None


def _rows(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            keys = ["epoch", "val_loss", "val_accuracy", *(rule for rule in RULES[2:] if rule in row)]
            rows.append({key: float(row[key]) for key in keys})
    except OSError as error:
        raise RequestError(f"{file}: cannot be read: {reason(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(f"{file}, line {len(rows) + 1}: no epoch of a run") from error
    if not rows:
        raise RequestError(f"{file}: holds no epoch")
    return rows


def predicted(file: Path) -> Predictions:
    """The content of `predictions.csv`.

    Raises:
        RequestError: it cannot be read, or is not as a run writes it.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            head, *rows = list(csv.reader(stream)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise RequestError(f"{file}: cannot be read: {reason(error)}") from error
    if head != COLUMNS:
        raise RequestError(f"{file}: its columns are {','.join(head)[:80]}, not {','.join(COLUMNS)}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(COLUMNS) or row[5] not in ("0", "1"):
            raise RequestError(f"{file}, line {number}: no answer of a run: {','.join(row)[:80]}")
    if not rows:
        raise RequestError(f"{file}: holds no image")
    _, files, labels, predictions, probabilities, correct = (
        [*map(csv_cells.text, column)] for column in zip(*rows, strict=True)
    )
    return Predictions(files, labels, predictions, probabilities, np.array(correct, dtype=np.int8))


def _fingerprint(file: Path, split: str) -> str:
    """Of a split's images, as the saved model knows them; it may be gone, and is not needed otherwise."""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["data"][split])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
