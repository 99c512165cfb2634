"""The process that writes to MLflow may die at any moment of a run: nothing of the run is lost, and nothing doubled."""

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import tlx
from tests.tracking.folders import CONFIG, begun, epochs
from tests.tracking.test_tracking import client
from tests.tracking.test_worker_failures import order
from tlx.runs.run_recorder import Record
from tlx.tracking import run_facts
from tlx.tracking.mlflow_worker import model_registry
from tlx.tracking.mlflow_worker.mlflow_store import MlflowStore
from tlx.tracking.mlflow_worker.run_writer import Recorded
from tlx.tracking.mlflow_worker.system_load import Load
from tlx.tracking.tracker import MlflowTracker

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
TYPED = [
    *("backbone=small_cnn", "backbone.input_size=8", "dataset=shapes", "dataset.train=8", "dataset.test=4"),
    *("dataset.size=24", "strategy=scratch", "training.epochs=5", "seed=3"),
    *("runtime.device=cpu", "runtime.precision=fp32", "tracking.register=killed"),
]
MEASURED = ("seconds", "images_per_second")  # two runs differ in how fast they were
OWN = ("tlx.run", "tlx.command", "mlflow.note.content", "mlflow.runName")  # and in what they are called


def everything(store: MlflowClient, run: Run) -> dict[str, Any]:
    """All that MLflow has of a run, but for what two equal runs differ in, and for the machine's load."""
    run_id = run.info.run_id
    metrics = {
        name: [(one.step, None if name in MEASURED else one.value) for one in store.get_metric_history(run_id, name)]
        for name in run.data.metrics
        if not name.startswith("system/")
    }
    files: dict[str, int] = {}
    folders = [""]
    while folders:
        for found in store.list_artifacts(run_id, folders.pop()):
            if found.is_dir:
                folders.append(found.path)
            else:
                files[found.path] = files.get(found.path, 0) + 1
    models = store.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    return {
        "status": run.info.status,
        "metrics": metrics,
        "params": run.data.params,
        "tags": {name: value for name, value in run.data.tags.items() if name not in OWN},
        "named": {name for name in OWN if name in run.data.tags},
        "artifacts": files,
        "data": [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs],
        "models": [model.status for model in models],
        "shown models": len(run.outputs.model_outputs),
        "versions": len(store.search_model_versions(f"run_id = '{run_id}'")),
    }


def runs(store: MlflowClient) -> list[Run]:
    return store.search_runs([one.experiment_id for one in store.search_experiments()])


def test_a_run_whose_process_for_mlflow_is_killed_twice_is_as_one_that_was_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tlx.run([*TYPED, "output=whole"])
    row, killed = Record.row, []

    def cut_off(record: Record, values: Mapping[str, Any]) -> None:
        row(record, values)
        assert isinstance(record.tracker, MlflowTracker)
        if values["epoch"] in (2, 4):
            assert record.tracker.run_id  # it has opened the run, and is writing the epochs
            process = record.tracker._pipe._process
            assert process is not None
            process.kill()
            process.wait()
            killed.append(process.pid)

    monkeypatch.setattr(Record, "row", cut_off)
    summary = tlx.run([*TYPED, "output=killed"])
    assert len(set(killed)) == 2
    stores = [MlflowClient(f"sqlite:///{tmp_path}/{name}/mlflow.db") for name in ("whole", "killed")]
    whole, cut = ([everything(store, one) for one in runs(store)] for store in stores)
    assert len(whole) == 1
    assert cut == whole
    assert whole[0]["status"] == "FINISHED"
    assert whole[0]["metrics"]["val_loss"][-1][0] == 5
    assert whole[0]["artifacts"].keys() >= {"summary.json", "predictions.csv", "plots/curves.png"}
    known = run_facts.facts(summary.folder)
    assert (known["sent"], known["run_id"]) == (True, summary.mlflow_run_id)


class Died(BaseException):
    """As when the process is killed: nothing catches it."""


CALLS = (
    *("create_run", "update_run", "set_tag", "delete_tag", "log_batch", "log_inputs", "log_artifact", "log_artifacts"),
    *("create_logged_model", "log_model_artifacts", "finalize_logged_model", "log_outputs", "set_terminated"),
    *("create_registered_model", "create_model_version", "set_registered_model_alias", "set_model_version_tag"),
)


def finished(folder: Path) -> Path:
    """A run that is through, with something of each kind."""
    begun(
        folder, folder.name, CONFIG, status="finished", images={"train": 1}, classes=["a"], best_epoch=2, epochs=2,
        accuracy_before_training=0.1, after={"probe": {"test_accuracy": 0.4}}, test_accuracy=0.5,
        test_accuracy_interval=[0.25, 0.75], test_loss=1.0,
    )  # fmt: skip
    run_facts.remember(folder, data={"name": "photos", "digest": "d" * 64, "source": "/data"}, began=1.0, ended=9.0)
    epochs(folder, [{"phase": "probe", "epoch": e, "val_loss": 1 / e, "val_accuracy": 0.5} for e in (1, 2)])
    (folder / "samples").mkdir()
    (folder / "samples" / "0.png").write_bytes(b"png")
    (folder / "curves.png").write_bytes(b"png")
    (folder / "model").mkdir()
    about = {"data": {"test": "t", "val": "v", "fingerprint": "f"}, "weights": folder.name}
    (folder / "model" / "model.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("after", [False, True], ids=["before a call", "after a call"])
def test_it_may_die_at_any_call_of_mlflow(after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third moment, each with a run of its own: the process dies there, and another one writes the run again."""
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "mlartifacts").as_uri())
    left: list[int | None] = [None]

    def limited(call: Any) -> Any:
        def made(*arguments: Any, **more: Any) -> Any:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0 and not after:
                    raise Died
            found = call(*arguments, **more)
            if left[0] is not None and left[0] < 0:
                raise Died
            return found

        return made

    for name in CALLS:
        monkeypatch.setattr(MlflowClient, name, limited(getattr(MlflowClient, name)))

    def written(folder: Path) -> str:
        registered = {**order(folder), "register": folder.name}
        run = Recorded(registered, store, model_registry, Load, lambda said: None, lambda: False)
        try:
            run.write("")
        finally:
            run.lock.leave()
        assert run.left == ""
        return run.run_id

    whole = everything(client(tmp_path), client(tmp_path).get_run(written(finished(tmp_path / "whole"))))
    assert whole["metrics"]["test_accuracy_after_probe"] == [(2, 0.4)]
    assert (whole["models"], whole["shown models"], whole["versions"]) == (["READY"], 1, 1)
    for moment in itertools.count(0, 3):
        folder = finished(tmp_path / f"moment{moment}")
        left[0] = moment
        try:
            run_id = written(folder)
        except Died:
            left[0] = None
            run_id = written(folder)
        else:
            break  # there were no more calls
        finally:
            left[0] = None
        assert everything(client(tmp_path), client(tmp_path).get_run(run_id)) == whole, moment
        shutil.rmtree(folder)
    assert moment > 12
    assert len(runs(client(tmp_path))) == 1 + moment // 3 + 1
