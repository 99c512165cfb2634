"""What MLflow could not take is sent later from the run's folder, and nothing of it twice."""

import contextlib
import dataclasses
import json
import logging
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.tracking.test_tracking import client
from tlx.cli import sync
from tlx.cli.main import main
from tlx.config import compose
from tlx.config.schema import Tracking
from tlx.config.validation import checked
from tlx.tracking import run_facts
from tlx.tracking import tracker as tracking
from tlx.tracking.mlflow_worker.moved_store import follow
from tlx.tracking.mlflow_worker.prepared_views import COLUMNS
from tlx.tracking.run_parameters import parameters

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
ARTIFACTS = {
    *("audit.json", "config.yaml", "metrics.jsonl", "plan.json", "plots", "predictions.csv", "summary.json", "tlx.log"),
    "analysis.json",
    "report.html",
}
TRAIN = ["backbone=small_cnn", "strategy=scratch", "dataset.train=5", "dataset.test=2", "training.epochs=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose artifacts could not be written: a file is where their folder would be."""
    output = tmp_path_factory.mktemp("outputs")
    (output / "mlartifacts").write_text("")
    tracking = ["tracking.register=shapes", "tracking.system_metrics=false"]
    assert main([*TRAIN, *tracking, f"output={output}", f"hydra.run.dir={output}/day/run"]) == 0
    return output / "day" / "run"


def only(store: MlflowClient) -> Run:
    (experiment,) = (found for found in store.search_experiments() if found.name == "tlx")
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def history(store: MlflowClient, run: Run) -> dict[str, list[tuple[int, float]]]:
    steps = {name: store.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(one.step, one.value) for one in found] for name, found in steps.items()}


def complete(store: MlflowClient, folder: Path) -> dict[str, Any]:
    """All that MLflow has of the one run, checked against the run's folder."""
    run, summary = only(store), json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = history(store, run)
    assert run.info.status == "FINISHED"
    for name in ("train_loss", "val_loss", "val_accuracy", "lr"):
        assert metrics[name] == [(row["epoch"], row[name]) for row in rows]
    assert metrics["accuracy_before_training"] == [(0, summary["accuracy_before_training"])]
    assert metrics["test_accuracy"] == [(2, summary["test_accuracy"])]
    assert metrics["best_epoch"] == [(2, summary["best_epoch"])]
    assert metrics["best_val_accuracy"] == [(2, rows[summary["best_epoch"] - 1]["val_accuracy"])]
    assert metrics["best_val_loss"] == [(2, rows[summary["best_epoch"] - 1]["val_loss"])]
    assert run.data.params["backbone.name"] == "small_cnn"
    assert run.data.tags["tlx.identity"] == summary["identity"]
    assert run.data.tags["tlx.run"] == run_facts.facts(folder)["key"]
    assert "Test accuracy" in run.data.tags["mlflow.note.content"]
    assert len(run.inputs.dataset_inputs) == 1
    assert {file.path for file in store.list_artifacts(run.info.run_id)} == ARTIFACTS
    (model,) = run.outputs.model_outputs
    assert store.get_logged_model(model.model_id).status == "READY"
    assert [version.run_id for version in store.search_model_versions("name='shapes'")] == [run.info.run_id]
    assert run.info.end_time > run.info.start_time
    return {"id": run.info.run_id, "metrics": metrics, "params": run.data.params, "info": dict(run.info)}


def test_artifacts_that_cannot_be_written_cost_no_metric_and_are_sent_later(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, store = run.parents[1], client(run.parents[1])
    before = only(store)
    assert before.info.status == "FINISHED"
    assert before.data.metrics["test_accuracy"] == json.loads((run / "summary.json").read_text())["test_accuracy"]
    log = (run / "tlx.log").read_text()
    assert log.count("cannot take artifacts") == 1
    assert log.count(f"python -m tlx sync {run}") == 1
    assert run_facts.facts(run)["sent"] is False
    assert main(["sync", "all", "--output", str(output)]) == 1  # as long as they cannot be written
    assert "not sent" in capfd.readouterr().err
    (output / "mlartifacts").unlink()
    assert main(["sync", "all", "--output", str(output)]) == 0
    assert capfd.readouterr().out == f"{run}: MLflow (sqlite:///{output}/mlflow.db) has it, run {before.info.run_id}\n"
    first = complete(store, run)
    assert main(["sync", str(run), "--output", str(output)]) == 0  # once more, though nothing is missing
    assert complete(store, run) == first
    capfd.readouterr()
    assert main(["sync", "all", "--output", str(output)]) == 0
    assert "nothing to send" in capfd.readouterr().out


def test_a_store_that_was_not_there_gets_everything_once(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "outputs" / "day" / "run"
    shutil.copytree(run, folder)
    uri = f"sqlite:///{tmp_path}/team.db"
    for _ in range(2):
        assert main(["sync", str(folder), f"tracking.uri={uri}"]) == 0
        made = complete(MlflowClient(uri), folder)
    assert json.loads((folder / "summary.json").read_text())["mlflow_run_id"] == made["id"]
    assert (tmp_path / "mlartifacts" / made["id"]).is_dir()
    capfd.readouterr()
    assert main(["sync", str(folder), "tracking.experiment=x", "training.lr=1"]) == 2
    assert "training.lr=…: sync takes tracking.uri and tracking.experiment only" in capfd.readouterr().err


def test_a_sweep_that_was_not_sent_is_sent_with_its_jobs_below_it(tmp_path: Path) -> None:
    output = tmp_path / "outputs"
    (output / "mlflow.db").mkdir(parents=True)  # a store that cannot be opened
    assert main(["-m", *TRAIN, "seed=0,1", "sweep.name=two", f"output={output}"]) == 0
    (output / "mlflow.db").rmdir()
    assert main(["sync", "all", "--output", str(output)]) == 0
    store = client(output)
    (experiment,) = (found for found in store.search_experiments() if found.name == "tlx")
    runs = {run.data.tags.get("mlflow.parentRunId", ""): run for run in store.search_runs([experiment.experiment_id])}
    parent = runs[""]
    assert parent.info.run_name == "two"
    children = [run for run in store.search_runs([experiment.experiment_id]) if run.info.run_id != parent.info.run_id]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.params["seed"] for run in children} == {"0", "1"}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    found = [run.data.metrics["test_accuracy"] for run in children]
    assert parent.data.metrics["test_accuracy"] == pytest.approx(sum(found) / len(found))
    ended = json.loads((output / "sweeps" / "two" / "sweep.json").read_text())["ended"]
    assert parent.info.end_time == int(1000 * ended), "not when it was sent"


def addresses(database: Path) -> list[str]:
    """All texts of a store that name a folder of artifacts."""
    with contextlib.closing(sqlite3.connect(database)) as store:
        return [
            str(value)
            for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for row in store.execute(f'SELECT * FROM "{table}"')
            for value in row
            if "mlartifacts" in str(value)
        ]


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_store_that_was_moved_writes_where_it_is_and_keeps_its_models(
    how: str, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = tmp_path / "old", tmp_path / "new é #"
    shutil.copytree(run, old / "day" / "run")
    at_old = Tracking(model=True, register="shapes", system_metrics=False)
    assert not sync.send(old / "day" / "run", at_old, old).missing
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    if how == "moved":
        old.rename(new)
    else:
        shutil.copytree(old, new)
    with caplog.at_level(logging.INFO):
        tracker = tracking.open(Tracking(system_metrics=False), new)
        (new / "day" / "after").mkdir()
        (new / "day" / "after" / "plan.json").write_text("[]")
        run_facts.remember(new / "day" / "after", key="after")
        tracker.start(new / "day" / "after")
        assert tracker.finish() == ""
    assert [message for message in caplog.messages if f"in {old}/mlartifacts and are in {new}/mlartifacts;" in message]
    if how == "copied":
        assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    else:
        assert not old.exists()
    found = addresses(new / "mlflow.db")
    assert len(found) >= 5
    assert all(address.startswith((new / "mlartifacts").as_uri()) for address in found)
    store = client(new)
    assert [file.path for file in store.list_artifacts(tracker.run_id)] == ["plan.json"]
    first = store.get_run(str(store.get_model_version("shapes", "1").run_id))
    assert {file.path for file in store.list_artifacts(first.info.run_id)} == ARTIFACTS
    mlflow.set_tracking_uri(f"sqlite:///{new}/mlflow.db")
    try:
        assert Path(mlflow.artifacts.download_artifacts("models:/shapes/1")).is_relative_to(new)
    finally:
        mlflow.set_tracking_uri(None)
    caplog.clear()
    assert follow(new / "mlflow.db", (new / "mlartifacts").as_uri()) == ""  # once
    (tmp_path / "link").symlink_to(new)
    assert follow(new / "mlflow.db", (tmp_path / "link" / "mlartifacts").as_uri()) == ""  # the same folder


@pytest.mark.parametrize(
    ("typed", "lr", "epochs"),
    [
        (["strategy=finetune"], "0.001, 0.0001", "10"),
        (["strategy=finetune", "training.lr_factor=3", "training.epochs=2"], "0.003, 0.0003", "10, 2"),
        (["strategy=feature_extraction", "training.lr=0.5"], "0.5", "10"),
        (
            ["strategy=finetune", "strategy.phases.tune.lr=3e-5", "strategy.phases.tune.epochs=4"],
            "0.001, 3e-05",
            "10, 4",
        ),
        (["strategy=gradual"], "0.001, 0.0001, 1e-05", "10"),
    ],
)
def test_what_phases_inherit_is_logged_as_they_used_it(typed: list[str], lr: str, epochs: str) -> None:
    config = checked(compose.without_hydra(compose.compose(typed)))
    params = parameters(dataclasses.asdict(config))
    used = [float(phase.lr or 0) for phase in config.strategy.phases.values()]
    assert [float(one) for one in params["training.lr"].split(", ")] == pytest.approx(list(dict.fromkeys(used)))
    assert [float(one) for one in params["training.lr"].split(", ")] == pytest.approx([float(n) for n in lr.split(",")])
    assert params["training.epochs"] == epochs


def test_the_view_of_runs_shows_the_saved_epochs_figures() -> None:
    assert "metrics.`best_val_accuracy`" in COLUMNS
    assert "metrics.`val_accuracy`" not in COLUMNS


def test_a_run_is_promoted_once_and_again_says_so(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "outputs"
    shutil.copytree(run, output / "day" / "run")
    name = f"{output}/day/run"

    def promote(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        return main(["promote", *words, "--output", str(output)]), *capfd.readouterr()

    assert promote("latest", "--register", "mine") == (
        0, f"{name}: registered as mine version 1, is champion: the first one\n", f"latest: {name}\n"
    )  # fmt: skip
    assert promote(name, "--register", "mine")[:2] == (
        0, f"{name}: already registered as mine version 1, is champion: the first one\n"
    )  # fmt: skip
    (version,) = client(output).search_model_versions("name='mine'")
    assert version.run_id == json.loads((output / "day/run/summary.json").read_text())["mlflow_run_id"]
    assert promote(version.run_id or "", "--register", "other")[0] == 0
    assert len(client(output).search_model_versions("name='other'")) == 1

    assert promote(name, "--register", "a/b")[0] == 2
    assert promote(name, "--register", "mine", "seed=1")[2] == (
        "tlx: seed=…: promote takes tracking.uri and tracking.experiment only\n"
    )
    assert "a saved model alone; promote takes the folder of its run" in promote(f"{name}/model", "--register", "x")[2]
    summary = json.loads((output / "day/run/summary.json").read_text())
    (output / "day/run/summary.json").write_text(json.dumps({**summary, "status": "diverged"}))
    assert promote(name, "--register", "x")[2] == f"tlx: {name}: diverged; only a finished run is promoted\n"
