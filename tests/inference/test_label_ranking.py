"""What to label next: the order that each ranking means, and what has no place in it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlx.backbones import factories
from tlx.cli.main import main
from tlx.config.schema import Backbone, Head
from tlx.datasets.content_digests import digest_of
from tlx.inference import saved_model
from tlx.inference.label_ranking import diverse, uncertainty

CLASSES = ("ant", "bee")
SIZE = 16


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in two class folders and one that is no class."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(12):
        file = folder / (*CLASSES, "other")[number % 3] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8) // (1 + number % 2)).save(file)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A model that has learned the first image, and nothing of it."""
    home = tmp_path_factory.mktemp("run")
    stages = {"conv1": ["conv1"], "conv2": ["conv2"], "fc": ["fc"], "head": ["head"]}
    backbone = Backbone(
        "tlx.backbones.small_cnn", "small_cnn", weights="none", input_size=SIZE, resize=str(SIZE), crop=str(SIZE),
        mean=[0, 0, 0], std=[1, 1, 1], interpolation="bilinear", stages=stages,
    )  # fmt: skip
    net, preprocessing = factories.build(backbone, Head(), len(CLASSES), seed=0)
    with torch.no_grad():
        net[-1][-1].weight.mul_(30)
    facts = {"data": {"name": "drawn", "fingerprint": "0", "seed": 0}}
    learned = {"train": [digest_of((photos / "ant" / "0.png").read_bytes())], "val": []}
    saved_model.save(
        home / "model", net, backbone, Head(), CLASSES, preprocessing, saved_model.Format("fp32", "head"), facts,
        images=learned,
    )  # fmt: skip
    return home


def listed(capsys: pytest.CaptureFixture[str], run: Path, photos: Path, *more: str) -> tuple[list[dict[str, str]], str]:
    assert main(["predict", str(run), str(photos), "--csv", *more]) == 0
    printed = capsys.readouterr()
    return list(csv.DictReader(printed.out.splitlines())), printed.err


def test_the_most_uncertain_come_first_without_what_has_a_label(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, said = listed(capsys, run, photos, "--rank", "uncertain")
    assert len(rows) == 11
    assert "left out: 1 images that the model was trained on" in said
    margins = [abs(float(row["p(ant)"]) - float(row["p(bee)"])) for row in rows]
    assert margins == sorted(margins)
    assert [float(row["score"]) for row in rows] == pytest.approx([1 - margin for margin in margins], abs=2e-6)
    assert listed(capsys, run, photos, "--rank", "uncertain", "--top", "3")[0] == rows[:3]


def test_the_most_confident_contradictions_come_first(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, said = listed(capsys, run, photos, "--rank", "mistaken")
    assert {row["folder"] for row in rows} <= {*CLASSES}
    assert all(row["prediction"] != row["folder"] == Path(row["file"]).parent.name for row in rows)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert "4 images in folders that are no class" in said
    assert "has learned 1 of the images" in said
    assert main(["predict", str(run), str(photos / "other"), "--rank", "mistaken"]) == 2
    assert "named as one of the model's classes (ant, bee)" in capsys.readouterr().err


def test_the_page_and_json_have_the_same_order(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, lines = tmp_path / "a.html", tmp_path / "a.json"
    files = ["--html", str(page), "--json", str(lines)]
    assert main(["predict", str(run), str(photos), "--rank", "diverse", "--top", "4", *files]) == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    places = [page.read_text().index(Path(row["file"]).name) for row in rows]
    assert places == sorted(places)
    assert "unlike the training images" in page.read_text()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--rank", "uncertian"], "--rank uncertian: must be uncertain, diverse, mistaken; did you mean uncertain?"),
        (["--rank", "diverse", "--sort", "given"], "--sort given: --rank has an order of its own"),
        (["--rank", "diverse", "--top", "0"], "--top 0: must be at least 1"),
    ],
)
def test_a_wrong_request_is_one_line(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str], typed: list[str], said: str
) -> None:
    assert main(["predict", str(run), str(photos), *typed]) == 2
    assert said.split(";")[0] in capsys.readouterr().err


def test_diverse_images_are_unlike_the_training_images_and_each_other() -> None:
    east, north, west = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    features = torch.tensor([east, east, north, north, west])
    chosen, scores = diverse(features, torch.ones(5), torch.tensor([east]), 3)
    assert chosen[:2] == [4, 2]
    assert scores == pytest.approx([1.0, 0.5, 0.0])
    chosen, _ = diverse(features, torch.tensor([1.0, 1.0, 1.0, 0.1, 0.1]), torch.tensor([east]), 1)
    assert chosen == [2]  # what the model is sure of comes later
    assert sorted(diverse(features, torch.ones(5), None, 9)[0]) == [0, 1, 2, 3, 4]


def test_uncertainty_is_one_less_the_margin() -> None:
    found = uncertainty(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.7, 0.1]]))
    assert found.tolist() == pytest.approx([1.0, 0.0, 0.5])
