"""What a run tells arrives in MLflow, in a real database and on a real server, and no store can stop or delay a run."""

import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from tests.conftest import ROOT
from tlx.config.schema import Tracking
from tlx.core.errors import RequestError
from tlx.tracking import tracker as tracking
from tlx.tracking.mlflow_worker.__main__ import gathered

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def client(output: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{output}/mlflow.db")


def script(body: str, cwd: Path) -> "subprocess.Popen[str]":
    """A process of its own that has a tracker `t` whose store lies in its folder."""
    head = "from pathlib import Path\nfrom tlx.config.schema import Tracking\n"
    head += "from tlx.tracking import tracker as tracking\n"
    head += "t = tracking.open(Tracking(), Path.cwd())\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", head + body],
        cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.1)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose name has everything that people type; its database is made by whichever test is first."""
    return tmp_path_factory.mktemp("out puts #ü=(1)")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server:
    """A real `mlflow server` that can be killed and started again with what it had."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
                "--artifacts-destination", (self.folder / "artifacts").as_uri(),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the server did not start"
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


def test_a_run_arrives_whole_in_the_database_and_nobody_waited_for_it(output: Path) -> None:
    output = output / "without a database"
    tracker = tracking.open(Tracking(), output)
    output.mkdir()
    with FileLock(
        output / ".mlflow.db.lock"
    ):  # the database cannot come into being: whoever waits for it waits for ever
        params = {"training": {"lr": 1e-3, "patience": None}, "classes": ["a", "b"], "long": "x" * 9000}
        tracker.start("resnet18 · shapes", params, {"tlx.identity": "abc", "tlx.command": "python -m tlx"})
        tracker.dataset("shapes", "0123456789abcdef" * 4, "drawn", {"train": 144, "test": 90}, ["circle", "square"])
        for epoch in (1, 2, 3):
            tracker.metrics({"phase": "probe", "train_loss": 1 / epoch, "val_loss": float("nan"), "lr": 1e-3}, epoch)
        (output / "run" / "model").mkdir(parents=True)
        (output / "run" / "model" / "model.json").write_text("{}")
        (output / "run" / "curves.png").write_bytes(b"png")
        tracker.artifact(output / "run" / "curves.png", "plots")
        (output / "run" / "samples").mkdir()
        (output / "run" / "samples" / "0.png").write_bytes(b"png")
        tracker.artifact(output / "run" / "samples")
        tracker.model(output / "run")
        tracker.note("**97 %**")
        assert not (output / "mlflow.db").exists()
    run_id = tracker.run_id
    time.sleep(3)  # for a sample of the machine's load
    tracker.finish()

    found = client(output)
    run = found.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "resnet18 · shapes"
    assert found.get_experiment(run.info.experiment_id).name == "tlx"
    assert run.data.params.keys() == {"training.lr", "classes", "long"}
    assert run.data.params["training.lr"] == "0.001"
    assert run.data.params["long"] == "x" * (tracking.PARAM_LENGTH - 2) + " …"
    losses = found.get_metric_history(run_id, "train_loss")
    assert [(m.step, m.value) for m in losses] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert all(run.info.start_time <= m.timestamp <= run.info.end_time for m in losses)
    assert "phase" not in run.data.metrics
    assert "system/cpu_utilization_percentage" in run.data.metrics
    tags = run.data.tags
    assert (tags["tlx.identity"], tags["tlx.command"]) == ("abc", "python -m tlx")
    assert tags["mlflow.note.content"] == "**97 %**"
    assert tags["mlflow.user"]
    data = run.inputs.dataset_inputs[0].dataset
    assert (data.name, data.digest) == ("shapes", "0123456789ab")
    assert json.loads(data.profile)["digest"] == "0123456789abcdef" * 4
    assert json.loads(data.profile)["train"] == 144
    assert {a.path for a in found.list_artifacts(run_id)} == {"plots", "samples"}
    assert [found.get_logged_model(m.model_id).status for m in run.outputs.model_outputs] == ["READY"]
    assert [a.path for a in found.list_artifacts(run_id, "samples")] == ["samples/0.png"]
    assert (output / "mlartifacts" / run_id / "artifacts" / "plots" / "curves.png").is_file()


@pytest.mark.parametrize(
    ("status", "error"), [("FAILED", "RuntimeError: the loss is not a number"), ("KILLED", "Ctrl-C")]
)
def test_a_run_that_does_not_finish_says_so_and_why(output: Path, status: tracking.Status, error: str) -> None:
    tracker = tracking.open(Tracking(), output)
    tracker.start("bad", {}, {})
    tracker.finish(status, error)
    tracker.finish("FINISHED")  # what is closed stays closed
    run = client(output).get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["tlx.error"]) == (status, error)
    assert mlflow.active_run() is None


def test_a_child_hangs_under_its_parent_without_waiting_for_it(output: Path) -> None:
    parent, child = tracking.open(Tracking(), output), tracking.open(Tracking(), output)
    parent.start("sweep", {}, {})
    child.start("job", {}, {}, parent=parent)
    other = tracking.open(Tracking(), output)
    other.start("job 2", {}, {}, parent=parent.run_id)
    for tracker in (other, child, parent):
        tracker.finish()
    assert client(output).get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    assert client(output).get_run(other.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_an_experiment_that_was_deleted_comes_back_and_mlflow_is_not_imported_for_it(output: Path) -> None:
    tracker = tracking.open(Tracking(experiment="gone"), output)
    tracker.start("first", {}, {})
    tracker.finish()
    found = client(output)
    found.delete_experiment(found.get_run(tracker.run_id).info.experiment_id)
    body = "t = tracking.open(Tracking(experiment='gone'), Path.cwd())\nt.start('second', {}, {})\nt.finish()\n"
    body += "import sys\nprint(t.run_id, [m for m in ('mlflow', 'pandas') if m in sys.modules])"
    said, errors = script(body, output).communicate()
    assert errors == ""
    run_id, imported = said.split()
    assert imported == "[]"
    assert found.get_run(run_id).info.status == "FINISHED"


def test_processes_that_create_one_database_at_once_all_arrive(tmp_path: Path) -> None:
    jobs = [script(f"t.start('job {i}', {{}}, {{}})\nt.finish()", tmp_path) for i in range(3)]
    assert [job.communicate() for job in jobs] == [("", "")] * 3
    found = client(tmp_path)
    (experiment,) = (e for e in found.search_experiments() if e.name == "tlx")
    runs = found.search_runs([experiment.experiment_id])
    assert {(run.info.run_name, run.info.status) for run in runs} == {(f"job {i}", "FINISHED") for i in range(3)}


def test_a_process_that_is_shot_leaves_no_run_running(output: Path) -> None:
    job = script("t.start('shot', {}, {})\nprint(t.run_id, flush=True)\nimport time\ntime.sleep(999)", output)
    assert job.stdout is not None
    run_id = job.stdout.readline().strip()
    job.kill()
    job.communicate()
    found = client(output)
    until(lambda: found.get_run(run_id).info.status != "RUNNING")
    run = found.get_run(run_id)
    assert run.info.status == "KILLED"
    assert "the process ended without closing the run" in run.data.tags["tlx.error"]


def test_ctrl_c_reaches_the_run_and_not_its_tracker(output: Path) -> None:
    body = """
import time
t.start('interrupted', {}, {})
try:
    print(t.run_id, flush=True)
    time.sleep(999)
except KeyboardInterrupt:
    t.metrics({'last': 1.0}, 1)
    t.finish('KILLED', 'interrupted')
"""
    job = script(body, output)
    assert job.stdout is not None
    run_id = job.stdout.readline().strip()
    os.killpg(job.pid, signal.SIGINT)
    assert job.communicate() == ("", "")
    run = client(output).get_run(run_id)
    assert (run.info.status, run.data.metrics["last"]) == ("KILLED", 1.0)


def test_without_tracking_mlflow_need_not_be_installed(tmp_path: Path) -> None:
    blocked = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mlflow":
            raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
sys.meta_path.insert(0, Blocker())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "mlflow" else real(name, package)
from pathlib import Path
from tlx.tracking import tracker as tracking
from tlx.config.schema import Tracking
from tlx.core.errors import RequestError
t = tracking.open(Tracking(enabled=False), Path.cwd())
t.start("quiet", {}, {}); t.dataset("d", "0", "s", {}, []); t.metrics({"a": 1}, 1); t.artifact(Path("x")); t.note("")
t.finish("FINISHED")
print(repr(t.run_id))
try:
    tracking.open(Tracking(), Path.cwd())
except RequestError as error:
    print(error)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", blocked], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    said = "tracking: the package mlflow is not installed; install it, or run with tracking=none"
    assert done.stdout == f"''\n{said}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_server_gets_the_same(server: Server, tmp_path: Path) -> None:
    tracker = tracking.open(Tracking(uri=server.uri), tmp_path)
    tracker.start("on the server", {"lr": 1e-3}, {"tlx.identity": "abc"})
    tracker.dataset("shapes", "f" * 64, "drawn", {"train": 144}, ["circle"])
    tracker.metrics({"val_accuracy": 0.5}, 1)
    (tmp_path / "summary.json").write_text('{"best_epoch": 1}')
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "val_loss": 0.5}\n')
    tracker.artifact(tmp_path / "summary.json")
    tracker.artifact(tmp_path / "metrics.jsonl")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text('{"data": {"test": "ffff", "val": "eeee"}}')
    (tmp_path / "predictions.csv").write_text("sample,file,label,prediction,probability,correct\n")
    tracker.artifact(tmp_path / "predictions.csv")
    tracker.model(tmp_path, "shapes")
    tracker.model(tmp_path, "shapes")
    tracker.finish()
    found = MlflowClient(server.uri)
    run = found.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val_accuracy"] == 0.5
    assert run.data.params == {"lr": "0.001"}
    assert run.inputs.dataset_inputs[0].dataset.name == "shapes"
    assert [a.path for a in found.list_artifacts(tracker.run_id)] == [
        "metrics.jsonl",
        "predictions.csv",
        "summary.json",
    ]
    champion, second = (found.get_model_version("shapes", version) for version in ("1", "2"))
    assert found.get_model_version_by_alias("shapes", "champion").version == champion.version
    why = "not better by validation (val_loss 0.5000 against 0.5000); beside it: its test predictions are gone"
    assert second.tags["tlx.champion"] == f"version 1 stays champion: {why}"
    model = found.get_logged_model(champion.source.removeprefix("models:/"))
    assert (model.status, model.source_run_id) == ("READY", tracker.run_id)
    assert {a.path for a in found.list_logged_model_artifacts(model.model_id)} >= {"MLmodel", "model"}
    assert (server.folder / "artifacts").is_dir()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_server_whose_artifacts_cannot_be_stored_gets_everything_else(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has no driver or no credentials for the place that the server names."""
    MlflowClient(server.uri).create_experiment("bucket", artifact_location="s3://no-such-bucket/x")
    tracker = tracking.open(Tracking(uri=server.uri, experiment="bucket", system_metrics=False), tmp_path)
    tracker.start("on the server", {"lr": 1e-3}, {})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text('{"data": {"test": "ffff"}}')
    (tmp_path / "summary.json").write_text("{}")
    tracker.artifact(tmp_path / "summary.json")
    tracker.metrics({"val_accuracy": 0.5}, 1)
    tracker.model(tmp_path, "bucket")
    tracker.note("97 %")
    assert tracker.finish() != ""
    run = MlflowClient(server.uri).get_run(tracker.run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"val_accuracy": 0.5}, {"lr": "0.001"})
    assert run.data.tags["mlflow.note.content"] == "97 %"
    (warning,) = caplog.messages
    assert f"MLflow ({server.uri}) cannot take artifacts of the run" in warning


def test_a_server_that_dies_costs_one_warning_and_one_that_returns_gets_everything(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = tracking.open(Tracking(uri=server.uri), tmp_path)
    late = tracking.open(Tracking(uri=server.uri), tmp_path)
    lost.start("lost", {}, {})
    late.start("late", {}, {})
    lost.metrics({"a": 1.0}, 1)
    late.metrics({"a": 1.0}, 1)
    assert lost.run_id
    assert late.run_id
    server.kill()
    with caplog.at_level(logging.WARNING):
        for epoch in range(2, 6):
            lost.metrics({"a": float(epoch)}, epoch)
        lost.finish()  # returns though nobody listens
    (warning,) = caplog.messages
    assert f"MLflow ({server.uri}) failed, the run goes on without it" in warning
    for epoch in range(2, 6):
        late.metrics({"a": float(epoch)}, epoch)
    server.start()
    late.finish()
    found = MlflowClient(server.uri)
    assert [m.step for m in found.get_metric_history(late.run_id, "a")] == [1, 2, 3, 4, 5]
    assert found.get_run(late.run_id).info.status == "FINISHED"


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that takes connections and never says anything."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_cannot_be_reached_is_told_at_once(silent: str, tmp_path: Path) -> None:
    for uri in (silent, f"http://127.0.0.1:{free_port()}", "http://user:secret@nowhere.invalid:5000"):
        began = time.perf_counter()
        with pytest.raises(RequestError) as error:
            tracking.open(Tracking(uri=uri), tmp_path)
        assert time.perf_counter() - began < 3
        message = str(error.value)
        assert message.startswith(
            f"tracking.uri: the MLflow server at '{uri.replace('secret', '***')}' cannot be reached"
        )
        assert "tracking=sqlite" in message
        assert "secret" not in message


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "htp://127.0.0.1:5000"])
def test_what_is_no_store_is_refused_by_name(uri: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"^tracking.uri: '{uri}' is not an MLflow store; give sqlite:///FILE"):
        tracking.open(Tracking(uri=uri), tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is a letter, not a database")
    with pytest.raises(RequestError, match=r"^tracking.uri: '.*mlflow.db' is not an SQLite database"):
        tracking.open(Tracking(), tmp_path)


def test_a_path_that_a_database_url_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a database's path cannot have '\?' or '%' in it"):
        tracking.open(Tracking(), tmp_path / "100%")


def test_a_store_that_cannot_be_opened_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").mkdir()
    tracker = tracking.open(Tracking(), tmp_path)
    tracker.start("nowhere", {"a": 1}, {})
    tracker.metrics({"a": 1.0}, 1)
    tracker.finish()
    assert tracker.run_id == ""
    (warning,) = caplog.messages
    assert "unable to open database file" in warning


def test_parameters_are_flat_short_and_say_something() -> None:
    tree = {
        "backbone": {"name": "resnet18", "mean": [0.5, 0.5], "resize": None},
        "strategy": {"phases": {"tune": {"lr": 1e-4, "learns": ["norms"]}}},
        "augmentation": {"transforms": []},
        "a key!": True,
        "tracking": {"uri": "http://me:secret@host:5000"},
    }
    assert tracking.flat(tree) == {
        "backbone.name": "resnet18",
        "backbone.mean": "[0.5, 0.5]",
        "strategy.phases.tune.lr": "0.0001",
        "strategy.phases.tune.learns": '["norms"]',
        "a key_": "True",
        "tracking.uri": "http://me:***@host:5000",
    }
    assert all(len(value) <= tracking.PARAM_LENGTH for value in tracking.flat({"a": "ü" * 10_000}).values())


def test_metrics_that_come_together_are_written_together() -> None:
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def metrics(run: int, step: int) -> dict[str, Any]:
        return {"op": "metrics", "run": run, "values": {"loss": 1.0 / step}, "step": step, "time": 1000 * step}

    for step in (2, 3):
        messages.put(metrics(1, step))
    messages.put(metrics(2, 1))
    message, after = gathered(metrics(1, 1), messages)
    assert message == {"op": "metrics", "run": 1, "rows": [({"loss": 1.0 / n}, n, 1000 * n) for n in (1, 2, 3)]}
    assert after == [metrics(2, 1)]  # of another run, in its turn
    assert gathered(after[0], messages) == ({"op": "metrics", "run": 2, "rows": [({"loss": 1.0}, 1, 1000)]}, [])
