"""Cached outputs of the frozen part, across phases and runs: what they depend on, and that they change no result."""

import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from tests.conftest import ROOT
from tests.training.test_trainer import NETWORKS, TINY, composed
from tlx.augmentations import ShearZoom
from tlx.core import activity
from tlx.core.stopwatch import Clock
from tlx.datasets.image_sources import Stacked
from tlx.datasets.images import Images
from tlx.datasets.preprocessing import Preprocessing
from tlx.features.batches import CachedRows, Pixels, Rows
from tlx.features.feature_cache import FeatureCache
from tlx.features.feature_plan import PlannedRows
from tlx.features.feature_rows import Mapped, Outline, Task
from tlx.runs.build_features import features_of
from tlx.runs.components import written
from tlx.runs.prepare import Job, prepare
from tlx.training import trainer
from tlx.training.progress import Progress

CNN = (*TINY, *NETWORKS["small_cnn"], "backbone.weights=none", "runtime.precision=fp32", "strategy=feature_extraction")
STORE = 10**9


class Run:
    """The features of one run, and what they said."""

    def __init__(self, folder: Path, *overrides: str, weights: dict[str, Tensor] | None = None, **features: Any):
        config = deepcopy(composed(*CNN, *overrides))
        config.features = replace(config.features, **{"store": STORE, **features})
        config.output = str(folder)
        self.job: Job = prepare(config, Clock())
        if weights is not None:
            self.job.net.load_state_dict(weights)
        self.features: FeatureCache = features_of(self.job)
        self.said: list[str] = []
        self.features.say = self.said.append
        assert self.features.store is not None
        self.features.store.say = self.said.append

    def rows(self, split: str = "train", cut: int | None = None, *, training: bool = False) -> Rows:
        cut = self.job.plans["probe"].cut if cut is None else cut
        return self.features.rows(self.job.net, cut, split, training=training)

    def x(self, split: str = "train", cut: int | None = None, *, training: bool = False, epoch: int = 0) -> Tensor:
        """All rows of a split, in order."""
        rows = self.rows(split, cut, training=training)
        ((x, y),) = rows.batches([torch.arange(len(rows.y))], epoch)
        assert torch.equal(y, rows.y)
        return x.clone()

    def train(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """The rows of all phases without times, and the final weights."""
        progress, found = Progress(), []
        for name, phase in self.job.config.strategy.phases.items():
            plan = self.job.plans[name]
            found += trainer.train(self.job.net, plan, phase, self.features, self.job.config, progress)
        for row in found:
            del row["seconds"], row["images_per_second"]
        return found, deepcopy(self.job.net.state_dict())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


EARLIER = "from an earlier run"


# Across runs.


@pytest.mark.parametrize("mode", ["auto", "exact"])
def test_a_second_run_finds_everything_and_gives_the_same_bits(tmp_path: Path, mode: str) -> None:
    first, second, files = (
        Run(tmp_path, mode=mode),
        Run(tmp_path, mode=mode),
        Run(tmp_path, mode=mode, budget=0),
    )
    expected = first.train()
    assert not any("earlier" in line for line in first.said)
    for other in (second, files):
        found = other.train()
        assert found[0] == expected[0]
        assert equal(found[1], expected[1])
        assert len(other.said) == 2
        assert all(EARLIER in line for line in other.said)
    form = r"features: fc input, (train, 19|val, 5) images, \d+ KiB, from an earlier run, \d+\.\d s"
    assert all(re.fullmatch(form, line) for line in second.said)
    assert all(re.fullmatch(rf"{form}: more than 0 KiB of memory, read from files", line) for line in files.said)
    for split in ("train", "val"):
        assert torch.equal(first.x(split), second.x(split))
        assert torch.equal(first.x(split), files.x(split))


@pytest.mark.parametrize(("network", "precision"), [("small_cnn", "bf16"), ("small_cnn", "fp32"), ("resnet", "fp32")])
def test_rows_in_files_are_the_rows_in_memory_at_every_cut(tmp_path: Path, network: str, precision: str) -> None:
    common = [*NETWORKS[network], f"runtime.precision={precision}"]
    memory, files, live = (
        Run(tmp_path, *common, store=0),
        Run(tmp_path, *common, budget=0),
        Run(tmp_path, *common, mode="live"),
    )
    order = [torch.tensor([3, 0, 4]), torch.tensor([1]), torch.tensor([2, 3])]
    for cut in range(1, len(memory.job.net)):
        rows = files.rows("val", cut)
        assert isinstance(rows, CachedRows)
        assert all(isinstance(view, Mapped) for view in rows.views)
        kept, computed = memory.rows("val", cut), live.rows("val", cut)
        assert not isinstance(computed, CachedRows)
        for a, b, c in zip(*(r.batches(order, 0) for r in (rows, kept, computed)), strict=True):
            assert a[0].dtype == b[0].dtype == c[0].dtype
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[0], c[0])
            assert torch.equal(a[1], b[1])
            assert a[0].is_contiguous(memory_format=torch.channels_last) or a[0].ndim != 4


CHANGES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "input size": (("backbone.input_size=20",), {}),
    "mean": (("backbone.mean=[0.1,0,0]",), {}),
    "std": (("backbone.std=[0.5,1,1]",), {}),
    "interpolation": (("backbone.interpolation=bicubic",), {}),
    "resize": (("backbone.resize=18", "backbone.crop=16"), {}),
    "an image's content": (("dataset.noise=9",), {}),
    "precision": (("runtime.precision=bf16",), {}),
    "mode": ((), {"mode": "exact"}),
    "weights": ((), {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_rows_depend_on_misses(tmp_path: Path, change: str) -> None:
    before = Run(tmp_path)
    before.rows()
    overrides, features = CHANGES[change]
    after = Run(tmp_path, *overrides, **features)
    if change == "weights":
        with torch.no_grad():
            next(iter(after.job.net[0].parameters()))[0] += 1e-3
    after.rows()
    assert len(after.said) == 1
    assert "earlier" not in after.said[0]
    again = Run(tmp_path)
    again.rows()
    assert EARLIER in again.said[0]


def test_another_cut_misses_and_a_buffer_counts(tmp_path: Path) -> None:
    run = Run(tmp_path, *NETWORKS["resnet"])
    run.rows(cut=2)
    run.rows(cut=3)
    moved = Run(tmp_path, *NETWORKS["resnet"])
    norm = next(m for m in moved.job.net[:2].modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.running_var is not None
    norm.running_var[0] = 1.5
    moved.rows(cut=2)
    assert not any("earlier" in line for line in (*run.said, *moved.said))


HITS: dict[str, tuple[str, ...]] = {
    "learning rate": ("training.lr=0.1",),
    "head": ("head=mlp",),
    "epochs": ("training.epochs=3",),
    "batch size": ("training.batch_size=5",),
    "optimizer": ("optimizer=sgd",),
    "a later phase": (
        "strategy=lp_ft",
        "strategy.phases.probe.train_from=classifier",
        "strategy.phases.probe.solver=sgd",
    ),
    "an augmentation, for what is not augmented": ("augmentation=flip",),
    "reader processes": ("runtime.workers=1",),
}


@pytest.mark.parametrize("change", HITS)
def test_what_rows_do_not_depend_on_hits(tmp_path: Path, change: str) -> None:
    before = Run(tmp_path)
    expected = before.x("val")
    weights = {n: t for n, t in before.job.net.state_dict().items() if not n.startswith("head.")}
    after = Run(tmp_path, *HITS[change])
    after.job.net.load_state_dict(weights, strict=False)
    assert torch.equal(after.x("val"), expected)
    assert all(EARLIER in line for line in after.said if "fc input" in line)
    assert len(after.said) >= 1


def test_another_split_of_the_same_images_computes_only_what_is_new(tmp_path: Path) -> None:
    before = Run(tmp_path, "dataset.limit.train=9")
    before.rows()
    weights = before.job.net.state_dict()
    other = Run(tmp_path, "seed=1", weights=weights)
    other.rows()
    assert re.search(r"fc input, train, 19 images, .*, [1-9] of them from earlier runs, ", other.said[0])
    fewer = Run(tmp_path, "seed=1", "dataset.limit.train=5", weights=weights)
    fewer.rows()
    assert EARLIER in fewer.said[0]
    # All training and validation images have been seen but those that were validated on.
    assert torch.equal(other.x(), Run(tmp_path, "seed=1", weights=weights, store=0).x())
    assert torch.equal(fewer.x(), Run(tmp_path, "seed=1", "dataset.limit.train=5", weights=weights, store=0).x())


def test_what_a_phase_has_changed_is_not_stored(tmp_path: Path) -> None:
    run = Run(tmp_path, "strategy=gradual")
    plans = list(run.job.plans.values())
    run.train()
    last = Run(tmp_path, "strategy=gradual")
    assert last.features.store is not None
    stages = {entry.about["stage"] for entry in last.features.store.entries()}
    assert stages == {plan.rows[plan.cut].stage for plan in plans if plan.cut}
    assert len(last.features.store.entries()) == len(stages)
    # A phase that tunes first: what lies before the next one's cut is another network by then.
    tuned = Run(tmp_path / "tuned", "strategy=lp_ft")
    tune, probe = tuned.job.plans["tune"], tuned.job.plans["probe"]
    assert tune.cut == 0 < probe.cut
    for name in ("tune", "probe"):
        phase = tuned.job.config.strategy.phases[name]
        list(trainer.train(tuned.job.net, tuned.job.plans[name], phase, tuned.features, tuned.job.config, Progress()))
    assert tuned.features.store is not None
    assert tuned.features.store.entries() == []


# What is planned is what is done.


@pytest.mark.parametrize(
    "features", [{}, {"store": 0}, {"budget": 0}, {"budget": 0, "store": 0}, {"budget": 3000}, {"mode": "live"}]
)
@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_rows_lie_where_the_plan_says_and_come_from_what_it_says(
    tmp_path: Path, augmentation: str, features: dict[str, Any]
) -> None:
    run = Run(tmp_path, "strategy=gradual", f"augmentation={augmentation}", **features)
    cut = max(run.features.cuts)
    for split, training in (("train", True), ("val", False)):
        plan, again = (run.features.plan(run.job.net, cut, split, training=training) for _ in range(2))
        alike = [
            [replace(rows, free=0) for rows in each.chain] for each in (plan, again)
        ]  # other processes take memory
        assert alike[0] == alike[1]
        assert [rows.cut for rows in plan.chain] == sorted(run.features.cuts, reverse=True)
        assert not run.features._cached or split == "val"
        run.rows(split, cut, training=training)
        pixels = run.features._pixels(split, training)
        for rows in plan.chain:
            kept = run.features._found(pixels, rows.cut, rows.content)
            if rows.place in ("", "files"):
                assert (kept is not None) == (rows.place == "files")
                assert kept is None or all(isinstance(view, Mapped) for view in kept.views)
            else:
                assert kept is not None
                assert sum(view.nbytes for view in kept.views if isinstance(view, Tensor)) == rows.bytes
        if plan.chain[0].place:
            (made,) = run.features.plan(run.job.net, cut, split, training=training).chain
            assert (made.place, made.stage) == ("made", plan.chain[0].stage)
    assert run.features.store is not None
    stored = {entry.namespace for entry in run.features.store.entries()}
    assert stored <= {rows.namespace for split in ("train", "val") for rows in _planned(tmp_path, features, split)}


def _planned(folder: Path, features: dict[str, Any], split: str) -> tuple[PlannedRows, ...]:
    run = Run(folder, "strategy=gradual", **features)
    return run.features.plan(run.job.net, max(run.features.cuts), split).chain


def test_rows_of_what_a_phase_has_changed_are_planned_anew_and_not_for_later_runs(tmp_path: Path) -> None:
    run = Run(tmp_path)
    cut = run.job.plans["probe"].cut
    run.rows()
    with torch.no_grad():
        next(run.job.net[:cut].parameters()).add_(1)
    (before, *_) = run.features.plan(run.job.net, cut, "train").chain
    assert (before.made, before.namespace) == (False, "")
    run.rows()
    assert run.features.plan(run.job.net, cut, "train").chain[0].made


# Views.


@pytest.mark.parametrize("strategy", ["feature_extraction", "gradual"])
def test_as_many_views_as_epochs_are_live_augmentation_bit_for_bit(tmp_path: Path, strategy: str) -> None:
    common = ["augmentation=crop_flip", f"strategy={strategy}"]
    epochs = 2 * (3 if strategy == "gradual" else 1)
    live = Run(tmp_path, *common, mode="live").train()
    for features in ({"views": epochs}, {"views": epochs, "budget": 0}, {"views": epochs, "store": 0}, {}):
        found = Run(tmp_path, *common, **features).train()
        assert found[0] == live[0]
        assert equal(found[1], live[1])


def test_epoch_e_sees_view_e_mod_k_and_views_are_kept_one_by_one(tmp_path: Path) -> None:
    given = ("augmentation=crop_flip", "training.epochs=6")
    live = Run(tmp_path, *given)
    two, four = (Run(tmp_path, *given, views=k) for k in (2, 4))
    for run, views in ((two, 2), (four, 4)):
        for epoch in range(6):
            found = run.x(training=True, epoch=epoch)
            assert torch.equal(found, live.x(training=True, epoch=epoch % views))
        assert not torch.equal(run.x(training=True, epoch=0), run.x(training=True, epoch=1))
    assert re.fullmatch(r"features: fc input, train, 19 images × 2 views, \d+ KiB, \d+\.\d s", two.said[0])
    assert ", train, 19 images × 4 views, " in four.said[0]
    assert ", 38 of them from earlier runs, " in four.said[0]
    for overrides in (("augmentation=flip",), ("augmentation=crop_flip", "seed=1")):
        other = Run(tmp_path, *overrides, views=2, weights=live.job.net.state_dict())
        other.rows(training=True)
        assert "earlier" not in other.said[0]


def test_held_out_images_are_kept_also_where_training_images_are_augmented(tmp_path: Path) -> None:
    run = Run(tmp_path, "augmentation=crop_flip", store=0)
    for _ in range(2):
        assert not isinstance(run.rows(training=True), CachedRows)
    how = "computed anew for each batch (random views; features.views=K keeps K of each image)"
    assert run.said == [f"features: fc input, train, {how}"]
    run.said.clear()
    for split in ("val", "test"):
        assert isinstance(run.rows(split), CachedRows)
        assert run.rows(split) is run.rows(split)
    assert [line.split(", ")[1] for line in run.said] == ["val", "test"]


def test_live_keeps_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, mode="live")
    run.train()
    assert sorted(run.said) == [
        f"features: fc input, {split}, computed anew for each batch" for split in ("train", "val")
    ]
    assert not (tmp_path / "features").exists()


# What goes wrong costs time only.


def damaged(folder: Path) -> None:
    for path in folder.glob("features/*/*/rows.bin"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))


def blocked(folder: Path) -> None:
    shutil.rmtree(folder / "features")
    (folder / "features").write_text("a file in the way")


@pytest.mark.parametrize(
    ("harm", "line"), [(damaged, " is damaged .*; computed anew"), (blocked, r"cannot be kept in .* \(.+\)")]
)
@pytest.mark.parametrize("budget", [None, 0])
def test_a_store_that_fails_changes_no_result(
    tmp_path: Path, harm: Callable[[Path], None], line: str, budget: int | None
) -> None:
    first = Run(tmp_path)
    expected = first.train()
    harm(tmp_path)
    run = Run(tmp_path, budget=budget)
    found = run.train()
    assert found[0] == expected[0]
    assert equal(found[1], expected[1])
    assert any(re.search(line, said) for said in run.said)
    assert not any("earlier" in said for said in run.said)


def test_a_block_removed_while_it_is_used_changes_no_result(tmp_path: Path) -> None:
    run = Run(tmp_path, budget=0)
    before = run.x()
    assert run.features.store is not None
    run.features.store.clear(None)
    assert torch.equal(run.x(), before)


@pytest.mark.parametrize("budget", [None, 0])
def test_a_pass_that_is_interrupted_goes_on_behind_what_it_has_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int | None
) -> None:
    def interrupted(task: Task, indices: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        passes.append(len(indices))
        if len(passes) == 3:
            raise KeyboardInterrupt
        yield from compute(task, indices)

    expected, passes, compute = Run(tmp_path / "whole", store=0).x(), list[int](), Task.compute
    monkeypatch.setattr("tlx.features.feature_rows.PIECE", 1)
    monkeypatch.setattr("tlx.features.feature_rows.PASSES", 8)
    with monkeypatch.context() as patched:
        patched.setattr(Task, "compute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Run(tmp_path, budget=budget).x()
    assert passes[:2] == [8, 8]
    again = Run(tmp_path, budget=budget)
    assert torch.equal(again.x(), expected)
    assert "16 of them from earlier runs" in again.said[0]


def test_a_store_that_is_too_small_leaves_rows_to_be_computed_as_needed(tmp_path: Path) -> None:
    run, whole = Run(tmp_path, budget=0, store=1000), Run(tmp_path, store=0)
    assert not isinstance(run.rows(), CachedRows)
    assert torch.equal(run.x(), whole.x())
    assert run.said[0].endswith(": do not fit in 0 KiB, nor in files of features.store (1 KiB), computed as needed")


def test_views_that_would_push_each_other_out_of_the_store_are_notwritten(tmp_path: Path) -> None:
    """One view would fit; of four, written one by one, the first would be gone when the last is there."""
    given = ("augmentation=crop_flip", "training.epochs=4")
    one = Run(tmp_path / "one", *given, views=1, budget=0)
    assert isinstance(one.rows(training=True), CachedRows)
    size = sum(path.stat().st_size for path in (tmp_path / "one").rglob("*.bin"))
    four = Run(tmp_path / "four", *given, views=4, budget=0, store=2 * size)
    assert not isinstance(four.rows(training=True), CachedRows)
    assert "nor in files of features.store" in four.said[0]
    assert not list((tmp_path / "four").rglob("*.bin"))


def test_no_more_views_are_kept_than_there_are_epochs_and_one_without_an_augmentation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, "augmentation=flip", "training.epochs=2", views=100_000, store=0)
    assert len(run.rows(training=True).views) == 2  # type: ignore[attr-defined]
    with caplog.at_level(logging.INFO, "tlx"):
        Run(tmp_path, views=3, store=0)
    assert "features.views=3: without an augmentation each image has one view" in caplog.text


def test_the_budget_is_for_all_that_is_kept_in_memory(tmp_path: Path) -> None:
    whole = Run(tmp_path, store=0)
    whole.rows()
    size = sum(view.nbytes for view in whole.rows().views)  # type: ignore[attr-defined]
    run = Run(tmp_path, budget=size)
    assert isinstance(run.rows().views[0], Tensor)  # type: ignore[attr-defined]
    assert isinstance(run.rows("val").views[0], Mapped)  # type: ignore[attr-defined]
    assert run.said[1].endswith(": more than 0 KiB of memory, read from files")


def test_seconds_are_counted_once(tmp_path: Path) -> None:
    run = Run(tmp_path, "strategy=gradual", store=0)
    began = time.perf_counter()
    run.features.rows(run.job.net, max(plan.cut for plan in run.job.plans.values()), "train")
    assert 0 < run.features.clock.total()["features"] <= time.perf_counter() - began
    assert len(run.said) > 1, "rows of one phase are made from those of the next"


@pytest.mark.parametrize("size", [(7,), (8, 4, 3), (5, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_rows_survive_as_bytes(size: tuple[int, ...], dtype: torch.dtype) -> None:
    shape = Outline(size, dtype)
    x = shape.empty(9, torch.device("cpu"))
    x.copy_(torch.randint(0, 200, x.shape))
    raw = shape.to_bytes(x)
    assert raw.shape == (9, shape.row_bytes)
    assert torch.equal(shape.from_bytes(raw), x)
    assert shape.from_bytes(raw).stride() == x.stride()


# Between processes.


def test_two_runs_that_start_together_compute_once(tmp_path: Path) -> None:
    arguments = [
        *("backbone=small_cnn", "backbone.input_size=16", "dataset.train=8", "dataset.test=4", "dataset.size=32"),
        *("training.epochs=1", "tracking=none", "runtime.precision=fp32"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "tlx", *arguments, f"training.lr={rate}"],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rate in (0.1, 0.01)
    ]  # fmt: skip
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    lines = [line for text in said for line in text.splitlines() if "features: fc input" in line]
    parts = sorted(line.split(", ")[1] for line in lines)
    assert parts == ["test", "test", "train", "train", "val", "val"]
    for split in ("test", "train", "val"):
        assert sum(EARLIER in line for line in lines if f" {split}," in line) == 1, lines
    assert len(list(tmp_path.glob("outputs/features/*/*/rows.bin"))) == 3


def test_images_in_one_array_are_resized_at_once_to_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 20, 30, 3), dtype=np.uint8)
    names, labels, cpu = [f"train/{i}" for i in range(7)], [0, 1] * 3 + [0], torch.device("cpu")
    for preprocessing in (
        Preprocessing(16, 18, 16, (0.5,) * 3, (0.5,) * 3, "bicubic"),
        Preprocessing(33, None, None, (0.5,) * 3, (0.5,) * 3),
    ):
        whole = Pixels(Images(names, labels, Stacked(pixels)), preprocessing, cpu)
        single = Pixels(Images(names, labels, lambda i: pixels[i]), preprocessing, cpu)
        assert (whole.stacked, single.stacked) == (True, False)
        order = [torch.tensor([6, 0, 3]), torch.tensor([2])]
        for (x, y), (a, b) in zip(whole.batches(order, 0), single.batches(order, 0), strict=True):
            assert torch.equal(x, a)
            assert torch.equal(y, b)


@pytest.mark.parametrize("on", ["view", "image"])
def test_random_views_of_a_batch_at_once_are_those_of_each_image(on: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 20, 30, 3), dtype=np.uint8)
    names, labels, cpu = [f"train/{i}" for i in range(7)], [0, 1] * 3 + [0], torch.device("cpu")
    seen = Preprocessing(16, 18, 16, (0.5,) * 3, (0.5,) * 3)
    transforms = [v2.RandomResizedCrop(16, antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5)]
    at_once, each = (
        Pixels(Images(names, labels, Stacked(pixels)), seen, cpu, transforms=transforms, on=on, seed=3)
        for _ in range(2)
    )
    at_once.stacked = True  # as on a GPU
    order = [torch.tensor([6, 0, 3]), torch.tensor([2])]
    for (x, y), (a, b) in zip(at_once.batches(order, 4), each.batches(order, 4), strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)


def test_what_is_being_computed_is_said_while_it_is(tmp_path: Path) -> None:
    run, said = Run(tmp_path), list[activity.State]()
    with activity.watched(lambda: said.append(activity.current()[0])):
        run.rows()
    assert re.fullmatch(r"features: fc input, train, 0 of \d+ images", said[-1].facts[0])
    assert said[-1].share == 0
    assert activity.current()[0].facts == ()


def test_a_network_that_prints_the_same_but_is_built_otherwise_misses(tmp_path: Path) -> None:
    first = Run(tmp_path, *NETWORKS["vit"])
    first.rows()
    weights = first.job.net.state_dict()  # their shapes do not tell the number of heads
    other = Run(tmp_path, *NETWORKS["vit"], "+backbone.arguments.num_heads=2", weights=weights)
    assert not torch.equal(first.x(), other.x())
    assert "earlier" not in "".join(other.said)
    again = Run(tmp_path, *NETWORKS["vit"], weights=weights)
    again.rows()
    assert "from an earlier run" in "".join(again.said)


def test_rows_that_are_being_made_count_in_the_budget(tmp_path: Path) -> None:
    def in_memory(run: Run) -> dict[int, int]:
        """Bytes by cut."""
        cut = max(plan.cut for plan in run.job.plans.values())
        run.rows(cut=cut)
        kept = {slot[1]: rows.views for slot, (_, rows) in run.features._cached.items()}
        return {cut: sum(x.nbytes for x in views if isinstance(x, Tensor)) for cut, views in kept.items()}

    whole = in_memory(Run(tmp_path, "strategy=gradual", store=0))
    assert len(whole) > 1
    budget = max(whole.values())
    assert sum(in_memory(Run(tmp_path, "strategy=gradual", store=0, budget=budget)).values()) <= budget


def test_reader_processes_that_are_spawned_give_the_same_pixels(tmp_path: Path) -> None:
    rows = Run(tmp_path, "augmentation=crop_flip", "runtime.workers=1").rows(cut=0, training=True)
    assert isinstance(rows, Pixels)
    assert rows.loader is not None
    rows.loader.multiprocessing_context = "spawn"  # as on macOS and Windows: everything is pickled
    ((x, _),) = rows.batches([torch.arange(4)], epoch=1)
    alone = Run(tmp_path, "augmentation=crop_flip").rows(cut=0, training=True)
    ((y, _),) = alone.batches([torch.arange(4)], epoch=1)
    assert torch.equal(x, y)


def test_a_transform_of_a_persons_own_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does is not in the YAML."""
    monkeypatch.syspath_prepend(str(tmp_path))
    specs = []
    for factor in (0.5, 0.9):
        (tmp_path / "mine.py").write_text(f"def darker(): return lambda image: (image * {factor}).byte()\n")
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        run = Run(tmp_path, "+augmentation.transforms=[{_target_: mine.darker}]", views=2)
        assert run.features.random is not None
        specs.append(run.features.random.spec)
    assert len(set(specs)) == 2
    assert written([v2.RandomHorizontalFlip(), ShearZoom(0.2, [0.8, 1.2]), torch.relu]) == []


def test_memory_that_others_take_meanwhile_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, run = Run(tmp_path, store=0), Run(tmp_path, store=0)

    def taken(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as gone:
        gone.setattr(Outline, "empty", taken)
        assert not isinstance(run.rows(), CachedRows)
        computed = run.x()
    assert run.said[0].endswith(": the memory that was free is taken, computed as needed")
    assert torch.equal(computed, whole.x())
