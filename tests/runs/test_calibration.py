"""The temperature of a run: from validation images, in the saved model, and in whatever says a probability."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tlx
from tlx.core import calibration
from tlx.inference import predictor, saved_model
from tlx.inference.exporters import Deployed
from tlx.runs.run_summary import Summary

WORDS = ["backbone=small_cnn", "backbone.input_size=32", "strategy=scratch", "dataset=shapes", "tracking=none"]
WORDS += ["dataset.train=40", "dataset.test=20", "training.epochs=6", "training.lr=1e-2", "runtime.device=cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return tlx.run([*WORDS, f"output={tmp_path_factory.mktemp('calibrated')}"])


def test_the_saved_model_has_the_temperature_and_all_probabilities_are_after_it(run: Summary) -> None:
    model = predictor.load(run.folder, "cpu")
    found = run.calibration["temperature"]
    assert model.temperature == found != 1
    assert (run.calibration["fitted_on"], run.calibration["images"]) == ("val", run.images["val"])
    assert run.calibration["val_loss"] == "after"
    with (run.folder / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    x = torch.randint(0, 256, (len(rows), 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits, probabilities = Deployed(model.net, model.temperature)(x)
    assert torch.equal(probabilities, (logits / found).softmax(1))
    assert torch.allclose(model.probabilities(x), probabilities, atol=1e-5)
    assert torch.equal(probabilities.argmax(1), logits.argmax(1))
    sure = np.array([float(row["probability"]) for row in rows])
    correct = np.array([row["correct"] == "1" for row in rows])
    figures = {one["name"]: one["value"] for one in run.metrics if one["split"] == "test"}
    assert calibration.reliability(sure, correct).error == pytest.approx(figures["ece"], abs=1e-4)
    written = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))["calibration"]
    assert written["after"]["log_loss"] == figures["log_loss"]
    assert written["before"]["log_loss"] == pytest.approx(run.test_loss, rel=1e-5) != figures["log_loss"]


def test_a_model_of_before_has_the_temperature_one(run: Summary, tmp_path: Path) -> None:
    for file in (run.folder / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    saved_model.describe(tmp_path, {"temperature": 1.0})
    plain, model = predictor.load(tmp_path, "cpu"), predictor.load(run.folder, "cpu")
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.logits(x).softmax(1), plain.probabilities(x))
    assert torch.equal(plain.logits(x), model.logits(x))
