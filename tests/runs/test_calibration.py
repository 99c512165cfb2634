"""The temperature of a run: from validation images, in the saved model, and in whatever says a probability."""

import csv
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import tlx
from tlx.config.compose import compose, without_hydra
from tlx.config.validation import checked
from tlx.core import calibration
from tlx.features.batches import CachedRows
from tlx.inference import predictor, saved_model
from tlx.inference.exporters import Deployed
from tlx.runs.run_summary import Summary
from tlx.training.fold_logits import fold_logits
from tlx.training.phase_plan import plan
from tlx.training.snapshots import snapshot

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
    logits, probabilities = Deployed(predictor.load(run.folder, "cpu"), "resized")(x)[:2]
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


def test_with_a_refit_the_temperature_is_from_all_images_out_of_fold(tmp_path: Path) -> None:
    words = ["backbone=small_cnn", "backbone.input_size=32", "backbone.weights=none", "dataset=shapes", "tracking=none"]
    words += ["dataset.train=40", "dataset.test=20", "training.lr=1e-2", "runtime.device=cpu", f"output={tmp_path}"]
    plain, refit = tlx.run(words), tlx.run([*words, "training.refit=true"])
    assert (plain.calibration["fitted_on"], plain.calibration["images"]) == ("val", plain.images["val"])
    assert refit.calibration["fitted_on"] == "val and train, out of fold"
    assert refit.calibration["images"] == refit.images["train"] + refit.images["val"]
    assert refit.calibration["temperature"] != plain.calibration["temperature"]
    assert (refit.best_epoch, refit.val_loss) == (plain.best_epoch, plain.val_loss), "the choice is the same"
    again = tlx.run([*words, "training.refit=true", "resume=never"])
    assert again.calibration["temperature"] == refit.calibration["temperature"]
    assert again.test_loss == refit.test_loss
    deeper = tlx.run([*words, "training.refit=true", "training.epochs=2", "strategy=finetune"])
    assert deeper.calibration["fitted_on"] == "val", "features are not frozen"


def test_a_folds_network_has_not_learned_from_its_images() -> None:
    """Random labels: what has learned an image knows its label, and what has not does not."""
    torch.manual_seed(0)
    config = checked(without_hydra(compose(["training.epochs=60", "training.lr=0.1", "optimizer=adam"])))
    phase = config.strategy.phases["probe"]
    net = torch.nn.Sequential(OrderedDict(body=torch.nn.Identity(), head=torch.nn.Linear(200, 4)))
    made = plan(net, "probe", phase, classifier="head")
    rows = CachedRows([torch.randn(80, 200)], torch.randint(0, 4, (80,)))
    folds = torch.arange(80) % 4
    folds[60:] = -1
    untrained = snapshot(net, made)
    found = list(fold_logits(net, made, phase, [rows], folds, config, untrained, epochs=60, precision="fp32"))
    assert [len(one.labels) for one in found] == [15] * 4
    correct = sum(int((one.logits.argmax(1) == one.labels).sum()) for one in found)
    assert correct < 30, "of 60: a guess"
    assert all(torch.equal(tensor, untrained[name]) for name, tensor in snapshot(net, made).items())
