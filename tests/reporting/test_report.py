"""The pictures of a run are whole files that show every class and phase, and the card says what was found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.core.confusion_matrices import counted
from tlx.core import calibration
from tlx.core.errors import RequestError
from tlx.reporting import reliability_plot, run_plots
from tlx.tracking.run_card import card

LONG = [
    "Quercus robur subsp. pedunculiflora (Pedunculate oak)",
    "Quercus robur subsp. brutia (Pedunculate oak)",
    "Übergrößenträger — with a dash, $dollars$ and _lines_",
]


def rows(phases: dict[str, int]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for phase, epochs in phases.items():
        for _ in range(epochs):
            e = len(made) + 1
            losses = {"train_loss": 1 / e, "val_loss": 1.2 / e}
            made.append({"phase": phase, "epoch": e, **losses, "val_accuracy": 1 - 0.5 / e, "lr": 1e-3})
    return made


def images(n: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = [(30, 200), (200, 30), (64, 64), (1, 1)]
    return [generator.integers(0, 256, (*sizes[i % 4], 3), dtype=np.uint8) for i in range(n)]


def ink(path: Path) -> float:
    """The share of pixels that are not white, of a picture that is whole."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("L"))
    return float((pixels < 250).mean())


@pytest.mark.parametrize("phases", [{"probe": 1}, {"probe": 10}, {"head": 1, "last": 1, "all": 1}, {"train": 120}])
def test_curves_are_drawn_for_any_number_of_epochs_and_phases(phases: dict[str, int], tmp_path: Path) -> None:
    run_plots.curves(rows(phases), tmp_path / "curves.png")
    assert ink(tmp_path / "curves.png") > 0.01
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize(
    "classes",
    [
        ["ants", "bees"],
        [f"class {i}" for i in range(10)],
        LONG,
        [str(i) for i in range(100)],
        [str(i) for i in range(950)],
    ],
)
def test_a_confusion_matrix_is_drawn_for_any_classes(classes: list[str], tmp_path: Path) -> None:
    k = len(classes)
    matrix = np.eye(k, dtype=np.int64) * 9 + 1
    matrix[0] = 0  # a class that the test set lacks
    run_plots.confusion(counted(matrix), classes, tmp_path / "confusion.png")
    assert ink(tmp_path / "confusion.png") > 0.02


def test_names_of_any_width_are_within_the_picture(tmp_path: Path) -> None:
    for k in (2, 12):
        run_plots.confusion(
            counted(np.eye(k, dtype=np.int64)), [f"{'W' * 22}{i:2}" for i in range(k)], tmp_path / "confusion.png"
        )
        with Image.open(tmp_path / "confusion.png") as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(edge.min() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])) == 255


@pytest.mark.parametrize(("classes", "n"), [(2, 1), (2, 153), (1000, 500)])
def test_a_reliability_diagram_is_drawn_for_any_number_of_images(classes: int, n: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(1 / classes, 1, n)
    found = calibration.reliability(sure, random.random(n) < sure)
    figures = {"log_loss": 0.5, "ece": found.error, "bins": found.rows()}
    for temperature in (1.0, 1.4):
        drawn = {"temperature": temperature, "before": figures, "after": figures}
        reliability_plot.reliability(drawn, classes, tmp_path / "reliability.png")
        assert ink(tmp_path / "reliability.png") > 0.005


def test_a_confusion_matrix_without_images_is_drawn(tmp_path: Path) -> None:
    run_plots.confusion(counted(np.zeros((2, 2), dtype=np.int64)), ["a", "b"], tmp_path / "confusion.png")
    assert ink(tmp_path / "confusion.png") > 0.01


@pytest.mark.parametrize("n", [1, 3, 5, 30])
def test_predictions_are_drawn_for_any_number_of_images_of_any_size(n: int, tmp_path: Path) -> None:
    labels = [i % 3 for i in range(n)]
    said = [(i // 2) % 3 for i in range(n)]
    run_plots.predictions(images(n), labels, said, [0.5] * n, LONG, tmp_path / "predictions.png")
    with Image.open(tmp_path / "predictions.png") as picture:
        rows_of_pictures = -(-min(n, run_plots.GRID) // run_plots.COLUMNS)
        assert picture.width > picture.height / rows_of_pictures
    assert ink(tmp_path / "predictions.png") > 0.02


def test_mistakes_come_first_and_every_class_is_shown() -> None:
    labels = [0] * 50 + [1] * 50 + [2] * 50
    said = list(labels)
    said[3], said[60] = 2, 0
    probabilities = [0.9] * 150
    probabilities[3], probabilities[60], probabilities[149] = 0.6, 0.8, 0.4
    chosen = run_plots.choose(labels, said, probabilities)
    assert len(chosen) == run_plots.GRID
    assert chosen[:2] == [60, 3]
    counts = [sum(labels[i] == c for i in chosen[2:]) for c in range(3)]
    assert counts == [6, 6, 6]
    assert 149 in chosen[2:5]  # the least sure of its class
    again = run_plots.choose(*([x[i] for i in chosen] for x in (labels, said, probabilities)))
    assert again == list(range(run_plots.GRID))


def test_long_names_get_short_and_stay_different() -> None:
    many = [f"a very long name that all of them share, number {i}, and so on and on" for i in range(30)]
    for names in (LONG, many, ["a", "b"], ["same", "same"]):
        short = run_plots.short_names(names, 20)
        assert len(set(short)) == len(set(names))
        assert all(s == n or "…" in s for s, n in zip(short, names, strict=True))
    assert run_plots.short_names(["ants", "bees"], 20) == ["ants", "bees"]
    assert max(map(len, run_plots.short_names(LONG, 30))) <= 30


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: run_plots.curves(rows({"probe": 2}), path),
        lambda path: run_plots.confusion(counted(np.eye(2, dtype=np.int64)), ["a", "b"], path),
        lambda path: run_plots.predictions(images(2), [0, 1], [0, 0], [0.9, 0.8], ["a", "b"], path),
    ],
)
def test_a_picture_that_cannot_be_written_is_named_with_its_path(draw: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    (tmp_path / "x.png" / "full").touch()
    with pytest.raises(RequestError, match=r"^cannot write .*x\.png"):
        draw(tmp_path / "x.png")


def test_the_card_says_what_was_found_and_how_to_get_it_again() -> None:
    summary = {
        "status": "finished", "test_accuracy": 0.947712, "test_accuracy_interval": [0.9, 0.97],
        "accuracy_before_training": 0.366, "images": {"train": 195, "val": 49, "test": 153},
        "classes": ["ants", "bees"], "best_epoch": 7, "epochs": 10, "device": "cpu", "precision": "bf16",
        "command": "python -m tlx dataset=ants_bees",
    }  # fmt: skip
    said = card(summary)
    assert "**Test accuracy 94.8%** (95 % interval 90.0% to 97.0%), 36.6% with an untrained head\n" in said
    assert "- images: 195 train, 49 val, 153 test\n- classes: 2: ants, bees\n- best epoch: 7 of 10\n" in said
    assert said.endswith("```\npython -m tlx dataset=ants_bees\n```\n")


def test_the_card_of_a_run_that_failed_says_why() -> None:
    assert card({"status": "failed", "error": "the loss is not a number"}) == "failed: the loss is not a number\n"
