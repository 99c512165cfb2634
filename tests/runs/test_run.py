"""Whole runs: sweeps, source tasks, presets, and what they leave in the folder and in MLflow."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tlx
from tests.config.test_compose import config_of
from tests.conftest import ROOT
from tlx.cli.main import main
from tlx.config.compose import choices
from tlx.config.identity import from_tree, key, results
from tlx.core.errors import RequestError
from tlx.runs.output_layout import new_folder
from tlx.runs.run_summary import Summary

# SQLAlchemy on what MLflow does; the product does not open a store in its own process
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

TINY = ["dataset.train=8", "dataset.test=4", "training.epochs=1"]
SMALL = ["backbone=small_cnn", *TINY, "tracking=none"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def tracked(folder: Path) -> list[Any]:
    """The runs of the folder's store, oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("tlx")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def of_jobs(folder: Path) -> list[Any]:
    """The runs of a sweep's jobs, without the sweep's own."""
    return [run for run in tracked(folder) if "tlx.sweep" not in run.data.tags]


def digest(summary: Summary) -> dict[str, bytes]:
    """What two identical runs must have in common."""
    names = ("predictions.csv", "plan.json", "model/model.safetensors")
    return {name: (summary.folder / name).read_bytes() for name in names}


def test_a_job_that_cannot_begin_is_a_failed_run_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["backbone=small_cnn,squeezenet1_1", "runtime.offline=true", *TINY]
    assert main(["-m", *words]) == 1
    assert "squeezenet1_1-b8a52dc0.pth is not here" in capsys.readouterr().err
    runs = of_jobs(here)
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert "squeezenet1_1-b8a52dc0.pth" in runs[1].data.tags["tlx.error"]


def test_nothing_stays_active_for_the_next_job_of_the_process(here: Path) -> None:
    import logging

    import mlflow

    handlers = logging.getLogger("tlx").handlers[:]
    tlx.run(["backbone=small_cnn", *TINY])
    with pytest.raises(RequestError):
        tlx.run(["backbone=small_cnn", *TINY, "dataset.limit.train=1"])
    assert mlflow.active_run() is None
    assert logging.getLogger("tlx").handlers == handlers
    assert [run.info.status for run in tracked(here)] == ["FINISHED"]


def test_a_second_run_in_the_same_process_equals_the_first_bit_for_bit() -> None:
    words = [*SMALL, "strategy=gradual", "augmentation=flip", "head=mlp", "training.epochs=2"]
    first = tlx.run(words)
    torch.manual_seed(99)
    np.random.seed(99)
    tlx.run([*SMALL, "seed=5"])
    again = tlx.run(words)
    assert digest(first) == digest(again)
    assert first.identity == again.identity
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if key not in ("seconds", "images_per_second")}
            for line in (run.folder / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (first, again)
    ]
    assert rows[0] == rows[1]


def test_runs_of_the_same_second_have_folders_of_their_own(here: Path) -> None:
    words = [*SMALL, "hydra.run.dir=outputs/now"]
    folders = [tlx.run(words).folder for _ in range(3)]
    assert [folder.name for folder in folders] == ["now", "now-2", "now-3"]
    for folder in folders:
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    assert [new_folder(here / "sweep").name for _ in range(2)] == ["sweep", "sweep-2"]
    assert main(["-m", *SMALL, "seed=0,1", "hydra.sweep.dir=outputs/now"]) == 0
    assert len(list(here.glob("outputs/now-4/*/summary.json"))) == 2


def test_the_source_task_is_trained_once_and_linked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["backbone=small_cnn", "source=shapes", "dataset=new_shapes", *TINY]
    words += ["source.dataset.train=8", "source.dataset.test=4", "source.training.epochs=1"]
    one = tlx.run(words)
    assert "training the backbone on it first" in capsys.readouterr().err
    two = tlx.run([*words, "training.lr=1e-2"])
    assert "trained already" in capsys.readouterr().err
    other = tlx.run([*words, "source.training.lr=1e-2"])
    assert one.source == two.source != other.source
    assert len(list(here.glob("outputs/sources/shapes-*"))) == 2
    runs = tracked(here)
    assert [run.info.status for run in runs] == ["FINISHED"] * 5
    names = {run.info.run_id: run.info.run_name for run in runs}
    by_id = {run.info.run_id: run for run in runs}
    for summary in (one, two, other):
        source = json.loads((Path(summary.source) / "summary.json").read_text())
        assert by_id[summary.mlflow_run_id].data.tags["tlx.source"] == source["mlflow_run_id"]
        assert names[source["mlflow_run_id"]] == "source shapes"
        assert source["classes"] == ["circle", "square", "triangle"]
    # The transfer starts from the source's convolutions and leaves them alone.
    from safetensors.torch import load_file

    source_state, state = (load_file(Path(f, "model/model.safetensors")) for f in (one.source, one.folder))
    assert torch.equal(source_state["conv1.0.weight"], state["conv1.0.weight"])


def test_a_source_that_was_stopped_is_trained_again(here: Path) -> None:
    words = ["source=shapes", "dataset=new_shapes", *SMALL, "source.dataset.train=8", "source.dataset.test=4"]
    words += ["source.training.epochs=1"]
    source = Path(tlx.run(words).source)
    before = (source / "model/model.safetensors").read_bytes()
    summary = json.loads((source / "summary.json").read_text())
    (source / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    (source / "model/model.safetensors").write_bytes(b"half")
    again = tlx.run(words)
    assert Path(again.source) == source
    assert (source / "model/model.safetensors").read_bytes() == before


def test_each_phase_is_evaluated_where_requested(here: Path) -> None:
    summary = tlx.run([*SMALL, "strategy=lp_ft", "evaluation.after_each_phase=true"])
    tables = {}
    for name in ("predictions-before", "predictions-probe", "predictions-tune", "predictions"):
        with (summary.folder / f"{name}.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
        assert [row["sample"] for row in tables[name]] == [str(i) for i in range(12)]
        assert {row["label"] for row in tables[name]} == {"circle", "square", "triangle"}
    assert tables["predictions-tune"] == tables["predictions"]
    assert set(summary.after) == {"probe", "tune"}
    assert summary.after["tune"]["test_accuracy"] == summary.test_accuracy
    right = np.mean([row["correct"] == "1" for row in tables["predictions-before"]])
    assert summary.accuracy_before_training == pytest.approx(right)


def test_the_summary_is_what_the_contract_says(here: Path) -> None:
    summary = tlx.run(SMALL)
    written = json.loads((summary.folder / "summary.json").read_text())
    names = "test_accuracy test_accuracy_interval accuracy_before_training test_loss val_accuracy best_epoch epochs"
    names += " seconds images_per_second classes images precision device identity mlflow_run_id command status"
    assert set(names.split()) <= set(written)
    parts = {name: spent for name, spent in written["seconds"].items() if name != "total"}
    assert parts.keys() >= {"data", "network", "features", "training", "evaluation", "saving"}
    assert sum(parts.values()) == pytest.approx(written["seconds"]["total"])
    assert sum(written["images"].values()) == 36
    assert written["images"]["test"] == 12
    low, high = written["test_accuracy_interval"]
    assert 0 <= low <= written["test_accuracy"] <= high <= 1
    assert written["classes"] == ["circle", "square", "triangle"]
    assert (written["status"], written["mlflow_run_id"], written["skipped"]) == ("finished", "", [])
    files = {path.relative_to(summary.folder).as_posix() for path in summary.folder.rglob("*") if path.is_file()}
    assert files == {
        *(
            "analysis.json",
            "audit.json",
            "config.yaml",
            "plan.json",
            "metrics.jsonl",
            "predictions.csv",
            "summary.json",
            "tlx.log",
        ),
        *("curves.png", "confusion.png", "reliability.png", "predictions.png", "report.html"),
        *("model/model.safetensors", "model/model.json", "model/images.safetensors", "model/reference.safetensors"),
        "model/README.md",
    }


def test_tracking_none_needs_no_mlflow(here: Path) -> None:
    code = (
        "import sys; sys.modules['mlflow'] = None; import tlx;"
        "print(tlx.run(sys.argv[1:]).status, sys.modules['mlflow'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["finished None"], done.stderr


def test_an_interrupt_in_a_later_phase_keeps_the_best_of_the_one_before(here: Path) -> None:
    """What is half learned in a phase's first epoch is not saved as the model of an epoch that it is not."""
    from tlx.training import solvers

    words = [*SMALL, "strategy=lp_ft", "strategy.phases.probe.solver=sgd"]
    words += ["strategy.phases.probe.train_from=classifier", "strategy.phases.probe.epochs=2"]
    words += ["training.epochs=2", "hydra.run.dir=stopped"]
    original = solvers.backward
    calls = []

    def stopped(*args: Any, **more: Any) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 6:  # one batch of the second phase has changed the weights
            raise KeyboardInterrupt
        return original(*args, **more)

    solvers.backward = stopped
    try:
        with pytest.raises(
            KeyboardInterrupt, match=r"2 of 4 epochs are done; .*stopped has them, and the model of epoch"
        ):
            tlx.run([*words, "training.batch_size=16"])
    finally:
        solvers.backward = original
    probe = tlx.run([*SMALL, "training.epochs=2", "training.batch_size=16"])
    assert (here / "stopped/model/model.safetensors").read_bytes() == (
        probe.folder / "model/model.safetensors"
    ).read_bytes()


def photos(shared: Path, folder: Path, each: int) -> Path:
    """A few of the real ants and bees."""
    for part in ("train", "val"):
        for name in ("ants", "bees"):
            (folder / part / name).mkdir(parents=True)
            for file in sorted((shared / "hymenoptera_data" / part / name).glob("*.jpg"))[:each]:
                (folder / part / name / file.name).symlink_to(file)
    return folder


def random_weights(name: str, file: Path) -> Path:
    """Random weights in a file as torch.hub keeps it."""
    import torchvision

    torch.manual_seed(0)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), file)
    return file


@pytest.mark.parametrize(
    ("preset", "name"),
    [("resnet50_mlp_head", "resnet50"), ("alexnet_ants_bees", "alexnet")],
)
def test_a_preset_of_ants_and_bees_runs_from_a_weights_file(here: Path, shared: Path, preset: str, name: str) -> None:
    weights = random_weights(name, here / f"my_{name}.pth")
    root = photos(shared, here / "photos", 4)
    words = [f"experiment={preset}", f"dataset.root={root}", f"backbone.weights={weights}", "tracking=none"]
    summary = tlx.run([*words, "training.epochs=1", "training.batch_size=2", "training.lr=1e-5"])
    weights.unlink()
    assert summary.status == "finished"
    assert (summary.classes, sum(summary.images.values())) == (["ants", "bees"], 16)
    plan = json.loads((summary.folder / "plan.json").read_text())[0]
    frozen = {stage["stage"] for stage in plan["stages"] if stage["frozen"]}
    learns = {stage["stage"] for stage in plan["stages"] if not stage["frozen"]}
    assert learns == ({"head"} if name == "resnet50" else {"classifier", "logits", "head"})
    assert len(frozen) >= 5


@pytest.mark.parametrize("preset", choices("experiment"))
def test_every_preset_composes_and_builds(here: Path, preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On small images of its own, for the data sets that have to be fetched."""
    words: Sequence[str] = []
    if preset != "shapes_transfer":
        root = here / "drawn"
        for name in ("one", "two"):
            (root / name).mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (32, 32), (40 * i, 99, 99 if name == "one" else 0)).save(root / name / f"{i}.png")
        words = [f"dataset.root={root}"]
    if preset == "leaves_to_shoes":
        words = [*words, f"source.dataset.root={root}"]
    if preset.startswith("cifar10"):
        words = ["dataset=image_folder", *words]
    assert main(["--dry-run", f"experiment={preset}", *words]) == 0
    said = capsys.readouterr().out
    assert "phase " in said
    assert "parameters trainable" in said
    assert not (here / "outputs").exists()


def test_shapes_transfer_runs_end_to_end_and_predicts_what_it_draws(here: Path) -> None:
    words = ["experiment=shapes_transfer", "tracking=none", "source.dataset.train=60", "source.training.epochs=3"]
    summary = tlx.run([*words, "training.epochs=4", "dataset.test=20"])
    assert sorted(summary.classes) == ["pentagon", "star"]
    with (summary.folder / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["file"]).name.rpartition("-")[0] for row in rows} == {"star", "pentagon", "hexagon"}
    assert {row["prediction"] for row in rows} <= {"star", "pentagon"}
    for row in rows:
        assert (summary.folder / row["file"]).is_file()
    plan = json.loads((summary.folder / "plan.json").read_text())[0]
    assert [stage["frozen"] for stage in plan["stages"]] == [True, True, False, False]


def test_a_missing_data_folder_is_said_before_weights_are_looked_for(tmp_path: Path) -> None:
    wrong = [
        "backbone=resnet18",
        "runtime.offline=true",
        "dataset=image_folder",
        f"dataset.root={tmp_path / 'nowhere'}",
    ]
    with pytest.raises(RequestError, match="nowhere: no such folder"):
        tlx.run([*wrong, f"output={tmp_path / 'out'}", "tracking=none"])
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_the_source_task_is_said_as_such(tmp_path: Path) -> None:
    wrong = ["backbone=small_cnn", "source=shapes", "source.dataset.limit.train=1", f"output={tmp_path / 'out'}"]
    with pytest.raises(RequestError, match=r"source task shapes: dataset.limit.train=1: leaves class"):
        tlx.run([*wrong, "tracking=none"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("backbone=alexnet backbone.input_size=16", "backbone.input_size=16: alexnet cannot take it ("),
        ("optimizer.betas=[0.9]", "torch.optim.Adam does not take"),
        (
            "training.batch_size=1",
            "BatchNorm needs at least two images in a batch; take 2, or strategy.phases.tune.statistics",
        ),
    ],
)
def test_values_that_only_the_built_network_can_refuse_are_refused_before_the_run(
    override: str, reason: str, tmp_path: Path
) -> None:
    network = ["backbone=timm", "backbone.name=resnet10t", "backbone.weights=none", "backbone.input_size=32"]
    network = network if not override.startswith("backbone=") else ["backbone.weights=none"]
    adapting = ["strategy=finetune", "strategy.phases.tune.statistics=learning"]
    with pytest.raises(RequestError, match=re.escape(reason)):
        tlx.run([*network, *adapting, *override.split(), f"output={tmp_path / 'out'}", "tracking=none"])
    assert not (tmp_path / "out").exists()


def test_a_source_whose_model_has_gone_is_trained_again(tmp_path: Path) -> None:
    small = [
        "dataset.train=5",
        "dataset.test=2",
        "training.epochs=1",
        "source.dataset.train=5",
        "source.training.epochs=1",
    ]
    task = ["backbone=small_cnn", "backbone.input_size=16", "source=shapes", "dataset=new_shapes", *small]
    first = tlx.run([*task, f"output={tmp_path}", "tracking=none"])
    assert first.source
    (Path(first.source) / "model" / "model.safetensors").unlink()
    again = tlx.run([*task, f"output={tmp_path}", "tracking=none"])
    assert again.source == first.source
    assert (Path(first.source) / "model" / "model.safetensors").is_file()


def test_what_chooses_is_known_to_the_run_and_the_default_changes_no_identity(here: Path) -> None:
    config = config_of(*SMALL)
    tree = dataclasses.asdict(config)
    assert tree["evaluation"].pop("choose_by") == "val_loss"
    assert "choose_by" not in results(config)["evaluation"], "earlier runs keep their identity"
    assert from_tree(tree) == config
    other = config_of(*SMALL, "evaluation.choose_by=val_macro_f1")
    assert key(other) != key(config)
    assert main([*SMALL, "evaluation.choose_by=val_f1"]) == 2
    summary = tlx.run([*SMALL, "evaluation.choose_by=val_macro_f1"])
    rows = [json.loads(line) for line in (summary.folder / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: (row["val_macro_f1"], -row["val_loss"]))
    written = json.loads((summary.folder / "summary.json").read_text())
    assert (written["choose_by"], written["best_epoch"]) == ("val_macro_f1", best["epoch"])
    assert written["val_loss"] == best["val_loss"]
