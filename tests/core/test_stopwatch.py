"""A run's time: each moment is one part's, the parts sum to the whole, and a run that goes on adds to what it had."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tlx
from tests.conftest import ROOT
from tests.sweeps.test_sweep import jobs_of
from tlx.cli.main import main
from tlx.core import stopwatch
from tlx.core.stopwatch import Clock

SMALL = [
    "backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4", "training.epochs=2",
    "tracking=none",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_part_within_another_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> float:
        now[0] += seconds
        return seconds

    watch = Clock()
    passes(1)
    with watch.part("training"):
        passes(2)
        with watch.part("features"):  # that training requests
            passes(3)
        with watch.part("saving"):
            passes(4)
        passes(5)
    assert list(watch.each("evaluation", (passes(6) for _ in range(2)))) == [6, 6]
    passes(0.5)
    parts = {"start": 1.5, "features": 3.0, "training": 7.0, "saving": 4.0, "evaluation": 12.0}
    assert watch.total() == {"data": 0.0, **parts, "total": 27.5}
    # What an older tlx has written knows fewer parts.
    watch.add({"data": 1.0, "training": 2.0, "total": 10.0})
    assert watch.total() == {**parts, "data": 1.0, "training": 9.0, "other": 7.0, "total": 37.5}


def test_only_one_run_of_a_command_counts_how_it_began() -> None:
    with stopwatch.command(time.perf_counter() - 50.0):
        assert Clock().total()["total"] < 40
        assert Clock(whole=True).total()["start"] >= 50
        assert Clock(whole=True).total()["total"] < 40
    assert Clock(whole=True).total()["total"] < 40


def test_a_process_knows_its_age() -> None:
    code = "import time; time.sleep(0.3); from tlx.core.stopwatch import process_age; print(process_age())"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert 0.2 <= float(done.stdout) <= time.perf_counter() - began + 0.1


def test_the_parts_of_a_run_are_all_of_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    assert main([*SMALL, "source=shapes", "source.dataset.train=8", "source.training.epochs=1", "strategy=full"]) == 0
    took = time.perf_counter() - began
    said = capsys.readouterr().out
    (file,) = here.glob("outputs/2*/*/summary.json")
    found = json.loads(file.read_text())["seconds"]
    assert sum(found.values()) - found["total"] == pytest.approx(found["total"])
    assert 0.8 * took <= found["total"] <= took
    assert found["source"] > 0
    assert "source " in next(line for line in said.splitlines() if line.startswith("time"))
    parts = {"start", "data", "network", "source", "features", "training", "evaluation", "saving", "pictures"}
    assert found.keys() >= parts


def test_a_run_that_goes_on_adds_up_and_so_does_a_sweeps_job(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlx.runs import model_saving

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model_saving, "describe", stopped)
        with pytest.raises(KeyboardInterrupt):
            tlx.run([*SMALL, "hydra.run.dir=stopped"])
    before = json.loads((here / "stopped/summary.json").read_text())["seconds"]
    began = time.perf_counter()
    assert main(["resume", "stopped"]) == 0
    took = time.perf_counter() - began
    after = json.loads((here / "stopped/summary.json").read_text())["seconds"]
    assert after["training"] >= 0.9 * before["training"]
    assert after["data"] > before["data"]
    assert after["total"] <= before["total"] + took
    assert main(["-m", "sweep.name=two", *SMALL, "seed=0,1"]) == 0
    for folder in jobs_of("two").values():
        spent = json.loads((folder / "summary.json").read_text())["seconds"]
        assert sum(spent.values()) - spent["total"] == pytest.approx(spent["total"])
