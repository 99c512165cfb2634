"""Sweeps: each combination once, whatever happens; seeds and folds; jobs that leave nothing to each other."""

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import tlx
from tests.conftest import ROOT
from tests.inference.test_predictor import write_images
from tests.runs.test_resume import outcome
from tests.runs.test_run import tracked
from tlx.cli.main import main
from tlx.core.errors import RequestError
from tlx.training import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
TINY = ["backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4", "training.epochs=1"]
KILLS = int(os.environ.get("TLX_TEST_KILLS", "2"))  # how often the twelve jobs are killed; each costs a start


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs_of(sweep: str) -> dict[str, Path]:
    """The folders of a sweep's jobs by what sets them apart."""
    folder = Path("outputs/sweeps") / sweep
    book = json.loads((folder / "sweep.json").read_text())
    return {job["name"]: folder / job["folder"] for job in book["jobs"].values()}


def children(folder: Path) -> tuple[list[Any], list[Any]]:
    """(the sweeps' MLflow runs, those of their jobs)."""
    runs = tracked(folder)
    parents = [run for run in runs if "tlx.sweep" in run.data.tags]
    ids = {run.info.run_id for run in parents}
    return parents, [run for run in runs if run.data.tags.get("mlflow.parentRunId") in ids]


def test_typed_again_it_skips_what_is_done_and_a_wider_one_only_adds(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["-m", "sweep.name=mine", *TINY, "strategy=scratch"]
    assert main([*typed, "seed=0,1"]) == 0
    before = {name: (folder / "summary.json").stat().st_mtime_ns for name, folder in jobs_of("mine").items()}
    assert "2 of 2 jobs finished" in capsys.readouterr().err
    assert main([*typed, "seed=0,1"]) == 0
    assert capsys.readouterr().err.count("finished already, test accuracy") == 2
    assert main([*typed, "seed=0,1,2"]) == 0
    assert main([*typed, "seed=3"]) == 0  # seeds were varied before
    now = {name: (folder / "summary.json").stat().st_mtime_ns for name, folder in jobs_of("mine").items()}
    assert {name.split()[-1] for name in now if name} >= {"seed=0", "seed=1", "seed=2"}
    assert len(now) == 4
    assert sorted(now.values())[:2] == sorted(before.values())
    ((parent,), jobs) = children(here)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "mine"
    assert [job.info.status for job in jobs] == ["FINISHED"] * 4
    assert len({job.data.tags["tlx.identity"] for job in jobs}) == 4
    found = [job.data.metrics["test_accuracy"] for job in jobs]
    assert parent.data.metrics["test_accuracy"] == pytest.approx(sum(found) / len(found))
    assert parent.data.tags["tlx.chosen"] == "backbone=small_cnn strategy=scratch"
    picture = f"get-artifact?path=plots/accuracies.png&run_uuid={parent.info.run_id}"
    assert picture in parent.data.tags["mlflow.note.content"]
    made = {"comparison.csv", "comparison.html", "comparison.png", "accuracies.png", "sweep.json"}
    assert made <= {file.name for file in Path("outputs/sweeps/mine").iterdir()}


def test_a_name_that_holds_another_sweep_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["-m", "sweep.name=mine", *TINY, "tracking=none", "strategy=scratch"]
    assert main([*typed, "seed=0,1"]) == 0
    capsys.readouterr()
    assert main([*typed, "seed=2,3", "training.lr=0.5"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("tlx: sweep.name=mine: holds another sweep: ")
    assert ": training.lr was 0.001 there and is 0.5 here; take another name, or remove " in said[0]
    assert main([*typed, "seed=2,3", "dataset.noise=1.5"]) == 2
    assert ": dataset.noise was 8.0 there and is 1.5 here; take" in capsys.readouterr().err
    book = Path("outputs/sweeps/mine/sweep.json")
    for text, words in (
        ("{", "cannot be read"),
        ('{"version": 9}', "of version 9, this tlx reads 1"),
        ('{"version": 1}', "cannot be read"),
        ('{"version": 1, "jobs": 3}', "cannot be read"),
    ):
        book.write_text(text)
        assert main([*typed, "seed=2,3"]) == 2
        assert words in capsys.readouterr().err
    assert main(["-m", "sweep.name=../x", "seed=0,1", "tracking=none"]) == 2
    assert "sweep.name=../x: must be a folder's name" in capsys.readouterr().err
    Path("taken").touch()
    for words in (["output=taken"], ["output=/proc/none"], [f"sweep.name={'n' * 300}"]):
        others = [word for word in typed if word.partition("=")[0] != words[0].partition("=")[0]]
        assert main([*others, "seed=0,1", *words]) == 2, words
        said = capsys.readouterr().err
        assert said.startswith("tlx: cannot write "), said
        assert len(said.splitlines()) == 1, said


def test_seeds_and_folds_are_sweeps_with_an_aggregate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seeds=2", "seed=5", "sweep.name=seeds", *TINY, "strategy=scratch", "tracking=none"]) == 0
    assert set(jobs_of("seeds")) == {"seed=5", "seed=6"}
    assert main(["folds=2", "sweep.name=folds", *TINY, "strategy=scratch", "tracking=none"]) == 0
    assert set(jobs_of("folds")) == {"dataset.fold=0", "dataset.fold=1"}
    assert main(["--dry-run", "seeds=2", *TINY, "strategy=scratch"]) == 0
    assert "job 2 of 2: " in capsys.readouterr().out
    with pytest.raises(RequestError, match="seeds and folds make a sweep, not one run"):
        tlx.run(["seeds=2", *TINY])
    for words, line in (
        (["seeds=1"], "seeds=1: must be at least 2 and at most 1000; for one run leave it out; seed=… is its seed"),
        (["-m", "seeds=2", "seed=0,1"], "seeds=2: goes with one seed, the first; leave it out, or seed=0, seed=1"),
        (["-m", "sweep.name=a,b", "seed=0"], "sweep.name=a: must be the same for all jobs of a sweep"),
        (["-m", "launch=basic,joblib", "seed=0"], "launch=basic: must be the same for all jobs of a sweep"),
        (["sweep.name=solo"], "sweep.name=solo: is for a sweep; add -m or seeds=…, or leave it out"),
        (["folds=50"], "dataset.folds=50: class 'circle' has 8 images"),
    ):
        assert main([*words, *TINY, "tracking=none"]) == 2, words
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith(f"tlx: {line}"), said
        assert len(said) == 1, said
    assert not Path("outputs/sweeps/a").exists()


def test_a_failed_job_is_run_again_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["-m", "sweep.name=mine", *TINY, "strategy=scratch", "optimizer=sgd", "training.lr=1e-3,1e30"]
    assert main(typed) == 1
    said = capsys.readouterr().err
    assert "1 of 2 jobs finished" in said
    assert "job 2 failed: phase train, epoch 1: the loss is" in said
    (again,) = (line for line in said.splitlines() if "again: " in line)
    assert "training.lr=1e+30" in again
    assert "sweep.name=mine" in again
    assert main(typed) == 1
    said = capsys.readouterr().err
    assert "job 1 of 2: finished already" in said
    ((parent,), jobs) = children(here)
    assert parent.info.status == "FAILED"
    assert sorted(job.info.status for job in jobs) == ["FAILED", "FINISHED"]
    assert "the loss is" in next(job for job in jobs if job.info.status == "FAILED").data.tags["tlx.error"]


def test_a_finished_job_whose_images_have_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(here / "photos", ("a", "b"))
    typed = ["-m", "sweep.name=mine", *TINY[:2], "dataset=image_folder", "dataset.root=photos", "training.epochs=1"]
    typed += ["tracking=none", "seed=0,1"]
    assert main(typed) == 0
    shutil.copy(here / "photos" / "b" / "0.png", here / "photos" / "a" / "0.png")
    capsys.readouterr()
    assert main(typed) == 1
    said = capsys.readouterr().err
    assert said.count("cannot resume this run: the images have changed (their fingerprint was") == 4
    for folder in jobs_of("mine").values():
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_killed_again_and_again_each_job_is_done_once(here: Path) -> None:
    """`kill -9` at random moments of twelve jobs; typed again each time. Equal to a sweep that nobody disturbed."""
    typed = ["-m", *TINY, "dataset.train=30", "training.epochs=3", "strategy=feature_extraction,scratch"]
    typed += ["seed=0,1,2", "training.lr=1e-3,1e-2"]
    assert main([*typed, "sweep.name=whole", "tracking=none"]) == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tlx", *typed, "sweep.name=killed"]
    drawn = random.Random(KILLS)
    for number in range(KILLS):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        # Spread over the whole: some jobs further each time, then at any moment of one.
        until = min(1 + number * 12 // KILLS, 12)
        for line in process.stderr:
            if line.startswith(f"job {until} of 12".encode()):
                break
        time.sleep(drawn.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert main([*typed, "sweep.name=killed"]) == 0
    whole, killed = jobs_of("whole"), jobs_of("killed")
    assert len(killed) == 12
    for name, folder in killed.items():
        assert outcome(folder) == outcome(whole[name]), name
        assert not [path.name for path in folder.iterdir() if path.name.startswith((".", "checkpoint"))]
    ((parent,), jobs) = children(here)
    assert parent.info.status == "FINISHED"
    assert [job.info.status for job in jobs] == ["FINISHED"] * 12
    assert len(tracked(here)) == 13
    for job in jobs:
        assert len(job.outputs.model_outputs) == 1


@pytest.mark.parametrize("preset", ["joblib", "slurm_local"])
def test_four_jobs_in_processes_of_their_own(here: Path, preset: str, capfd: pytest.CaptureFixture[str]) -> None:
    plugin = {"joblib": "joblib", "slurm_local": "submitit"}[preset]
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher", reason=f"launch={preset} is an extra")
    typed = ["-m", f"launch={preset}", "sweep.name=four", *TINY, "strategy=scratch", "seed=0,1,2,3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tlx", *typed], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "4 of 4 jobs finished" in done.stderr
    assert "difference to the chosen" in done.stdout
    ((parent,), jobs) = children(here)
    assert {run.info.status for run in (parent, *jobs)} == {"FINISHED"}
    assert len(jobs) == 4
    assert main([word for word in typed if not word.startswith("launch")]) == 0  # the launcher is not part of a job
    assert capfd.readouterr().err.count("finished already") == 4
    assert main(["-m", *TINY, "strategy=scratch", "seed=0,1", "tracking=none", "sweep.name=alone"]) == 0
    for name, folder in jobs_of("alone").items():
        assert outcome(folder)["rows"] == outcome(jobs_of("four")[name])["rows"], name


def test_two_launches_at_once_do_each_job_once(here: Path) -> None:
    typed = ["-m", "sweep.name=both", *TINY, "strategy=scratch", "dataset.train=30", "seed=0,1,2", "training.epochs=3"]
    other = subprocess.Popen(
        [sys.executable, "-m", "tlx", *typed],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert main(typed) == 0
    _, said = other.communicate()
    assert other.returncode == 0, said
    ((parent,), jobs) = children(here)
    assert len(jobs) == 3
    assert {run.info.status for run in (parent, *jobs)} == {"FINISHED"}
    assert len(tracked(here)) == 4


def test_thirty_jobs_leave_nothing_to_each_other() -> None:
    typed = ["-m", *TINY, "strategy=feature_extraction", "tracking=none", "sweep.name=many"]
    process, sizes = psutil.Process(), []

    def state() -> tuple[Any, ...]:
        return torch.get_num_threads(), torch.get_default_dtype(), signal.getsignal(signal.SIGINT), os.getcwd()

    assert main([*typed, "seed=0,1,2"]) == 0  # whatever is loaded and allocated once
    before = state()
    for start in range(3, 30, 9):
        assert main([*typed, f"seed=range({start},{start + 9})"]) == 0
        gc.collect()
        sizes.append((process.memory_info().rss, threading.active_count(), process.num_fds()))
    assert state() == before
    assert len(jobs_of("many")) == 30
    first, last = sizes[0], sizes[-1]
    assert last[0] - first[0] < 32 * 2**20, sizes
    assert last[1:] == first[1:], sizes
    alone = tlx.run([*typed[1:-1], "seed=17"])  # a job among others is what it is alone
    assert outcome(alone.folder) == outcome(jobs_of("many")["seed=17"])
    assert not list(Path("outputs/sweeps/many").glob(f"*/{checkpoint.FILE}"))
