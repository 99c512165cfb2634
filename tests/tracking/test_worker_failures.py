"""A process for MLflow that dies, hangs or reads nonsense costs a run one warning, and another one goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from tests.tracking.folders import begun, epochs, says
from tests.tracking.test_tracking import client, until
from tlx.cli.main import main
from tlx.config.schema import Tracking
from tlx.tracking import tracker as tracking
from tlx.tracking import worker_client
from tlx.tracking.mlflow_worker import model_registry, run_lock
from tlx.tracking.mlflow_worker.__main__ import SHAPES, understood
from tlx.tracking.mlflow_worker.mlflow_store import MlflowStore
from tlx.tracking.mlflow_worker.run_writer import Recorded
from tlx.tracking.mlflow_worker.system_load import Load

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs; its database is made by whichever test is first."""
    return tmp_path_factory.mktemp("outputs")


def started(output: Path, name: str) -> tuple[tracking.MlflowTracker, "subprocess.Popen[bytes]", str]:
    """A run that MLflow knows, with one metric; the process that writes it; its id."""
    tracker = tracking.open(Tracking(system_metrics=False), output)
    assert isinstance(tracker, tracking.MlflowTracker)
    tracker.start(begun(output / name))
    epochs(output / name, [{"epoch": 1, "val_loss": 1.0}])
    tracker.changed()
    run_id, process = tracker.run_id, tracker._pipe._process
    assert run_id
    assert process is not None
    return tracker, process, run_id


def written(run_id: str, output: Path) -> bool:
    return "val_loss" in client(output).get_run(run_id).data.metrics


def ended(output: Path, name: str, tracker: tracking.Tracker) -> list[tuple[int, float]]:
    """Another epoch, and the end of a run; what MLflow has of its losses, where it has closed it."""
    epochs(output / name, [{"epoch": 2, "val_loss": 0.5}])
    tracker.changed()
    says(output / name, status="finished")
    assert tracker.finish() == ""
    run = client(output).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert "tlx.error" not in run.data.tags
    return [(one.step, one.value) for one in client(output).get_metric_history(tracker.run_id, "val_loss")]


def test_a_message_cut_short_ends_the_process_and_another_one_has_all_of_the_run(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, process, run_id = started(output, "cut")
    tracker._pipe._outbox.put(b'{"op": "chan\n')
    process.wait(timeout=60)
    assert client(output).get_run(run_id).info.status == "KILLED"  # nothing is left RUNNING
    FileLock(output / "cut" / ".mlflow.lock").acquire(timeout=1).lock.release()
    assert ended(output, "cut", tracker) == [(1, 1.0), (2, 0.5)]
    assert tracker.run_id == run_id
    (warning,) = [message for message in caplog.messages if "the process that writes to MLflow" in message]
    assert "a message could not be read" in warning


@pytest.mark.parametrize(
    "line",
    [
        b'{"op": "metr\n', b"\n", b"null\n", b"[1]\n", b"\xff\xfe\n", b'{"op": "nonsense", "run": 0}\n', b"[" * 100_000,
        *(json.dumps({"op": op, "run": 0}).encode() for op in SHAPES if SHAPES[op]),
        b'{"op": "changed", "run": "0"}\n',
        b'{"op": "finish", "run": 0, "error": null}\n',
    ],
)  # fmt: skip
def test_what_is_no_message_is_not_understood(line: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        understood(line)


def test_what_a_killed_run_was_writing_is_no_nonsense(output: Path) -> None:
    tracker, process, run_id = started(output, "killed while writing")
    assert process.stdin is not None
    process.stdin.write(b'{"op": "changed", "ru')
    tracker._pipe._outbox.put(None)  # as when the process that asks has ended
    process.wait(timeout=60)
    assert "the process ended without closing the run" in client(output).get_run(run_id).data.tags["tlx.error"]


def test_a_process_that_is_killed_costs_one_warning_and_the_next_run_has_another(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, process, run_id = started(output, "killed")
    until(lambda: written(run_id, output))
    process.kill()
    assert ended(output, "killed", tracker) == [(1, 1.0), (2, 0.5)]
    assert tracker.run_id == run_id
    (warning,) = [message for message in caplog.messages if "the process that writes to MLflow" in message]
    assert "it has ended without a message (killed?)" in warning
    after, other, _ = started(output, "after")
    assert other.pid != process.pid
    assert ended(output, "after", after) == [(1, 1.0), (2, 0.5)]


def test_a_process_that_is_killed_each_time_is_given_up_and_sync_sends_the_rest(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, process, run_id = started(output, "again and again")
    for _ in range(tracking.STARTS):
        process.kill()
        until(lambda: not tracker._pipe.usable)
        tracker.changed()
        assert tracker.run_id in (run_id, "")
        again = tracker._pipe._process
        assert again is not None
        process = again
    says(output / "again and again", status="finished")
    assert "it has ended without a message (killed?)" in tracker.finish()
    said = [message for message in caplog.messages if "the process that writes to MLflow" in message]
    assert len(said) == tracking.STARTS
    assert main(["sync", str(output / "again and again"), "tracking.uri=" + tracker.uri]) == 0
    assert client(output).get_run(run_id).info.status == "FINISHED"


def test_a_process_that_hangs_is_not_waited_for_and_another_one_goes_on(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, process, run_id = started(output, "hangs")
    until(lambda: written(run_id, output))
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(worker_client, "PATIENCE", 3.0)
    for _ in range(3000):  # more than a pipe holds
        tracker.changed()
    assert ended(output, "hangs", tracker) == [(1, 1.0), (2, 0.5)]
    assert [message for message in caplog.messages if "has not answered" in message]
    assert process.wait(timeout=5) == -signal.SIGKILL


@pytest.mark.parametrize("said", ['{"run": 0, "fin', "[]", '{"run": 7, "finished": 1}', '{"finished": ""}'])
def test_an_answer_that_cannot_be_read_is_not_waited_for(
    said: str, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "nonsense").write_text(f"#!/bin/sh\nread line\necho '{said}'\nexec sleep 60\n")
    (tmp_path / "nonsense").chmod(0o755)
    monkeypatch.setattr(worker_client, "_current", None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nonsense"))
    tracker = tracking.open(Tracking(), output)
    assert isinstance(tracker, tracking.MlflowTracker)
    tracker.start(begun(tmp_path / "run"))
    assert tracker.run_id == ""
    assert "answer could not be read" in tracker.finish()
    assert len(caplog.messages) == 1
    assert tracker._pipe._process is not None
    tracker._pipe._process.kill()


def test_a_process_that_cannot_be_started_costs_one_warning(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_client, "_current", None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    tracker = tracking.open(Tracking(), output)
    caplog.clear()
    tracker.start(begun(output / "nowhere"))
    assert tracker.run_id == ""
    assert "cannot be started" in tracker.finish()
    assert len(caplog.messages) == 1


def order(folder: Path) -> dict[str, Any]:
    """The message that opens a run."""
    return {
        "op": "open", "run": 0, "folder": str(folder), "experiment": "tlx", "source": {}, "model": True,
        "register": None, "shared": False, "system_metrics": False, "time": 1,
    }  # fmt: skip


def test_a_run_that_another_process_holds_is_not_waited_for_for_ever(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "OCCUPIED", 0.5)
    said: list[dict[str, Any]] = []
    store = MlflowStore(f"sqlite:///{output}/mlflow.db", None)
    folder = begun(tmp_path / "held")
    run = Recorded(order(folder), store, model_registry, Load, said.append, lambda: False)
    lock = str(folder / ".mlflow.lock")
    holds = f"import filelock\nlock = filelock.FileLock({lock!r})\nlock.acquire()\nprint(1, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        run.write()
        (warning, no_id) = said
        assert "another process is still writing this run" in warning["warning"]
        assert no_id["run_id"] == ""
        run.write("")
        assert "another process" in run.left


def test_sampling_that_fails_costs_its_own_figures_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise psutil.AccessDenied(1)

    load = Load("0" * 32, "sqlite://")
    monkeypatch.setattr(psutil, "cpu_percent", broken)
    load._sampled = 0.0
    found = load.due()
    assert "system/cpu_utilization_percentage" not in found
    assert "system/disk_usage_percentage" in found
    monkeypatch.setattr("mlflow.system_metrics.system_metrics_monitor.SystemMetricsMonitor", broken)
    load = Load("0" * 32, "sqlite://")
    load._sampled = 0.0
    assert load.due() == {}
