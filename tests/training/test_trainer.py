"""The trainer's properties: cached = live, micro-batches = batch, same seed = same run, best epoch kept."""

import functools
import math
import re
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.config.test_compose import config_of
from tlx import schedules
from tlx.config.schema import Phase, Training
from tlx.core.choose_by import RULES, score
from tlx.core.errors import Diverged
from tlx.core.stopwatch import Clock
from tlx.features.batches import CachedRows, shuffled
from tlx.features.feature_rows import Mapped, outline
from tlx.features.weight_fingerprint import fingerprint
from tlx.runs.build_features import features_of
from tlx.runs.prepare import prepare
from tlx.training import phase_plan, trainer
from tlx.training.optimizers import optimizer_for
from tlx.training.progress import Progress
from tlx.training.solver_context import SolverContext
from tlx.training.solvers import backward
from tlx.training.train_state import TrainState
from tlx.training.weighted_loss import class_weights

TINY = [
    *("dataset.train=8", "dataset.test=4", "dataset.size=32", "training.batch_size=4", "training.epochs=2"),
    "features.store=0",
]
ADAM = {"_target_": "torch.optim.Adam"}
CONSTANT = {"_target_": "tlx.schedules.constant"}


def trained(*overrides: str, **features: Any) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """A run's rows (without times) and its final weights. `features`: of the configuration's section."""
    config = deepcopy(composed(*TINY, "backbone.weights=none", *overrides))
    config.features = replace(config.features, **features)
    job = prepare(config, Clock())
    rows_of, progress, rows = features_of(job), Progress(), []
    for name, phase in config.strategy.phases.items():
        rows += trainer.train(job.net, job.plans[name], phase, rows_of, config, progress)
    kept = ("phase", "epoch", "train_loss", "val_loss", "val_accuracy", "lr")
    rows = [{key: row.get(key) for key in kept} for row in rows]
    return rows, {name: tensor.clone() for name, tensor in job.net.state_dict().items()}


composed = functools.cache(config_of)


NETWORKS = {
    "small_cnn": ["backbone=small_cnn", "backbone.input_size=16"],
    "resnet": ["backbone=timm", "backbone.name=resnet10t", "backbone.input_size=32"],
    "vit": [
        "backbone=timm", "backbone.name=vit_tiny_patch16_224", "backbone.input_size=32",
        "+backbone.arguments.depth=2", "+backbone.arguments.embed_dim=24",
    ],
}  # fmt: skip


@pytest.mark.parametrize("choice", ["feature_extraction", "finetune", "gradual", "lp_ft"])
@pytest.mark.parametrize("network", NETWORKS)
def test_cached_features_train_bit_for_bit_as_live_ones_do(network: str, choice: str, tmp_path: Path) -> None:
    common = [*NETWORKS[network], f"strategy={choice}", "runtime.precision=fp32", f"output={tmp_path}"]
    common += ["strategy.phases.probe.epochs=3"] * (choice == "lp_ft")
    common += ["training.epochs=1"] * (network == "resnet")  # steps through a resnet take the longest
    # What does not fit in memory is read from files, or computed as needed where there is no store either.
    computed, files = {"budget": 0}, {"budget": 0, "store": 10**9}
    live, live_state = trained(*common, mode="live")
    exact, exact_state = trained(*common, mode="exact", **computed)
    ways: list[tuple[dict[str, Any], Any, Any]] = [({}, live, live_state), (files, live, live_state)]
    for way, rows, state in (*ways, ({"mode": "exact"}, exact, exact_state)):
        cached, cached_state = trained(*common, **way)
        assert cached == rows, way
        assert all(torch.equal(cached_state[name], state[name]) for name in state), way
    # Folded or not, it is the same network: what differs is rounding.
    for found, expected in zip(live, exact, strict=True):
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-3)


def test_cached_features_train_bit_for_bit_as_live_ones_do_in_16_bit() -> None:
    common = [*NETWORKS["resnet"], "strategy=gradual", "runtime.precision=bf16", "training.epochs=1"]
    live, live_state = trained(*common, mode="live")
    cached, cached_state = trained(*common)
    assert cached == live
    assert all(torch.equal(cached_state[name], live_state[name]) for name in live_state)


def test_a_phase_that_has_moved_weights_is_seen_by_their_fingerprint() -> None:
    """Fused optimizers do not count their changes in place, and a digest is kept for a tensor that has not changed."""
    config = composed(*TINY, *NETWORKS["small_cnn"], "strategy=full", "backbone.weights=none")
    job = prepare(config, Clock())
    features, (name, phase) = features_of(job), next(iter(config.strategy.phases.items()))
    before = fingerprint(job.net)
    list(trainer.train(job.net, job.plans[name], phase, features, config, Progress()))
    assert fingerprint(job.net) == fingerprint(deepcopy(job.net)) != before


def test_the_same_seed_gives_the_same_run_and_another_one_does_not() -> None:
    common = [*NETWORKS["resnet"], "strategy=finetune", "augmentation=crop_flip", "runtime.precision=fp32"]
    first, weights = trained(*common)
    again, same = trained(*common)
    assert first == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert trained(*common, "seed=1")[0] != first


def test_random_views_differ_between_epochs_and_only_in_training() -> None:
    job = prepare(config_of(*TINY, *NETWORKS["small_cnn"], "augmentation=crop_flip"), Clock())
    features = features_of(job)
    fit = features.rows(job.net, 0, "train", training=True)
    order = [torch.arange(4)]
    (first, _), (second, _), (again, _) = (next(iter(fit.batches(order, epoch))) for epoch in (0, 1, 0))
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    held_out = features.rows(job.net, 0, "val")
    assert torch.equal(*(next(iter(held_out.batches([torch.arange(2)], epoch)))[0] for epoch in (0, 1)))


def test_reader_processes_give_the_same_views() -> None:
    def views(workers: int) -> Tensor:
        config = config_of(*TINY, *NETWORKS["small_cnn"], "augmentation=crop_flip", f"runtime.workers={workers}")
        job = prepare(config, Clock())
        rows = features_of(job).rows(job.net, 0, "train", training=True)
        return torch.cat([x for x, _ in rows.batches([torch.arange(4), torch.arange(4, 8)], epoch=3)])

    assert torch.equal(views(0), views(2))


def test_frozen_features_are_computed_once_until_the_frozen_part_changes() -> None:
    job = prepare(config_of(*TINY, *NETWORKS["small_cnn"]), Clock())
    said: list[str] = []
    features = features_of(job)
    features.say = said.append
    first = features.rows(job.net, 2, "train")
    assert features.rows(job.net, 2, "train") is first
    assert len(said) == 1
    assert said[0].startswith("features: fc input, train, ")
    with torch.no_grad():
        next(job.net[0].parameters()).add_(1)
    assert features.rows(job.net, 2, "train") is not first


def test_features_that_do_not_fit_are_read_from_files_or_computed_as_needed_and_that_is_said(tmp_path: Path) -> None:
    common = [*TINY, *NETWORKS["small_cnn"], "features.budget=10", f"output={tmp_path}"]
    size = r"features: fc input, train, \d+ images, \d+ KiB"
    for store, kept, line in (
        ("features.store=0", False, rf"{size}: do not fit in 0 KiB, computed as needed"),
        (
            "features.store=1",
            False,
            rf"{size}: do not fit in 0 KiB, nor in files of features.store \(0 KiB\), computed as needed",
        ),
        ("features.store=1000000", True, rf"{size}, \d+\.\d s: more than 0 KiB of memory, read from files"),
    ):
        job = prepare(config_of(*common, store), Clock())
        said: list[str] = []
        features = features_of(job)
        features.say = said.append
        rows = features.rows(job.net, 2, "train")
        assert isinstance(rows, CachedRows) is kept
        assert not isinstance(rows, CachedRows) or all(isinstance(view, Mapped) for view in rows.views)
        assert len(said) == 1
        assert re.fullmatch(line, said[0])


def test_an_outline_is_what_is_kept() -> None:
    job = prepare(config_of(*TINY, *NETWORKS["small_cnn"], "runtime.precision=fp32"), Clock())
    features = features_of(job)
    for cut in range(len(job.net)):
        rows, shape = features.rows(job.net, cut, "val"), outline(job.net, cut, 16, "fp32", job.device)
        assert isinstance(rows, CachedRows)
        (x,) = rows.views
        assert isinstance(x, Tensor)
        assert (x.shape, x.dtype) == ((len(rows.y), *shape.size), shape.dtype)
        assert x[0].numel() * x.element_size() == shape.row_bytes


def test_a_fingerprint_sees_every_tensor() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = fingerprint(net)
    assert fingerprint(net) == before
    net[1].running_mean[0] = 1.0  # type: ignore[index]
    assert fingerprint(net) != before


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(weights: str | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x, y = torch.randn(10, 5, dtype=torch.float64), torch.randint(0, 3, (10,))
    weight = class_weights(y, weights)
    weight = None if weight is None else weight.double()

    def gradient(parts: int) -> tuple[Tensor, list[Tensor]]:
        net.zero_grad()
        training = Training(accumulate=parts, label_smoothing=0.1)
        # The batch is widened to double here so that only the arithmetic of the sum is compared.
        loss = backward(_Double(net), x, y, None if weight is None else weight.float(), training, "fp32")
        return loss, [p.grad.clone() for p in net.parameters() if p.grad is not None]

    loss, whole = gradient(1)
    for parts in (2, 3, 10):
        again, summed = gradient(parts)
        assert again == pytest.approx(float(loss), rel=1e-6)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(whole, summed, strict=True))


def gradient_of(net: nn.Module, *batch: Any) -> tuple[float, list[Tensor]]:
    net.zero_grad()
    loss = backward(net, *batch, "fp32")
    return float(loss), [p.grad.clone() for p in net.parameters() if p.grad is not None]


def test_an_images_whole_loss_has_the_weight_of_its_own_class() -> None:
    """Weighted is repeated, with label smoothing too: an image of weight 3 counts as three of weight 1."""
    torch.manual_seed(0)
    net, x = nn.Linear(5, 3), torch.randn(10, 5)
    y, weight = torch.tensor([0] * 6 + [1] * 3 + [2]), torch.tensor([1.0, 2.0, 6.0])
    times = weight[y].long()
    for smoothing in (0.0, 0.1, 0.6):
        training = Training(label_smoothing=smoothing)
        loss, found = gradient_of(net, x, y, weight, training)
        expected, repeated = gradient_of(net, x.repeat_interleave(times, 0), y.repeat_interleave(times), None, training)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, repeated, strict=True))


def test_weights_and_smoothing_alone_are_torchs_to_the_bit() -> None:
    torch.manual_seed(0)
    net, x, y = nn.Linear(5, 3), torch.randn(10, 5), torch.arange(10) % 3
    for weight, smoothing in ((None, 0.1), (torch.tensor([0.3, 1.0, 7.0]), 0.0), (None, 0.0)):
        loss, found = gradient_of(net, x, y, weight, Training(label_smoothing=smoothing))
        net.zero_grad()
        summed = functional.cross_entropy(net(x), y, weight, reduction="sum", label_smoothing=smoothing)
        expected = summed / (len(y) if weight is None else weight[y].sum())
        expected.backward()
        assert loss == expected.item()
        assert all(torch.equal(a, p.grad) for a, p in zip(found, net.parameters(), strict=True) if p.grad is not None)


def test_a_rare_class_is_learned_with_weights_and_smoothing() -> None:
    """25 : 1, separable: the common class must not be given up for the rare one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    y = torch.tensor([0] * 100 + [1] * 4)
    x = torch.randn(104, 4) + 3 * (2 * y[:, None] - 1)
    weight = class_weights(y, "balanced")
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(100):
        gradient_of(net, x, y, weight, Training(label_smoothing=0.1))
        optimizer.step()
    assert torch.equal(net(x).argmax(1), y)


class _Double(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())  # type: ignore[no-any-return]


def test_balanced_weights_give_every_class_the_same_share() -> None:
    y = torch.tensor([0] * 9 + [1] * 3)
    weight = class_weights(y, "balanced")
    assert weight is not None
    assert weight[y].sum() == pytest.approx(len(y))
    assert weight[0] * 9 == pytest.approx(float(weight[1] * 3))


def linear_task(n: int = 33) -> tuple[nn.Sequential, CachedRows]:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("body", nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()))
    net.add_module("head", nn.Sequential(nn.Linear(8, 2)))
    x = torch.randn(n, 4)
    return net, CachedRows([x], (x[:, 0] > 0).long())


def fit(
    net: nn.Sequential, rows: CachedRows, training: Training | None = None, choose_by: str = "val_loss", **values: Any
) -> tuple[list[Any], TrainState]:
    settings: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "batch_size": 8, "optimizer": ADAM, "schedule": CONSTANT}
    phase = Phase(train_from="all", **{**settings, **values})
    plan = phase_plan.plan(net, "tune", phase, classifier="head")
    phase_plan.prepare(net, plan)
    state = TrainState(epochs=phase.epochs or 0, choose_by=choose_by)
    context = SolverContext(net, plan, rows, phase, training or Training(), phase.epochs or 0, Progress(state))
    return list(trainer.epochs(context, rows)), state


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    order = shuffled(33, 8, torch.Generator().manual_seed(0))
    assert [len(index) for index in order] == [8, 8, 8, 9]
    assert sorted(torch.cat(order).tolist()) == list(range(33))
    assert [len(index) for index in shuffled(1, 8, torch.Generator())] == [1]
    rows, _ = fit(*linear_task(33))  # BatchNorm refuses a batch of one
    assert len(rows) == 3


def test_rows_that_lie_elsewhere_are_put_together_ahead() -> None:
    _, here = linear_task(33)
    elsewhere = CachedRows(here.views, here.y, torch.device("cpu", 0))  # as those of a GPU's tail that lie in memory
    for order in ([], shuffled(33, 4, torch.Generator().manual_seed(0))):
        pairs = zip(elsewhere.batches(order, 0), here.batches(order, 0), strict=True)
        assert all(torch.equal(a, b) for found, wanted in pairs for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("accumulate", [2, 5, 8, 33])
def test_no_micro_batch_has_one_image(accumulate: int) -> None:
    rows, _ = fit(*linear_task(33), Training(accumulate=accumulate))  # BatchNorm refuses a batch of one
    assert len(rows) == 3


def test_a_row_has_what_the_contract_says() -> None:
    rows, progress = fit(*linear_task())
    keys = {"phase", "epoch", "train_loss", "val_loss", "val_accuracy", "lr", "images_per_second", "seconds"}
    assert [set(row) for row in rows] == [keys] * 3
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert progress.epoch == 3
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]


def test_the_best_epoch_is_put_back() -> None:
    net, rows = linear_task()
    found, progress = fit(net, rows, lr=30.0, epochs=8, optimizer={"_target_": "torch.optim.SGD"})
    best = min(found, key=lambda row: row["val_loss"])
    assert progress.best_epoch == best["epoch"]
    assert best["epoch"] < 8, "the test needs a run that gets worse"
    config = config_of(*TINY, *NETWORKS["small_cnn"], "strategy=scratch", "training.lr=0.05", "training.epochs=6")
    job = prepare(config, Clock())
    features, progress = features_of(job), Progress()
    (name, phase), *_ = config.strategy.phases.items()
    history = list(trainer.train(job.net, job.plans[name], phase, features, config, progress))
    val = features.rows(job.net, 0, "val")
    outputs = job.net.eval()(next(iter(val.batches([torch.arange(len(val.y))], 0)))[0]).detach()
    loss = float(nn.functional.cross_entropy(outputs, val.y))
    assert loss == pytest.approx(min(row["val_loss"] for row in history), rel=2e-2)


@pytest.mark.parametrize("rule", RULES)
def test_the_figure_that_chooses_decides_about_the_epoch_and_the_end(rule: str) -> None:
    net, rows = linear_task(40)
    rows.y[:12] = 1 - rows.y[:12]  # labels that are wrong: loss and accuracy do not go together
    rows.y[30:] = 0  # and classes that are not equally frequent
    odd: dict[str, Any] = {"lr": 0.5, "optimizer": ADAM}
    found, progress = fit(net, rows, epochs=30, choose_by=rule, **odd)
    assert all(rule in row for row in found)
    best = max(found, key=lambda row: score(row, rule))
    assert progress.best_epoch == best["epoch"]
    assert progress.best_score == score(best, rule)
    torch.manual_seed(0)
    found, progress = fit(*[linear_task(40)[0], rows], epochs=30, choose_by=rule, patience=2, **odd)
    scores = [score(row, rule) for row in found]
    assert len(found) in (30, progress.best_epoch + 2)
    assert max(scores) == scores[progress.best_epoch - 1]


def test_the_time_left_counts_the_running_epoch_on_both_sides() -> None:
    state = TrainState(epoch=1, epochs=10, seconds=100.0)
    progress = Progress(state, batch=9, batches=10, since=time.perf_counter() - 90.0)
    assert progress.eta == pytest.approx(810, rel=0.01)
    first = Progress(TrainState(epochs=10), batch=5, batches=10, since=time.perf_counter() - 50.0)
    assert first.eta == pytest.approx(950, rel=0.01)
    assert math.isnan(Progress(TrainState(epochs=10)).eta)


def test_patience_ends_a_phase() -> None:
    net, rows = linear_task()
    found, progress = fit(net, rows, lr=30.0, epochs=50, patience=2, optimizer={"_target_": "torch.optim.SGD"})
    assert len(found) == progress.best_epoch + 2 < 50
    assert progress.epochs == len(found)


def test_a_loss_that_is_no_number_ends_the_run_with_advice() -> None:
    net, rows = linear_task()
    rows.views[0][torch.tensor(0)][0] = math.nan
    with pytest.raises(
        Diverged, match=r"phase tune, epoch 1: the loss is nan .*; take a lower learning rate than 0.01"
    ):
        fit(net, rows)


def test_clipping_bounds_the_step() -> None:
    def moved(clip: float | None) -> float:
        net, rows = linear_task()
        before = [p.detach().clone() for p in net.parameters()]
        fit(
            net,
            rows,
            Training(clip_norm=clip),
            lr=1.0,
            epochs=1,
            batch_size=64,
            optimizer={"_target_": "torch.optim.SGD"},
        )
        pairs = zip(net.parameters(), before, strict=True)
        return math.sqrt(sum(float((a.detach() - b).square().sum()) for a, b in pairs))

    assert moved(None) > 0.01
    assert moved(0.01) == pytest.approx(0.01, rel=1e-3)


def test_schedules_follow_torchs() -> None:
    steps = 40
    parameter = nn.Parameter(torch.zeros(1))

    def torchs(make: Any) -> list[float]:
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        schedule, rates = make(optimizer), []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    optim = torch.optim.lr_scheduler
    epochs, each = 10, steps // 10
    ours = {
        "step": [schedules.step(i / each, epochs, every=3, gamma=0.1) for i in range(steps)],
        "cosine": [schedules.cosine(i / each, epochs) for i in range(steps)],
        "onecycle": [schedules.onecycle(i / (steps - 1) * epochs, epochs, rise=11 / 39) for i in range(steps)],
    }
    theirs = {
        "step": torchs(lambda o: optim.StepLR(o, 3 * each, gamma=0.1)),
        "cosine": torchs(lambda o: optim.CosineAnnealingLR(o, steps)),
        "onecycle": torchs(lambda o: optim.OneCycleLR(o, 1.0, total_steps=steps, cycle_momentum=False)),
    }
    assert ours["step"] == pytest.approx(theirs["step"])
    assert ours["cosine"] == pytest.approx(theirs["cosine"])
    assert ours["onecycle"] == pytest.approx(theirs["onecycle"])  # torch puts the peak on step 0.3·40 - 1 of 0…39
    assert schedules.cosine(0.5, 10, warmup=1) == pytest.approx(0.5)
    assert schedules.constant(3, 10) == 1


def test_schedules_move_with_every_step() -> None:
    net, rows = linear_task()
    found, _ = fit(net, rows, schedule={"_target_": "tlx.schedules.cosine"}, epochs=2, lr=1.0)
    steps = len(shuffled(33, 8, torch.Generator()))
    assert found[-1]["lr"] == pytest.approx(schedules.cosine(2 - 1 / steps, 2))


def test_optimizers_are_fused_where_they_can_be() -> None:
    parameters = [{"params": [nn.Parameter(torch.zeros(2))], "lr": 0.1, "weight_decay": 0.0}]
    assert optimizer_for(ADAM, parameters).defaults["fused"] is True
    assert "fused" not in optimizer_for({"_target_": "torch.optim.NAdam"}, parameters).defaults
    assert not optimizer_for({**ADAM, "foreach": True}, parameters).defaults["fused"]


def test_an_optimizers_unknown_key_is_named() -> None:
    from tlx.core.errors import RequestError

    with pytest.raises(
        RequestError, match=r"optimizer.momentun: torch.optim.SGD takes no such key \(did you mean 'momentum'"
    ):
        optimizer_for({"_target_": "torch.optim.SGD", "momentun": 0.9}, [])
    with pytest.raises(RequestError, match=r"optimizer._target_=torch.optim.Adamm: cannot be found"):
        optimizer_for({"_target_": "torch.optim.Adamm"}, [])
