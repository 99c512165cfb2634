"""A process for MLflow that dies, hangs or is told nonsense costs a run one warning; what MLflow lacks is said."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from tests.tracking.test_tracking import client, until
from tlx.config.schema import Tracking
from tlx.tracking import tracker as tracking
from tlx.tracking import worker_client
from tlx.tracking.mlflow_worker import model_registry, run_writer
from tlx.tracking.mlflow_worker.__main__ import SHAPES, understood
from tlx.tracking.mlflow_worker.mlflow_store import Store
from tlx.tracking.mlflow_worker.run_writer import Recorded
from tlx.tracking.mlflow_worker.system_load import Load

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs; its database is made by whichever test is first."""
    return tmp_path_factory.mktemp("outputs")


def started(output: Path, name: str, **more: Any) -> tuple[tracking.MlflowTracker, "subprocess.Popen[bytes]", str]:
    """A run that MLflow knows, with one metric; the process that writes it; its id."""
    tracker = tracking.open(Tracking(system_metrics=False), output)
    assert isinstance(tracker, tracking.MlflowTracker)
    (output / name).mkdir()
    tracker.start(name, {}, {}, lock=output / name / ".mlflow.lock", **more)
    tracker.metrics({"val_loss": 1.0}, 1)
    run_id, process = tracker.run_id, tracker._pipe._process
    assert run_id
    assert process is not None
    return tracker, process, run_id


def written(run_id: str, output: Path) -> bool:
    return "val_loss" in client(output).get_run(run_id).data.metrics


def test_a_message_cut_short_ends_the_tracking_and_neither_the_run_nor_its_record(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, process, run_id = started(output, "cut")
    tracker._pipe._outbox.put(b'{"op": "metrics", "run": 0, "val\n')
    process.wait(timeout=60)
    tracker.metrics({"val_loss": 0.5}, 2)  # nobody listens any more, and nothing is raised
    why = tracker.finish()
    assert "a message could not be read" in why
    (warning,) = [message for message in caplog.messages if "MLflow" in message]
    assert warning.endswith(why)
    run = client(output).get_run(run_id)
    assert run.info.status == "KILLED"
    assert "tlx sync" in run.data.tags["tlx.error"]
    assert run.data.metrics["val_loss"] == 1.0
    FileLock(output / "cut" / ".mlflow.lock").acquire(timeout=1).lock.release()


@pytest.mark.parametrize(
    "line",
    [
        b'{"op": "metr\n', b"\n", b"null\n", b"[1]\n", b"\xff\xfe\n", b'{"op": "nonsense", "run": 0}\n', b"[" * 100_000,
        *(json.dumps({"op": op, "run": 0}).encode() for op in SHAPES),
        b'{"op": "metrics", "run": "0", "values": {}, "step": 1, "time": 1}\n',
        b'{"op": "metrics", "run": 0, "values": [], "step": 1, "time": 1}\n',
    ],
)  # fmt: skip
def test_what_is_no_message_is_not_understood(line: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        understood(line)


def test_what_a_killed_run_was_writing_is_no_nonsense(output: Path) -> None:
    tracker, process, run_id = started(output, "killed while writing")
    assert process.stdin is not None
    process.stdin.write(b'{"op": "metrics", "run": 0, "va')
    tracker._pipe._outbox.put(None)  # as when the process that asks has ended
    process.wait(timeout=60)
    assert "the process ended without closing the run" in client(output).get_run(run_id).data.tags["tlx.error"]


def test_a_process_that_is_killed_costs_one_warning_and_the_next_run_has_another(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, process, lost = started(output, "killed", key="killed")
    until(lambda: written(lost, output))
    process.kill()
    assert "it has ended without a message (killed?)" in tracker.finish()
    run = client(output).get_run(lost)
    assert (run.info.status, run.data.metrics["val_loss"]) == ("FINISHED", 1.0)  # another process has closed it
    assert tracker.run_id == lost
    assert len([message for message in caplog.messages if "MLflow" in message]) == 1
    after, other, run_id = started(output, "after")
    assert other.pid != process.pid
    assert after.finish() == ""
    assert client(output).get_run(run_id).info.status == "FINISHED"


def test_a_process_that_hangs_is_not_waited_for_and_is_ended(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, process, run_id = started(output, "hangs")
    until(lambda: written(run_id, output))
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(worker_client, "PATIENCE", 1.0)
    began = time.monotonic()
    for step in range(2, 3000):  # more than a pipe holds
        tracker.metrics({"x" * 100: 1.0}, step)
    assert "has not answered" in tracker.finish()
    assert time.monotonic() - began < 15
    assert len([message for message in caplog.messages if "MLflow" in message]) == 1
    assert process.wait(timeout=5) == -signal.SIGKILL
    FileLock(output / "hangs" / ".mlflow.lock").acquire(timeout=1).lock.release()


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
    tracker.start("nonsense", {}, {})
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
    tracker.start("nowhere", {}, {})
    assert tracker.run_id == ""
    assert "cannot be started" in tracker.finish()
    assert len(caplog.messages) == 1


def test_a_run_that_another_process_holds_is_not_waited_for_for_ever(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_writer, "OCCUPIED", 0.5)
    said: list[dict[str, Any]] = []
    store = Store(f"sqlite:///{output}/mlflow.db", None)
    run = Recorded(0, store, model_registry, Load, said.append, {}, lambda: False)
    start = {
        "op": "start", "run": 0, "experiment": "tlx", "name": "held", "params": {}, "tags": {}, "parent": None,
        "key": "", "lock": str(tmp_path / ".mlflow.lock"), "shared": False, "system_metrics": False, "time": 1,
    }  # fmt: skip
    holds = (
        f"import filelock\nlock = filelock.FileLock({start['lock']!r})\nlock.acquire()\nprint(1, flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        run.take(start)
        (warning, no_id) = said
        assert "another process is still writing this run" in warning["warning"]
        assert no_id["run_id"] == ""
        run.take({"op": "finish", "run": 0, "status": "FINISHED", "error": "", "time": 2})
        assert "another process" in run.left()


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
