"""Ranks: two processes give what one gives, no image is counted twice, and nothing stays behind when one dies."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from tests.config.test_compose import config_of
from tests.conftest import ROOT
from tlx.cli.main import main
from tlx.config.schema import Runtime, Training
from tlx.core.errors import RequestError
from tlx.core.stopwatch import Clock
from tlx.distributed import launch, process_group
from tlx.distributed.data_parallel import share, shared_statistics, sum_gradients
from tlx.features.batches import CachedRows
from tlx.runs.build_features import features_of
from tlx.runs.prepare import prepare
from tlx.training import trainer
from tlx.training.evaluation import logits
from tlx.training.progress import Progress
from tlx.training.solvers import backward, micro_batches

SMALL = ["backbone=small_cnn", "dataset=shapes", "dataset.train=8", "dataset.test=4", "backbone.input_size=32"]
RESNET = ["backbone=timm", "backbone.name=resnet10t", "backbone.weights=none", *SMALL[1:]]
HARD = ["training.accumulate=2", "training.class_weights=balanced", "training.label_smoothing=0.1"]


# What both ranks do. Each gives what the first one compares with one process.


def trained(folder: Path, *overrides: str) -> dict[str, Any]:
    """The rows and the weights of a run without its files."""
    config = config_of("runtime.precision=fp32", "training.batch_size=7", f"output={folder}", *overrides)
    ready = prepare(config, Clock())
    features, progress, rows = features_of(ready), Progress(), []
    for name, phase in config.strategy.phases.items():
        rows += trainer.train(ready.net, ready.plans[name], phase, features, config, progress)
    cut = next(iter(ready.plans.values())).cut
    outputs = logits(ready.net[cut:], features.rows(ready.net, cut, "test"), "fp32")
    numbers = [[row[key] for key in ("train_loss", "val_loss", "val_accuracy")] for row in rows]
    return {"rows": numbers, "weights": {n: t.clone() for n, t in ready.net.state_dict().items()}, "test": outputs}


RUNS = {
    # 19 images in batches of 7 and 5: an odd share for each rank, in micro-batches
    "probe": [*SMALL, "strategy=feature_extraction", "training.epochs=2", *HARD],
    # Adam would make a step of what rounds to nearly nothing.
    "adapting": [
        *RESNET,
        "strategy=finetune",
        "strategy.phases.probe=null",
        "strategy.phases.tune.statistics=learning",
        "training.epochs=1",
        "optimizer=sgd",
        *HARD,
    ],
    "views": [
        *SMALL,
        "strategy=gradual",
        "training.epochs=1",
        "augmentation=crop_flip",
        "features.views=2",
        "loss=logit_adjusted",
    ],
    "live": [
        *SMALL,
        "strategy=finetune",
        "strategy.phases.probe=null",
        "training.epochs=1",
        "features.mode=live",
        "training.clip_norm=0.1",
        "training.sampler=balanced",
    ],
    "files": [*SMALL, "strategy=feature_extraction", "training.epochs=1", "features.budget=0"],
}


def steps(folder: Path) -> dict[str, list[Tensor]]:
    """Loss, gradients and statistics of batches that are smaller than the number of ranks, and larger."""
    found = {}
    norms = {"plain": nn.Identity(), "norm": nn.BatchNorm1d(6), "mean": nn.BatchNorm1d(6, momentum=None)}
    for name, n in ((name, n) for name in norms for n in (1, 2, 3, 9) if n > 1 or name == "plain"):
        torch.manual_seed(n)
        layers = nn.Sequential(nn.Linear(4, 6), deepcopy(norms[name]), nn.ReLU(), nn.Linear(6, 3), nn.Linear(3, 3))
        parameters, net = [*layers.parameters()], layers[:4]
        x, y, weight = torch.randn(n, 4), torch.arange(n) % 3, torch.tensor([1.0, 0.5, 2.0])
        training = Training(accumulate=3, label_smoothing=0.1)
        mine, sizes = share(torch.arange(n), micro_batches(n, 3))
        loss = backward(net, x[mine], y[mine], weight, training, "fp32", sizes=sizes, whole=y)
        loss = sum_gradients(parameters, loss)
        assert all(p.grad is None for p in parameters[-2:])  # of a layer that nothing goes through
        found[f"{name} {n}"] = [loss, *(p.grad for p in parameters[:-2]), *net.buffers()]
    return found


def norms(folder: Path) -> dict[str, list[Tensor]]:
    """BatchNorm in double precision, where the last rank has no image, and where it has some."""
    found = {}
    for n in (1, 2, 5):
        torch.manual_seed(n)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)).double()
        x = torch.randn(n, 3, 6, 6, dtype=torch.float64)[process_group.rank() :: process_group.count()]
        with shared_statistics(net):
            loss = (net(x) ** 3).sum() / n
            loss.backward()
        loss = sum_gradients([*net.parameters()], loss)
        found[f"{n}"] = [loss, *(p.grad for p in net.parameters()), *net.buffers()]
    return found


def exchange(folder: Path) -> dict[str, Any]:
    """What is summed, spread and gathered, in every layout and number, and who does what."""
    odd = torch.arange(2 * 3 * 5 * 7, dtype=torch.bfloat16).view(2, 3, 5, 7).to(memory_format=torch.channels_last)
    copy = odd.clone() if process_group.rank() == 0 else torch.empty_like(odd)
    process_group.broadcast(copy)
    assert torch.equal(copy, odd)
    assert process_group.agreed([process_group.rank(), float("inf"), "ü"]) == [0, float("inf"), "ü"]
    for n in (1, 2, 3, 4, 11, 100):
        seen = torch.zeros(n)
        rows = CachedRows([torch.eye(n)], torch.zeros(n, dtype=torch.int64))
        counted = _Counting(seen)
        assert torch.equal(logits(counted, rows, "fp32"), torch.eye(n))  # in order
        if n >= process_group.count():  # each by one rank only
            assert torch.equal(process_group.summed(seen), torch.ones(n))
    with process_group.first():
        assert folder.exists() == (process_group.rank() > 0)
        folder.mkdir(exist_ok=True)
    process_group.same("weights", "a")
    return {"rank": process_group.rank(), "count": process_group.count(), "threads": process_group.share_of_threads(5)}


class _Counting(nn.Module):
    """Returns its input, and counts which rows it has seen."""

    def __init__(self, seen: Tensor) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.sum(0)
        return x


def instance(folder: Path) -> str:
    """A layer whose statistics cannot be shared."""
    net = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True))
    with pytest.raises(RequestError) as caught, shared_statistics(net):
        pass
    return str(caught.value)


CHECKS: dict[str, Callable[[Path], Any]] = {
    **{name: lambda folder, words=words: trained(folder, *words) for name, words in RUNS.items()},
    "steps": steps,
    "norms": norms,
    "exchange": exchange,
    "instance": instance,
}


def both(folder: str) -> dict[str, Any]:
    """Every check, on this rank."""
    return {name: check(Path(folder) / name) for name, check in CHECKS.items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the checks give on two ranks: this process, and one beside it."""
    folder, threads = str(tmp_path_factory.mktemp("ranks")), torch.get_num_threads()
    runtime, hook = Runtime(devices="2", device="cpu"), sys.excepthook
    try:
        with launch.together(runtime, "tests.distributed.test_ranks:both", {"folder": folder}):
            found = both(folder)
    finally:
        torch.set_num_threads(threads)
    assert process_group.count() == 1
    assert not torch.distributed.is_initialized()
    assert sys.excepthook is hook
    return found


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_train_and_measure_as_one_process_does(name: str, two: dict[str, Any], tmp_path: Path) -> None:
    together, one = two[name], trained(tmp_path, *RUNS[name])
    assert torch.allclose(torch.tensor(together["rows"]), torch.tensor(one["rows"]), rtol=1e-5, atol=1e-6)
    for key, tensor in one["weights"].items():
        assert torch.allclose(together["weights"][key].float(), tensor.float(), rtol=1e-4, atol=1e-5), key
    assert torch.allclose(together["test"], one["test"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "rounding"), [("steps", 1e-6), ("norms", 1e-12)])
def test_a_step_of_two_ranks_is_that_of_one_process(
    name: str, rounding: float, two: dict[str, Any], tmp_path: Path
) -> None:
    for case, tensors in CHECKS[name](tmp_path).items():
        for found, expected in zip(two[name][case], tensors, strict=True):
            assert torch.allclose(found, expected, rtol=10 * rounding, atol=rounding), case


def test_what_ranks_tell_each_other(two: dict[str, Any]) -> None:
    assert two["exchange"] == {"rank": 0, "count": 2, "threads": 2}


def test_statistics_that_cannot_be_shared_are_refused(two: dict[str, Any]) -> None:
    assert two["instance"] == (
        "runtime.devices=2: the statistics of InstanceNorm2d cannot be shared; take runtime.devices=1, or "
        "statistics=none of the phase"
    )


def test_a_rank_of_its_own_process_is_alone() -> None:
    assert (
        process_group.rank(),
        process_group.count(),
        process_group.agreed("x"),
        process_group.share_of_threads(5),
    ) == (0, 1, "x", 5)
    assert launch.writes()
    assert launch.wanted(Runtime(devices="auto", device="cpu")) == 1


def test_more_ranks_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, words in ((1, "1 core"), (2, "2 cores"), (5, "5 cores")):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        most = max(2, cores)
        assert launch.wanted(Runtime(devices=str(most), device="cpu")) == most
        with pytest.raises(RequestError) as caught:
            launch.wanted(Runtime(devices="99", device="cpu"))
        line = f"runtime.devices=99: this machine has {words}; take runtime.devices={most}, or auto"
        assert str(caught.value) == line


def test_more_ranks_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.wanted(Runtime(devices="auto")) == 2
    assert launch.wanted(Runtime(devices="auto", device="cuda:1")) == 1
    for device, message in (
        ("auto", "runtime.devices=4: this machine has 2 GPUs; take runtime.devices=2, or auto"),
        ("cuda:1", "runtime.devices=4: cuda:1 is one device; take runtime.devices=1, or auto"),
    ):
        with pytest.raises(RequestError) as caught:
            launch.wanted(Runtime(devices="4", device=device))
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("environment", "by", "number"),
    [
        ({"RANK": "1", "WORLD_SIZE": "3"}, "torchrun", 1),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_NTASKS": "3"}, "srun", 2),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, "", 0),  # the script of a batch job
        ({"RANK": "0", "WORLD_SIZE": "1"}, "", 0),
    ],
)
def test_ranks_that_others_have_started_are_found(
    environment: Mapping[str, str], by: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    there = launch.found()
    if not by:
        assert there is None
        launch.once("a sweep")
        return
    assert there == (by, number, 3)
    assert not launch.writes()
    assert launch.wanted(Runtime(), there) == launch.wanted(Runtime(devices="auto"), there) == 3
    with pytest.raises(RequestError) as caught:
        launch.wanted(Runtime(devices="2"), there)
    assert str(caught.value) == f"runtime.devices=2: {by} has started 3 ranks; leave one of them out"
    with pytest.raises(RequestError) as caught:
        launch.once("a sweep")
    assert str(caught.value) == (
        f"a sweep: {by} has started 3 processes, and each would do all of it; start one, with runtime.devices=3: "
        "each run then starts ranks of its own"
    )


# Whole runs.

WHOLE = [*SMALL, "training.batch_size=8", "training.epochs=3", "tracking=none", "runtime.devices=2"]
WHOLE += ["strategy.phases.probe.schedule={_target_:tests.distributed.test_ranks.fuse}"]


def fuse(epoch: float, epochs: int) -> float:
    """A constant schedule; in the second epoch it ends the second rank as the file `fuse` says, where there is one."""
    file = Path("fuse")
    if process_group.rank() == 1 and 1.0 < epoch < 2.0 and file.exists():
        word = file.read_text()
        file.unlink()
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(word)
    return 1.0


def rank_children(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if "tlx.distributed.rank_processes" in " ".join(child.cmdline())]


def test_a_rank_that_dies_ends_its_job_and_no_other_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fuse").write_text("kill")
    typed = ["-m", *WHOLE, "sweep.name=ranks", "seed=0,1"]
    assert main(typed) == 1
    said = capsys.readouterr().err
    folders = sorted(path.parent for path in Path("outputs/sweeps/ranks").glob("*/config.yaml"))
    dead = next(folder for folder in folders if (folder / "checkpoint.safetensors").exists())
    line = f"rank 1 of 2 died (signal 9, as when memory runs out); to resume: python -m tlx resume {dead.absolute()}"
    assert f"tlx: {line}\n" in said
    assert "1 of 2 jobs finished" in said
    assert len((dead / "metrics.jsonl").read_text().splitlines()) == 1
    assert not rank_children(psutil.Process())
    assert main(typed) == 0
    assert "resuming after epoch 1 of 3" in capsys.readouterr().err
    assert all(json.loads((folder / "summary.json").read_text())["status"] == "finished" for folder in folders)


def test_a_rank_that_fails_says_why() -> None:
    runtime = Runtime(devices="2", device="cpu")
    with (
        pytest.raises(launch.Died) as caught,
        launch.together(runtime, "operator:floordiv", {"a": 1}, lambda: "do this"),
    ):
        process_group.summed(torch.zeros(1))
    assert re.fullmatch(r"rank 1 of 2 failed: TypeError: .* takes no keyword arguments; do this", str(caught.value))
    assert not rank_children(psutil.Process())


def test_when_the_first_rank_is_interrupted_the_others_end() -> None:
    def interrupted() -> None:
        with launch.together(Runtime(devices="2", device="cpu"), "signal:pause", {}):
            assert len(rank_children(psutil.Process())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not rank_children(psutil.Process())
    assert process_group.count() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_when_the_first_rank_is_stopped_another_that_still_imports_ends(number: signal.Signals, tmp_path: Path) -> None:
    code = """
import signal, sys
import torch.distributed
from tlx.distributed import launch
from tlx.config.schema import Runtime
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it
sys.path.insert(0, ".")  # whence the other rank imports torch
with launch.together(Runtime(devices="2", device="cpu"), "signal:pause", {}):
    print("ready", flush=True)
    signal.pause()
"""
    (tmp_path / "torch.py").write_text("import pathlib, time\npathlib.Path('there').touch()\ntime.sleep(1000)\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    (child,) = rank_children(psutil.Process(run.pid))
    while not (tmp_path / "there").exists():
        time.sleep(0.02)
    run.send_signal(number)
    child.wait()
    run.communicate()
    assert run.returncode == -(signal.SIGINT if number == signal.SIGTERM else number)
