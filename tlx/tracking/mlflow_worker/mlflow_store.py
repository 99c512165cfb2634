"""An MLflow store, as the process that writes into it has it open.

Part of the process that writes to MLflow: of tlx it imports `core` alone, and MLflow when it is needed.
"""

import base64
import contextlib
import json
import os
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.tracking.mlflow_worker.prepared_views import NOTE, TAGS, VIEW, note

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

REFUSED = "HTTP 401"  # what a server says to one whom it does not know
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
OWN = os.environ.get(USER), os.environ.get(PASSWORD)


def reachable(uri: str, timeout: float, login: Sequence[str] | None = None) -> str | None:
    """Why the server at `uri` does not answer within `timeout` seconds, or None where it does.

    Decided in a thread: looking up a name has no time limit of its own. `login`: user name and password; `REFUSED` is
    the answer where it is not accepted.
    """
    reason = [f"no answer within {timeout:g} s"]
    known = login or (os.environ.get(USER), os.environ.get(PASSWORD))
    headers = {}
    if all(known):
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(map(str, known)).encode()).decode()
    # Who has another way to be known, by MLflow's own means, may be let in where these requests are not.
    other = os.environ.get("MLFLOW_TRACKING_TOKEN") or os.path.exists(os.path.expanduser("~/.mlflow/credentials"))

    def ask(path: str) -> int:
        request = urllib.request.Request(uri.rstrip("/") + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                return 200
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def decide() -> None:
        try:
            code = ask("/health")
            if code in (502, 503, 504):  # a proxy that answers for a server which does not
                reason[0] = f"HTTP {code}"
                return
            reason.clear()
            if (headers or not other) and 401 in (code, ask("/api/2.0/mlflow/experiments/search?max_results=1")):
                reason.append(REFUSED)
        except urllib.error.URLError as error:
            reason[:] = [str(error.reason)] if reason else []
        except (OSError, ValueError) as error:
            reason[:] = [str(error)] if reason else []

    thread = threading.Thread(target=decide, daemon=True)
    thread.start()
    thread.join(timeout + 0.3)
    return reason[0] if reason else None


class MlflowStore:
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
        return self.uri.startswith("http") and reachable(self.uri, 3.0, self.login) is not None

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
        for name, value in zip((USER, PASSWORD), self.login or OWN, strict=True):  # where MLflow looks for them
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self._client is None:
            from mlflow import MlflowClient

            with self.lock():
                if self.uri.startswith("sqlite:///"):
                    # MLflow tries for 100 s to open a file that cannot be opened: looked at first
                    file = Path(self.uri.removeprefix("sqlite:///"))
                    with contextlib.closing(sqlite3.connect(file)) as database:
                        database.execute("SELECT count(*) FROM sqlite_master")
                    if self.artifacts and self._follow and (moved := self._follow(file, self.artifacts)):
                        self.news.append(moved)
                self._client = MlflowClient(self.uri)
        return self._client

    def experiment(self, name: str) -> str:
        """Its id; created, or brought back where somebody has deleted it, because the name stays taken.

        `name`: its name, or `id:` and its id; one that is not there is `tlx`.
        """
        from mlflow.exceptions import MlflowException

        if name not in self._experiments:
            client = self.client()
            found, wanted = self._by_id(name) if name.startswith("id:") else None, name
            if found is None:
                wanted = "tlx" if name.startswith("id:") else name
                found = client.get_experiment_by_name(wanted)
            if found is None:
                try:
                    self._experiments[name] = str(
                        client.create_experiment(wanted, artifact_location=self.artifacts, tags=TAGS)
                    )
                except MlflowException:  # another process was faster, or it is a real error and comes again here
                    found = client.get_experiment_by_name(wanted)
                    if found is None:
                        raise
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    client.restore_experiment(found.experiment_id)
                    self.news.append(
                        f"the experiment '{found.name}' had been deleted: it is back, with the runs that it had; "
                        "another one is tracking.experiment=NAME"
                    )
                self._experiments[name] = str(found.experiment_id)
            self._describe(self._experiments[name], TAGS if found is None else found.tags)
        return self._experiments[name]

    def _describe(self, number: str, tags: Mapping[str, str]) -> None:
        """Gives an experiment of ours its view as it is now and, where nobody has written one, a description.

        `tags`: what it has. One that others have made has no view of ours, and gets none.
        """
        if VIEW not in tags:
            return
        if tags[VIEW] != TAGS[VIEW]:  # of an earlier version
            self.client().set_experiment_tag(number, VIEW, TAGS[VIEW])
        if NOTE not in tags:
            self.client().set_experiment_tag(number, NOTE, note(number))

    def _by_id(self, name: str) -> "Experiment | None":
        from mlflow.exceptions import MlflowException

        try:
            return self.client().get_experiment(name.removeprefix("id:"))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            self.news.append(f"tracking.experiment={name}: this store has no experiment of that id; 'tlx' is taken")
            return None

    def log_data(self, run_id: str, data: Mapping[str, Any]) -> None:
        """The data set of a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        found = Dataset(
            name=data["name"][:500],
            digest=data["digest"][:12],  # what the UI shows; the whole fingerprint is in the profile
            source_type="local",
            source=json.dumps({"uri": data["source"]}),
            profile=json.dumps({**data["counts"], "classes": data["classes"], "digest": data["digest"]}),
        )
        self.client().log_inputs(run_id, [DatasetInput(found, [InputTag("mlflow.data.context", "training")])])

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """A file in a folder of the run's artifacts, or a folder under its own name; what was removed since is left."""
        if path.is_dir():
            self.client().log_artifacts(run_id, str(path), "/".join(filter(None, (folder, path.name))))
        elif path.exists():
            self.client().log_artifact(run_id, str(path), folder or None)
