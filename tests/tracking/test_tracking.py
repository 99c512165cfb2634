"""What a run tells arrives in MLflow, in a real database and on a real server, and no store can stop or delay a run."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from tests.conftest import ROOT
from tests.tracking.folders import CONFIG, begun, epochs, says
from tlx.config.schema import Tracking
from tlx.core.errors import RequestError
from tlx.tracking import run_facts, run_parameters
from tlx.tracking import tracker as tracking
from tlx.tracking.mlflow_worker import prepared_views
from tlx.tracking.mlflow_worker.mlflow_store import MlflowStore

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def client(output: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{output}/mlflow.db")


def script(body: str, cwd: Path) -> "subprocess.Popen[str]":
    """A process of its own that has a tracker `t` whose store lies in its folder."""
    head = "from pathlib import Path\nfrom tlx.config.schema import Tracking\n"
    head += "from tlx.tracking import tracker as tracking\n"
    head += "from tests.tracking.folders import begun, epochs, says\n"
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
        folder = begun(
            output / "day" / "resnet18 · shapes", "abc", CONFIG, identity="id", command="python -m tlx",
            images={"train": 144, "test": 90}, classes=["circle", "square"], accuracy_before_training=0.25,
        )  # fmt: skip
        data = {"name": "shapes", "digest": "0123456789abcdef" * 4, "source": "drawn"}
        run_facts.remember(folder, data=data, choices={"backbone": "small_cnn", "strategy": "lp.ft"})
        tracker.start(folder)
        for epoch in (1, 2, 3):
            row = {"phase": "probe", "train_loss": 1 / epoch, "val_loss": float("nan"), "val_accuracy": 0.5}
            epochs(folder, [{**row, "lr": 1e-3, "seconds": 0.0, "epoch": epoch}])
            tracker.changed()
        (folder / "model").mkdir()
        (folder / "model" / "model.json").write_text("{}")
        (folder / "curves.png").write_bytes(b"png")
        (folder / "samples").mkdir()
        (folder / "samples" / "0.png").write_bytes(b"png")
        assert not (output / "mlflow.db").exists()
    run_id = tracker.run_id
    until(lambda: "system/cpu_utilization_percentage" in client(output).get_run(run_id).data.metrics)
    says(
        folder, status="finished", test_accuracy=0.97, test_accuracy_interval=[0.9, 1.0], epochs=3, best_epoch=2,
        metrics=[{"name": "f1", "split": "test", "value": 0.75}],
    )  # fmt: skip
    assert tracker.finish() == ""

    found = client(output)
    run = found.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "resnet18 · shapes"
    assert found.get_experiment(run.info.experiment_id).name == "tlx"
    assert run.data.params.keys() == {
        *("backbone.name", "seed", "evaluation.choose_by", "training.lr", "training.long"),
        *("strategy.phases.probe.lr", "learning_rate", "backbone", "strategy"),
    }
    assert run.data.params["training.lr"] == "0.001"
    assert run.data.params["training.long"] == "x" * (run_parameters.LENGTH - 2) + " …"
    losses = found.get_metric_history(run_id, "train_loss")
    assert [(m.step, m.value) for m in losses] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert all(run.info.start_time <= m.timestamp <= run.info.end_time for m in losses)
    assert "phase" not in run.data.metrics
    assert "system/cpu_utilization_percentage" in run.data.metrics
    tags = run.data.tags
    assert (tags["tlx.run"], tags["tlx.identity"], tags["tlx.command"]) == ("abc", "id", "python -m tlx")
    assert tags["mlflow.note.content"].startswith("**Test accuracy 97.0%**")
    assert (run.data.metrics["accuracy_before_training"], run.data.metrics["test_f1"]) == (0.25, 0.75)
    assert (run.data.metrics["best_epoch"], run.data.metrics["best_val_accuracy"]) == (2, 0.5)
    assert tags["mlflow.user"]
    used = run.inputs.dataset_inputs[0].dataset
    assert (used.name, used.digest) == ("shapes", "0123456789ab")
    assert json.loads(used.profile)["digest"] == "0123456789abcdef" * 4
    assert json.loads(used.profile)["train"] == 144
    files = {"config.yaml", "metrics.jsonl", "plots", "samples", "summary.json"}
    assert {a.path for a in found.list_artifacts(run_id)} == files
    (model,) = (found.get_logged_model(m.model_id) for m in run.outputs.model_outputs)
    assert (model.status, model.name) == ("READY", "small_cnn-lp_ft")
    assert model.params == {name: run.data.params[name] for name in ("backbone", "strategy", "learning_rate", "seed")}
    figures = {one.key: (one.value, one.dataset_name, one.dataset_digest) for one in model.metrics}
    assert figures["test_f1"] == (0.75, "shapes", "0123456789ab")
    assert figures["best_val_accuracy"] == (0.5, "shapes", "0123456789ab")
    assert [one.step for one in found.get_metric_history(run_id, "test_f1")] == [3]  # the run has it once
    assert [a.path for a in found.list_artifacts(run_id, "samples")] == ["samples/0.png"]
    assert (output / "mlartifacts" / run_id / "artifacts" / "plots" / "curves.png").is_file()


@pytest.mark.parametrize(
    ("status", "known", "error"),
    [
        ("failed", "FAILED", "RuntimeError: the loss is not a number"),
        ("diverged", "FAILED", "the loss is not a number"),
        ("interrupted", "KILLED", "Ctrl-C"),
        ("pruned", "KILLED", "not worth it"),
    ],
)
def test_a_run_that_does_not_finish_says_so_and_why(output: Path, status: str, known: str, error: str) -> None:
    tracker = tracking.open(Tracking(), output)
    folder = begun(output / "day" / status)
    tracker.start(folder)
    says(folder, status=status, error=error)
    tracker.finish()
    says(folder, status="finished", error="")
    tracker.finish()  # what is closed stays closed
    run = client(output).get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["tlx.error"]) == (known, error)
    assert mlflow.active_run() is None


def test_why_a_run_ended_whose_summary_could_not_be_written(output: Path) -> None:
    tracker = tracking.open(Tracking(), output)
    tracker.start(begun(output / "day" / "full disk"))
    assert tracker.finish("no space left") == ""
    run = client(output).get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["tlx.error"]) == ("KILLED", "no space left")


def test_a_job_hangs_under_its_sweep_without_waiting_for_it(output: Path) -> None:
    parent, child = tracking.open(Tracking(), output), tracking.open(Tracking(), output)
    sweep = output / "sweeps" / "lr"
    sweep.mkdir(parents=True)
    book = {"mlflow_key": "lr-key", "jobs": {"a": {}}, "command": "python -m tlx -m", "status": "running"}
    (sweep / "sweep.json").write_text(json.dumps(book))
    parent.start(sweep, shared=True)
    child.start(begun(sweep / "job", "lr-key/1"))
    (sweep / "sweep.json").write_text(json.dumps({**book, "status": "finished", "metrics": [[{"mean/a": 0.5}, 2]]}))
    for tracker in (child, parent):
        assert tracker.finish() == ""
    found = client(output)
    assert found.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    whole = found.get_run(parent.run_id)
    assert (whole.info.status, whole.data.tags["tlx.jobs"], whole.data.metrics) == ("FINISHED", "1", {"mean/a": 0.5})
    assert [a.path for a in found.list_artifacts(parent.run_id)] == ["sweep.json"]


def test_an_experiment_that_was_deleted_comes_back_and_mlflow_is_not_imported_for_it(output: Path) -> None:
    tracker = tracking.open(Tracking(experiment="gone"), output)
    tracker.start(begun(output / "day" / "first"))
    tracker.finish()
    found = client(output)
    found.delete_experiment(found.get_run(tracker.run_id).info.experiment_id)
    body = "t = tracking.open(Tracking(experiment='gone'), Path.cwd())\n"
    body += "t.start(begun(Path('day/second'), status='finished'))\nt.finish()\n"
    body += "import sys\nprint(t.run_id, [m for m in ('mlflow', 'pandas') if m in sys.modules])"
    said, errors = script(body, output).communicate()
    assert errors == ""
    run_id, imported = said.split()
    assert imported == "[]"
    assert found.get_run(run_id).info.status == "FINISHED"


def test_processes_that_create_one_database_at_once_all_arrive(tmp_path: Path) -> None:
    jobs = [script(f"t.start(begun(Path('job {i}'), status='finished'))\nt.finish()", tmp_path) for i in range(3)]
    assert [job.communicate() for job in jobs] == [("", "")] * 3
    found = client(tmp_path)
    (experiment,) = (e for e in found.search_experiments() if e.name == "tlx")
    runs = found.search_runs([experiment.experiment_id])
    assert {(run.info.run_name, run.info.status) for run in runs} == {(f"job {i}", "FINISHED") for i in range(3)}


def test_a_process_that_is_shot_leaves_no_run_running(output: Path) -> None:
    job = script("t.start(begun(Path('shot')))\nprint(t.run_id, flush=True)\nimport time\ntime.sleep(999)", output)
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
folder = begun(Path('interrupted'))
t.start(folder)
try:
    print(t.run_id, flush=True)
    time.sleep(999)
except KeyboardInterrupt:
    epochs(folder, [{'epoch': 1, 'last': 1.0}])
    says(folder, status='interrupted', error='interrupted')
    t.finish()
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
t.start(Path("quiet")); t.changed()
t.finish()
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
    names = []
    for name in ("first", "second"):
        tracker = tracking.open(Tracking(uri=server.uri, register="shapes"), tmp_path)
        folder = begun(
            tmp_path / name,
            name,
            CONFIG,
            status="finished",
            images={"train": 144},
            classes=["circle"],
            best_epoch=1,
            epochs=1,
        )
        run_facts.remember(folder, data={"name": "shapes", "digest": "f" * 64, "source": "drawn"})
        epochs(folder, [{"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.5}])
        (folder / "model").mkdir()
        model = {"data": {"test": "ffff", "val": "eeee"}, "weights": name}
        (folder / "model" / "model.json").write_text(json.dumps(model))
        (folder / "predictions.csv").write_text("sample,file,label,prediction,probability,correct\n")
        tracker.start(folder)
        assert tracker.finish() == ""
        names.append(tracker.run_id)
    found = MlflowClient(server.uri)
    run = found.get_run(names[0])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val_accuracy"] == 0.5
    assert run.data.params["training.lr"] == "0.001"
    assert run.inputs.dataset_inputs[0].dataset.name == "shapes"
    assert [a.path for a in found.list_artifacts(run.info.run_id)] == [
        "config.yaml",
        "metrics.jsonl",
        "predictions.csv",
        "summary.json",
    ]
    champion, second = (found.get_model_version("shapes", version) for version in ("1", "2"))
    assert found.get_model_version_by_alias("shapes", "champion").version == champion.version
    why = "not better by validation (val_loss 0.5000 against 0.5000); beside it: its test predictions are gone"
    assert second.tags["tlx.champion"] == f"version 1 stays champion: {why}"
    model = found.get_logged_model(champion.source.removeprefix("models:/"))
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    assert {a.path for a in found.list_logged_model_artifacts(model.model_id)} >= {"MLmodel", "model"}
    assert (server.folder / "artifacts").is_dir()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_server_whose_artifacts_cannot_be_stored_gets_everything_else(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has no driver or no credentials for the place that the server names."""
    MlflowClient(server.uri).create_experiment("bucket", artifact_location="s3://no-such-bucket/x")
    tracker = tracking.open(Tracking(uri=server.uri, experiment="bucket", system_metrics=False), tmp_path)
    folder = begun(tmp_path / "bucket", "bucket", CONFIG, status="finished")
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text('{"data": {"test": "ffff"}}')
    epochs(folder, [{"epoch": 1, "val_accuracy": 0.5}])
    tracker.start(folder)
    assert tracker.finish() != ""
    run = MlflowClient(server.uri).get_run(tracker.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"val_accuracy": 0.5})
    assert run.data.params["training.lr"] == "0.001"
    (warning,) = caplog.messages
    assert f"MLflow ({server.uri}) cannot take artifacts of the run" in warning


def test_a_server_that_dies_costs_one_warning_and_one_that_returns_gets_everything(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = tracking.open(Tracking(uri=server.uri), tmp_path)
    late = tracking.open(Tracking(uri=server.uri), tmp_path)
    folders = [begun(tmp_path / name) for name in ("lost", "late")]
    for tracker, folder in zip((lost, late), folders, strict=True):
        tracker.start(folder)
        epochs(folder, [{"epoch": 1, "a": 1.0}])
        tracker.changed()
    assert lost.run_id
    assert late.run_id
    server.kill()
    with caplog.at_level(logging.WARNING):
        for epoch in range(2, 6):
            epochs(folders[0], [{"epoch": epoch, "a": float(epoch)}])
            lost.changed()
        lost.finish()  # returns though nobody listens
    (warning,) = caplog.messages
    assert f"MLflow ({server.uri}) failed, the run continues without it" in warning
    for epoch in range(2, 6):
        epochs(folders[1], [{"epoch": epoch, "a": float(epoch)}])
        late.changed()
    server.start()
    says(folders[1], status="finished")
    assert late.finish() == ""
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


def test_a_server_that_cannot_be_reached_is_named_at_once(silent: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("uri", ["mlruns", "file:///srv/mlruns", "htp://127.0.0.1:5000"])
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
    tracker.start(begun(tmp_path / "nowhere"))
    tracker.changed()
    tracker.finish()
    assert tracker.run_id == ""
    (warning,) = caplog.messages
    assert "unable to open database file" in warning


def test_an_experiment_has_a_saved_view_and_a_description_that_leads_to_it(output: Path) -> None:
    tracker = tracking.open(Tracking(experiment="seen"), output)
    tracker.start(begun(output / "day" / "seen", status="finished"))
    tracker.finish()
    found = client(output)
    number = found.get_run(tracker.run_id).info.experiment_id
    view = json.loads(found.get_experiment(number).tags[prepared_views.VIEW])
    assert json.loads(view["state"])["selectedColumns"] == prepared_views.COLUMNS
    address = prepared_views.prepared_views(output / "mlflow.db")["seen"]
    assert f"]({address.removeprefix('/')})" in found.get_experiment(number).tags[prepared_views.NOTE]

    def again() -> dict[str, str]:
        store = MlflowStore(f"sqlite:///{output}/mlflow.db", None)
        assert store.experiment("seen") == number
        return dict(found.get_experiment(number).tags)

    before = dict(found.get_experiment(number).tags)
    found.set_experiment_tag(number, prepared_views.VIEW, "{}")  # as an earlier version had it
    found.delete_experiment_tag(number, prepared_views.NOTE)
    assert again() == before
    found.set_experiment_tag(number, prepared_views.NOTE, "mine")
    assert again()[prepared_views.NOTE] == "mine"
    other = found.create_experiment("somebody else's")
    assert MlflowStore(f"sqlite:///{output}/mlflow.db", None).experiment("somebody else's") == other
    assert not {prepared_views.VIEW, prepared_views.NOTE} & found.get_experiment(other).tags.keys()


def test_parameters_are_flat_short_and_say_something() -> None:
    tree = {
        "backbone": {"name": "resnet18", "mean": [0.5, 0.5], "resize": None},
        "strategy": {"phases": {"tune": {"lr": 1e-4, "learns": ["norms"]}}},
        "augmentation": {"transforms": []},
        "a key!": True,
        "tracking": {"uri": "http://me:secret@host:5000"},
    }
    assert run_parameters.dotted(tree) == {
        "backbone.name": "resnet18",
        "backbone.mean": "[0.5, 0.5]",
        "strategy.phases.tune.lr": "0.0001",
        "strategy.phases.tune.learns": '["norms"]',
        "a key_": "True",
        "tracking.uri": "http://me:***@host:5000",
    }
    assert all(len(value) <= run_parameters.LENGTH for value in run_parameters.dotted({"a": "ü" * 10_000}).values())
