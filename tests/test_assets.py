"""What earlier versions left behind stays usable: `tests/assets/<version>` holds folders as that version wrote them.

Made with `small_cnn` at 16 and 8 pixels on drawn shapes, in fp32 on a processor: a finished run with three pictures and
its predictions of them, a run that was interrupted after 8 of 12 epochs, the same run uninterrupted, a sweep and a
study. No picture or page is among them. A change of a format adds a folder of its version, and changes none.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tlx
from tlx.cli.main import main

ASSETS = Path(__file__).parent / "assets"
VERSIONS = sorted(folder.name for folder in ASSETS.iterdir())
SHAPES = [
    "backbone=small_cnn",
    "backbone.input_size=8",
    "dataset=shapes",
    "dataset.train=12",
    "dataset.test=6",
    "dataset.size=24",
    "tracking=none",
    "runtime.device=cpu",
    "runtime.precision=fp32",
    "runtime.threads=1",
    "features.store=0",
]


@pytest.fixture(params=VERSIONS)
def left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a version left, in the current folder."""
    folder = tmp_path / "left"
    shutil.copytree(ASSETS / request.param, folder)
    monkeypatch.chdir(tmp_path)
    return folder


def rows(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run without what depends on the machine's speed."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("images_per_second", "seconds")} for line in lines]


def changed(folder: Path) -> dict[Path, int]:
    """When each saved model below a folder was written."""
    return {file: file.stat().st_mtime_ns for file in sorted(folder.rglob("model.safetensors"))}


def test_a_saved_model_predicts_as_it_did(left: Path) -> None:
    said = json.loads((left / "predictions.json").read_text(encoding="utf-8"))
    model = tlx.load(left / "finished")
    found = model.predict([left / "images" / name for name in said])
    assert [one.prediction for one in found] == [known["prediction"] for known in said.values()]
    # Processors round differently; torch before 2.9 rounds a sixth of the resized pixels to the next level.
    near = 1e-3 if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9) else 1e-5
    assert [one.probability for one in found] == pytest.approx([k["probability"] for k in said.values()], abs=near)


def test_an_interrupted_run_becomes_what_it_would_have_been(left: Path) -> None:
    before = rows(left / "interrupted")
    assert main(["resume", str(left / "interrupted")]) == 0
    summary = json.loads((left / "interrupted" / "summary.json").read_text(encoding="utf-8"))
    whole = json.loads((left / "uninterrupted" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "finished"
    assert summary["identity"] == whole["identity"]
    assert summary["best_epoch"] == whole["best_epoch"]
    assert summary["test_loss"] == pytest.approx(whole["test_loss"], rel=1e-4)
    found, expected = rows(left / "interrupted"), rows(left / "uninterrupted")
    assert found[: len(before)] == before
    for row, known in zip(found, expected, strict=True):
        assert row == {key: pytest.approx(v, rel=1e-4) if isinstance(v, float) else v for key, v in known.items()}


def test_a_finished_run_is_not_run_again_by_its_sweep(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = changed(left / "sweeps" / "lr")
    sweep = ["strategy=scratch", "training.epochs=2", "training.lr=1e-3,3e-3", "sweep.name=lr"]
    assert main(["-m", "output=left", *SHAPES, *sweep]) == 0
    assert capsys.readouterr().err.count("finished already") == len(models) == 2
    assert changed(left / "sweeps" / "lr") == models


def test_sweeps_and_runs_are_compared(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "lr", str(left / "finished"), "--output", "left", "--csv", "table.csv"]) == 0
    assert "61.1%" in capsys.readouterr().out
    assert len(Path("table.csv").read_text(encoding="utf-8").splitlines()) == 4


def test_a_study_goes_on(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = changed(left / "sweeps" / "found")
    overrides = ["strategy=scratch", "training.epochs=2", "training.lr=interval(1e-4,1e-2)", "sweep.name=found"]
    search = ["search", "output=left", *SHAPES, *overrides]
    assert main([*search, "--trials", "2"]) == 0
    assert changed(left / "sweeps" / "found") == models
    assert main([*search, "--trials", "3"]) == 0
    after = changed(left / "sweeps" / "found")
    assert len(after) == 3
    assert {file: after[file] for file in models} == models
    capsys.readouterr()


def test_a_finished_run_can_be_measured_and_exported(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["dataset=shapes", "dataset.train=12", "dataset.test=6", "dataset.size=24"]
    assert main(["evaluate", str(left / "finished"), *data, "--part", "test"]) == 0
    said = capsys.readouterr().out
    assert "61.1%" in said
    assert "none of these images, in training or validation" in said  # its own test set
    assert main(["evaluate", str(left / "finished"), *data]) == 0
    assert "unknown: the model was saved without" in capsys.readouterr().out  # saved before digests were kept
    assert main(["export", str(left / "finished"), "--format", "state_dict"]) == 0
