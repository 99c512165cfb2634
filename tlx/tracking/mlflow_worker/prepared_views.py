"""The views of runs that are prepared for MLflow's pages: where they are, read from an SQLite store without MLflow."""

import contextlib
import sqlite3
from pathlib import Path

from tlx.tracking.mlflow_worker.mlflow_store import VIEW


def prepared_views(database: Path) -> dict[str, str]:
    """Each experiment that has one, by its name: the path behind the address of MLflow's pages."""
    share = VIEW.rpartition(".")[2]
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as store:
        found = store.execute(
            "SELECT name, experiment_id FROM experiments JOIN experiment_tags USING (experiment_id) "
            "WHERE key = ? AND lifecycle_stage = 'active' ORDER BY experiment_id",
            (VIEW,),
        ).fetchall()
    return {str(name): f"/#/experiments/{number}/runs?viewStateShareKey={share}" for name, number in found}
