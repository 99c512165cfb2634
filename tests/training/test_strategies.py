"""Every strategy on networks of each kind: what is declared moves, and a phase that goes on comes to the same bits."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.config.test_compose import config_of
from tlx.backbones import factories
from tlx.backbones.staged_network import Net
from tlx.config.compose import choices
from tlx.config.schema import Config
from tlx.core.errors import RequestError
from tlx.features.batches import CachedRows
from tlx.training import checkpoint, phase_plan, trainer
from tlx.training.progress import Progress
from tlx.training.snapshots import restore, snapshot
from tlx.training.solver_context import SolverContext
from tlx.training.train_state import TrainState

NETWORKS = {
    "small_cnn": ["backbone=small_cnn", "backbone.input_size=16"],
    "resnet": ["backbone=timm", "backbone.name=test_resnet", "backbone.input_size=32", "backbone.weights=none"],
    "vit": ["backbone=timm", "backbone.name=test_vit", "backbone.input_size=32", "backbone.weights=none"],
}
CASES = [(strategy, name) for strategy in sorted(choices("strategy")) for name in NETWORKS]
RUN: dict[str, Any] = {
    **dict.fromkeys(("key", "name", "command", "cwd", "identity", "data"), ""),
    **{name: {} for name in ("config", "summary", "seconds")},
    "rows": [],
}


@cache
def images(size: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(12) % 3
    pixels = torch.randint(0, 200, (12, 3, size, size), generator=draw) + 25 * labels[:, None, None, None]
    return pixels.to(torch.uint8), labels


@cache
def network(name: str) -> Net:
    config = config_of(*NETWORKS[name])
    return factories.build(config.backbone, config.head, 3, seed=0, offline=True)[0]


composed = cache(config_of)


def built(strategy: str, name: str, *words: str) -> tuple[Net, Config]:
    config = copy.deepcopy(composed(f"strategy={strategy}", *NETWORKS[name], *words))
    for phase in config.strategy.phases.values():
        phase.epochs, phase.batch_size = 2, phase.batch_size and 5
    if config.head.references:  # few, of a head of its own
        config.head.references = 20
        net = factories.build(config.backbone, config.head, 3, seed=0, offline=True)[0]
    else:
        net = copy.deepcopy(network(name))
    lacks = (strategy, name) == ("norm_only", "small_cnn")
    with pytest.raises(RequestError, match="no parameter in") if lacks else nullcontext():
        for phase_name, phase in config.strategy.phases.items():
            phase_plan.plan(net, phase_name, phase, classifier=net.layout.classifier, fine=net.fine)
    if lacks:
        pytest.skip(f"{name} has none of what {strategy} trains")
    return net, config


def train(
    net: Net, config: Config, state: TrainState, after: Callable[[TrainState, phase_plan.Plan], None]
) -> dict[str, Tensor]:
    """All phases from the one in which the state stands; the network's tensors at the end."""
    size = config.backbone.input_size or 0
    pixels, labels = images(size)
    names = list(config.strategy.phases)
    for name in names[names.index(state.phase) if state.phase else 0 :]:
        phase = config.strategy.phases[name]
        plan = phase_plan.plan(net, name, phase, classifier=net.layout.classifier, fine=net.fine)
        phase_plan.prepare(net, plan)
        if state.phase != name:
            state.begin(name, snapshot(net, plan))
        with torch.no_grad():
            rows = CachedRows([net[: plan.cut].eval()(pixels)], labels)
        context = SolverContext(net, plan, rows, phase, config.training, phase.epochs or 0, Progress(state))
        for _ in trainer.epochs(context, rows):
            after(state, plan)
        restore(net, state.best)
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


@pytest.mark.parametrize(("strategy", "name"), [case for case in CASES if case[1] != "resnet"])
def test_a_run_that_goes_on_after_any_epoch_comes_to_the_same_bits(tmp_path: Path, strategy: str, name: str) -> None:
    net, config = built(strategy, name)
    folders = list[Path]()

    def keep(state: TrainState, _: phase_plan.Plan) -> None:
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()
        checkpoint.Keeper(folders[-1]).keep(RUN, net, state)

    whole = train(net, config, TrainState(), keep)
    for folder in {folders[0], folders[len(folders) // 2], folders[-1]}:
        again, config = built(strategy, name)
        state = TrainState()
        checkpoint.load(folder, checkpoint.read(folder), again, state)
        found = train(again, config, state, lambda *_: None)
        assert all(torch.equal(found[key], whole[key]) for key in whole), folder.name


@pytest.mark.parametrize(("strategy", "name"), CASES)
def test_nothing_moves_that_the_plan_does_not_name(strategy: str, name: str) -> None:
    net, config = built(strategy, name)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    named = set[str]()

    def look(state: TrainState, plan: phase_plan.Plan) -> None:
        named.update(plan.learning)
        named.update(key for key in before if key.startswith(tuple(f"{norm}." for norm in plan.adapting)))
        moved = {key for key, tensor in net.state_dict().items() if not torch.equal(tensor, before[key])}
        assert moved <= named
        assert moved & (set(plan.learning) or named)

    train(net, config, TrainState(), look)


@pytest.mark.parametrize("name", NETWORKS)
def test_lora_changes_each_weight_by_a_matrix_of_low_rank(name: str) -> None:
    solver = "strategy.phases.tune.solver={_target_: tlx.training.solvers.lora, rank: 2}"
    net, config = built("lora", name, solver, "strategy.phases.tune.lr=0.05", "strategy.phases.probe=null")
    before = {key: tensor.clone() for key, tensor in net.named_parameters()}
    train(net, config, TrainState(), lambda *_: None)
    ranks = {}
    for key, module in net[:-1].named_modules():
        if isinstance(module, phase_plan.MATRICES):
            change = (module.weight - before[f"{key}.weight"]).detach().flatten(1).double()
            if change.abs().max() > 0 and 2 * sum(change.shape) < change.numel():
                ranks[key] = int((torch.linalg.svdvals(change) > 1e-4 * change.norm()).sum())
    assert ranks
    assert set(ranks.values()) <= {1, 2}


def test_l2_sp_keeps_weights_near_their_start_and_only_those_of_its_phase() -> None:
    distances = []
    for strength in (0.0, 1000.0):
        solver = f"strategy.phases.tune.solver={{_target_: tlx.training.solvers.l2_sp, strength: {strength}}}"
        net, config = built("l2_sp", "small_cnn", solver, "optimizer=sgd")
        before = [p.detach().clone() for p in net[:-1].parameters()]
        train(net, config, TrainState(), lambda *_: None)
        moved = [p.detach() - q for p, q in zip(net[:-1].parameters(), before, strict=True)]
        distances.append(sum(float(change.norm()) for change in moved))
    assert 0 < distances[1] < distances[0]
    assert isinstance(net[-1], nn.Sequential)
