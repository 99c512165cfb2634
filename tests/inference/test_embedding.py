"""`python -m tlx embed`: a row an image, in order, which the classifier turns into the model's own probabilities."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tlx
from tlx.cli.main import main
from tlx.inference.embedding import embedded

TINY = {
    "backbone": "small_cnn", "backbone.input_size": 16, "dataset": {"train": 12, "test": 9}, "tracking": "none",
    "training": {"epochs": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tlx.run(TINY, output=tmp_path_factory.mktemp("out")).folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 255, (11, 20, 24, 3), np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{number:02}.png")
    (folder / "05.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return folder


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_the_file_has_a_row_for_each_image_that_can_be_read_in_order(
    run: Path, photos: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"features.{suffix}"
    assert main(["embed", str(run), str(photos), "--out", str(out), "--device", "cpu", "--batch-size", "4"]) == 1
    assert "05.png: " in capsys.readouterr().err
    found = pd.read_parquet(out) if suffix == "parquet" else np.load(out)
    model = tlx.load(run, "cpu")
    expected = [p for p in model.predict(sorted(map(str, photos.iterdir())), 4) if not p.error]
    assert [*found["file" if suffix == "parquet" else "files"]] == [p.file for p in expected]
    assert [*found["prediction"]] == [p.prediction for p in expected]
    rows = torch.from_numpy(np.stack([*found["features"]]))
    with torch.no_grad():
        probabilities = (model.net[-1:](rows) / model.temperature).softmax(1).max(1).values
    np.testing.assert_allclose(probabilities.numpy(), [p.probability for p in expected], atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "mlp", "append"])
def test_features_are_the_classifiers_input_whatever_the_head(tmp_path: Path, head: str) -> None:
    """Also where a phase has trained more than the head; predictions are the model's own to the bit."""
    backbone = {"backbone": "efficientnet_lite0", "backbone.input_size": 32}
    for strategy in ("feature_extraction", "finetune") if head == "linear" else ("feature_extraction",):
        found = tlx.run({**TINY, **backbone}, head=head, strategy=strategy, output=tmp_path / strategy)
        model = tlx.load(found.folder, "cpu")
        pictures = list(np.random.default_rng(1).integers(0, 255, (5, 32, 32, 3), np.uint8))
        both = list(embedded(model, pictures))
        assert [one.prediction for one in both] == model.predict(pictures)
        assert {one.features.shape for one in both if one.features is not None} == {(1280,)}


def test_another_suffix_and_no_image_are_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    assert main(["embed", str(run), str(photos), "--out", str(tmp_path / "x.csv")]) == 2
    assert main(["embed", str(run), str(photos / "05.png"), "--out", str(tmp_path / "x.npz")]) == 2
    assert not list(tmp_path.iterdir())


def test_drift_compares_new_images_with_the_runs_own_test_images(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise in place of drawn shapes, with one file that cannot be read."""
    capsys.readouterr()
    assert main(["drift", str(run), str(photos), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "10 new images, compared with 27 test images of the run" in said.out
    assert "separated" in said.out
    assert "05.png: " in said.err
    assert main(["drift", str(run), str(photos), "--device", "cpu", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    similar = [one["similarity"] for one in found["files"]]
    assert similar == sorted(similar)
    assert len(similar) == found["images"]["new"] == 10
    for side in ("test", "new"):
        assert sum(shares[side] for shares in found["predicted_shares"].values()) == pytest.approx(1)
