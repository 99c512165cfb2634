"""Further views: whatever a model averages over is measured, saved, predicted and exported alike, cached or live."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch

import tlx
from tests.inference.test_export import run_export, run_session, save, session_of
from tests.inference.test_predictor import FOLDER_RUN, write_images
from tlx.core.errors import RequestError
from tlx.datasets.further_views import FurtherView
from tlx.inference import label_ranking, predictor

CORNER = FurtherView(flip=True, side=0.75, top=0.25)


def test_a_view_is_a_part_of_the_image_mirrored_or_not_alone_or_in_a_batch() -> None:
    images = torch.randint(0, 256, (3, 3, 20, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(FurtherView(flip=True).of(images), images.flip(-1))
    found = CORNER.of(images)
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    assert torch.equal(found, torch.stack([CORNER.of(image) for image in images]))
    assert torch.equal(found, CORNER.of(images.float().contiguous(memory_format=torch.channels_last)).to(torch.uint8))
    half = FurtherView(side=0.5, left=0.5).of(images)
    assert torch.equal(half[..., 0, 0], images[..., 0, 10])
    assert torch.equal(half[..., -1, -1], images[..., 9, 19])


@pytest.mark.parametrize(
    ("views", "said"),
    [
        ("[{flp: true}]", r"no such key flp \(did you mean 'flip'\?\)"),
        ("[{side: 0.9, top: 0.2}]", "the part within the view"),
        ("[{flip: 1}]", "flip must be true or false"),
        ("[flip]", "each must be {flip: true} or a part"),
        ("[{side: much}]", "side, top and left must be numbers"),
    ],
)
def test_a_view_that_is_none_is_refused_with_its_key(views: str, said: str) -> None:
    with pytest.raises(RequestError, match=rf"evaluation.views: .*{said}"):
        tlx.run([f"evaluation.views={views}"])


def test_what_was_measured_is_what_is_predicted_cached_or_live(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    words = ["dataset=image_folder", f"dataset.root={tmp_path / 'images'}", "backbone=small_cnn"]
    words += ["backbone.input_size=32", "recipe=tta_ten_crops", *FOLDER_RUN]
    runs = [
        tlx.run([*words, f"output={tmp_path / name}", f"features.mode={mode}"])
        for name, mode in (("a", "exact"), ("b", "live"))
    ]
    assert [run.test_loss for run in runs] == [runs[0].test_loss] * 2
    assert [run.val_loss for run in runs] == [runs[0].val_loss] * 2
    with (runs[0].folder / "predictions.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    model = tlx.load(runs[0].folder, device="cpu")
    assert len(model.preprocessing.views) == 9
    for row, found in zip(table, model.predict([row["file"] for row in table], unknown=False), strict=True):
        assert (found.prediction, f"{found.probability:.6f}") == (row["prediction"], row["probability"])
    plain = dataclasses.replace(model, preprocessing=dataclasses.replace(model.preprocessing, views=()))
    files = [row["file"] for row in table]
    of_order = [prediction for prediction, _ in label_ranking.seen(model, map(Path, files))]
    assert of_order == model.predict(files, unknown=False)
    assert any(a != b for a, b in zip(plain.predict(files), model.predict(files), strict=True))


def test_an_exported_file_averages_over_them_too(tmp_path: Path) -> None:
    run = save(tmp_path / "run", "small_cnn")
    file = run / "model" / "model.json"
    description = json.loads(file.read_text())
    plain = predictor.load(run, "cpu")
    description["preprocessing"]["views"] = [dataclasses.asdict(CORNER), {"flip": True}]
    file.write_text(json.dumps(description))
    assert run_export(run, "--format", "onnx", "--input", "resized") == 0  # compared with the model
    model = predictor.load(run, "cpu")
    size = model.preprocessing.input_size
    x = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    views = [plain.logits(view) for view in (x, CORNER.of(x), x.flip(-1))]
    torch.testing.assert_close(model.logits(x), torch.stack(views).mean(0))
    logits, _ = run_session(session_of(run / "export" / "model.onnx"), x)
    torch.testing.assert_close(torch.as_tensor(logits), model.logits(x), atol=1e-4, rtol=1e-4)
    assert run_export(run, "--format", "state_dict") == 0  # of weights, compared without them


def test_a_damaged_view_is_refused(tmp_path: Path) -> None:
    run = save(tmp_path / "run", "vit")
    file = run / "model" / "model.json"
    description = json.loads(file.read_text())
    description["preprocessing"]["views"] = [{"side": 3.0}]
    file.write_text(json.dumps(description))
    with pytest.raises(RequestError, match="within the view"):
        predictor.load(run, "cpu")
