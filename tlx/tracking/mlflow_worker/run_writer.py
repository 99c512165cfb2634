"""One run as the process that writes into MLflow knows it: what was asked for and is not written yet, in order.

Part of the process that writes to MLflow: of tlx it imports `core` alone, and MLflow when it is needed.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tlx.tracking.mlflow_worker.mlflow_store import Store
    from tlx.tracking.mlflow_worker.system_load import Load

Message = dict[str, Any]
RETRY = 10.0  # seconds until a store that failed is tried again
OCCUPIED = 30.0  # seconds for which a run waits until another process has written what it has of it
UPLOADS = ("artifact", "model", "register")  # they go to another place than metrics, which may fail alone
REJECTED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")  # MLflow's word for what it will never take


class Left(Exception):
    """The run belongs to another process."""


class Recorded:
    """One run, and the load of the machine while it lasts."""

    def __init__(
        self,
        key: int,
        store: "Store",
        registry: Any,
        load: Any,
        say: Callable[[Message], None],
        ids: dict[int, str],
        orphaned: Callable[[], bool],
    ) -> None:
        self.key = key
        self.orphaned = orphaned  # whether the process that asks has ended
        self.store = store
        self.registry = registry  # the module of that name: how models are logged
        self.say = say
        self.ids = ids  # run ids by key, of all runs of this process
        self.pending: deque[Message] = deque()
        self.failed = 0.0  # when the store failed last, seconds since the epoch; 0: it works
        self.warned = False
        self.aside: list[Message] = []  # what could not be uploaded, or was rejected
        self.refused = ""  # why
        self.waited = False  # for another process to leave the run
        self.samples = 0
        self.measured = False  # some metric of the run itself is written: the UI lists groups in the order they came
        self.model_id = ""  # MLflow's, once the model is logged
        self.lock: Any = None  # the file that says that this run is written here and nowhere else
        # Of a run that was opened again: the steps that each metric has, and the parameters' names.
        self.known: dict[str, set[int]] | None = None
        self.parameters: set[str] = set()
        self.new_load = load  # the class `tracking_load.Load`
        self.load: Load | None = None

    def take(self, message: Message) -> None:
        """Writes the message and what waits before it; keeps all of it where the store fails."""
        self.pending.append(message)
        last = message["op"] == "finish"
        if self.failed:
            if not last and time.time() - self.failed < RETRY:
                return
            if self.store.asleep():
                self.failed = time.time()
                return
        failures = 0
        while self.pending and failures < 2:
            try:
                if self.pending[0]["op"] == "finish":
                    self.catch_up()
                self.write(self.pending[0])
                self.failed = 0.0
                self.store.works = True
                failures = 0
            except Left:
                raise
            except Exception as error:  # whatever a store, a driver or a network raises: the run must go on without
                self.failed = time.time()
                if self.store.works and not self.warned:  # once a run, and once for all that are open
                    self.warned = True
                    self.say({"run": self.key, "warning": reason(error)})
                self.store.works = False
                self.refused = self.refused or reason(error)
                if self.key not in self.ids:  # nobody waits for an id that may never come
                    self.say({"run": self.key, "run_id": ""})
                if not last:
                    return
                failures += 1 if self.key in self.ids else 2  # a run that could not be opened takes nothing
                self.aside.append(self.pending[0])
            self.pending.popleft()

    def write(self, message: Message) -> None:
        """One message into the store, or set aside where it alone cannot be taken: metrics do not wait for artifacts.

        Raises:
            Exception: the store itself fails.
        """
        upload = message["op"] in UPLOADS
        if upload and self.aside and self.key in self.ids:  # tried again at the end
            self.aside.append(message)
            return
        try:
            self.apply(message)
        except Exception as error:
            if self.key not in self.ids or not (upload or getattr(error, "error_code", "") in REJECTED):
                raise
            if self.store.asleep():
                raise
            self.aside.append(message)
            self.refused = reason(error)
            if not self.warned:
                self.warned = True
                what = f"{'artifacts' if upload else message['op']} of the run"
                self.say({"run": self.key, "refused": f"cannot take {what}: {self.refused}"})

    def catch_up(self) -> None:
        """Tries once more what was set aside, until two in a row fail."""
        waiting, self.aside, failures = self.aside, [], 0
        for message in waiting:
            try:
                if failures < 2:
                    self.apply(message)
                    failures = 0
                    continue
            except Exception as error:
                self.refused, failures = reason(error), failures + 1
            self.aside.append(message)

    def left(self) -> str:
        """Why MLflow does not have all of it; empty where it has."""
        return (self.refused or "the store does not answer") if self.aside or self.pending else ""

    def apply(self, message: Message) -> None:
        """One message into the store."""
        client = self.store.client()
        op = message["op"]
        if op == "start":
            self.enter(message["lock"])
            self.start(client, message)
            if message["shared"]:
                self.leave()
            return
        run_id = self.ids[self.key]
        if op == "metrics":
            self.measured = True
            self.metrics(client, message["rows"])
        elif op == "dataset":
            self.store.log_data(run_id, message)
        elif op == "artifact":
            self.store.log_file(run_id, Path(message["path"]), message["folder"])
        elif op == "model":
            self.model_id = self.registry.log(client, run_id, Path(message["path"]))
        elif op == "register" and self.model_id:
            with self.store.lock():
                said = self.registry.register(client, run_id, self.model_id, message["name"], Path(message["folder"]))
            self.say({"run": self.key, "said": said})
        elif op == "tags":
            for name, value in message["tags"].items():
                client.set_tag(run_id, name, value)
        elif op == "finish":
            if message["error"]:
                client.set_tag(run_id, "tlx.error", message["error"])
            elif self.known is not None and "tlx.error" in client.get_run(run_id).data.tags:
                client.delete_tag(run_id, "tlx.error")  # of an earlier process
            client.set_terminated(run_id, message["status"], end_time=message["time"])
            self.leave()

    def enter(self, path: str | None) -> None:
        """Waits until no other process writes this run; a process that was killed leaves it to who goes on with it.

        Raises:
            Left: nobody waits for this one any more.
            RuntimeError: the other one has not left it in `OCCUPIED` seconds.
        """
        if path is None or not Path(path).parent.is_dir():  # the run has removed its folder: it has done nothing
            return
        from filelock import FileLock, Timeout

        self.lock = self.lock or FileLock(path)
        until = time.monotonic() + (0.0 if self.waited else OCCUPIED)
        while not self.lock.is_locked:
            try:
                self.lock.acquire(timeout=0 if self.orphaned() or self.waited else 1)
            except Timeout as error:
                if self.orphaned():
                    raise Left from error
                if time.monotonic() >= until:
                    self.waited = True
                    raise RuntimeError(f"another process is still writing this run and holds {path}") from error

    def leave(self) -> None:
        """Lets others write this run."""
        if self.lock is not None:
            self.lock.release(force=True)

    def start(self, client: "MlflowClient", message: Message) -> None:
        """Creates the run with its parameters; a parent is a run id, or the key of a run of this process."""
        from mlflow.entities import Param

        tags = dict(message["tags"])
        parent = message["parent"]
        experiment = self.store.experiment(message["experiment"])
        for news in self.store.news:
            self.say({"run": self.key, "said": news})
        self.store.news.clear()
        if isinstance(parent, int):
            parent = self.ids.get(parent)
        if not parent and "/" in message["key"]:  # a sweep's job, whose key begins with the sweep's
            parent = self.known_as(client, experiment, message["key"].rpartition("/")[0])
        if parent:
            tags["mlflow.parentRunId"] = parent
        if self.key not in self.ids:  # a second try after the parameters failed
            found = self.again(client, experiment, message) if message["key"] else None
            if found is None:
                run = client.create_run(experiment, start_time=message["time"], tags=tags, run_name=message["name"])
                found = run.info.run_id
            else:
                for name, value in tags.items():
                    client.set_tag(found, name, value)
            self.ids[self.key] = found
            self.say({"run": self.key, "run_id": found})
        # Of a run that was opened again they stay what they were: MLflow refuses another value (a budget, say).
        fresh = [(name, value) for name, value in message["params"].items() if name not in self.parameters]
        for some in chunks(fresh, 100):
            client.log_batch(self.ids[self.key], params=[Param(name, value) for name, value in some])
        if message["system_metrics"]:
            self.load = self.new_load(self.ids[self.key], self.store.uri)

    def known_as(self, client: "MlflowClient", experiment: str, key: str) -> str | None:
        """The id of the run of that key, or None where there is none."""
        runs = client.search_runs([experiment], f"tags.`tlx.run` = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def again(self, client: "MlflowClient", experiment: str, message: Message) -> str | None:
        """The run of the message's key, opened again, or None where there is none."""
        from mlflow.exceptions import MlflowException

        run_id = self.known_as(client, experiment, message["key"])
        if run_id is None and message.get("again"):
            with contextlib.suppress(MlflowException):  # it is another store's, or was removed
                run = client.get_run(message["again"])
                run_id = str(run.info.run_id) if run.info.lifecycle_stage == "active" else None
        if run_id is None:
            return None
        if self.orphaned():
            raise Left  # another process has gone on with it
        client.update_run(run_id, "RUNNING")
        data = client.get_run(run_id).data
        if "tlx.error" in data.tags:
            client.delete_tag(run_id, "tlx.error")
        self.known, self.measured, self.parameters = {}, True, set(data.params)
        self.samples = len(client.get_metric_history(run_id, "system/cpu_utilization_percentage"))
        return run_id

    def missing(self, client: "MlflowClient", values: Mapping[str, float], step: int) -> dict[str, float]:
        """Of a run that was opened again: the values that it has not got yet."""
        assert self.known is not None
        for name in values.keys() - self.known.keys():
            self.known[name] = {metric.step for metric in client.get_metric_history(self.ids[self.key], name)}
        return {name: value for name, value in values.items() if step not in self.known[name]}

    def metrics(self, client: "MlflowClient", rows: Sequence[tuple[Mapping[str, float], int, int]]) -> None:
        """Values, their step, and when it was in milliseconds since the epoch."""
        from mlflow.entities import Metric

        fresh = []
        for values, step, at in rows:
            new = values if self.known is None else self.missing(client, values, step)
            fresh += [Metric(name, value, at, step) for name, value in new.items()]
        for some in chunks(fresh, 1000):
            client.log_batch(self.ids[self.key], metrics=some)

    def sample(self) -> None:
        """Writes the machine's load, where it is time for that."""
        if not self.measured or self.load is None or self.failed:
            return
        if values := self.load.due():
            self.samples += 1
            self.take({"op": "metrics", "rows": [(values, self.samples, int(time.time() * 1000))]})


def reason(error: Exception) -> str:
    """Why something failed, in a line."""
    return " ".join(str(error).split())[:300] or repr(error)


def chunks(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Lists of at most `size`."""
    rows = list(items)
    return (rows[i : i + size] for i in range(0, len(rows), size))
