"""What was trained is not lost at the end: saving is tried before, a run that ends early keeps its best epoch."""

import json
import pkgutil
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tlx
from tests.config.test_compose import config_of
from tests.sweeps.test_sweep import jobs_of
from tlx.backbones import factories
from tlx.backbones.staged_network import Net
from tlx.cli.main import main
from tlx.config.schema import Backbone, Head
from tlx.core.errors import Diverged, RequestError
from tlx.datasets.preprocessing import Preprocessing
from tlx.inference import saved_model
from tlx.training import checkpoint

SMALL = [
    "backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4", "training.batch_size=8",
    "training.epochs=4", "optimizer=sgd", "tracking=none",
]  # fmt: skip
SMALL_COAT = {"embed_dims": [16] * 4, "serial_depths": [2, 1, 1, 1], "parallel_depth": 1}
# Two epochs that are good, and then a learning rate that no network survives.
DIVERGES = ["strategy=scratch", "schedule=step", "schedule.every=2", "schedule.gamma=1e38"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def made(name: str, head: Head | None = None, **values: Any) -> tuple[Net, Backbone, Head, Preprocessing]:
    """One of timm's networks with random weights."""
    backbone = replace(config_of("backbone=timm", f"backbone.name={name}").backbone, weights="none", **values)
    head = head or Head()
    net, preprocessing = factories.build(backbone, head, 3, seed=0)
    return net, backbone, head, preprocessing


@pytest.mark.parametrize(
    ("name", "head", "values"),
    [
        ("coat_tiny", Head(), {"input_size": 64, "arguments": SMALL_COAT}),  # position encodings that blocks share
        ("resnet10t", Head(hidden=[8]), {"input_size": 32}),
        ("test_vit", Head(append=True), {}),
        ("mobilenetv3_small_050", Head(), {"input_size": 32}),
    ],
)
def test_what_is_tried_out_is_saved_and_opened_to_the_bit(
    name: str, head: Head, values: dict[str, Any], here: Path
) -> None:
    net, backbone, head, preprocessing = made(name, head, **values)
    how = saved_model.Format("fp32", [stage for stage, _ in net.named_children()][-1])
    saved_model.try_out(net, backbone, head, ("a", "b", "c"), preprocessing, how)
    saved_model.save(here / "model", net, backbone, head, ("a", "b", "c"), preprocessing, how, {})
    again = saved_model.opened(here / "model").net
    state = net.original_state()
    assert state.keys() == again.original_state().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.original_state().items())
    size = preprocessing.input_size
    x = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(net(x), again(x))


def test_trying_out_takes_no_memory_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VGG has half a gigabyte of them."""
    net, backbone, head, preprocessing = made("resnet10t", input_size=32)
    how, seen = saved_model.Format("fp32", "head"), list[Net]()
    build = saved_model._built

    def watched(*arguments: Any) -> Any:
        found = build(*arguments)
        seen.append(found[0])
        return found

    monkeypatch.setattr(saved_model, "_built", watched)
    saved_model.try_out(net, backbone, head, ("a", "b", "c"), preprocessing, how)
    assert {tensor.device.type for tensor in seen[0].state_dict().values()} == {"meta"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["+backbone.arguments.checkpoint_path=/w.pth"], "backbone.weights says where weights come from"),
        (["+backbone.arguments.pretrained=true"], "backbone.weights says where weights come from"),
        (["+backbone.arguments.pretrained_cfg_overlay={file: w.pth}"], "backbone.weights says where weights come from"),
        (["+backbone.arguments.cache_dir=/tmp"], "backbone.weights says where weights come from"),
        (
            ["+backbone.arguments.features_only=true"],
            r"backbone.arguments=.*features_only.*: test_resnet cannot be used",
        ),
        (
            ["+backbone.arguments.in_chans=1"],
            r"backbone.arguments=.*in_chans.*: test_resnet cannot be used so \(.*channel",
        ),
    ],
)
def test_what_could_not_be_saved_is_refused_before_training(typed: list[str], said: str, here: Path) -> None:
    network = ["backbone=timm", "backbone.name=test_resnet", "backbone.weights=none", *SMALL[2:]]
    with pytest.raises(RequestError, match=said):
        tlx.run([*network, *typed])
    assert not (here / "outputs").exists()


def test_a_network_that_its_description_does_not_make_again_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose constructor reads what no file of the run holds."""
    width = [8]
    make = factories.SmallCNN.__init__

    def other(self: factories.SmallCNN, input_size: int) -> None:
        make(self, input_size, width=width[0])
        width[0] += 1

    monkeypatch.setattr(factories.SmallCNN, "__init__", other)
    with pytest.raises(RequestError, match=r"cannot be saved and opened again, so it is not trained \(.* of another"):
        tlx.run(SMALL)
    assert not list(here.glob("outputs/2*"))


def test_a_run_that_diverges_keeps_and_measures_its_best_epoch(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *DIVERGES, "hydra.run.dir=lost"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    whole = tlx.run([*SMALL, "strategy=scratch", "training.epochs=2"])
    found = summary_of(here / "lost")
    assert (found["status"], found["epochs"]) == ("diverged", 2)
    assert found["test_accuracy"] == whole.test_accuracy
    assert found["best_epoch"] == whole.best_epoch
    for file in ("model/model.safetensors", "predictions.csv"):
        assert (here / "lost" / file).read_bytes() == (whole.folder / file).read_bytes()
    assert re.match(
        rf"tlx: phase train, epoch 3: the loss is .* at a learning rate of .*; take a lower learning rate than 0.001 "
        rf"\(as strategy\.phases\.train\.lr=0\.0001\), or training\.clip_norm=1; the model of epoch {whole.best_epoch} "
        rf"\(test accuracy {whole.test_accuracy:.1%}\) is kept in .*lost$",
        said,
    )
    assert not (here / "lost" / checkpoint.FILE).exists()
    assert not tlx.load("lost").predict([Path("lost/predictions.png")])[0].error
    assert main(["resume", "lost"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "lost: this run diverged, and would again; start a new one: phase train, epoch 3: the loss is" in said
    # Nor does the same command go on with it.
    with pytest.raises(Diverged):
        tlx.run([*SMALL, *DIVERGES, "resume=auto"])


def test_a_run_that_diverges_in_its_first_epoch_is_not_resumed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = [*SMALL, "strategy=scratch", "optimizer=sgd", "training.lr=1e30", "hydra.run.dir=lost"]
    assert main(typed) == 1
    found = summary_of(here / "lost")
    assert (found["status"], found["best_epoch"]) == ("diverged", None)
    assert not (here / "lost" / checkpoint.FILE).exists()
    assert main(["resume", "lost"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "lost: this run diverged, and would again; start a new one: phase train, epoch 1: the loss is" in said
    assert "take a lower learning rate than 1e+30" in said
    (here / "photo.jpg").touch()
    assert main(["predict", "lost", "photo.jpg"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "resume" not in said
    assert "diverged" in said


def test_a_phase_that_diverges_leaves_the_best_of_the_one_before(here: Path) -> None:
    words = [*SMALL, "strategy=lp_ft", "strategy.phases.probe.solver=sgd"]
    words += ["strategy.phases.probe.train_from=classifier", "strategy.phases.probe.epochs=2"]
    words += ["training.epochs=2"]
    with pytest.raises(Diverged, match=r"phase tune, epoch 3: .*; the model of epoch \d \(test accuracy"):
        tlx.run([*words, "strategy.phases.tune.lr=1e30", "evaluation.after_each_phase=true", "hydra.run.dir=lost"])
    probe = tlx.run([*SMALL, "training.epochs=2"])
    weights = [folder / "model/model.safetensors" for folder in (here / "lost", probe.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    found = summary_of(here / "lost")
    assert (found["status"], found["test_accuracy"]) == ("diverged", probe.test_accuracy)


def test_a_job_that_diverges_is_a_failed_one_of_its_sweep_and_is_not_repeated(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["-m", "sweep.name=two", *SMALL, *DIVERGES[:-1], "schedule.gamma=1e38,1"]
    assert main(typed) == 1
    first = capsys.readouterr()
    assert "1 of 2 jobs finished" in first.err
    assert "job 1 failed: phase train, epoch 3: the loss is" in first.err
    lost = next(folder for name, folder in jobs_of("two").items() if "1e38" in name or "1e+38" in name)
    assert summary_of(lost)["status"] == "diverged"
    before = (lost / "summary.json").stat().st_mtime_ns
    assert main(typed) == 1
    assert "job 1 of 2: diverged already, and would again" in capsys.readouterr().err
    assert (lost / "summary.json").stat().st_mtime_ns == before


def test_a_source_task_that_diverges_says_so_each_time(here: Path) -> None:
    words = [*SMALL, "strategy=full", "source=shapes", "source.dataset.train=8", "source.training.epochs=3"]
    words += ["source.strategy.phases.train.schedule={_target_: tlx.schedules.step, every: 1, gamma: 1e38}"]
    for said in (
        r"source task shapes: phase train, epoch 2: the loss is .*; the model of epoch 1 ",
        r"source task shapes diverged already, and would again: phase train, epoch 2",
    ):
        with pytest.raises(Diverged, match=said):
            tlx.run(words)


def interrupt(monkeypatch: pytest.MonkeyPatch, where: str, call: int = 1, *, late: bool = False) -> None:
    """Ctrl-C when `where` is called for that time; `late`: when it has done what it does."""
    function = pkgutil.resolve_name(where)
    calls = [0]

    def stopped(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not late:
            raise KeyboardInterrupt
        found = function(*arguments, **more)
        if calls[0] == call:
            raise KeyboardInterrupt
        return found

    owner, _, name = where.rpartition(":")[2].rpartition(".")
    module = where.partition(":")[0]
    monkeypatch.setattr(pkgutil.resolve_name(f"{module}:{owner}" if owner else module), name, stopped)


TRAINING = ("tlx.training.solvers:backward", 4)  # of three in an epoch


@pytest.mark.parametrize(
    ("moments", "epochs", "model"),
    [
        ([("tlx.training.solvers:backward", 2)], 0, False),  # in the first
        ([TRAINING], 1, True),
        # Once more, while the best epoch is saved.
        ([TRAINING, ("tlx.training.snapshots:restore", 1)], 1, False),
        ([TRAINING, ("tlx.inference.saved_model:save_file", 1)], 1, False),
        ([TRAINING, ("tlx.inference.saved_model:_write", 1, "late")], 1, False),
        ([TRAINING, ("tlx.inference.saved_model:save", 1, "late")], 1, True),
        ([TRAINING, ("tlx.training.checkpoint:Keeper.flush", 3)], 1, True),
        # Once more, while MLflow is waited for.
        ([TRAINING, ("tlx.tracking.tracker:Tracker.finish", 1)], 1, True),
        # While the model of the finished training is saved, opened, measured, drawn.
        ([("tlx.inference.saved_model:save_file", 1)], 4, True),
        ([("tlx.inference.saved_model:save_file", 1, "late"), ("tlx.inference.saved_model:save_file", 2)], 4, False),
        ([("tlx.inference.saved_model:save", 1, "late")], 4, True),
        ([("tlx.inference.predictor:load", 1)], 4, True),
        ([("tlx.training.metrics:scores", 2)], 4, True),
        ([("tlx.inference.saved_model:describe", 1)], 4, True),
        ([("tlx.reporting.run_plots:curves", 1)], 4, True),
        ([("tlx.runs.run_recorder:Record._write_summary", 4, "late")], 4, True),
    ],
)
def test_an_interrupted_run_says_what_its_folder_has(
    moments: list[tuple[Any, ...]],
    epochs: int,
    model: bool,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_PACE", 0.0)  # none is put off
        for where, call, *late in moments:
            interrupt(patched, where, call, late=bool(late))
        assert main([*SMALL, "hydra.run.dir=stopped"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    if not epochs:
        assert said == "tlx: interrupted: nothing was trained yet, and nothing is kept"
        assert not (here / "stopped").exists()
        return
    assert said.startswith(f"tlx: interrupted: {epochs} of 4 epochs are done; {here}/stopped has them, ")
    found = summary_of(here / "stopped")
    assert found["status"] == "interrupted"
    announced = re.search(r"and the model of epoch (\d)( \(its test accuracy was not measured\))?; to resume", said)
    assert bool(announced) == model == (here / "stopped/model").is_dir()
    if announced:
        assert tlx.load("stopped").description["epoch"] == int(announced[1])
        assert bool(announced[2]) == (found["test_accuracy"] is None)
    else:
        assert "but no model, which was not saved yet; to resume" in said
        with pytest.raises(RequestError):
            tlx.load("stopped")
    assert not list(here.glob("stopped/.model*"))
    assert main(["resume", "stopped"]) == 0
    assert summary_of(here / "stopped")["status"] == "finished"


@pytest.mark.parametrize("where", ["page_analysis:analyse", "report_page:page"])
def test_a_run_that_is_interrupted_while_its_page_is_written_has_finished(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    with monkeypatch.context() as patched:
        interrupt(patched, f"tlx.runs.{where}")
        assert main([*SMALL, "hydra.run.dir=done"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    again = f"python -m tlx report {here}/done"
    assert said == f"tlx: interrupted: {here}/done has all of the run but its page: {again} makes it"
    found = summary_of(here / "done")
    assert (found["status"], found["error"]) == ("finished", "")
    assert not (here / "done/report.html").exists()
    assert not (here / "done/checkpoint.safetensors").exists()
    assert main(["report", "done"]) == 0
    assert (here / "done/report.html").is_file()


def test_an_interrupt_after_everything_is_written_says_that(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        interrupt(patched, "tlx.runs.tracked_run:TrackedRun.finish")
        assert main([*SMALL, "hydra.run.dir=done"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    again = f"python -m tlx resume {here}/done"
    assert said == f"tlx: interrupted: {here}/done has all of the run, MLflow may not: {again} makes up for that"
    found = summary_of(here / "done")
    assert found["status"] == "finished"
    assert main(["resume", "done"]) == 0
    assert summary_of(here / "done")["test_accuracy"] == found["test_accuracy"]
