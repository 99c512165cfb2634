"""What MLflow is told of a run: by the run itself, and afterwards by `sync` from its folder, in the same words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.core.atomic_files import atomic
from tlx.core.choose_by import DEFAULT, better
from tlx.core.metric import Metric, of_summary

if TYPE_CHECKING:
    from tlx.tracking.tracker import Tracker

FILE = "mlflow.json"  # what MLflow knows the run by, and whether it has all of it
LOCK = ".mlflow.lock"  # held by the process that writes the run into MLflow
NO_ARTIFACTS = {"checkpoint.safetensors", "study.db", FILE}
_INHERITED = ("epochs", "lr", "batch_size", "patience")  # from `training`, by a phase that has none of its own


def facts(folder: Path) -> dict[str, Any]:
    """The content of `mlflow.json`; empty where there is none."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(folder: Path, **known: Any) -> None:
    """Adds to `mlflow.json`: `key`, `name`, `uri`, `experiment`, `began` and `ended` (seconds since the epoch),
    `data` (its name, digest and source), `run_id`, `sent` (whether MLflow has everything), `reason` (why not)."""
    with atomic(folder / FILE) as path:
        path.write_text(json.dumps({**facts(folder), **known}, indent=1, ensure_ascii=False), encoding="utf-8")


def parameters(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What MLflow lists of a configuration: what can change the result (all of it is in `config.yaml`).

    What a phase inherits from `training` is listed as the phases used it.
    """
    left_out = {"output", "tracking", "evaluation"} | ({"source"} if tree["source"]["dataset"] is None else set())
    found = {name: value for name, value in tree.items() if name not in left_out}
    found["evaluation"] = {"choose_by": tree["evaluation"].get("choose_by", DEFAULT)}
    phases = tree["strategy"]["phases"].values()
    for name in _INHERITED:
        used = list(dict.fromkeys(phase[name] for phase in phases))
        found["training"] = {**found["training"], name: used[0] if len(used) == 1 else ", ".join(map(str, used))}
    return found


def epoch(tracker: "Tracker", row: Mapping[str, Any], at: float | None = None) -> None:
    """An epoch's row of `metrics.jsonl`."""
    tracker.metrics({key: value for key, value in row.items() if key != "epoch"}, row["epoch"], at=at)


def test_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """The saved model's figures of the test images: `test_<name>`, with `_low` and `_high` where it has an interval."""
    found = [metric.flat() for metric in of_summary(summary) if metric.split == "test"]
    return {name: value for flat in found for name, value in flat.items()}


def best_figures(rows: Sequence[Mapping[str, Any]], best_epoch: int) -> dict[str, float]:
    """The epoch whose model is kept: MLflow shows the last value of `val_accuracy`, which may be another epoch's."""
    best = next(row for row in rows if row["epoch"] == best_epoch)
    return {"best_epoch": best_epoch, **{f"best_{name}": best[name] for name in best if name.startswith("val_")}}


def val_metrics(best: Mapping[str, float]) -> list[Metric]:
    """The validation figures among those of the best epoch (`best_figures`)."""
    found = {name.removeprefix("best_"): value for name, value in best.items() if name.startswith("best_val_")}
    return [
        Metric(name.removeprefix("val_"), "val", value, higher_is_better=better(1, 0, name))
        for name, value in found.items()
    ]


def place(file: Path) -> str:
    """The folder among the run's artifacts in which a file of its folder lies."""
    return "plots" if file.suffix == ".png" else ""
