"""Images of none of the classes: the score, what a saved model keeps of it, and what is predicted with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tlx.backbones import factories
from tlx.config.schema import Backbone, Head
from tlx.core.errors import RequestError
from tlx.core.int8_rows import quantised
from tlx.inference import predictor, saved_model, unknown_score
from tlx.inference.embedding import embedded
from tlx.inference.unknown_score import UnknownScore

STAGES = {"conv1": ["conv1"], "conv2": ["conv2"], "fc": ["fc"], "head": ["head"]}
CLASSES = ("ant", "bee")


def images(n: int, seed: int) -> np.ndarray:
    """Smooth noise, so that features differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that knows twenty images, with a threshold that it is 0 from, and beyond which all others are."""
    backbone = Backbone(
        "tlx.backbones.small_cnn", "small_cnn", weights="none", input_size=32, resize="squash",
        mean=[0, 0, 0], std=[1, 1, 1], interpolation="bilinear", stages=STAGES,
    )  # fmt: skip
    net, preprocessing = factories.build(backbone, Head(), len(CLASSES), seed=0)
    with torch.no_grad():
        features = net[:-1].eval()(torch.from_numpy(images(20, seed=0)).permute(0, 3, 1, 2))
    score = UnknownScore(quantised(features), neighbours=1, threshold=1e-4)
    how = saved_model.Format("fp32", "head")
    saved_model.save(tmp_path / "model", net, backbone, Head(), CLASSES, preprocessing, how, {}, unknown=score)
    return tmp_path


def test_images_like_none_of_the_reference_are_unknown_and_their_classes_stay_visible(folder: Path) -> None:
    model = predictor.load(folder, "cpu")
    known, others = model.predict(images(20, seed=0)), model.predict(images(20, seed=1))
    assert {p.prediction for p in known} <= set(CLASSES)
    assert {p.prediction for p in others} == {"unknown"}
    assert all(p.probability == max(p.probabilities.values()) and p.top(1)[0][0] in CLASSES for p in others)
    classes = model.predict(images(20, seed=1), unknown=False)
    assert [p.prediction for p in classes] == [p.top(1)[0][0] for p in others]
    assert [p.unknown_score for p in classes] == [p.unknown_score for p in others]
    assert [one.prediction for one in embedded(model, images(20, seed=1))] == others


def test_a_model_without_the_score_says_so_of_no_image(folder: Path) -> None:
    with_score = predictor.load(folder, "cpu").predict(images(5, seed=1), unknown=False)
    saved_model.describe(folder / "model", {"unknown": None})
    plain = predictor.load(folder, "cpu")
    assert plain.unknown_threshold is None
    found = plain.predict(images(5, seed=1))
    assert [(p.prediction, p.probabilities, p.unknown_score) for p in found] == [
        (p.prediction, p.probabilities, None) for p in with_score
    ]


def test_without_a_threshold_there_is_a_score_and_no_unknown(folder: Path) -> None:
    file = folder / "model" / "model.json"
    known = json.loads(file.read_text(encoding="utf-8"))["unknown"]
    saved_model.describe(folder / "model", {"unknown": {**known, "threshold": None}})
    found = predictor.load(folder, "cpu").predict(images(5, seed=1))
    assert all(p.prediction in CLASSES and p.unknown_score is not None for p in found)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"threshold": 3.0}, "unknown.threshold=3.0: must be null or in 0..2"),
        ({"threshold": float("nan")}, "unknown.threshold=nan"),
        ({"neighbours": 21}, "21 neighbours"),
        ({"neighbours": 0}, "0 neighbours"),
        ({"reference": "sha256:0"}, "reference.safetensors is not the file that the description was written for"),
    ],
)
def test_a_score_that_nobody_saved_is_refused(folder: Path, change: dict[str, object], line: str) -> None:
    file = folder / "model" / "model.json"
    known = json.loads(file.read_text(encoding="utf-8"))["unknown"]
    saved_model.describe(folder / "model", {"unknown": {**known, **change}})
    with pytest.raises(RequestError) as raised:
        predictor.load(folder, "cpu")
    assert line in str(raised.value)


def test_a_missing_reference_is_said(folder: Path) -> None:
    (folder / "model" / unknown_score.FILE).unlink()
    with pytest.raises(RequestError, match=r"reference\.safetensors is missing"):
        predictor.load(folder, "cpu")


def test_eight_bits_change_a_distance_by_less_than_a_thousandth() -> None:
    features = torch.randn(300, 512, generator=torch.Generator().manual_seed(0)).relu()
    score = UnknownScore(quantised(features[:200]), neighbours=5, threshold=None)
    exact = functional.normalize(features[200:]) @ functional.normalize(features[:200]).T
    assert torch.allclose(score(features[200:]), 1 - exact.topk(5).values.mean(1), atol=1e-3)
    assert torch.allclose(score(10 * features[200:]), score(features[200:]), atol=1e-6)  # the length says nothing


def test_maps_count_as_their_mean_and_the_score_can_be_exported() -> None:
    maps = torch.rand(6, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    score = UnknownScore(quantised(maps.mean((2, 3))), neighbours=2, threshold=None)
    assert torch.allclose(score(maps), score(maps.mean((2, 3))), atol=1e-6)
    program = torch.export.export(score, (maps,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert torch.allclose(program.module()(maps[:4]), score(maps[:4]), atol=1e-6)
