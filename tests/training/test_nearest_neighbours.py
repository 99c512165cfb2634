"""k nearest neighbours: the vote of the papers, each training image without itself, in a model like any other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tlx
from tests.config.test_compose import config_of
from tlx.backbones.neighbours_head import NeighbourVote
from tlx.config.schema import Phase, Training
from tlx.core.errors import RequestError
from tlx.features.batches import CachedRows
from tlx.training import phase_plan, trainer
from tlx.training.solver_context import SolverContext
from tlx.training.solvers import knn

SMALL = ["backbone=small_cnn", "backbone.input_size=16", "dataset.train=40", "dataset.test=8", "tracking=none"]


def features(n: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n)
    y = torch.arange(n) % 3
    return torch.randn(n, 12, generator=draw) + torch.eye(3, 12)[y], y


def context_of(x: Tensor, y: Tensor, epochs: int, references: int = 100, **training: str) -> SolverContext:
    net = nn.Sequential()
    net.add_module("head", nn.Sequential(NeighbourVote(x.shape[1], 3, references)))
    phase = Phase(train_from="head", solver="knn", epochs=epochs)
    plan = phase_plan.plan(net, "probe", phase, classifier="head")
    phase_plan.prepare(net, plan)
    return SolverContext(net, plan, CachedRows([x], y), phase, Training(**training), epochs)  # type: ignore[arg-type]


def votes(x: Tensor, y: Tensor, of: Tensor, k: int, own: bool = False) -> np.ndarray:
    """Shares of the votes, one image after the other; `own`: each of `of` without itself, which is in `x`, too."""
    found = []
    for row, image in enumerate(of):
        cosines = nn.functional.cosine_similarity(x, image[None]).numpy()
        if own:
            cosines[row] = -2
        near = np.argsort(-cosines)[:k]
        counts = np.full(3, 1 / 3)
        np.add.at(counts, y.numpy()[near], np.exp((cosines[near] - cosines[near[0]]) / 0.07))
        found.append(counts / counts.sum())
    return np.array(found)


def test_probabilities_are_the_votes_and_each_training_image_is_without_its_own() -> None:
    x, y = features(60)
    new, _ = features(30)
    context = context_of(x, y, 8)
    counts = []
    for trained in knn(context):
        counts.append(k := int(trained.figures["neighbours"]))
        with torch.no_grad():
            mine = context.net(new).softmax(1).numpy()
        assert np.abs(mine - votes(x, y, new, k)).max() < 0.02  # by the rounding of directions to int8
        alone = votes(x, y, x, k, own=True)[np.arange(60), y.numpy()]
        assert trained.train_loss == pytest.approx(-np.log(alone).mean(), abs=0.02)
    assert counts == [1, 3, 5, 10, 20, 50]  # 100 are more than there are


def test_of_more_images_than_the_head_holds_each_class_keeps_its_share() -> None:
    x, y = features(90)
    context = context_of(x[:80], y[:80], 1, references=12, class_weights="balanced")
    (_,) = knn(context)
    head = context.net[0][0]
    assert torch.bincount(head.labels).tolist() == [4, 4, 4]
    assert (head.weights > 0).all()


def test_the_k_of_the_best_epoch_is_put_back() -> None:
    x, y = features(90)
    context = context_of(x[:60], y[:60], 8)
    rows = list(trainer.epochs(context, CachedRows([x[60:]], y[60:])))
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert context.state.best_epoch == best["epoch"]
    assert int(context.state.best["head.0.neighbours"]) == best["neighbours"]
    assert all("lr" not in row for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy=knn", "head=linear"], "solver=knn: needs a head of reference images; take head=neighbours"),
        (["head=neighbours"], "head.references=5000: phase probe trains layers, .* take strategy=knn, or head=linear"),
        (["strategy=knn", "head.append=true"], "head of reference images has no layers; leave out head.append"),
        (["strategy=knn", "strategy.phases.probe.train_from=fc"], "trains no layer; take head=neighbours and"),
        (
            ["strategy=knn", "strategy.phases.probe.solver={_target_: tlx.training.solvers.knn, counts: [500]}"],
            "solver of phase probe: .* counts must be from 1 to 200",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, words: Sequence[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        tlx.run([*SMALL, f"output={tmp_path}", *words])


def test_a_run_is_saved_and_opened_like_any_other(tmp_path: Path) -> None:
    """Its test figures are of the saved model, and features that are cached or not make the same one."""
    words = [*SMALL, "strategy=knn", "head.references=30", "strategy.phases.probe.epochs=2"]
    cached = tlx.run([*words, f"output={tmp_path}"])
    live = tlx.run([*words, f"output={tmp_path}", "features.mode=live"])
    one, other = (tlx.load(found.folder).net[-1].state_dict() for found in (cached, live))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert int((one["0.weights"] > 0).sum()) == 30
    assert cached.calibration["temperature"] > 0
    assert not cached.not_converged


def test_empty_rows_have_no_part_and_a_change_of_the_rows_is_seen() -> None:
    (x, y), (others, labels) = features(40), features(60)
    head = NeighbourVote(12, 3, 500)
    head.neighbours.fill_(7)
    for rows, of in ((x, y), (others, labels), (x[:25], y[:25])):
        head.fill(rows, of, torch.ones(len(of)))
        full = NeighbourVote(12, 3, len(of))
        full.neighbours.fill_(7)
        full.fill(rows, of, torch.ones(len(of)))
        assert torch.allclose(head(x), full(x), atol=1e-6)
    after = NeighbourVote(12, 3, 500)
    before = after(x)
    after.load_state_dict(head.state_dict())
    assert torch.equal(after(x), head(x))
    assert not torch.equal(after(x), before)


def test_the_head_can_be_exported() -> None:
    x, y = features(40)
    context = context_of(x, y, 3)
    list(knn(context))
    program = torch.export.export(context.net, (x[:5],), dynamic_shapes=({0: torch.export.Dim("images")},))
    assert torch.allclose(program.module()(x), context.net(x), atol=1e-6)
    assert {t.dtype for t in program.state_dict.values() if t.ndim == 2} == {torch.int8}  # and not four times as large


def test_the_defaults_of_the_strategy() -> None:
    phase = config_of("strategy=knn").strategy.phases["probe"]
    assert (phase.solver, phase.epochs, phase.lr, phase.batch_size) == ("knn", 8, None, None)
