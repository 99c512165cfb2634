"""The MLflow run of a folder: written by a process of its own (`mlflow_worker`), for which the run never waits.

That process gets the folder's path, and a message when something in the folder is new. It may die at any time: then
another one is started, and writes what MLflow does not have. Nothing of MLflow is imported here and nothing is active
globally, so the next run of the same process starts clean. A store that fails costs one warning.
"""

import importlib.util
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tlx.config import tracking_uri
from tlx.core.errors import RequestError, shown
from tlx.tracking import source_tags
from tlx.tracking.folder_content import TAG_LENGTH
from tlx.tracking.mlflow_worker.mlflow_store import REFUSED, reachable
from tlx.tracking.worker_client import pipe

if TYPE_CHECKING:
    from tlx.config.schema import Tracking

log = logging.getLogger("tlx.tracking")
PROBE = 2.0  # seconds that a server has to answer
STARTS = 3  # processes that one run may use up
Answer = TypeVar("Answer")


class Tracker:
    """The MLflow run of a folder; here there is none (`tracking=none`)."""

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

    def start(self, folder: Path, *, shared: bool = False) -> None:
        """Opens the run of a folder (`folder_content`), new or again; `shared`: several processes may write it."""

    def changed(self) -> None:
        """Something in the folder is new."""

    def finish(self, error: str = "") -> str:
        """Ends the run when everything is written; `error` is why, where its folder does not say how it has ended.

        Gives why MLflow does not have all of it; empty where it has. A second call does nothing.
        """
        return ""

    def remove(self, runs: Sequence[tuple[str, str]], models: Sequence[str] = (), *, forced: bool = False) -> str:
        """Removes runs, each by its key and its id (either may be empty), and logged models; why that failed, or "".

        `forced`: also a run whose model is in the registry.
        """
        return ""


class StoreAddress(NamedTuple):
    """Where runs are written.

    Attributes:
        uri: as it is shown.
        address: with what MLflow needs to open it.
        artifacts: where a new experiment's artifacts are to lie; None: the server says so.
        login: a server's user name and password.
    """

    uri: str
    address: str
    artifacts: str | None = None
    login: tuple[str, str] | None = None


class MlflowTracker(Tracker):
    """The run in a store of MLflow."""

    def __init__(self, store: StoreAddress, config: "Tracking") -> None:
        self.uri, self.experiment = store.uri, config.experiment or "tlx"
        self.number: int | None = None
        self._order: dict[str, Any] = {
            "op": "open",
            "uri": store.address,
            "artifacts": store.artifacts,
            "login": store.login,
            "experiment": self.experiment,
            "model": config.model,
            "register": config.register,
            "system_metrics": config.system_metrics,
        }
        self._starts = 0
        self._ended: str | None = None
        self._pipe = pipe()  # it imports MLflow from now on

    @property
    def run_id(self) -> str:
        return "" if self.number is None else self._answered(lambda number: self._pipe.run_id(number))

    @property
    def said(self) -> list[str]:
        return [] if self.number is None else self._pipe.said(self.number)

    def start(self, folder: Path, *, shared: bool = False) -> None:
        self._order |= {"folder": str(Path(folder).absolute()), "shared": shared, "source": source_tags.source()}
        self._order["time"] = int(time.time() * 1000)
        self._open()

    def changed(self) -> None:
        if self.number is not None and self._lives():
            self._pipe.say({"op": "changed", "run": self.number})

    def finish(self, error: str = "") -> str:
        if self.number is None:
            return ""
        if self._ended is None:

            def finished(number: int) -> str:
                self._pipe.say({"op": "finish", "run": number, "error": shown(error)[:TAG_LENGTH]})
                return self._pipe.wait_finished(number)

            self._ended = self._answered(finished)
        return self._ended

    def remove(self, runs: Sequence[tuple[str, str]], models: Sequence[str] = (), *, forced: bool = False) -> str:
        number = self._pipe.new_key(shown(self.uri))
        what = {"runs": [list(run) for run in runs], "models": list(models), "forced": forced}
        store = {name: self._order[name] for name in ("uri", "artifacts", "login", "experiment")}
        self._pipe.say({"op": "remove", "run": number, **store, **what})
        return self._pipe.wait_finished(number)

    def _open(self) -> None:
        if not self._pipe.usable:
            self._pipe = pipe()
        self._starts += 1
        self.number = self._pipe.new_key(shown(self.uri))
        self._pipe.say({**self._order, "run": self.number})

    def _answered(self, ask: Callable[[int], Answer]) -> Answer:
        """What the process answers, or, where it dies before it does, the one that is started then."""
        while True:
            self._lives()
            assert self.number is not None
            answer = ask(self.number)
            if self._pipe.usable or not self._replaceable():
                return answer

    def _lives(self) -> bool:
        """Whether there is a process that writes; one that has died is replaced, a few times."""
        if not self._pipe.usable and self._replaceable():
            log.info("MLflow: its process ended; a new one takes over")
            self._open()
        return self._pipe.usable

    def _replaceable(self) -> bool:
        """One that has never opened a run would not do so another time."""
        return self._ended is None and self._starts < STARTS and self._pipe.has_worked


def open(config: "Tracking", output: Path) -> Tracker:
    """The tracker that the configuration requests; `output` is the folder of all runs, where the default store lies.

    Raises:
        RequestError: MLflow is not installed, `tracking.uri` is no store, or its server does not answer (2.3 s).
    """
    if not config.enabled:
        return Tracker()
    if importlib.util.find_spec("mlflow") is None:
        raise RequestError("tracking: the package mlflow is not installed; install it, or run with tracking=none")
    output = Path(output).absolute()
    uri = config.uri or f"sqlite:///{output / 'mlflow.db'}"
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
        local = f"sqlite:///{file}"
        return MlflowTracker(StoreAddress(local, local, (file.parent / "mlartifacts").as_uri()), config)
    address, login = tracking_uri.opened(uri)
    uri = tracking_uri.hidden(uri)
    if urlsplit(address).scheme in ("http", "https"):
        if reason := reachable(address, PROBE, login):
            at = f"{key}: the MLflow server at '{uri if login is None else uri.replace('@', ':***@', 1)}'"
            if reason == REFUSED:
                raise RequestError(f"{at} refuses the login ({reason}): {tracking_uri.ADVICE}")
            raise RequestError(
                f"{at} cannot be reached ({reason}); start it, give another tracking.uri, or use tracking=sqlite"
            )
        return MlflowTracker(StoreAddress(uri, address, None, login), config)
    if not re.match(r"(postgresql|mysql|mssql)(\+\w+)?://|databricks", uri):
        other = "" if key == "tracking.uri" else ", give tracking.uri, or use tracking=none"
        raise RequestError(
            f"{key}: '{shown(uri)}' is not an MLflow store; "
            f"give sqlite:///FILE, http://HOST:PORT, or leave it out (null){other}"
        )
    artifacts = None if uri.startswith("databricks") else (output / "mlartifacts").as_uri()
    return MlflowTracker(StoreAddress(uri, address, artifacts), config)
