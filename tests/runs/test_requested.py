"""The summary says what was requested and what share of the features was read; the comparison needs nothing else."""

import shutil
from pathlib import Path

import pytest

import tlx
from tlx.cli.main import main
from tlx.runs.run_reader import read
from tlx.sweeps.run_conditions import condition, wanted
from tlx.sweeps.run_list import listed
from tlx.training import checkpoint

TYPED = [
    *("backbone=small_cnn", "backbone.input_size=8", "dataset=shapes", "dataset.train=8", "dataset.test=4"),
    *("dataset.size=24", "training.epochs=2", "tracking=none", "runtime.device=cpu", "runtime.precision=fp32"),
]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, whose weights others begin with."""
    monkeypatch.chdir(tmp_path)
    return tlx.run([*TYPED, "strategy=scratch", "loss=focal"]).folder


def test_what_was_typed_and_what_was_read_is_in_the_summary(source: Path) -> None:
    probe = [*TYPED, "strategy=feature_extraction", f"backbone.weights={source}"]
    first = tlx.run([*probe, "training.lr=0.01"])
    assert first.requested["training.lr"] == "0.01"
    assert first.features == {"rows": 19 + 5 + 12, "read": 0}
    (Path(first.folder) / "tlx.log").unlink()
    assert read(first.folder).reused == 0.0
    again = tlx.run([*probe, "training.lr=0.02"])
    assert again.features == {"rows": first.features["rows"], "read": first.features["rows"]}
    assert read(again.folder).reused == 1.0
    assert read(again.folder).requested["training.lr"] == "0.02"
    assert "seed" not in read(again.folder).requested
    losses = [run.choices["loss"] for run in listed(Path("outputs"))]
    assert losses == ["cross_entropy", "cross_entropy", "focal"]
    found = wanted(listed(Path("outputs")), [condition("loss=focal")])
    assert [run.folder.resolve() for run in found] == [Path(source).resolve()]


def test_a_run_that_goes_on_has_both_of_its_processes_in_the_count(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlx.runs.run_recorder import Record

    row = Record.row
    typed = [*TYPED, "strategy=feature_extraction", f"backbone.weights={source}", "hydra.run.dir=outputs/day/stopped"]

    def interrupted(record: Record, values: dict[str, float]) -> None:
        if values["epoch"] == 2:
            raise KeyboardInterrupt
        row(record, values)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "row", interrupted)
        patch.setattr(checkpoint, "_PACE", 0.0)
        assert main(typed) == 130
    folder = Path("outputs/day/stopped")
    shutil.rmtree("outputs/features")
    assert main(["resume", str(folder)]) == 0
    found = read(folder)
    assert found.requested["strategy"] == "feature_extraction"
    counts = found.summary["features"]
    assert counts["rows"] > 0
    assert counts["read"] == 0
    assert main(typed[:-1]) == 0
    (whole,) = (run for run in Path("outputs").glob("2*/*") if "feature_extraction" in run.name)
    once = read(whole).summary["features"]
    assert once["rows"] == once["read"] < counts["rows"]
