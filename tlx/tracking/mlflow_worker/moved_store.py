"""MLflow keeps artifacts' addresses absolute: in a store that was moved or copied they lead to where it was.

Part of the process that writes to MLflow: of tlx it imports `core` alone.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

# MLflow has no call that changes them.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
OURS = "mlflow.sharedViewState.tlx"  # the tag of experiments whose artifacts lie beside their database


def follow(database: Path, artifacts: str) -> str:
    """Makes all addresses of an SQLite store lead to `artifacts`, the folder beside it; what was changed, in words.

    Only those are changed that began with the folder that was beside the database when it was made. Nothing is written
    to that one: where the store is a copy, it is the original's.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as store, store:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"experiments", "experiment_tags"} <= tables:  # a new one
            return ""
        found = store.execute(
            "SELECT DISTINCT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id) "
            "WHERE key = ? AND artifact_location LIKE 'file://%/mlartifacts' AND artifact_location <> ?",
            (OURS, artifacts),
        )
        said = [_moved(store, old, artifacts, tables) for (old,) in found.fetchall() if not _same(old, artifacts)]
    return "; ".join(said)


def _moved(store: sqlite3.Connection, old: str, new: str, tables: set[str]) -> str:
    counts = {}
    for table, column in ADDRESSES:
        if table in tables:
            counts[table] = store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            ).rowcount
    before, now, left = _path(old), _path(new), 0
    with contextlib.suppress(OSError):
        runs = [run for (run,) in store.execute("SELECT run_uuid FROM runs")]
        left = sum((before / run).is_dir() and not (now / run).exists() for run in runs)
    words = (
        f"the artifacts of this store were in {before} and are in {now}; addresses of runs changed: {counts['runs']}"
    )
    return words + (f"; those of {left} runs are still in {before}: copy them" if left else "")


def _path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


def _same(old: str, new: str) -> bool:
    """Whether both are one folder, by two names."""
    try:
        return os.path.samefile(_path(old).parent, _path(new).parent)
    except OSError:
        return False
