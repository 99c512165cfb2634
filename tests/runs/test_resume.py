"""Interrupted and gone on with: the same run as one that was never interrupted, bit for bit, in the same MLflow run."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.config.test_compose import config_of
from tests.conftest import ROOT
from tests.inference.test_predictor import write_images
from tests.runs.test_run import tracked
from tlx.cli.main import main
from tlx.core import folder_lock
from tlx.runs.request import run_overrides
from tlx.tracking import worker_client
from tlx.training import checkpoint, solvers

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
SMALL = [
    "backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4", "training.epochs=3",
    "training.batch_size=8",
]  # fmt: skip
FUSE: list[int | None] = [None]  # after so many steps of training the run is cut off


class CutOff(BaseException):
    """As when the process is killed: nothing catches it."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    backward = solvers.backward

    def lit(*arguments: Any, **more: Any) -> Any:
        if FUSE[0] is not None:
            FUSE[0] -= 1
            if FUSE[0] < 0:
                raise CutOff
        return backward(*arguments, **more)

    monkeypatch.setattr(solvers, "backward", lit)
    monkeypatch.setattr(checkpoint, "_PACE", 0.0)  # every epoch is written, however busy the disk is
    monkeypatch.chdir(tmp_path)
    FUSE[0] = None
    return tmp_path


def words(strategy: str, *more: str) -> list[str]:
    one = ["strategy.phases.probe=null"] if strategy == "finetune" else []  # each step can cut off
    return [f"strategy={strategy}", *one, *SMALL, "tracking=none", *more]


def outcome(folder: Path) -> dict[str, Any]:
    """All that two runs of one configuration have in common: every figure, weight and prediction."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    # Times, what was typed, and how many feature rows were there already: a run that goes on finds its own.
    timed = ("images_per_second", "seconds", "mlflow_run_id", "command", "requested", "features", "began", "choices")
    return {
        "rows": [{k: v for k, v in row.items() if k not in timed} for row in rows],
        "summary": {k: v for k, v in summary.items() if k not in timed},
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "predictions": (folder / "predictions.csv").read_bytes(),
    }


def cut_off(typed: list[str], step: int) -> Path:
    """The folder of a run that was cut off after so many steps."""
    FUSE[0] = step
    with pytest.raises(CutOff):
        run_overrides(typed)
    FUSE[0] = None
    return max(Path("outputs").glob("2*/*"), key=lambda folder: folder.stat().st_mtime_ns).absolute()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith((".", "checkpoint"))}


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("feature_extraction", ["optimizer=nadam", "training.patience=1", "training.lr=0.3"]),
        ("finetune", ["augmentation=crop_flip", "features.views=2", "optimizer=sgd"]),
        ("gradual", ["augmentation=flip", "evaluation.after_each_phase=true"]),
        ("finetune", ["augmentation=flip", "features.mode=live", "head.dropout=0.5", "runtime.workers=1"]),
        (
            "gradual",
            ["optimizer=adamw", "head=mlp", "training.accumulate=2", "training.sampler=balanced", "loss=focal"],
        ),
    ],
)
def test_interrupted_equals_uninterrupted_bit_for_bit(
    strategy: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    typed = words(strategy, *more)
    whole = run_overrides(typed)
    expected, drawn = outcome(whole.folder), random.Random(f"{strategy} {more}")
    steps = {phase: [] for phase in dict.fromkeys(row["phase"] for row in expected["rows"])}
    for number, row in enumerate(expected["rows"]):
        steps[row["phase"]] += range(3 * number, 3 * number + 3)  # 24 images in batches of 8
    for phase, of_phase in steps.items():
        step = drawn.choice(of_phase)
        folder = cut_off(typed, step)
        assert left(folder) == {checkpoint.FILE}, (phase, step)
        assert main(["resume", str(folder)]) == 0
        assert outcome(folder) == expected, (phase, step)
        assert left(folder) == set()
    assert "resuming after epoch" in capsys.readouterr().err


def test_cut_off_again_and_again(here: Path) -> None:
    typed = words("gradual")
    expected, folder = outcome(run_overrides(typed).folder), cut_off(typed, 4)
    for _ in range(4):
        FUSE[0] = 5  # always a whole epoch further
        with pytest.raises(CutOff):
            main(["resume", str(folder)])
    FUSE[0] = None
    assert main(["resume", str(folder)]) == 0
    assert outcome(folder) == expected


def test_resume_auto_goes_on_with_the_run_of_the_same_identity(capsys: pytest.CaptureFixture[str]) -> None:
    typed = words("finetune", "resume=auto")
    folder = cut_off(typed, 5)
    for place, state in (("2099-01-01/broken", b"garbage"), ("sources/a", (folder / checkpoint.FILE).read_bytes())):
        Path("outputs", place).mkdir(parents=True)
        Path("outputs", place, checkpoint.FILE).write_bytes(state)  # nobody's to go on with
    other = run_overrides([*typed, "seed=1"])  # another identity: a run of its own
    assert other.folder != folder
    same = run_overrides(typed)
    assert same.folder == folder
    assert "resuming after epoch 1 of 3" in capsys.readouterr().err
    assert run_overrides(typed).folder != folder  # that one is finished
    assert outcome(folder) == outcome(run_overrides(words("finetune")).folder)


def killed_when(folder: Path, ready: str, *typed: str) -> Path:
    """Starts a run in a process of its own and kills it (no signal that could be handled) once `ready` has lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tlx", *typed],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        found = [file for file in folder.glob(f"outputs/2*/*/{ready}") if file.stat().st_size]
        if found:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return found[0].parent
        time.sleep(0.01)
    raise AssertionError("the run ended by itself")


def test_killed_and_gone_on_with_is_one_mlflow_run(here: Path) -> None:
    typed = ["backbone=small_cnn", "strategy=scratch", "dataset.train=60", "dataset.test=4", "training.epochs=12"]
    folder = killed_when(here, "metrics.jsonl", *typed)
    state = checkpoint.read(folder)
    assert json.loads((folder / "summary.json").read_text())["status"] == "running"
    assert main(["resume", str(folder)]) == 0
    run, *more = tracked(here)
    assert not more
    assert run.info.status == "FINISHED"
    assert run.data.tags["tlx.run"] == state["key"]
    assert "tlx.error" not in run.data.tags
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here}/outputs/mlflow.db")
    for name in ("train_loss", "val_loss", "lr"):
        history = client.get_metric_history(run.info.run_id, name)
        rows = [json.loads(line)[name] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [(m.step, m.value) for m in history] == list(enumerate(rows, 1)), name
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"summary.json", "predictions.csv", "config.yaml"} <= files
    assert len(run.outputs.model_outputs) == 1
    assert left(folder) == set()
    again = run_overrides([*typed, "tracking=none"])
    assert outcome(again.folder) == outcome(folder)


def test_what_cannot_be_gone_on_with_says_why(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cut_off(words("finetune"), 5)
    file = folder / checkpoint.FILE
    kept = file.read_bytes()

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["resume", *(arguments or [str(folder)])]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert refused(str(here / "nowhere")).endswith(
        "nowhere: no such folder; give a run's folder, as in outputs/<date>/<run>, or latest"
    )
    assert refused(str(here)).endswith(f"no checkpoint to resume from (no {checkpoint.FILE} in it)")
    assert refused(str(folder), "training.lr=1").startswith("tlx: unrecognized arguments: training.lr=1")
    with folder_lock.alone(folder):
        assert "another process is working on this run; wait for it, or stop it" in refused()
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("batch_size: 8", "batch_size: 4"))
    assert "training.batch_size was 8, is 4; a run keeps its configuration: start a new one" in refused()
    (folder / "config.yaml").write_text(text)
    for cut in (10, len(kept) // 2, len(kept) - 3):
        file.write_bytes(kept[:cut])
        assert "damaged or cut short" in refused()
    file.write_bytes(kept)
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}  # not those of the file, which changes
    state = checkpoint.read(folder)
    save_file(tensors, file, {"tlx": json.dumps({**state, "version": 7})})
    assert "a checkpoint of version 7, made by tlx 0.1.0; this tlx 0.1.0 reads version 1" in refused()
    save_file(tensors, file, {"tlx": json.dumps({**state, "data": "0" * 64, "identity": "other"})})
    assert "cannot resume this run: the images have changed (their fingerprint was 000000000000, is" in refused()
    weights = {**state["config"], "backbone": {**state["config"]["backbone"], "weights": "file.pth"}}
    (folder / "config.yaml").unlink()
    save_file(tensors, file, {"tlx": json.dumps({**state, "config": weights, "cwd": "/no/where"})})
    assert "was started in /no/where, which is no more" in refused()
    other = {**state["config"], "training": {"epochs": 1}}
    save_file(tensors, file, {"tlx": json.dumps({**state, "config": other})})
    assert "the configuration is of another version of tlx" in refused()
    net = next(name for name in tensors if name.startswith("net/"))
    save_file({**tensors, net: tensors[net][:1]}, file, {"tlx": json.dumps(state)})
    assert "does not fit the network" in refused()
    for key, value in {
        "rows": 5, "cwd": 3, "seconds": {"total": "x"}, "config": None, "progress": [], "optimizer": {"value": 3},
        "optimizer ": {"map": []}, "moved": 7,
    }.items():  # fmt: skip
        save_file(tensors, file, {"tlx": json.dumps({**state, key.strip(): value})})
        assert "the run anew" in refused(), key
    save_file(tensors, file, {"tlx": "[" * 100_000})
    assert "damaged or cut short" in refused()
    phase = {**state["progress"], "phase": "other"}
    save_file(tensors, file, {"tlx": json.dumps({**state, "progress": phase})})
    assert "damaged (phase other)" in refused()
    file.write_bytes(kept)
    assert main(["resume", str(folder)]) == 0
    assert refused().endswith("this run is finished; there is nothing to resume")


def test_a_run_that_ends_while_it_is_looked_at_is_not_run_a_second_time(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cut_off(words("feature_extraction"), 1)
    before = sorted(here.glob("outputs/2*/*"))

    def read(folder: Path) -> Any:
        found = as_it_is(folder)
        (folder / checkpoint.FILE).unlink()  # the other process is through
        return found

    as_it_is = checkpoint.read
    monkeypatch.setattr(checkpoint, "read", read)
    assert main(["resume", str(folder)]) == 2
    assert capsys.readouterr().err.endswith(f"{folder}: the run has ended meanwhile; there is nothing to resume\n")
    assert sorted(here.glob("outputs/2*/*")) == before


def test_images_that_changed_under_an_interrupted_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(here / "photos", ("a", "b"))
    typed = [w for w in words("finetune", "resume=auto") if not w.startswith("dataset.")]
    typed += ["dataset=image_folder", "dataset.root=photos", "training.batch_size=4"]
    folder = cut_off(typed, 4)
    shutil.copy(here / "photos" / "b" / "0.png", here / "photos" / "a" / "0.png")
    assert main(["resume", str(folder)]) == 2
    assert "cannot resume this run: the images have changed" in capsys.readouterr().err
    assert main(typed) == 2
    assert f"{folder}: cannot resume this run: the images have changed" in capsys.readouterr().err
    assert (folder / checkpoint.FILE).is_file()
    assert main([*typed, "resume=never"]) == 0


def test_runs_that_have_moved_are_listed_compared_and_resumed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in MLflow's store beside them; nothing is made in the place where they were."""
    project = here / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    typed = [word for word in words("feature_extraction") if word != "tracking=none"]
    for seed in (0, 1):
        run_overrides([*typed, f"seed={seed}"])
    interrupted = cut_off([*typed, "seed=2"], 4).relative_to(project / "outputs")
    worker_client.pipe().close()  # another machine has another process for MLflow
    (here / "machine").mkdir()
    shutil.move(project / "outputs", here / "machine" / "results")
    project.rmdir()
    monkeypatch.chdir(here)
    capsys.readouterr()
    seen = ["--output", "machine/results"]
    assert main(["runs", *seen, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(row["status"] for row in rows) == ["failed", "finished", "finished"]  # one can be resumed
    assert main(["compare", "machine/results"]) == 0
    assert "left out: " in capsys.readouterr().out
    assert main(["resume", str(here / "machine" / "results" / interrupted)]) == 0
    assert main(["compare", "machine/results"]) == 0
    assert "left out: " not in capsys.readouterr().out
    assert {path.name for path in here.iterdir()} == {"machine"}
    (here / "outputs").symlink_to(here / "machine" / "results")
    assert [run.info.status for run in tracked(here)] == ["FINISHED"] * 3


def test_a_run_of_a_table_goes_on_after_table_and_images_have_moved(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(here / "photos", ("a", "b"))
    rows = [f"{name}/{i}.png,{name},{i // 2}" for name in "ab" for i in range(8)]
    (here / "labels.csv").write_text("\n".join(["file,label,plant", *rows]))
    typed = [w for w in words("finetune") if not w.startswith("dataset.")]
    typed += ["dataset=csv", "dataset.root=labels.csv", "dataset.images=photos", "dataset.group=plant"]
    folder = cut_off([*typed, "training.batch_size=4"], 4)
    (here / "photos").rename(here / "pictures")
    (here / "labels.csv").rename(here / "list.csv")
    assert main(["resume", str(folder), "dataset.root=list.csv"]) == 2
    assert "dataset.images=photos: is not there; where it has moved" in capsys.readouterr().err
    assert main(["resume", str(folder), "dataset.root=list.csv", "dataset.images=pictures"]) == 0


def test_a_run_goes_on_after_its_data_weights_and_project_have_moved(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlx.backbones import factories
    from tlx.config.schema import Head

    project = here / "project"
    write_images(project / "photos", ("a", "b"))
    monkeypatch.chdir(project)
    typed = [w for w in words("finetune") if not w.startswith("dataset.")]
    backbone = config_of(*typed).backbone
    net, _ = factories.build(dataclasses.replace(backbone, weights="none"), Head(), 2, seed=9)
    for file, add in (("w.safetensors", 0.0), ("other.safetensors", 1.0)):
        save_file({name: value + add for name, value in net.original_state().items()}, file)
    typed += ["dataset=image_folder", "dataset.root=photos", "training.batch_size=4", "backbone.weights=w.safetensors"]
    whole, folder = run_overrides(typed), cut_off(typed, 4)
    expected = outcome(whole.folder)
    project.rename(here / "moved")
    (here / "moved" / "photos").rename(here / "pictures")
    (here / "moved" / "w.safetensors").rename(here / "weights.safetensors")
    folder = here / "moved" / folder.relative_to(project)
    shutil.copytree(here / "pictures", here / "others")
    shutil.copy(here / "others" / "b" / "0.png", here / "others" / "a" / "0.png")
    monkeypatch.chdir(here)
    run = str(folder)

    def refused(*more: str) -> str:
        capsys.readouterr()
        assert main(["resume", run, *more]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "which is no more; its paths begin there, or here where you give those that have moved" in refused()
    assert "dataset.root: is empty" in refused("dataset.root=")
    assert "training.epochs=9; a run keeps its configuration" in refused("training.epochs=9")
    assert "source.dataset.root=" in refused("source.dataset.root=pictures")
    assert f"dataset.root={here}/no: is not there; where it has moved: python -m tlx resume" in refused(
        "dataset.root=no"
    )
    assert "backbone.weights=w.safetensors: is not there; where it has moved" in refused("dataset.root=pictures")
    there = ["dataset.root=pictures", "backbone.weights=weights.safetensors"]
    assert "the images have changed (their fingerprint was" in refused("dataset.root=others", there[1])
    changed = refused(there[0], "backbone.weights=moved/other.safetensors")
    assert "the stages that last stands for, or the device have changed" in changed
    FUSE[0] = 4  # cut off again, and gone on with once more
    with pytest.raises(CutOff):
        main(["resume", run, *there])
    FUSE[0] = None
    assert main(["resume", run, *there]) == 0
    found = outcome(folder)
    for of_one in (found, expected):
        of_one["predictions"] = [line.split(b",")[2:] for line in of_one["predictions"].splitlines()]
    assert found == expected


def test_a_source_task_goes_on_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = words(
        "finetune",
        "source=shapes",
        "source.dataset.train=8",
        "source.training.epochs=2",
        "source.training.batch_size=8",
    )
    FUSE[0] = 4  # in its second epoch
    with pytest.raises(CutOff):
        run_overrides(typed)
    FUSE[0] = None
    (source,) = Path("outputs/sources").glob("shapes-*")
    assert checkpoint.FILE in left(source)
    weights = (run_overrides(typed).folder / "model" / "model.safetensors").read_bytes()
    assert "resuming after epoch 1 of 2" in capsys.readouterr().err
    assert left(source) == set()
    shutil.rmtree("outputs/sources")
    assert (run_overrides(typed).folder / "model" / "model.safetensors").read_bytes() == weights


def test_what_is_kept_of_an_interrupted_run_is_its_best_epoch_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [*words("finetune"), "hydra.run.dir=stopped", "training.lr_factor=10"]
    backward, calls = solvers.backward, [0]

    def stopped(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:  # in the second epoch that this process sees
            raise KeyboardInterrupt
        return backward(*arguments, **more)

    monkeypatch.setattr(solvers, "backward", stopped)
    with pytest.raises(KeyboardInterrupt, match=r"the model of epoch 1 .*; to resume: python -m tlx resume "):
        run_overrides(typed)
    first = Path("stopped/model/model.safetensors").read_bytes()
    calls[0] = 0
    assert main(["resume", "stopped"]) == 130
    assert Path("stopped/model/model.safetensors").read_bytes() != first
    calls[0] = -100
    assert main(["resume", "stopped"]) == 0


def test_a_password_goes_nowhere(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tlx.config.command_line import command

    typed = ["tracking.uri=postgresql://bob:hunter2@h/db", "tracking.enabled=false", *words("finetune")[:-1]]
    assert "hunter2" not in command(typed, None)
    assert main(typed) == 0
    assert main(["-m", "sweep.name=secret", *typed, "seed=0,1"]) == 2
    assert "tracking.uri=postgresql://bob@h/db: has no effect: nothing is tracked" in capsys.readouterr().err
    own = here / "own" / "tracking" / "own.yaml"
    own.parent.mkdir(parents=True)
    none = (ROOT / "conf" / "tracking" / "none.yaml").read_text()
    own.write_text(none.replace("uri: null", "uri: postgresql://bob:hunter2@h/db"))
    sweep = ["-m", "--config-dir", "own", "sweep.name=secret", *words("finetune"), "tracking=own", "seed=0,1"]
    assert main(sweep) == 0
    for file in (f for f in Path("outputs").rglob("*") if f.is_file()):
        assert b"hunter2" not in file.read_bytes(), file
    folder = cut_off(typed, 4)
    assert b"hunter2" not in (folder / checkpoint.FILE).read_bytes()  # where it tracks, it is typed again
    assert (folder / checkpoint.FILE).stat().st_mode & 0o77 == 0
    assert main(["resume", str(folder)]) == 0
