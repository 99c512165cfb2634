"""The linear probe is scikit-learn's logistic regression, found as a plain layer of the network's own features."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tlx
from tests.config.test_compose import config_of
from tlx.config.schema import Phase, Training
from tlx.core.errors import RequestError
from tlx.features.batches import CachedRows, shuffled
from tlx.training import logistic_regression, phase_plan, trainer
from tlx.training.solver_context import SolverContext
from tlx.training.solvers import heads, linear_probe

SMALL = ["backbone=small_cnn", "backbone.input_size=16", "dataset.train=20", "dataset.test=6", "tracking=none"]


def features(n: int, width: int, classes: int) -> tuple[Tensor, Tensor]:
    """Correlated, of different scales and means, one of them constant; classes overlap."""
    draw = torch.Generator().manual_seed(n + width + classes)
    hidden = torch.randn(n, 12, generator=draw)
    x = (hidden @ torch.randn(12, width, generator=draw) + torch.randn(n, width, generator=draw)).relu()
    y = (hidden @ torch.randn(12, classes, generator=draw) + 2 * torch.randn(n, classes, generator=draw)).argmax(1)
    x = (x + 5) * torch.logspace(-2, 2, width)  # the layer is in float32: a mean of 10,000 spreads would be lost in it
    x[:, 0] = 3.0
    return x, y


def context_of(
    x: Tensor, y: Tensor, classes: int, epochs: int, training: Training | None = None, folds: Tensor | None = None
) -> SolverContext:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("head", nn.Sequential(nn.Linear(x.shape[1], classes)))
    phase = Phase(train_from="head", solver="linear_probe", epochs=epochs)
    plan = phase_plan.plan(net, "probe", phase, classifier="head")
    phase_plan.prepare(net, plan)
    return SolverContext(net, plan, CachedRows([x], y), phase, training or Training(), epochs, folds=folds)


def probabilities(net: nn.Module, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = net(x).softmax(1).numpy()
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "width", "classes"), [(60, 200, 2), (60, 200, 4), (300, 40, 2), (300, 40, 5)])
def test_its_probabilities_are_those_of_scikit_learn(n: int, width: int, classes: int, weighted: bool) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = features(n, width, classes)
    context = context_of(x, y, classes, 5, Training(class_weights="balanced" if weighted else None))
    # Standardised in float64: in float32 the mean is already off where features are large.
    standard = x.double().numpy()
    standard = (standard - standard.mean(0)) / np.where(standard.std(0) > 1e-9, standard.std(0), 1)
    for trained in linear_probe(context):
        mine = probabilities(context.net, x)
        strength = trained.figures["l2"]
        theirs = linear_model.LogisticRegression(
            C=1 / (n * strength), tol=1e-9, max_iter=100_000, class_weight="balanced" if weighted else None
        ).fit(standard, y.numpy())
        assert np.abs(mine - theirs.predict_proba(standard)).max() < 1e-4, strength


def test_strengths_fall_and_each_is_a_row_of_which_validation_chooses() -> None:
    x, y = features(80, 30, 3)
    context = context_of(x[:60], y[:60], 3, 9)
    rows = list(trainer.epochs(context, CachedRows([x[60:]], y[60:])))
    assert np.allclose([row["l2"] for row in rows], 10 * 10 ** (-0.5 * np.arange(9)))
    assert all("lr" not in row for row in rows)
    assert context.state.best_epoch == min(rows, key=lambda row: float(row["val_loss"]))["epoch"]
    assert sorted((row["train_loss"] for row in rows), reverse=True) == [row["train_loss"] for row in rows]


def test_a_probe_that_goes_on_comes_to_the_same_bits() -> None:
    x, y = features(50, 120, 3)
    whole = context_of(x, y, 3, 6)
    weights = [[p.detach().clone() for p in whole.net.parameters()] for _ in linear_probe(whole)]
    for stop in range(1, 6):
        cut = context_of(x, y, 3, 6)
        cut.progress.state.within = stop
        with torch.no_grad():
            for parameter, known in zip(cut.net.parameters(), weights[stop - 1], strict=True):
                parameter.copy_(known)
        for _ in linear_probe(cut):
            pass
        assert all(torch.equal(p, known) for p, known in zip(cut.net.parameters(), weights[-1], strict=True))


def test_images_out_of_fold_choose_the_strength_with_those_of_validation() -> None:
    """Each is predicted by a fit that has not seen its fold, at the same strength beside the mean loss of an image."""
    x, y = features(80, 30, 3)
    x = (x[:, 1:] - x[:, 1:].mean(0)) / x[:, 1:].std(0)
    train, held_out, folds = x[:60], CachedRows([x[60:]], y[60:]), torch.arange(60) % 4
    context = context_of(train, y[:60], 3, 6, folds=folds)
    rows = list(trainer.epochs(context, held_out))
    assert context.state.best_epoch == max(rows, key=lambda row: float(row["choice_score"]))["epoch"]
    alone = context_of(train, y[:60], 3, 6)
    plain = list(trainer.epochs(alone, held_out))
    assert np.allclose([row["val_loss"] for row in rows], [row["val_loss"] for row in plain], atol=1e-4)
    context = context_of(train, y[:60], 3, 3, folds=folds)
    *_, last = linear_probe(replace(context, held_out=held_out))
    assert last.out_of_fold is not None
    standard = (train - train.mean(0)) / train.std(0, correction=0)
    for fold in range(4):
        some, labels = standard[folds != fold], y[:60][folds != fold]
        strength = last.figures["l2"] * len(some)
        (fit,) = logistic_regression.fit(some, labels, torch.ones(len(some), 1), 3, strength, gram=some.T @ some)
        expected = logistic_regression.scores(standard[folds == fold], fit).softmax(1)
        assert torch.allclose(last.out_of_fold[0][folds == fold].softmax(1), expected, atol=1e-3)


def test_fits_of_some_images_each_are_those_found_alone() -> None:
    x, y = features(60, 20, 3)
    rows = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    uses = (torch.arange(60)[:, None] % 3 != torch.arange(3)).float()
    together = logistic_regression.fit(rows, y, uses, 3, 2.0, gram=rows.T @ rows)
    for number in range(3):
        some = rows[uses[:, number] > 0]
        alone = logistic_regression.fit(some, y[uses[:, number] > 0], torch.ones(len(some), 1), 3, 2.0)
        difference = logistic_regression.scores(rows, together[number]).softmax(1)
        assert torch.allclose(difference, logistic_regression.scores(rows, alone[0]).softmax(1), atol=1e-4)


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (["head=mlp"], "Linear, ReLU, Dropout, Linear"),
        (["head.dropout=0.3"], "Dropout, Linear"),
        (["strategy.phases.probe.train_from=fc"], "Linear, ReLU, Linear"),
    ],
)
def test_more_than_a_linear_layer_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], layers: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=f"^strategy.phases.probe.solver: it fits one linear layer, .* {layers}; "):
        tlx.run([*SMALL, "strategy=linear_probe", *words])
    assert not list(tmp_path.iterdir())


def test_tlxs_own_by_its_target_is_the_same_and_takes_another_grid() -> None:
    plain = config_of("strategy=linear_probe").strategy.phases["probe"]
    named = "strategy.phases.probe.solver={_target_: tlx.training.solvers.linear_probe}"
    assert config_of("strategy=linear_probe", named).strategy.phases["probe"] == plain
    other = named.replace("}", ", strongest: 1, factor: 0.1}")
    solver = config_of("strategy=linear_probe", other).strategy.phases["probe"].solver
    assert solver == {"_target_": "tlx.training.solvers.linear_probe", "strongest": 1, "factor": 0.1}


def test_a_run_is_refitted_on_all_images_and_saved_as_a_plain_layer(tmp_path: Path) -> None:
    found = tlx.run([*SMALL, "strategy=linear_probe", f"output={tmp_path}"])
    model = tlx.load(found.folder)
    assert found.refit["images"] == found.images["train"] + found.images["val"]
    assert found.calibration["fitted_on"] == "val and train, out of fold"
    assert found.test_accuracy is not None
    assert [type(m) for m in model.net[-1].modules() if not list(m.children())] == [nn.Linear]


@pytest.mark.parametrize("classes", [2, 3])
def test_heads_are_what_adamw_makes_of_each_rate_and_decay(classes: int) -> None:
    x, y = features(40, 20, classes)
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-3)
    rates, decays = [1e-3, 1e-1], [0.0, 0.1]
    context = context_of(x, y, classes, 8, Training())
    context.phase.batch_size = 16
    rows = []
    for number, trained in enumerate(heads(context, rates, decays, seeds=2, passes=3)):
        torch.manual_seed(number // 4)
        layer = nn.Linear(20, classes)
        rate, decay = rates[number % 2], decays[number // 2 % 2]
        assert (trained.lr, *trained.figures.values()) == (rate, decay, number // 4)
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=rate)
        for step in range(3):
            for index in shuffled(40, 16, torch.Generator().manual_seed(step)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(layer(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        assert torch.allclose(context.net(x), layer(x), atol=1e-3)
        rows.append(trained.train_loss)
    assert len(set(rows)) == len(rows) == 8


def test_the_validation_images_are_predicted_by_all_heads_at_once() -> None:
    x, y = features(60, 20, 3)
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-3)
    context = context_of(x[:40], y[:40], 3, 64, Training())
    context.phase.batch_size, held_out = 16, CachedRows([x[40:]], y[40:])
    for trained in heads(replace(context, held_out=held_out), [1e-3, 1e-1], [0.0, 0.1], seeds=2, passes=3):
        assert trained.logits is not None
        with torch.no_grad():
            assert torch.allclose(trained.logits, context.net(x[40:]), atol=1e-4)


def test_fewer_epochs_than_heads_are_said(caplog: pytest.LogCaptureFixture) -> None:
    x, y = features(20, 10, 2)
    context = context_of(x, y, 2, 3)
    context.phase.batch_size = 16
    assert len(list(heads(context, [1e-2], [0.0], seeds=4, passes=1))) == 3
    assert caplog.messages == ["strategy.phases.probe.epochs=3: the first 3 of 4 layers are trained"]
