"""`mlflow.json` in a run's folder: what MLflow knows the run by, and whether it has all of it.

The process that writes to MLflow reads it too: of tlx it imports `core` alone.
"""

import json
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic

FILE = "mlflow.json"
LOCK = ".mlflow.lock"  # held by the process that writes the run into MLflow


def facts(folder: Path) -> dict[str, Any]:
    """The content of `mlflow.json`; empty where there is none."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(folder: Path, **known: Any) -> None:
    """Adds to `mlflow.json`: `key`, `name`, `uri`, `experiment`, `began` and `ended` (seconds since the epoch),
    `data` (its name, digest and source), `choices` (what is chosen of each group: backbone, strategy, …), `run_id`,
    `sent` (whether MLflow has everything), `reason` (why not)."""
    with atomic(folder / FILE) as path:
        path.write_text(json.dumps({**facts(folder), **known}, indent=1, ensure_ascii=False), encoding="utf-8")
