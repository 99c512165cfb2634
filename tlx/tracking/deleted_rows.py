"""What is deleted in an SQLite store of MLflow and still there: `mlflow gc` and `runs gc` remove it for good."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tlx.core.disk_size import bytes_of

__all__ = ["Deleted", "deleted"]
RUNS = """
SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'deleted' AND NOT EXISTS (
    SELECT 1 FROM model_versions WHERE current_stage IS NOT 'Deleted_Internal' AND run_id = run_uuid)
"""
MODELS = """
SELECT model_id, artifact_location FROM logged_models WHERE lifecycle_stage = 'deleted' AND NOT EXISTS (
    SELECT 1 FROM model_versions WHERE current_stage IS NOT 'Deleted_Internal'
    AND (run_id = source_run_id OR source = 'models:/' || model_id))
"""


@dataclass(frozen=True)
class Deleted:
    """Runs and logged models that are deleted, by their ids, and the bytes of their artifacts.

    A run or a logged model that a version in the registry points to is not among them: the version needs its files.
    """

    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    bytes: int = 0

    def __len__(self) -> int:
        return len(self.runs) + len(self.models)


def deleted(database: Path) -> Deleted:
    """What is deleted in a database; nothing where there is none, or it has no such tables."""
    if not database.is_file():
        return Deleted()
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as store:
        runs, models = _rows(store, RUNS), _rows(store, MODELS)
    places = [Path(unquote(urlsplit(address).path)) for address in {**runs, **models}.values() if address]
    return Deleted(tuple(runs), tuple(models), sum(bytes_of(place) for place in places if place.is_dir()))


def _rows(store: sqlite3.Connection, query: str) -> dict[str, str]:
    with contextlib.suppress(sqlite3.OperationalError):  # a table is not there
        return {str(name): str(address or "") for name, address in store.execute(query)}
    return {}
