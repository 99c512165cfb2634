"""MLflow by run id: what a run says goes to a process of its own (`mlflow_worker`), and the run never waits for it.

Nothing of MLflow is imported here and nothing is active globally, so the next run of the same process starts clean.
A store that fails costs one warning. Every message carries the time it was said.
"""

import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union
from urllib.parse import urlsplit

from tlx.config import tracking_uri
from tlx.config.identity import flat as leaves
from tlx.core.errors import RequestError, shown
from tlx.tracking import source_tags
from tlx.tracking.mlflow_worker.mlflow_store import REFUSED, reachable
from tlx.tracking.worker_client import pipe

if TYPE_CHECKING:
    from tlx.config.schema import Tracking

Status = Literal["FINISHED", "FAILED", "KILLED"]
PARAM_LENGTH = 500  # characters: what servers of every age take; the whole configuration is an artifact
TAG_LENGTH = 5000
PROBE = 2.0  # seconds that a server has to answer


class Tracker:
    """What a run tells; here nobody listens (`tracking=none`). All but `start` may be left out, `finish` comes last."""

    uri: str = ""  # the store's, without a password; empty where there is none
    experiment: str = ""

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; waits until it is known; empty where there is none."""
        return ""

    @property
    def said(self) -> list[str]:
        """What the process that writes has answered so far beside that, as which version a model has become."""
        return []

    def start(
        self,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        parent: Union[str, "Tracker", None] = None,
        *,
        key: str = "",
        again: str = "",
        lock: Path | None = None,
        shared: bool = False,
        at: float | None = None,
    ) -> None:
        """Opens the run; `params` may be nested, `parent` is a run id or another tracker.

        `key`: names the run for good (tag `tlx.run`); one that is there is opened again, and keeps the metrics it has.
        `again`: MLflow's id of a run that has no such key and is to be opened again. `lock`: a file that one process at
        a time holds, from here to the run's end (`shared`: while it opens the run), so that what a killed process has
        left to say is said before. `at`: when it began, seconds since the epoch, if not now.
        """

    def dataset(self, name: str, digest: str, source: str, counts: Mapping[str, int], classes: Sequence[str]) -> None:
        """The data: `digest` is its fingerprint, `counts` images a split."""

    def metrics(self, row: Mapping[str, object], step: int, *, at: float | None = None) -> None:
        """The numbers of a row (the rest of it is left out) at `step`, the epoch counted from 1; `at`: if not now."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder under its own name, read before `finish` returns."""

    def model(self, folder: Path, register: str | None = None) -> None:
        """The saved model in the run's `folder`, as one that MLflow loads and serves.

        `register`: its name in the registry, if it is to be there. It becomes the champion of that name where there is
        none, or where it is better by the validation images; a paired test on the test images is reported beside that.
        """

    def note(self, text: str) -> None:
        """The run's description, in Markdown."""

    def finish(self, status: Status = "FINISHED", error: str | None = None, *, at: float | None = None) -> str:
        """Ends the run when everything is written; `error` is the reason it failed, `at` when that was, if not now.

        Gives why MLflow does not have all of it; empty where it has. A second call does nothing.
        """
        return ""


class MlflowTracker(Tracker):
    """Tells MLflow."""

    def __init__(
        self,
        uri: str,
        artifacts: str | None,
        experiment: str,
        system_metrics: bool,
        address: str = "",
        login: tuple[str, str] | None = None,
    ) -> None:
        """`uri`: as it is shown; `address`: with what MLflow needs to open it, if that is another; `login`: a server's
        user name and password."""
        self.uri, self.address, self.login = uri, address or uri, login
        self.artifacts = artifacts
        self.experiment = experiment
        self.system_metrics = system_metrics
        self.number: int | None = None
        self._start: dict[str, Any] = {}  # the message
        self._pipe = pipe()  # it imports MLflow from now on

    @property
    def run_id(self) -> str:
        if self.number is None:
            return ""
        return self._pipe.run_id(self.number)

    @property
    def said(self) -> list[str]:
        return [] if self.number is None else self._pipe.said(self.number)

    def start(
        self,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        parent: Union[str, "Tracker", None] = None,
        *,
        key: str = "",
        again: str = "",
        lock: Path | None = None,
        shared: bool = False,
        at: float | None = None,
    ) -> None:
        if not self._pipe.usable:
            self._pipe = pipe()
        self.number = self._pipe.new_key(shown(self.uri))
        own = source_tags.source()
        if key:
            own["tlx.run"] = key
        if isinstance(parent, MlflowTracker):
            told = parent.number if parent._pipe is self._pipe else parent.run_id
        else:
            told = parent if isinstance(parent, str) else None
        self._start = self._say(
            "start",
            uri=self.address,
            login=self.login,
            artifacts=self.artifacts,
            experiment=self.experiment,
            name=name,
            params=flat(params),
            tags={key: shown(str(value))[:TAG_LENGTH] for key, value in {**own, **tags}.items()},
            parent=told,
            key=key,
            again=again,
            lock=None if lock is None else str(Path(lock).absolute()),
            shared=shared,
            system_metrics=self.system_metrics,
            at=at,
        )

    def dataset(self, name: str, digest: str, source: str, counts: Mapping[str, int], classes: Sequence[str]) -> None:
        self._say(
            "dataset", name=name, digest=digest, source=source, counts=dict(counts), classes=[str(c) for c in classes]
        )

    def metrics(self, row: Mapping[str, object], step: int, *, at: float | None = None) -> None:
        self._say("metrics", values=dict(_numbers(row)), step=step, at=at)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._say("artifact", path=str(Path(path).absolute()), folder=folder)

    def model(self, folder: Path, register: str | None = None) -> None:
        folder = Path(folder).absolute()
        self._say("model", path=str(folder / "model"))
        if register is not None:
            self._say("register", folder=str(folder), name=register)

    def note(self, text: str) -> None:
        self._say("tags", tags={"mlflow.note.content": text[:TAG_LENGTH]})

    def finish(self, status: Status = "FINISHED", error: str | None = None, *, at: float | None = None) -> str:
        if self.number is None:
            return ""
        last = self._say("finish", status=status, error=shown(error or "")[:TAG_LENGTH], at=at)
        why = self._pipe.wait_finished(self.number)
        if why and self._start.get("key") and not self._pipe.usable:
            # The process has died, and its run would stay RUNNING: another one closes it.
            parent = None if isinstance(self._start["parent"], int) else self._start["parent"]
            self._pipe = pipe()
            self.number = self._pipe.new_key(shown(self.uri))
            for message in ({**self._start, "parent": parent, "system_metrics": False}, last):
                self._pipe.say({**message, "run": self.number})
            self._start = {}
            self._pipe.wait_finished(self.number)
        return why

    def _say(self, op: str, *, at: float | None = None, **content: Any) -> dict[str, Any]:
        message = {"op": op, "time": int((time.time() if at is None else at) * 1000), **content}
        if self.number is not None:
            self._pipe.say({**message, "run": self.number})
        return message


def open(config: "Tracking", output: Path) -> Tracker:
    """The tracker that the configuration asks for; `output` is the folder of all runs, where the default store lies.

    Raises:
        RequestError: MLflow is not installed, `tracking.uri` is no store, or its server does not answer (2.3 s).
    """
    if not config.enabled:
        return Tracker()
    if importlib.util.find_spec("mlflow") is None:
        raise RequestError("tracking: the package mlflow is not installed; install it, or run with tracking=none")
    output = Path(output).absolute()
    uri, experiment = config.uri or f"sqlite:///{output / 'mlflow.db'}", config.experiment or "tlx"
    key = tracking_uri.from_environment(config).get("tracking.uri", "tracking.uri")
    if uri.startswith("sqlite:///"):
        file = Path(os.path.expanduser(uri.removeprefix("sqlite:///"))).absolute()
        if re.search("[?%]", str(file)):  # to SQLAlchemy they are the start of options and of an escaped character
            raise RequestError(
                f"{key}: a database's path cannot have '?' or '%' in it: '{file}'; "
                f"give another path, or use tracking=none"
            )
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as stream:
                if stream.read(15) != b"SQLite format 3":
                    raise RequestError(f"{key}: '{file}' is not an SQLite database; give another file")
        artifacts: str | None = (file.parent / "mlartifacts").as_uri()
        return MlflowTracker(f"sqlite:///{file}", artifacts, experiment, config.system_metrics)
    address, login = tracking_uri.opened(uri)
    uri = tracking_uri.hidden(uri)
    if urlsplit(address).scheme in ("http", "https"):
        if reason := reachable(address, PROBE, login):
            at = f"{key}: the MLflow server at '{uri if login is None else uri.replace('@', ':***@', 1)}'"
            if reason == REFUSED:
                raise RequestError(f"{at} does not let us in ({reason}): {tracking_uri.ADVICE}")
            raise RequestError(
                f"{at} cannot be reached ({reason}); start it, give another tracking.uri, or use tracking=sqlite"
            )
        return MlflowTracker(uri, None, experiment, config.system_metrics, address, login)
    if not re.match(r"(postgresql|mysql|mssql)(\+\w+)?://|databricks", uri):
        other = "" if key == "tracking.uri" else ", give tracking.uri, or use tracking=none"
        raise RequestError(
            f"{key}: '{shown(uri)}' is not an MLflow store; "
            f"give sqlite:///FILE, http://HOST:PORT, or leave it out (null){other}"
        )
    artifacts = None if uri.startswith("databricks") else (output / "mlartifacts").as_uri()
    return MlflowTracker(uri, artifacts, experiment, config.system_metrics, address)


def flat(params: Mapping[str, object]) -> dict[str, str]:
    """Parameters as MLflow takes them: dotted names, short texts; what is null or empty says nothing and is left out.

    >>> flat({"training": {"lr": 0.001, "patience": None}})
    {'training.lr': '0.001'}
    """
    found: dict[str, str] = {}
    for key, value in leaves(params):
        if value is not None and value not in ([], (), {}, ""):
            text = value if isinstance(value, str | int | float) else json.dumps(value, default=str, ensure_ascii=False)
            text = shown(str(text))
            name = re.sub(r"[^\w\-. :/]", "_", key)[-250:]
            found[name] = text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 2] + " …"
    return found


def _numbers(row: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif not isinstance(value, str | bool) and hasattr(value, "__float__"):
            yield f"{prefix}{key}", float(value)
