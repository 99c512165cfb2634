"""Losses against their formulas, in value and gradient; batches in which each class is drawn equally often."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.training.test_trainer import ADAM, CONSTANT
from tlx.config.schema import Phase, Training
from tlx.core.errors import RequestError
from tlx.features.batches import CachedRows, balanced
from tlx.training import phase_plan, trainer
from tlx.training.progress import Progress
from tlx.training.solver_context import SolverContext
from tlx.training.solvers import backward
from tlx.training.train_state import TrainState
from tlx.training.weighted_loss import class_weights, guessing, loss_for

Y = torch.tensor([0] * 12 + [1] * 5 + [2] * 3)
SHARES = torch.tensor([12, 5, 3]) / 20
NODES: dict[str, dict[str, Any]] = {
    "cross_entropy": {"_target_": "tlx.losses.cross_entropy"},
    "focal": {"_target_": "tlx.losses.focal", "gamma": 1.5},
    "logit_adjusted": {"_target_": "tlx.losses.logit_adjusted", "tau": 0.7},
}


def formula(name: str, z: Tensor, label: int) -> Tensor:
    """An image's loss as the paper writes it."""
    if name == "logit_adjusted":
        z = z + 0.7 * torch.log(SHARES)
    p = torch.exp(z[label]) / torch.exp(z).sum()
    return -((1 - p) ** 1.5 if name == "focal" else 1) * torch.log(p)


# (loss, class weights, sampler) that correct imbalanced classes at most once
CASES = [
    (name, weights, sampler)
    for name in NODES
    for weights in (None, "balanced")
    for sampler in (None, "balanced")
    if (name == "logit_adjusted") + (weights is not None) + (sampler is not None) < 2
]


@pytest.mark.parametrize(("name", "weights"), [(name, weights) for name, weights, sampler in CASES if sampler is None])
def test_a_batchs_gradient_is_that_of_the_formula(name: str, weights: str | None) -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3), torch.randn(20, 4)
    training = Training(class_weights=weights)
    weight = class_weights(Y, weights)
    of = torch.ones(20) if weight is None else weight[Y]
    expected = sum(w * formula(name, z, int(y)) for w, z, y in zip(of, net(x), Y, strict=True)) / of.sum()
    gradients = torch.autograd.grad(expected, [*net.parameters()])  # type: ignore[arg-type]
    for parts in (1, 3):
        net.zero_grad()
        more = dataclasses.replace(training, accumulate=parts)
        loss = backward(net, x, Y, weight, more, "fp32", loss_of=loss_for(NODES[name], training, Y))
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)  # type: ignore[union-attr]
        for one, parameter in zip(gradients, net.parameters(), strict=True):
            assert parameter.grad is not None
            assert torch.allclose(one, parameter.grad, rtol=1e-4, atol=1e-6)


def test_focal_without_gamma_and_adjustment_without_tau_are_cross_entropy() -> None:
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    plain = functional.cross_entropy(z, Y, reduction="sum")
    for name, key in (("focal", "gamma"), ("logit_adjusted", "tau")):
        assert torch.allclose(loss_for({**NODES[name], key: 0.0}, Training(), Y)(z, Y), plain)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_has_finite_gradients_however_sure_the_network_is(gamma: float) -> None:
    z = torch.tensor([[200.0, 0, 0], [-200, 0, 0], [0, 0, 0]], requires_grad=True)
    loss = loss_for({**NODES["focal"], "gamma": gamma}, Training(), Y)(z, torch.tensor([0, 0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_smoothed_labels_are_refused_by_a_loss_that_takes_none() -> None:
    for name in ("cross_entropy", "logit_adjusted"):
        loss_for(NODES[name], Training(label_smoothing=0.1), Y)
    with pytest.raises(RequestError, match="focal takes no smoothed labels"):
        loss_for(NODES["focal"], Training(label_smoothing=0.1), Y)


@pytest.mark.parametrize("name", NODES)
def test_imbalance_is_corrected_once(name: str) -> None:
    for weights, sampler in ((w, s) for w in (None, "balanced") for s in (None, "balanced")):
        training = Training(class_weights=weights, sampler=sampler)
        if (name, weights, sampler) in CASES:
            loss_for(NODES[name], training, Y)
        else:
            with pytest.raises(RequestError, match=": take one of loss=logit_adjusted, ") as caught:
                loss_for(NODES[name], training, Y)
            given = str(caught.value).partition(": ")[0]
            assert ("loss=logit_adjusted" in given) == (name == "logit_adjusted")
            assert ("training.sampler=balanced" in given) == (sampler is not None)
            assert ("training.class_weights=balanced" in given) == (weights is not None)


def test_the_loss_of_guessing_is_that_of_equal_logits_over_an_epoch() -> None:
    for name, weights, sampler in CASES:
        training = Training(class_weights=weights, sampler=sampler)
        drawn = Y if sampler is None else torch.arange(3).repeat(5)
        weight = class_weights(Y, weights)
        total = loss_for(NODES[name], training, Y)(torch.zeros(len(drawn), 3), drawn)
        expected = total / (len(drawn) if weight is None else weight[drawn].sum())
        assert guessing(NODES[name], training, Y) == pytest.approx(float(expected), rel=1e-5)


def test_each_class_is_drawn_equally_often_and_each_of_its_images() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(30):
        counts = torch.randint(1, 40, (int(torch.randint(2, 8, (), generator=random)),), generator=random)
        y = torch.repeat_interleave(torch.arange(len(counts)), counts)
        y = y[torch.randperm(len(y), generator=random)]
        order = balanced(y, 8, random)
        drawn = torch.cat(order)
        assert len(drawn) == len(y)
        assert all(len(batch) == 8 for batch in order[:-2])
        assert len(order) == 1 or len(order[-1]) > 1
        of_class = torch.bincount(y[drawn], minlength=len(counts))
        assert of_class.max() - of_class.min() <= 1
        times = torch.bincount(drawn, minlength=len(y))
        for label in range(len(counts)):
            assert times[y == label].max() - times[y == label].min() <= 1


def test_an_epochs_draws_depend_on_seed_and_epoch_alone() -> None:
    first, again, other = (balanced(Y, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize("remedy", ["none", "sampler", "weights", "logit_adjusted"])
def test_a_class_that_is_rare_is_found_by_each_remedy(remedy: str) -> None:
    """40 : 1, overlapping: plain cross-entropy gives the rare class up."""
    torch.manual_seed(0)
    y = torch.tensor([0] * 400 + [1] * 10)
    x = torch.randn(410, 3) + 1.2 * (2 * y[:, None] - 1) * torch.tensor([1.0, 0, 0])
    training = Training(
        sampler="balanced" if remedy == "sampler" else None, class_weights="balanced" if remedy == "weights" else None
    )
    net = nn.Sequential()
    net.add_module("body", nn.Identity())
    net.add_module("head", nn.Linear(3, 2))
    phase = Phase(train_from="head", epochs=30, lr=0.05, batch_size=64, optimizer=ADAM, schedule=CONSTANT)
    plan = phase_plan.plan(net, "probe", phase, classifier="head")
    phase_plan.prepare(net, plan)
    node = NODES["logit_adjusted"] | {"tau": 1.0} if remedy == "logit_adjusted" else NODES["cross_entropy"]
    rows, progress = CachedRows([x], y), Progress(TrainState(epochs=30))
    list(trainer.epochs(SolverContext(net, plan, rows, phase, training, 30, progress, loss=node), rows))
    found = (net(x)[y == 1].argmax(1) == 1).float().mean()
    assert (found > 0.6) == (remedy != "none")
