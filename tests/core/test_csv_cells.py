"""Tables that people open in a spreadsheet: nothing is a formula, numbers stay numbers, and all of it comes back."""

import csv
import io
import shutil
from pathlib import Path

import pytest

from tests.inference.test_predictor import write_images
from tlx.cli.main import main
from tlx.core.csv_cells import Table, cell, text
from tlx.inference import comparison_images
from tlx.runs import run_reader
from tlx.tracking.mlflow_worker import model_registry

NAMES = ["=1+1", "@home", "+a", "-b", "\t=x", "'=x", "''@y", "'x", "-", "=", "größe", "", "a=b", "-1 (x)", "=1\n2"]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_no_formula_and_comes_back(name: str) -> None:
    stream = io.StringIO()
    Table(stream).row([name])
    ((written,),) = csv.reader(io.StringIO(stream.getvalue(), newline="")) if name else [[""]]
    assert text(written) == name
    assert len(written) < 2 or written[0] not in "=+-@\t\r"
    assert text(name) == name or name.startswith("'")  # as tables of before have it


@pytest.mark.parametrize("number", [-0.5, 1e-7, -3, -1e-5, "-0.500000", "+1", "-1e-05", "-.5", "-inf", None])
def test_numbers_stay_numbers(number: object) -> None:
    stream = io.StringIO()
    Table(stream).row([number, 1])
    assert stream.getvalue() == f"{'' if number is None else number},1\r\n"


def test_a_run_on_classes_that_look_like_formulas_is_predicted_with_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    classes = ("=1+1", "-2")
    write_images(Path("d"), classes, 8)
    typed = ["dataset=image_folder", "dataset.root=d", "backbone=small_cnn", "backbone.input_size=16", "tracking=none"]
    assert main([*typed, "strategy=scratch", "training.epochs=1", "hydra.run.dir=outputs/run"]) == 0
    run = Path("outputs/run")
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["label"] for row in csv.DictReader(stream)} == {"'=1+1", "-2"}
    assert set(run_reader.read(run).predicted.labels) == set(classes)
    shutil.copy("d/-2/0.png", "@me.png")
    assert main(["predict", str(run), "@me.png", "--csv", "p.csv"]) == 0
    with Path("p.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["file"] == "'@me.png"
    assert row["prediction"] in ("'=1+1", "-2")
    # A table that a version of before wrote has the same images.
    shutil.copytree(run, "outputs/old")
    new = (run / "predictions.csv").read_text(encoding="utf-8")
    old = new.replace("'=1+1", "=1+1")
    (Path("outputs/old") / "predictions.csv").write_text(old, encoding="utf-8")
    capsys.readouterr()
    assert main(["compare", "outputs/run", "outputs/old"]) == 0
    assert "other images" not in capsys.readouterr().out
    assert run_reader.read(run).predicted.images == run_reader.read(Path("outputs/old")).predicted.images
    assert "other test images" not in model_registry.compare(old, new)
    assert [file.name for file in comparison_images.tested_files(run)] == [
        f"{Path(f).name}" for f in run_reader.read(run).predicted.files
    ]
    assert cell("x") == "x"
