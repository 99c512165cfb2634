"""One run as the process that writes into MLflow knows it: whatever MLflow has not got of its folder is written.

It may be done again at any time, by this process or another: a run is found by its key, a metric has one value a step,
a parameter is set once, a file has one path. Part of the process that writes to MLflow: of tlx it imports `core` alone,
and MLflow when it is needed.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.tracking import folder_content, run_facts
from tlx.tracking.folder_content import Content, Row, Unreadable
from tlx.tracking.mlflow_worker.run_lock import Left, RunLock
from tlx.tracking.run_card import RUN_ID

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tlx.tracking.mlflow_worker.mlflow_store import MlflowStore
    from tlx.tracking.mlflow_worker.system_load import Load

Message = dict[str, Any]
RETRY = 10.0  # seconds until a store that failed is tried again
REJECTED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")  # MLflow's word for what it will never take


class Recorded:
    """One run or sweep, and the load of the machine while it lasts."""

    def __init__(
        self,
        order: Message,
        store: "MlflowStore",
        registry: Any,
        load: Any,
        say: Callable[[Message], None],
        orphaned: Callable[[], bool],
    ) -> None:
        """`order`: the message that opens it. `registry`: the module that logs models. `load`: the class `Load`.
        `orphaned`: whether the process that asks has ended."""
        self.order, self.store, self.registry, self.orphaned = order, store, registry, orphaned
        self.folder = Path(order["folder"])
        self.say: Callable[..., None] = lambda **said: say({"run": order["run"], **said})
        self.run_id = ""
        self.left = "the store does not answer"  # why MLflow does not have all of it; empty where it has
        self.failed = 0.0  # when the store failed last, seconds since the epoch; 0: it works
        self.warned = False
        self.broken = False  # some artifact could not be uploaded: the next try is the last
        self.lock = RunLock(self.folder / run_facts.LOCK, orphaned)
        self.steps: dict[str, set[int]] = {}  # that each metric has
        self.parameters: set[str] = set()
        self.tags: dict[str, str] = {}
        self.uploaded: dict[Path, tuple[int, int]] = {}  # time of change and size of each file
        self.found = False  # the run was there already
        self.data_known = False
        self.samples = 0
        self.new_load = load
        self.load: Load | None = None

    def write(self, end: str | None = None) -> None:
        """Writes what MLflow has not got, or as much of it as the store takes.

        `end`: the run has ended, for this reason where its folder does not say how.
        """
        if self.failed:
            if end is None and time.time() - self.failed < RETRY:
                return
            if self.store.asleep():
                self.failed = time.time()
                return
        for _ in range(1 if end is None else 2):
            try:
                self._write(end)
            except Left:
                raise
            except Unreadable as error:
                self._refused(str(error))
                return
            except Exception as error:  # whatever a store, a driver or a network raises: the run must go on without
                self._failed(reason(error))
            else:
                self.failed, self.store.works = 0.0, True
                return

    def _write(self, end: str | None) -> None:
        client, content = self.store.client(), folder_content.read(self.folder)
        if not self.run_id:
            self.lock.enter()
            self._open(client, content)
        if end is not None and not content.status:
            content = replace(content, status="KILLED", error=content.error or end)
        self.left, failures = "", 0
        for upload, step in self._steps(client, content, end is not None):
            if upload and failures == 2:  # the rest would fail too
                continue
            try:
                step()
                failures = 0 if upload else failures
            except Exception as error:
                rejected = getattr(error, "error_code", "") in REJECTED
                if not (upload or rejected) or self.store.asleep():
                    raise
                failures += upload
                self.broken = self.broken or upload
                self._refused(f"cannot take {'artifacts' if upload else 'a part'} of the run: {reason(error)}")
        if end is not None:
            self._close(client, content)

    def _steps(self, client: "MlflowClient", content: Content, last: bool) -> Iterator[tuple[bool, Callable[[], None]]]:
        """What there is to write, in order, and whether it goes to the place of artifacts, which may fail alone."""
        yield False, lambda: self._tags(client, content)
        yield False, lambda: self._params(client, content)
        yield False, lambda: self._metrics(client, content.rows)
        if content.data is not None and not self.data_known:
            yield False, lambda: self._data(content.data)
        if self.broken and not last:
            return
        for path, place in content.files:
            if last or folder_content.AT_ONCE.fullmatch(path.name):
                yield True, lambda path=path, place=place: self._upload(path, place)  # type: ignore[misc]
        if last and content.model and self.order["model"]:
            yield True, lambda: self._model(client, content)

    def _tags(self, client: "MlflowClient", content: Content) -> None:
        tags = dict(content.tags)
        if "/" in content.key and "mlflow.parentRunId" not in self.tags:  # a job: its key begins with the sweep's
            parent = self._known_as(client, content.key.rpartition("/")[0])
            tags |= {} if parent is None else {"mlflow.parentRunId": parent}
        for name, text in tags.items():
            value = text.replace(RUN_ID, self.run_id)
            if self.tags.get(name) != value:
                client.set_tag(self.run_id, name, value)
                self.tags[name] = value

    def _params(self, client: "MlflowClient", content: Content) -> None:
        """Of a run that was opened again they stay what they were: MLflow refuses another value (a budget, say)."""
        from mlflow.entities import Param

        for some in _chunks((item for item in content.params.items() if item[0] not in self.parameters), 100):
            client.log_batch(self.run_id, params=[Param(name, value) for name, value in some])
            self.parameters.update(name for name, _ in some)

    def _metrics(self, client: "MlflowClient", rows: Iterable[Row]) -> None:
        """Writes the values that MLflow has not got."""
        from mlflow.entities import Metric

        fresh = []
        for values, step, at in rows:
            for name, value in values.items():
                if name not in self.steps:
                    history = client.get_metric_history(self.run_id, name) if self.found else []
                    self.steps[name] = {one.step for one in history}
                if step not in self.steps[name]:
                    fresh.append(Metric(name, value, at, step))
        for some in _chunks(fresh, 1000):
            client.log_batch(self.run_id, metrics=some)
            for one in some:
                self.steps[one.key].add(one.step)

    def _data(self, data: Any) -> None:
        self.store.log_data(self.run_id, data)
        self.data_known = True

    def _upload(self, path: Path, place: str) -> None:
        found = path.stat()
        state = found.st_mtime_ns, found.st_size
        if self.uploaded.get(path) != state:
            self.store.log_file(self.run_id, path, place)
            if path.is_file():
                self.uploaded[path] = state

    def _model(self, client: "MlflowClient", content: Content) -> None:
        """After the files that say whether it becomes champion; only that of a finished run goes into the registry."""
        model_id = self.registry.log(client, self.run_id, self.folder / "model")
        if self.order.get("register") and content.status == "FINISHED":
            with self.store.lock():
                said = self.registry.register(client, self.run_id, model_id, self.order["register"], self.folder)
            self.say(said=said)

    def _close(self, client: "MlflowClient", content: Content) -> None:
        if content.error:
            client.set_tag(self.run_id, "tlx.error", content.error[: folder_content.TAG_LENGTH])
        client.set_terminated(self.run_id, content.status, end_time=content.ended or self._now())
        self.lock.leave()

    def _open(self, client: "MlflowClient", content: Content) -> None:
        """Finds the run of that key, or makes one."""
        experiment = self.store.experiment(self.order["experiment"])
        for news in self.store.news:
            self.say(said=news)
        self.store.news.clear()
        run_id = self._again(client, content)
        self.found = run_id is not None
        if run_id is None:
            tags = {**self.order["source"], **content.tags}
            began = content.began or self.order["time"]
            run_id = client.create_run(experiment, start_time=began, tags=tags, run_name=content.name).info.run_id
            self.tags = dict(content.tags)
        self.run_id = str(run_id)
        self.say(run_id=self.run_id)
        if self.order["shared"]:
            self.lock.leave()
        if self.order["system_metrics"]:
            self.load = self.new_load(self.run_id, self.store.uri)

    def _known_as(self, client: "MlflowClient", key: str) -> str | None:
        """The id of the run of that key, or None where there is none."""
        experiment = self.store.experiment(self.order["experiment"])
        runs = client.search_runs([experiment], f"tags.`tlx.run` = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _again(self, client: "MlflowClient", content: Content) -> str | None:
        """The run that MLflow has already, opened again, or None where there is none."""
        from mlflow.exceptions import MlflowException

        run_id = self._known_as(client, content.key)
        if run_id is None and content.known_as:
            with contextlib.suppress(MlflowException):  # it is another store's, or was removed
                run = client.get_run(content.known_as)
                run_id = str(run.info.run_id) if run.info.lifecycle_stage == "active" else None
        if run_id is None:
            return None
        if self.orphaned():
            raise Left  # another process has gone on with it
        client.update_run(run_id, "RUNNING")
        data = client.get_run(run_id).data
        if "tlx.error" in data.tags:  # of an earlier process
            client.delete_tag(run_id, "tlx.error")
        self.tags, self.parameters = dict(data.tags), set(data.params)
        self.samples = len(client.get_metric_history(run_id, "system/cpu_utilization_percentage"))
        return run_id

    def sample(self) -> None:
        """Writes the machine's load, where it is time for that; not first: the UI lists groups in the order they came.

        No file has these figures: what a store does not take of them is lost.
        """
        if self.load is None or self.failed or not self.steps:
            return
        if values := self.load.due():
            self.samples += 1
            try:
                self._metrics(self.store.client(), [(values, self.samples, self._now())])
            except Exception:
                self.failed = time.time()

    def _failed(self, why: str) -> None:
        """The store has failed: said once a run, and once for all that are open."""
        self.failed, self.left = time.time(), why
        if self.store.works and not self.warned:
            self.warned = True
            self.say(warning=why)
        self.store.works = False
        if not self.run_id:  # nobody waits for an id that may never come
            self.say(run_id="")

    def _refused(self, why: str) -> None:
        """Something of the run cannot be taken, and the rest can: said once."""
        self.left = why
        if not self.warned:
            self.warned = True
            self.say(refused=why)

    def _now(self) -> int:
        return int(time.time() * 1000)


def reason(error: Exception) -> str:
    """Why something failed, in a line."""
    return " ".join(str(error).split())[:300] or repr(error)


def _chunks(items: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    """Lists of at most `size`."""
    rows = list(items)
    return (rows[i : i + size] for i in range(0, len(rows), size))
