"""What MLflow gets of a run or a sweep: read from the structured files of its folder, and from nothing else.

The process that writes to MLflow reads it, while a run lasts and when `sync` sends it afterwards: of tlx it imports
`core` alone. Nothing of a log or a command line is read.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tlx.core.errors import reason, shown
from tlx.core.metric import of_summary
from tlx.core.yaml_trees import read_yaml
from tlx.tracking import run_facts
from tlx.tracking.run_card import BARS, card, sweep_card
from tlx.tracking.run_parameters import parameters

SWEEP = "sweep.json"
NO_ARTIFACTS = {"checkpoint.safetensors", "study.db", run_facts.FILE}
AT_ONCE = re.compile(r"config\.yaml|predictions-.*\.csv")  # they stay as they are
# MLflow's word for how a run or a sweep has ended; one that is none of these has not.
STATUS = {
    "finished": "FINISHED",
    **dict.fromkeys(("failed", "diverged"), "FAILED"),
    **dict.fromkeys(("interrupted", "pruned", "unmeasured"), "KILLED"),
}
TAG_LENGTH = 5000

Row = tuple[dict[str, float], int, int]  # metrics, their step, and when that was: milliseconds since the epoch


class Unreadable(Exception):
    """A file is not what a run or a sweep writes; the message names it."""


@dataclass(frozen=True)
class Content:
    """A run or a sweep as MLflow has it.

    Attributes:
        key: its name for good, MLflow's tag `tlx.run`.
        known_as: MLflow's id of it as its summary has that; "" where it does not.
        began, ended: milliseconds since the epoch; None where the folder does not say.
        status: one of `STATUS`, "" for one that goes on, or whose process was killed.
        data: name, digest, source, counts and classes of the data set; None where there is none.
        files: each artifact, and the folder among the artifacts in which it lies.
    """

    name: str
    key: str
    known_as: str = ""
    began: int | None = None
    ended: int | None = None
    status: str = ""
    error: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] | None = None
    rows: list[Row] = field(default_factory=list)
    files: list[tuple[Path, str]] = field(default_factory=list)
    model: bool = False


def read(folder: Path) -> Content:
    """What the folder says now.

    Raises:
        Unreadable: a file is not what a run or a sweep writes.
    """
    try:
        found = _sweep(folder) if (folder / SWEEP).is_file() else _run(folder)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise Unreadable(f"{folder}: is not as a run leaves it: {reason(error)}") from error
    tags = {name: shown(value)[:TAG_LENGTH] for name, value in found.tags.items() if value}
    found.tags.clear()
    found.tags.update({"tlx.run": found.key, **tags})
    return found


def _run(folder: Path) -> Content:
    known, summary = run_facts.facts(folder), _json(folder / "summary.json")
    began = float(known["began"]) if "began" in known else None
    status = STATUS.get(str(summary.get("status")), "")
    model = summary.get("status") in ("finished", "diverged") and (folder / "model" / "model.json").is_file()
    data = None
    if "data" in known and summary.get("images"):
        data = {**known["data"], "counts": summary["images"], "classes": summary["classes"]}
    return Content(
        name=str(known.get("name", folder.name)),
        key=str(known.get("key", "")),
        known_as=str(summary.get("mlflow_run_id") or ""),
        began=_ms(began),
        ended=_ms(known.get("ended")),
        status=status,
        error=str(summary.get("error") or ""),
        tags={
            **{f"tlx.{name}": str(summary.get(name) or "") for name in ("identity", "command")},
            "tlx.source": str(known.get("source") or ""),
            "mlflow.note.content": card(summary) if summary else "",
        },
        params=_params(folder),
        data=data,
        rows=list(_rows(folder / "metrics.jsonl", summary, began)),
        files=[
            (path, "plots" if path.suffix == ".png" else "")
            for path in _artifacts(folder)
            if path.name != "model" or path.is_file()
        ],
        model=model,
    )


def _sweep(folder: Path) -> Content:
    book = _json(folder / SWEEP)
    tags = {
        "tlx.command": book.get("command", ""),
        "tlx.sweep": folder.name,
        "tlx.jobs": str(len(book["jobs"])),
        "tlx.chosen": str(book.get("chosen", "")),
        "mlflow.note.content": sweep_card(book, picture=(folder / BARS).is_file()),
    }
    moment = int((folder / SWEEP).stat().st_mtime * 1000)
    return Content(
        name=folder.name,
        key=str(book["mlflow_key"]),
        ended=_ms(book.get("ended")),
        status=STATUS.get(str(book.get("status")), ""),
        error=str(book.get("error") or ""),
        tags=tags,
        rows=[(values, step, moment) for values, step in book.get("metrics", [])],
        files=[(path, "plots" if path.name == BARS else "") for path in _artifacts(folder) if path.is_file()],
    )


def best_figures(rows: Sequence[Mapping[str, Any]], best_epoch: int) -> dict[str, float]:
    """Figures of the epoch whose model is saved: MLflow shows the last value of `val_accuracy`, which may be another
    epoch's."""
    best = next(row for row in rows if row["epoch"] == best_epoch)
    return {"best_epoch": best_epoch, **{f"best_{name}": best[name] for name in best if name.startswith("val_")}}


def _rows(file: Path, summary: Mapping[str, Any], began: float | None) -> Iterator[Row]:
    """All metrics of a run. An epoch's time is counted back from the last one's, when the file was written last."""
    epochs = _lines(file)
    last = file.stat().st_mtime if epochs else began or 0.0
    moments, moment = [last], last
    for row in reversed(epochs[1:]):
        moment -= float(row.get("seconds", 0.0))
        moments.append(max(moment, began or 0.0))
    begun = int(1000 * (moments[-1] if began is None else min(began, moments[-1])))
    if (before := summary.get("accuracy_before_training")) is not None:
        yield {"accuracy_before_training": float(before)}, 0, begun
    for row, at in zip(epochs, reversed(moments), strict=False):
        yield dict(_numbers({key: value for key, value in row.items() if key != "epoch"})), row["epoch"], int(1000 * at)
    end = int(1000 * last)
    for phase, found in summary.get("after", {}).items():
        step = max((row["epoch"] for row in epochs if row.get("phase") == phase), default=len(epochs))
        yield {f"test_accuracy_after_{phase}": found["test_accuracy"]}, step, end
    step = int(summary.get("epochs") or len(epochs))
    figures = [metric.flat() for metric in of_summary(summary) if metric.split in ("test", "unknown")]
    if figures:
        yield {name: value for flat_ones in figures for name, value in flat_ones.items()}, step, end
    if summary.get("best_epoch") is not None and any(row["epoch"] == summary["best_epoch"] for row in epochs):
        yield best_figures(epochs, summary["best_epoch"]), step, end


def _lines(file: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`; a line that is being written is none yet."""
    if not file.is_file():
        return []
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _numbers(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _artifacts(folder: Path) -> list[Path]:
    """What lies in a folder, without what is hidden, unfinished, or of use here alone."""
    return [
        path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name not in NO_ARTIFACTS
    ]


def _params(folder: Path) -> dict[str, str]:
    file, choices = folder / "config.yaml", run_facts.facts(folder).get("choices", {})
    return _parsed(file, file.stat().st_mtime_ns, tuple(choices.items())) if file.is_file() else {}


@functools.lru_cache(maxsize=32)
def _parsed(file: Path, changed: int, choices: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The parameters of a configuration's file, parsed once as long as it is the same."""
    try:
        return parameters(read_yaml(file), dict(choices))
    except yaml.YAMLError as error:
        raise ValueError(f"{file.name}: {reason(error)}") from error


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{file.name}: no JSON object")
    return found


def _ms(seconds: Any) -> int | None:
    return None if seconds is None else int(1000 * float(seconds))
