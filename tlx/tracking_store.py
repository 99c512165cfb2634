"""An MLflow store, as the process that writes into it has it open.

Part of that process, which opens this file by its path: nothing of tlx is imported here, and MLflow when it is needed.
"""

import contextlib
import json
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What the UI shows of an experiment: training (not chats), and a view of its runs with the columns that matter,
# at #/experiments/<id>/runs?viewStateShareKey=tlx
COLUMNS = [
    "attributes.`Duration`",
    "metrics.`test_accuracy`",
    "metrics.`accuracy_before_training`",
    "metrics.`best_val_accuracy`",  # of the saved epoch; val_accuracy shows the last one's
    "metrics.`best_val_loss`",
    "metrics.`best_epoch`",
    "params.`training.lr`",
    "params.`backbone.name`",
    "params.`seed`",
]
VIEW = "mlflow.sharedViewState.tlx"
EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",
    VIEW: json.dumps({"selectedColumns": COLUMNS, "orderByKey": "attributes.start_time", "orderByAsc": False}),
}


def reachable(uri: str, timeout: float) -> str | None:
    """Why the server at `uri` does not answer within `timeout` seconds, or None where it does.

    Decided in a thread: looking up a name has no time limit of its own.
    """
    reason = [f"no answer within {timeout:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=timeout):
                reason.clear()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (502, 503, 504):  # a proxy that answers for a server which does not
                reason[0] = f"HTTP {error.code}"
            else:
                reason.clear()
        except urllib.error.URLError as error:
            reason[0] = str(error.reason)
        except (OSError, ValueError) as error:
            reason[0] = str(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout + 0.3)
    return reason[0] if reason else None


class Store:
    """One MLflow store, opened once; several processes may open (and create) it at the same time."""

    def __init__(
        self,
        uri: str,
        artifacts: str | None,
        login: Sequence[str] | None = None,
        follow: Callable[[Path, str], str] | None = None,
    ) -> None:
        """`login`: user name and password of the server. `follow`: `tracking_moved.follow`."""
        self._follow = follow
        self.uri = uri
        self.login = None if login is None else (login[0], login[1])
        self.artifacts = artifacts
        self.works = True  # as of the last attempt
        self.news: list[str] = []  # what whoever writes next should say
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}

    def asleep(self) -> bool:
        """Whether it is a server that does not answer."""
        return self.uri.startswith("http") and reachable(self.uri, 3.0) is not None

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """One process at a time, where the store is a file; a server has none to offer."""
        if not self.uri.startswith("sqlite:///"):
            return contextlib.nullcontext()
        from filelock import FileLock

        file = Path(self.uri.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(file.with_name(f".{file.name}.lock"), timeout=120)

    def client(self) -> "MlflowClient":
        """Connects; creates the database where there is none."""
        if self._client is None:
            from mlflow import MlflowClient

            with self.lock():
                if self.uri.startswith("sqlite:///"):
                    # MLflow tries for 100 s to open a file that cannot be opened: asked first
                    file = Path(self.uri.removeprefix("sqlite:///"))
                    with contextlib.closing(sqlite3.connect(file)) as database:
                        database.execute("SELECT count(*) FROM sqlite_master")
                    if self.artifacts and self._follow and (moved := self._follow(file, self.artifacts)):
                        self.news.append(moved)
                self._client = MlflowClient(self.uri)
        return self._client

    def experiment(self, name: str) -> str:
        """Its id; created, or brought back where somebody has deleted it, because the name stays taken."""
        from mlflow.exceptions import MlflowException

        if name not in self._experiments:
            client = self.client()
            found = client.get_experiment_by_name(name)
            if found is None:
                try:
                    self._experiments[name] = str(
                        client.create_experiment(name, artifact_location=self.artifacts, tags=EXPERIMENT)
                    )
                except MlflowException:  # another process was faster, or it is a real error and comes again here
                    found = client.get_experiment_by_name(name)
                    if found is None:
                        raise
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    client.restore_experiment(found.experiment_id)
                    self.news.append(
                        f"the experiment '{name}' had been deleted: it is back, with the runs that it had; "
                        "another one is tracking.experiment=NAME"
                    )
                if found.tags.get(VIEW, EXPERIMENT[VIEW]) != EXPERIMENT[VIEW]:  # of an earlier tlx
                    client.set_experiment_tag(found.experiment_id, VIEW, EXPERIMENT[VIEW])
                self._experiments[name] = str(found.experiment_id)
        return self._experiments[name]
