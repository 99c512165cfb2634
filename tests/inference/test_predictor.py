"""The model that is saved is the model that was measured: opened again it says the same, from files."""

import csv
import json
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tlx
from tlx.backbones import factories
from tlx.cli.predict import predict
from tlx.core.errors import RequestError
from tlx.datasets.image_paths import find
from tlx.runs.run_summary import Summary

FOLDER_RUN = ["tracking=none", "training.epochs=2", "training.batch_size=4", "runtime.precision=fp32"]


def write_images(root: Path, classes: tuple[str, ...] = ("dark", "light"), n: int = 8) -> None:
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 120, (40 + i, 50, 3)) + 120 * number
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Path]:
    root = tmp_path_factory.mktemp("data") / "imágenes #1 (a=b)"
    write_images(root)
    output = tmp_path_factory.mktemp("runs") / "out put"
    network = ["backbone=timm", "backbone.name=resnet10t", "backbone.weights=none", "backbone.input_size=32"]
    summary = tlx.run(["dataset=image_folder", f"dataset.root={root}", f"output={output}", *network, *FOLDER_RUN])
    return summary, root


def test_a_run_leaves_everything_the_contract_names(trained: tuple[Summary, Path]) -> None:
    summary, _ = trained
    names = {path.name for path in summary.folder.iterdir()}
    assert names == {
        "analysis.json", "audit.json", "config.yaml", "plan.json", "metrics.jsonl", "predictions.csv", "summary.json",
        "tlx.log", "model", "curves.png", "confusion.png", "reliability.png", "predictions.png", "report.html",
    }  # fmt: skip
    found = json.loads((summary.folder / "summary.json").read_text())
    expected = (
        "test_accuracy test_accuracy_interval accuracy_before_training test_loss val_accuracy best_epoch epochs "
        "seconds images_per_second classes images precision device identity mlflow_run_id command status"
    )
    assert set(expected.split()) <= set(found)
    parts = {name: spent for name, spent in found["seconds"].items() if name != "total"}
    assert parts.keys() >= {"data", "network", "features", "training", "evaluation", "saving"}
    assert sum(parts.values()) == pytest.approx(found["seconds"]["total"])
    assert found["status"] == "finished"
    assert found["classes"] == ["dark", "light"]
    assert sum(found["images"].values()) == 16
    assert found["command"].startswith("python -m tlx dataset=image_folder 'dataset.root=")
    rows = [json.loads(line) for line in (summary.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    low, high = found["test_accuracy_interval"]
    assert low <= found["test_accuracy"] <= high
    assert {path.name for path in (summary.folder / "model").iterdir()} == {
        "model.safetensors", "model.json", "images.safetensors", "reference.safetensors", "README.md"
    }  # fmt: skip


def test_predictions_from_files_are_those_of_the_test(trained: tuple[Summary, Path]) -> None:
    summary, _ = trained
    with (summary.folder / "predictions.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["sample", "file", "label", "prediction", "probability", "correct"]
    model = tlx.load(summary.folder, device="cpu")
    for row, found in zip(table, model.predict([row["file"] for row in table], unknown=False), strict=True):
        assert found.prediction == row["prediction"]
        assert f"{found.probability:.6f}" == row["probability"]
    correct = sum(row["correct"] == "1" for row in table)
    assert correct / len(table) == pytest.approx(summary.test_accuracy or -1)


def test_what_is_measured_is_what_was_saved(
    trained: tuple[Summary, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose files say another preprocessing than it was trained with is measured as the files say."""
    from tlx.inference import predictor, saved_model

    whole = saved_model.save

    def spoiled(folder: Path, *arguments: Any) -> None:
        whole(folder, *arguments)
        description = json.loads((folder / "model.json").read_text())
        for part in ("preprocessing", "backbone"):
            description[part] |= {"mean": [0.9, 0.1, 0.9]}
        (folder / "model.json").write_text(json.dumps(description))

    monkeypatch.setattr(predictor, "save", spoiled)
    network = ["backbone=timm", "backbone.name=resnet10t", "backbone.weights=none", "backbone.input_size=32"]
    summary = tlx.run(
        ["dataset=image_folder", f"dataset.root={trained[1]}", f"output={tmp_path}", *network, *FOLDER_RUN]
    )
    with (summary.folder / "predictions.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    again = tlx.load(summary.folder, device="cpu").predict([row["file"] for row in table])
    assert [p.probability for p in again] == pytest.approx([float(row["probability"]) for row in table], abs=1e-5)


def test_the_saved_weights_load_strictly_into_the_library_that_made_the_network(trained: tuple[Summary, Path]) -> None:
    import timm
    from safetensors.torch import load_file

    state = load_file(trained[0].folder / "model" / "model.safetensors")
    timm.create_model("resnet10t", num_classes=2).load_state_dict(state, strict=True)


def test_a_later_run_starts_from_the_weights_of_an_earlier_one(trained: tuple[Summary, Path], tmp_path: Path) -> None:
    first, root = trained
    network = ["backbone=timm", "backbone.name=resnet10t", "backbone.input_size=32", f"backbone.weights={first.folder}"]
    second = tlx.run(["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}", *network, *FOLDER_RUN])
    a, b = (tlx.load(run.folder, device="cpu").net.state_dict() for run in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a if not name.startswith("head."))


def test_what_is_said_is_in_the_log_once_from_the_beginning(
    trained: tuple[Summary, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, root = trained
    network = ["backbone=timm", "backbone.name=resnet10t", "backbone.input_size=32", f"backbone.weights={first.folder}"]
    handlers = list(logging.getLogger("tlx").handlers)
    run = tlx.run(["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}", *network, *FOLDER_RUN])
    said = capsys.readouterr().err.splitlines()
    logged = (run.folder / "tlx.log").read_text(encoding="utf-8").splitlines()
    assert [re.sub(r"^\S+ \S+ INFO ", "", line) for line in logged] == said
    assert "its last layer is missing or of another shape" in said[0]  # before there is a folder
    for start in ("images: ", "device: cpu", "phase ", "  stage ", "epoch 1/2 ", "epoch 2/2 ", "test set, after: "):
        assert sum(line.startswith(start) for line in said) == 1, start
    assert list(logging.getLogger("tlx").handlers) == handlers


def test_a_saved_model_is_opened_without_drawing_what_it_overwrites(
    trained: tuple[Summary, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(*args: Any, **kwargs: Any) -> Any:
        net, preprocessing = factories.build(*args, **kwargs)
        built.append(any(p.any() for p in net.parameters() if p.ndim > 1))
        return net, preprocessing

    monkeypatch.setattr("tlx.inference.saved_model.factories", SimpleNamespace(build=build))
    net = tlx.load(trained[0].folder, device="cpu").net
    assert built == [False]
    assert all(p.any() for p in net.parameters() if p.ndim > 1)


def test_a_broken_file_is_one_row_with_its_error(
    trained: tuple[Summary, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, root = trained
    good = root / "dark" / "0.png"
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(good.read_bytes()[:60])
    target = tmp_path / "out.csv"
    assert predict(str(summary.folder), [str(bad), str(root)], {"csv": str(target)}, None, 4, "cpu") == 1
    with target.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 17
    assert rows[0]["file"] == str(bad)
    assert rows[0]["error"]
    assert rows[0]["prediction"] == ""
    assert all(
        not row["error"] and float(row["p(dark)"]) + float(row["p(light)"]) == pytest.approx(1, abs=1e-5)
        for row in rows[1:]
    )
    assert "17 images" in capsys.readouterr().err
    assert predict(str(summary.folder), [str(good)], {"json": "-"}, device="cpu") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["file"] == str(good)
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert predict(str(summary.folder), [str(good)], device="cpu") == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["prediction", "probability", "file"]


def test_what_predict_cannot_do_is_said(trained: tuple[Summary, Path], tmp_path: Path) -> None:
    folder = str(trained[0].folder)
    with pytest.raises(RequestError, match="nowhere: no such file or folder"):
        list(find([str(tmp_path / "nowhere")]))
    with pytest.raises(RequestError, match="holds no image"):
        list(find([str(tmp_path)]))
    with pytest.raises(RequestError, match=r"--csv photo.jpg: the file's name must end in .csv"):
        predict(folder, [], {"csv": "photo.jpg"})
    with pytest.raises(
        RequestError, match=r"no saved model here \(.*model.safetensors is missing\); give a run's folder"
    ):
        tlx.load(tmp_path)


def test_of_a_run_that_has_not_finished_the_way_on_is_said(trained: tuple[Summary, Path], tmp_path: Path) -> None:
    """A run that was killed is no wrong folder: it has no model because it was not at its end."""
    shutil.copy(trained[0].folder / "config.yaml", tmp_path)
    said = f"{tmp_path}: this run has no saved model yet; `resume {tmp_path}` continues it"
    with pytest.raises(RequestError, match=f"^{re.escape(said)}$"):
        tlx.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "json", "format", "keys"])
def test_a_damaged_model_is_one_line(trained: tuple[Summary, Path], tmp_path: Path, damage: str) -> None:
    for file in (trained[0].folder / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    description = tmp_path / "model.json"
    content = json.loads(description.read_text())
    if damage == "cut":
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "json":
        description.write_text("{")
    elif damage == "format":
        description.write_text(json.dumps({**content, "format": 99}))
    else:
        del content["classes"]
        description.write_text(json.dumps(content))
    with pytest.raises(RequestError, match="format 99" if damage == "format" else "damaged") as raised:
        tlx.load(tmp_path)
    assert "\n" not in str(raised.value)
