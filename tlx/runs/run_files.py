"""A run's folder as its page reads it: the structured files that are there, of any version, finished or not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tlx.core.choose_by import DEFAULT, RULES
from tlx.core.errors import RequestError, reason
from tlx.core.yaml_trees import read_yaml
from tlx.runs.run_reader import Predictions, content, predicted

ANALYSIS = "analysis.json"  # what the run has found for its page with features and pixels


@dataclass(frozen=True)
class RunFiles:
    """What the files of a run say.

    Attributes:
        config: `config.yaml`, as a tree.
        plan: `plan.json`, a mapping a phase.
        rows: `metrics.jsonl`, a mapping an epoch.
        predicted: `predictions.csv`; None where the test set was not measured.
        audit: `audit.json`, a mapping a finding; None where the data was not audited.
        analysis: `analysis.json`; empty where the run is of an earlier version.
        model: `model/model.json`; empty where it is gone.
    """

    folder: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    plan: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    predicted: Predictions | None
    audit: Sequence[Mapping[str, Any]] | None
    analysis: Mapping[str, Any]
    model: Mapping[str, Any]

    @cached_property
    def classes(self) -> list[str]:
        """All classes, in the model's order."""
        known = [str(name) for name in self.summary.get("classes") or ()]
        found = self.predicted
        others = set() if found is None else {*found.labels, *found.predictions} - set(known)
        return [*known, *sorted(others)]

    @property
    def choose_by(self) -> str:
        """The figure of the validation images that chose the epoch, if all epochs have it."""
        rule = (self.config.get("evaluation") or {}).get("choose_by", DEFAULT)
        return rule if rule in RULES and all(rule in row for row in self.rows) else DEFAULT


def read(folder: Path) -> RunFiles:
    """The files of a run, one by one; what a run of an earlier version has not written is empty.

    Raises:
        RequestError: there is no summary, or a file is not what a run writes.
    """
    summary = content(folder / "summary.json", dict)
    return RunFiles(
        folder,
        summary,
        _tree(folder / "config.yaml"),
        _if_there(folder / "plan.json", list, []),
        _rows(folder / "metrics.jsonl"),
        predicted(folder / "predictions.csv") if (folder / "predictions.csv").is_file() else None,
        _if_there(folder / "audit.json", list, None),
        _if_there(folder / ANALYSIS, dict, {}),
        _if_there(folder / "model" / "model.json", dict, {}),
    )


def _if_there(file: Path, kind: type, otherwise: Any) -> Any:
    return content(file, kind) if file.is_file() else otherwise


def _tree(file: Path) -> dict[str, Any]:
    try:
        found = read_yaml(file) if file.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise RequestError(f"{file}: cannot be read: {reason(error)}") from error
    return found if isinstance(found, dict) else {}


def _rows(file: Path) -> list[dict[str, Any]]:
    """The epochs; a line that was being written when the run ended is none."""
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        rows = [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]
        return [row for row in rows if int(row["epoch"]) > 0]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(f"{file}: cannot be read: {reason(error)}") from error
