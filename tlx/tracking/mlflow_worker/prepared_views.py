"""The view of runs that is prepared for MLflow's pages: what it shows, how an experiment has it, and where it is.

MLflow 3.17 decides in the browser which columns a runs table has: at the plain address run name, time, duration,
source, models and data set, or what this browser has saved. No tag of an experiment changes that. It lists saved views
in its menu "Views", each a tag of the experiment, and opens the one that an address names.
"""

import contextlib
import json
import sqlite3
from pathlib import Path

CHOICES = ("backbone", "strategy", "head", "augmentation", "dataset", "learning_rate", "seed")
# `val_accuracy` is that of the last epoch, `best_val_accuracy` that of the epoch whose model is kept.
COLUMNS = [
    "metrics.`test_accuracy`",
    "metrics.`best_val_accuracy`",
    *(
        f"params.`{name}`"
        for name in ("backbone", "strategy", "head", "augmentation", "dataset", "learning_rate", "seed")
    ),
    "attributes.`Duration`",
    "attributes.`Models`",
    "tags.`tlx.chosen`",  # of a sweep
]
VIEW = "mlflow.sharedViewState.tlx"
NOTE = "mlflow.note.content"
_STATE = {
    "selectedColumns": COLUMNS,
    "columnOrder": COLUMNS,
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
}
_SAVED = 1767225600000  # when the view was made, milliseconds since the epoch: the same in all stores
# Of an experiment for training (and not for chats): its kind, and the view with its name.
TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    VIEW: json.dumps({"name": "accuracies", "createdAt": _SAVED, "updatedAt": _SAVED, "state": json.dumps(_STATE)}),
}


def path_of(experiment: str) -> str:
    """The path of an experiment's view behind the address of MLflow's pages."""
    share = VIEW.rpartition(".")[2]
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={share}&workflowType=machine_learning"


def note(experiment: str) -> str:
    """The description of an experiment, in Markdown."""
    return (
        f"Runs of tlx. [The table of runs with their accuracies and choices]({path_of(experiment)[1:]}) "
        "is also in the menu *Views* above the table, as *accuracies*; *Override saved view* there makes it this "
        "browser's own."
    )


def prepared_views(database: Path) -> dict[str, str]:
    """Each experiment that has one, by its name: the path behind the address of MLflow's pages; read without MLflow."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as store:
        found = store.execute(
            "SELECT name, experiment_id FROM experiments JOIN experiment_tags USING (experiment_id) "
            "WHERE key = ? AND lifecycle_stage = 'active' ORDER BY experiment_id",
            (VIEW,),
        ).fetchall()
    return {str(name): path_of(str(number)) for name, number in found}
