"""The search: spaces as typed, a study that survives whatever happens to it, and a test set that has no say."""

import csv
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tlx import schedules
from tlx.cli.main import main
from tlx.core.choose_by import RULES, score
from tlx.core.errors import RequestError
from tlx.search import hyperparameter_search, optuna_study, search_space
from tlx.sweeps.sweep_plan import Planned, single

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
SMALL = [
    "backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4", "training.epochs=2",
    "training.batch_size=8",
]  # fmt: skip
LR = "training.lr=interval(1e-4,1e-1)"
LIT = "schedule={_target_:tests.search.test_search.lit}"  # no group's name: chosen by phase
FUSE: list[tuple[int, BaseException] | None] = [None]  # after so many steps this is raised
STEPS = [0]  # taken, by all that were trained


class CutOff(BaseException):
    """As when the process is killed: nothing catches it."""


def lit(epoch: float, epochs: int) -> float:
    """A cosine schedule that raises what `FUSE` says, at the step that it says."""
    STEPS[0] += 1
    if FUSE[0] is not None:
        steps, error = FUSE[0]
        FUSE[0] = (steps - 1, error)
        if steps == 0:
            FUSE[0] = None
            raise error
    return schedules.cosine(epoch, epochs)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    FUSE[0] = None
    return tmp_path


def words(*more: str, trials: int = 2) -> list[str]:
    return ["search", *SMALL, f"strategy.phases.probe.{LIT}", "tracking=none", *more, "--trials", str(trials)]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "search.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def outcome(folder: Path) -> list[dict[str, str]]:
    """All that two searches of one command have in common."""
    return [{name: cell for name, cell in row.items() if name not in ("seconds", "folder")} for row in table(folder)]


def state(folder: Path) -> dict[str, int]:
    """How many trials the study itself has, by state."""
    with sqlite3.connect(folder / "study.db") as database:
        rows = database.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall()
    database.close()
    return dict(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of two trials that nothing has disturbed."""
    folder, before = tmp_path_factory.mktemp("whole"), Path.cwd()
    os.chdir(folder)
    try:
        STEPS[0] = 0
        assert main(words(LR, "sweep.name=s")) == 0
        (folder / "steps").write_text(str(STEPS[0]))
    finally:
        os.chdir(before)
    return folder / "outputs" / "sweeps" / "s"


@pytest.fixture
def copied(whole: Path, here: Path) -> Path:
    """A copy of that search, to go on with."""
    folder = here / "outputs" / "sweeps" / "s"
    shutil.copytree(whole, folder)
    return folder


@pytest.mark.parametrize(
    ("typed", "described", "every"),
    [
        ("training.lr=interval(1e-5,1e-2)", "1e-05 to 0.01, log scale", None),  # it spans two decades and more
        ("training.lr=interval(0.01,0.1)", "0.01 to 0.1", None),
        ("training.lr=tag(log, interval(0.01,0.1))", "0.01 to 0.1, log scale", None),
        ("training.lr=tag(linear, interval(1e-5,1e-2))", "1e-05 to 0.01", None),
        ("head.dropout=interval(0,0.5)", "0 to 0.5", None),
        ("training.epochs=int(interval(2,5))", "2 to 5", ["2", "3", "4", "5"]),
        ("training.batch_size=range(16,65,16)", "16 to 64, steps of 16", ["16", "32", "48", "64"]),
        ("head.dropout=range(0.1,0.45,0.1)", "0.1 to 0.4, steps of 0.1", ["0.1", "0.2", "0.3", "0.4"]),
        ("training.epochs=range(5,1,-1)", "2 to 5", ["2", "3", "4", "5"]),
        ("strategy=feature_extraction,finetune", "feature_extraction, finetune", ["feature_extraction", "finetune"]),
        ("training.lr=choice(1e-3,1e-2,1e-3)", "0.001, 0.01", ["0.001", "0.01"]),
        ("backbone.weights=~/my nets (2)/a.pt,none", "'~/my nets (2)/a.pt', none", ["'~/my nets (2)/a.pt'", "none"]),
    ],
)
def test_a_space_is_what_hydra_reads(typed: str, described: str, every: list[str] | None) -> None:
    fixed, (axis,) = search_space.read(["seed=3", typed])
    assert fixed == ["seed=3"]
    assert f"{axis.key}={axis}" == f"{typed.partition('=')[0]}={described}"
    assert axis.all() == every
    assert search_space.points([axis]) == (every and [(text,) for text in every])
    assert all(axis.text(axis.value(text)) == text for text in axis.ends())


def test_a_key_with_one_choice_is_no_axis_and_points_are_every_combination() -> None:
    fixed, axes = search_space.read(["strategy=choice(scratch)", "training.epochs=1,2", "head.dropout=range(0,1,0.5)"])
    assert fixed == ["strategy=scratch"]
    assert search_space.points(axes) == [("1", "0.0"), ("1", "0.5"), ("2", "0.0"), ("2", "0.5")]
    assert search_space.typed(axes, ("1", "0.5")) == ["training.epochs=1", "head.dropout=0.5"]
    assert search_space.points(search_space.read(["training.epochs=int(interval(1,1000000))"])[1]) is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "search: there is nothing to search; give a key several values, as in training.lr=interval(1e-5,1e-2) "
             "or strategy=feature_extraction,finetune"),
        (["training.lr=interval(1e-2,1e-5)"],
         "training.lr=interval(1e-2,1e-5): the interval's low end must be less than its high end"),
        (["training.lr=tag(log, interval(0,1))"], "training.lr=tag(log, interval(0,1)): a log scale needs a low end "
         "above 0, as in training.lr=tag(log, interval(1e-5,1e-2))"),
        (["training.lr=tag(lin, interval(0,1))"],
         "training.lr=tag(lin, interval(0,1)): the tag of an interval is log or linear"),
        (["training.lr=tag(log, choice(1,2))"], "training.lr=tag(log, choice(1,2)): only an interval takes a tag, as "
         "in training.lr=tag(log, interval(1e-5,1e-2))"),
        (["training.epochs=range(3,3)"],
         "training.epochs=range(3,3): the range has no values; range(16,65,16) is 16, 32, 48 and 64"),
        (["training.lr=interval(1e-5)"], "training.lr=interval(1e-5): cannot be read (missing a required argument: "
         "'end'); write interval(low,high), range(start,stop,step), choice(a,b) or a,b"),
        (["strategy=glob(*)"], "strategy=glob(*): name the choices, as in strategy=choice(a,b)"),
        (["training.lr=1,2", "training.lr=3"], "training.lr=3: training.lr is given twice"),
        (["training.lrr=interval(1e-5,1e-2)"], "training.lrr=1e-05: no such key (did you mean 'training.lr'?); "
         "`python -m tlx --cfg job` lists them all"),
        (["training.lr=interval(-1,1)"], "training.lr=-1.0: must be more than 0, or auto"),
        (["seed=1,2"], "seed: is not searched: trials are compared on the same images and seed"),
        (["dataset=shapes,new_shapes"], "dataset: is not searched: trials are compared on the same images and seed"),
        (["runtime.workers=0,1"], "runtime.workers: is not searched: 0 and 1 give the same result"),
        (["training.lr=1,2", "seeds=3"],
         "search: a trial is one run; leave out seeds and folds, and repeat the best with them"),
        (["training.lr=1,2", "--trials", "0"], "--trials 0: must be at least 1"),
        (["training.lr=1,2", "tracking.uri=ftp://x"], "tracking.uri: 'ftp://x' is not an MLflow store; "
         "give sqlite:///FILE, http://HOST:PORT, or leave it out (null)"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_searched_is_one_line_and_leaves_nothing(
    typed: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", *typed]) == 2
    assert capsys.readouterr().err == f"tlx: {said}\n"
    assert not list(here.iterdir())


def test_without_optuna_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    assert main(["search", LR]) == 2
    assert capsys.readouterr().err == "tlx: search: needs the package optuna; pip install 'tlx-transfer[search]'\n"


def test_typed_again_a_search_is_done_already_and_more_trials_go_on(
    copied: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in copied.glob("*/summary.json")}
    assert len(before) == 2
    assert main(words(LR, "sweep.name=s")) == 0
    said = capsys.readouterr()
    assert "2 of 2 trials are finished, in" in said.err
    assert before == {file: file.stat().st_mtime_ns for file in copied.glob("*/summary.json")}
    assert state(copied) == {"COMPLETE": 2}
    rows = table(copied)
    best = min(rows, key=lambda row: float(row["val_loss"]))
    lines = said.out.splitlines()
    assert lines[0].split() == ["trial", "val_loss", "val_accuracy", "epochs", "time", "training.lr"]
    assert lines[1].split()[0] == best["trial"]
    assert len(lines) == 1 + 2 + 1 + 3
    # The test set: one look at one model, whatever the others have found.
    assert said.out.count("test accuracy") == 1
    assert f"chosen by validation (val_loss): trial {best['trial']}, test accuracy " in said.out
    assert "test accuracy" not in said.err
    assert not any("test" in name for name in rows[0])
    again = lines[-1].removeprefix("again: python -m tlx ")
    assert f"training.lr={best['training.lr']}" in again
    assert "sweep.name" not in again
    assert main(words(LR, "sweep.name=s", trials=3)) == 0
    assert state(copied) == {"COMPLETE": 3}
    assert outcome(copied)[:2] == outcome(whole)
    assert (copied / "search.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("error", "images"), [(KeyboardInterrupt(), 5), (CutOff(), 7)])
def test_interrupted_anywhere_and_measured_on_other_test_images_it_finds_the_same(
    error: BaseException, images: int, whole: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = np.random.default_rng().integers(int((whole.parents[2] / "steps").read_text()))
    FUSE[0] = (int(stop), error)
    typed = words(LR, "sweep.name=s", f"dataset.limit.test={images}")
    if isinstance(error, KeyboardInterrupt):
        assert main(typed) == 130, stop
        assert "running the same command again resumes" in capsys.readouterr().err
    else:
        with pytest.raises(CutOff):
            main(typed)
    FUSE[0] = None
    assert main(typed) == 0
    folder = here / "outputs" / "sweeps" / "s"
    assert outcome(folder) == outcome(whole), stop
    assert state(folder) == {"COMPLETE": 2}
    assert len(list(folder.glob("*/summary.json"))) == 2
    assert not list(folder.glob("*/checkpoint.safetensors"))
    tested = [json.loads(file.read_text())["images"]["test"] for file in folder.glob("*/summary.json")]
    assert tested == [images, images]


def test_killed_a_search_goes_on(whole: Path, here: Path) -> None:
    typed = words(LR, "sweep.name=s")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tlx", *typed], cwd=here, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        trials = 0
        for line in process.stderr:
            trials += line.startswith("trial ") and "are finished" in line
            if trials == 2 and line.startswith("epoch 1/2"):
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.read()
    folder = here / "outputs" / "sweeps" / "s"
    assert state(folder) == {"COMPLETE": 1, "RUNNING": 1}
    assert main(typed) == 0
    assert outcome(folder) == outcome(whole)
    assert state(folder) == {"COMPLETE": 2}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["training.lr=interval(1e-3,1e-1)"],
         "training.lr was 0.0001 to 0.1, log scale, is 0.001 to 0.1, log scale"),
        ([LR, "head.dropout=0.5"], "head.dropout was 0.0, is 0.5"),
        ([LR, "head.dropout=0,0.5"], "head.dropout was 0.0, is 0, 0.5"),
    ],
)  # fmt: skip
def test_another_search_under_this_name_is_refused(
    typed: list[str], said: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (copied / "study.db").read_bytes()
    assert main(words(*typed, "sweep.name=s")) == 2
    line = f"tlx: sweep.name=s: holds another search: {said}; take another name, or remove {copied}\n"
    assert capsys.readouterr().err == line
    assert (copied / "study.db").read_bytes() == before


def test_a_folder_that_holds_no_study_or_a_broken_one_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = words(LR, "sweep.name=s")
    with sqlite3.connect(copied / "study.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.0'")
    database.close()
    assert main(typed) == 2
    assert "study.db: cannot be used (The runtime optuna version " in capsys.readouterr().err
    (copied / "study.db").write_bytes(b"no database" * 1000)
    assert main(typed) == 2
    file = copied / "study.db"
    message = f"tlx: {file}: cannot be used (file is not a database); take another sweep.name\n"
    assert capsys.readouterr().err == message
    file.unlink()
    assert main(typed) == 2
    assert capsys.readouterr().err == "tlx: sweep.name=s: holds a sweep that is no search; take another name\n"


def test_bad_trials_are_cut_short_and_mlflow_has_every_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate that is lost, one that diverges, and a space of four points of which no fifth is requested."""
    monkeypatch.setattr(optuna_study, "STARTUP", 1)
    lr, *size = "training.lr=choice(1e-2,1e-3,1e-7,1e30)", "dataset.train=40", "dataset.test=4", "training.epochs=4"
    assert main(["search", *SMALL[:2], lr, *size, "training.batch_size=16", "sweep.name=p", "--trials", "9"]) == 0
    folder = here / "outputs" / "sweeps" / "p"
    assert "4 of 9 trials are finished, " in (err := capsys.readouterr().err)
    assert "which is the whole search space" in err
    rows = {row["training.lr"]: row for row in table(folder)}
    assert len(rows) == 4
    assert rows["1e+30"]["status"] == "pruned"
    assert "the loss is " in rows["1e+30"]["error"]
    pruned = [row for row in rows.values() if row["status"] == "pruned" and row["error"].startswith("pruned")]
    assert pruned
    for row in pruned:
        assert 1 < int(row["epochs"]) < 4
        assert f"pruned after epoch {row['epochs']} of 4: its best val_loss, " in row["error"]
        at = folder / row["folder"]
        assert json.loads((at / "summary.json").read_text())["status"] == "pruned"
        assert not [path.name for path in at.iterdir() if path.name.startswith((".", "checkpoint", "model"))]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here / 'outputs' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tlx'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"search.csv", "search.png"}
    finished = [row for row in rows.values() if row["status"] == "finished"]
    best = min(finished, key=lambda row: float(row["val_loss"]))
    for name in ("val_loss", "val_accuracy"):
        assert parent.data.metrics[f"best_{name}"] == pytest.approx(float(best[name]))
    chosen = json.loads((folder / best["folder"] / "summary.json").read_text())
    assert parent.data.metrics["test_accuracy"] == chosen["test_accuracy"]
    assert f"training.lr={best['training.lr']}" in parent.data.tags["tlx.chosen"]
    children = {run.data.params["training.lr"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(children) == len(runs) - 1 == 4
    for lr, row in rows.items():
        status, error = children[lr].info.status, children[lr].data.tags.get("tlx.error")
        expected = {"finished": "FINISHED", "pruned": "KILLED" if row in pruned else "FAILED"}
        assert (status, error) == (expected[row["status"]], row["error"] or None)


def test_a_failed_trial_is_replaced_and_three_in_a_row_end_the_search(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 2 * (2 + 1)  # the schedule is tried at each epoch's end: for the study's images, and before the trial
    FUSE[0] = (tried + 1, ValueError("out of luck"))
    assert main(words(LR, "sweep.name=s", trials=3)) == 0
    assert "trial 3 failed: ValueError: out of luck\n  again: python -m tlx " in capsys.readouterr().err
    assert [row["status"] for row in table(copied)] == ["finished"] * 2 + ["failed", "finished"]
    monkeypatch.setattr(hyperparameter_search, "IN_A_ROW", 1)
    FUSE[0] = (tried + 1, ValueError("out of luck"))
    assert main(words(LR, "sweep.name=s", trials=4)) == 1
    assert "gave up after 1 trials that failed one after the other: 3 of 4 trials" in capsys.readouterr().err


def test_what_is_wrong_with_every_trial_is_said_once_and_changed_images_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = words(LR, "dataset=image_folder", "dataset.root=photos", "sweep.name=s", trials=1)
    typed = [word for word in typed if not word.startswith(("dataset.train", "dataset.test"))]
    assert main(typed) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("tlx: ")
    random = np.random.default_rng(0)
    for name in [f"{label}/{i}.png" for label in "ab" for i in range(8)]:
        (here / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(here / "photos" / name)
    assert main(typed) == 0
    Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(here / "photos" / "a" / "3.png")
    capsys.readouterr()
    assert main([*typed[:-1], "2"]) == 2
    assert "the images have changed (their fingerprint was " in capsys.readouterr().err


def test_two_processes_share_a_study_and_none_repeats_what_another_does(here: Path) -> None:
    fixed, axes = search_space.read([*SMALL, "training.lr=1,2,3,4,5"])
    any_job = single([*fixed, "training.lr=1"], None)[0]

    def plan(point: Sequence[str]) -> Planned:
        return dataclasses.replace(any_job, key=str(point), folder=f"{point[0]}")

    one, two = (optuna_study.Study(here, axes, {"x": 1}, 0, plan, "val_loss") for _ in range(2))
    first, second, third = one.next(4), two.next(4), one.next(4)
    assert first is not None
    assert second is not None
    assert third is not None
    assert [first.number, second.number, third.number] == [1, 2, 3]
    second.within.close()  # its process dies
    taken = one.next(4)
    assert taken is not None
    assert (taken.number, taken.planned.key) == (2, second.planned.key)
    last = two.next(4)
    assert last is not None
    assert last.number == 4
    assert two.next(4) is None  # four are being worked on
    facts = {"val_accuracy": 0.5, "val_loss": 1.0}
    for trial, shared in ((first, one), (taken, one), (third, two), (last, two)):
        shared.settle(trial, "finished", facts, score(facts, "val_loss"))
        shared.settle(trial, "failed", {})  # what is settled stays so
    assert len({one.values for one in two.found()}) == 4
    assert [found.status for found in two.found()] == ["finished"] * 4
    fifth = one.next(9)
    assert fifth is not None
    assert {*search_space.points(axes)} == {found.values for found in two.found()}
    one.settle(fifth, "pruned", {})
    assert two.next(9) is None  # there is no sixth point
    one.close()
    two.close()


@pytest.mark.parametrize("rule", RULES)
def test_the_figure_that_chooses_decides_and_the_loss_between_equals(rule: str) -> None:
    random = np.random.default_rng(1)
    rows = [{rule: n / 50_000, "val_loss": loss}
            for n, loss in zip(random.integers(0, 20, 50), random.exponential(10, 50), strict=True)]  # fmt: skip
    known = sorted(rows, key=lambda row: (0 if rule == "val_loss" else row[rule], -row["val_loss"]))
    assert sorted(rows, key=lambda row: score(row, rule)) == known


@pytest.mark.parametrize("rule", RULES)
def test_a_study_keeps_the_rule_that_it_was_made_with(here: Path, rule: str) -> None:
    fixed, axes = search_space.read([*SMALL, "training.lr=1,2,3,4,5"])
    job = single([*fixed, "training.lr=1"], None)[0]
    made, again = (
        optuna_study.Study(here, axes, {"x": 1}, 0, lambda point: job, choose) for choose in (rule, "val_loss")
    )
    assert (made.choose_by, again.choose_by) == (rule, rule)
    made.close()
    again.close()


def test_values_that_do_not_go_together_are_named_and_not_requested_again(here: Path) -> None:
    fixed, axes = search_space.read([*SMALL, "strategy=scratch,feature_extraction", "strategy.phases.probe.lr=1,2"])
    good = single([*fixed, "strategy=feature_extraction"], None)[0]

    def plan(point: Sequence[str]) -> Planned:
        if "strategy=scratch" in point:
            return single([*fixed, *point], None)[0]
        return dataclasses.replace(good, key=str(point), folder=point[1])

    shared = optuna_study.Study(here, axes, {"x": 1}, 0, plan, "val_loss")
    taken = []
    for _ in range(4):
        try:
            taken.append(shared.next(9))
        except RequestError:
            assert "this strategy has no phase probe" in shared.found()[-1].facts["error"]
    assert [trial and trial.values[0] for trial in taken] == ["feature_extraction"] * 2
    assert shared.next(9) is None
    assert len({one.values for one in shared.found()}) == 4
    shared.close()
