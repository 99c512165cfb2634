"""A run's folder, as a run leaves it, for tests of what MLflow gets of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tlx.tracking import run_facts

CONFIG = {
    "backbone": {"name": "small_cnn"},
    "seed": 0,
    "source": {"dataset": None},
    "evaluation": {"choose_by": "val_loss"},
    "training": {"lr": 1e-3, "patience": None, "long": "x" * 9000},
    "strategy": {"phases": {"probe": {"lr": 1e-3}}},
    "output": "outputs",
    "tracking": {"uri": None},
}
PLAIN = {"seed": 0, "source": {"dataset": None}, "evaluation": {}, "training": {}, "strategy": {"phases": {}}}


def begun(folder: Path, key: str = "", config: Any = None, **summary: Any) -> Path:
    """A run that goes on: `config` and no epoch; `summary`: what is in `summary.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(PLAIN if config is None else config))
    run_facts.remember(folder, key=key or folder.name, name=folder.name)
    says(folder, **{"status": "running", **summary})
    return folder


def says(folder: Path, **summary: Any) -> None:
    """Writes more into `summary.json`."""
    file = folder / "summary.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**before, **summary}))


def epochs(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Adds epochs to `metrics.jsonl`."""
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.writelines(f"{json.dumps(row)}\n" for row in rows)
