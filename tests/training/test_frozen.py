"""What is frozen stays frozen to the bit, BatchNorm statistics too: every backbone × every strategy."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.config.test_compose import config_of
from tlx.backbones import factories
from tlx.config.compose import choices
from tlx.config.schema import Config, Phase
from tlx.core.errors import RequestError
from tlx.features.batches import CachedRows, Through
from tlx.features.frozen_forward import Forward
from tlx.training import phase_plan, trainer
from tlx.training.optimizers import solver_for
from tlx.training.solver_context import SolverContext

# The smallest input that each network's last pooling still takes, and a width to match where one can be chosen.
SMALL = {
    "alexnet": ["backbone.input_size=64"],
    "vgg16": ["backbone.input_size=32"],
    "timm": ["backbone.name=resnet10t", "backbone.input_size=32"],
    "small_cnn": ["backbone.input_size=16"],
}
BACKBONES = sorted(set(choices("backbone")) - {"efficientnet_lite1", "efficientnet_lite2"})  # lite0, with more layers
NO_NORMS = ("alexnet", "small_cnn", "squeezenet1_1", "vgg16")  # which `norm_only` refuses
STRATEGIES = sorted(choices("strategy"))
LARGE = ("alexnet", "vgg16")  # whose stages are plain layers: the strategies that train them in different ways
WAYS = ("feature_extraction", "finetune", "full", "linear_probe", "lora", "knn")
CASES = [(name, way) for name in BACKBONES for way in (WAYS if name in LARGE else STRATEGIES)]


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[nn.Sequential, dict[str, Tensor]]]:
    """Each backbone once with each head, and its first state: building a VGG takes longer than training it a step."""
    return {}


def built(name: str, config: Config, networks: dict[str, tuple[nn.Sequential, dict[str, Tensor]]]) -> nn.Sequential:
    key = f"{name} {config.head}"
    if key not in networks:
        networks.clear()  # one at a time: VGG16 is half a gigabyte
        net, _ = factories.build(config.backbone, config.head, 2, seed=0, offline=True)
        networks[key] = net, {n: t.clone() for n, t in net.state_dict().items()}
    net, began = networks[key]
    net.load_state_dict(began)
    return net


def digest(net: nn.Module, names: set[str]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items() if name in names}


@pytest.mark.parametrize(("name", "choice"), CASES)
def test_frozen_means_bit_identical(
    name: str, choice: str, networks: dict[str, tuple[nn.Sequential, dict[str, Tensor]]]
) -> None:
    size = SMALL.get(name, ["backbone.input_size=64"])
    config = config_of(f"backbone={name}", f"strategy={choice}", "backbone.weights=none", *size)
    net = built(name, config, networks)
    if choice == "norm_only" and name in NO_NORMS:
        with pytest.raises(RequestError, match="is of that kind"):
            phase_plan.plan(net, "tune", config.strategy.phases["tune"], classifier=net.layout.classifier)
        return
    pixels = torch.randint(0, 256, (4, 3, *[int(size[-1].partition("=")[2])] * 2), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    for phase_name, phase in config.strategy.phases.items():
        phase.epochs, phase.batch_size = 1, 4
        plan = phase_plan.plan(
            net, phase_name, phase, classifier=net.layout.classifier, fine=net.layout.table is not None
        )
        phase_plan.prepare(net, plan)
        moving = {*plan.learning, *(n for n in net.state_dict() if n.startswith(tuple(f"{a}." for a in plan.adapting)))}
        frozen = set(net.state_dict()) - moving
        before = net.state_dict()
        # A head of reference images has no parameters: its buffers are filled.
        still, moved = digest(net, frozen), digest(net, set(plan.learning) or moving)
        with torch.no_grad():
            features = net[: plan.cut].eval()(pixels)
        rows = CachedRows([features], labels)
        training = config.training
        list(trainer.epochs(SolverContext(net, plan, rows, phase, training, 1), rows))
        after = net.state_dict()
        assert all(torch.equal(after[n], still[n]) for n in frozen), f"{phase_name}: something frozen moved"
        assert not all(torch.equal(after[n], moved[n]) for n in moved), f"{phase_name}: nothing learned"
        assert all(before[n].shape == after[n].shape for n in before)


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_behind_every_cut_of_every_strategy_are_the_same_kept_or_live(
    name: str, networks: dict[str, tuple[nn.Sequential, dict[str, Tensor]]]
) -> None:
    """What a phase learns is a function of its rows: with this, cached training is live training."""
    size = SMALL.get(name, ["backbone.input_size=64"])
    configs = [
        config_of(f"backbone={name}", f"strategy={s}", "backbone.weights=none", *size)
        for s in STRATEGIES
        if s != "norm_only" or name not in NO_NORMS
    ]
    net = built(name, configs[0], networks)
    cuts = {
        phase_plan.plan(net, n, phase, classifier=net.layout.classifier, fine=net.layout.table is not None).cut
        for config in configs
        for n, phase in config.strategy.phases.items()
    }
    assert 0 in cuts  # `full` has no frozen part
    pixels = torch.randint(0, 256, (11, 3, *[int(size[-1].partition("=")[2])] * 2), dtype=torch.uint8)
    images = CachedRows([pixels], torch.arange(11))
    order = [torch.tensor([7, 0, 10]), torch.tensor([3]), torch.tensor([1, 2, 9, 8, 4])]
    for cut in sorted(cuts - {0}):
        for exact in (False, True):
            live = Through(Forward(net[:cut], "fp32", exact=exact), images)
            (kept, _), *rest = live.batches([torch.arange(11)], 0)
            assert not rest
            for index, (x, y) in zip(order, live.batches(order, 0), strict=True):
                assert torch.equal(y, index)
                assert torch.equal(x, kept[index]), f"cut {cut}, exact {exact}"


def test_statistics_adapt_only_where_the_phase_says_so() -> None:
    net = nn.Sequential()
    for stage in ("one", "two", "head"):
        layers = [nn.Linear(4, 4), nn.BatchNorm1d(4)] if stage != "head" else [nn.Linear(4, 2)]
        net.add_module(stage, nn.Sequential(*layers))

    def adapting(**values: object) -> tuple[str, ...]:
        phase = Phase(train_from="two", lr=1e-3, **values)  # type: ignore[arg-type]
        return phase_plan.plan(net, "tune", phase, classifier="head").adapting

    assert adapting() == ("two.1",)
    assert adapting(statistics="none") == ()
    assert adapting(statistics="all") == ("one.1", "two.1")
    assert adapting(learns=["bias"]) == ("two.1",)


def test_statistics_without_a_scale_of_their_own_go_with_their_stage() -> None:
    net = nn.Sequential()
    for stage in ("one", "two"):
        net.add_module(stage, nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)))
    net.add_module("head", nn.Sequential(nn.Linear(4, 2)))
    plan = phase_plan.plan(net, "tune", Phase(train_from="two", lr=1e-3), classifier="head")
    assert plan.adapting == ("two.1",)
    phase_plan.prepare(net, plan)
    phase_plan.set_mode(net, plan)
    assert [net[0][1].training, net[1][1].training] == [False, True]  # type: ignore[index]


def test_a_stage_whose_statistics_adapt_is_not_called_frozen() -> None:
    net = nn.Sequential()
    net.add_module("one", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    net.add_module("head", nn.Sequential(nn.Linear(4, 2)))
    phase = Phase(train_from="head", lr=1e-3, statistics="all")
    stages = phase_plan.plan(net, "probe", phase, classifier="head").to_dict()["stages"]
    assert [(stage["frozen"], stage["learns"]) for stage in stages] == [(False, 0), (False, 10)]


def test_a_selection_that_nothing_answers_to_is_an_error() -> None:
    net = nn.Sequential()
    net.add_module("one", nn.Sequential(nn.Linear(4, 4)))
    net.add_module("head", nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(
        RequestError, match=r"strategy.phases.tune.learns=\[norm\]: no parameter in one is of that kind"
    ):
        phase_plan.plan(net, "tune", Phase(train_from="all", lr=1e-3, learns=["norm"]), classifier="head")


def test_a_selector_and_a_solver_are_known_before_torch_is() -> None:
    from tlx.config import schema, solver_keys

    assert tuple(phase_plan.SELECTORS) == schema.SELECTORS
    for name in solver_keys.SOLVERS:
        solver_for(name)


def test_adapting_statistics_move_the_cut() -> None:
    net = nn.Sequential()
    net.add_module("one", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    net.add_module("head", nn.Sequential(nn.Linear(4, 2)))
    phase = Phase(train_from="head", lr=1e-3)
    assert phase_plan.plan(net, "probe", phase, classifier="head").cut == 1
    phase.statistics = "all"
    assert phase_plan.plan(net, "probe", phase, classifier="head").cut == 0


def test_dropout_trains_behind_the_cut_and_frozen_norms_do_not() -> None:
    net = nn.Sequential()
    net.add_module("body", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()))
    net.add_module("mid", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()))
    net.add_module("head", nn.Sequential(nn.Linear(4, 2)))
    plan = phase_plan.plan(net, "tune", Phase(train_from="mid", lr=1.0, statistics="none"), classifier="head")
    phase_plan.prepare(net, plan)
    phase_plan.set_mode(net, plan)
    modes = {name: module.training for name, module in net.named_modules() if not list(module.children())}
    assert modes == {
        "body.0": False, "body.1": False, "body.2": False,
        "mid.0": True, "mid.1": False, "mid.2": True,
        "head.0": True,
    }  # fmt: skip


def test_each_stage_learns_at_its_own_rate_and_norms_do_not_decay() -> None:
    net = nn.Sequential()
    net.add_module("one", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    net.add_module("two", nn.Sequential(nn.Linear(4, 4)))
    net.add_module("head", nn.Sequential(nn.Linear(4, 2)))
    plan = phase_plan.plan(net, "tune", Phase(train_from="all", lr=1.0, lr_decay=0.5), classifier="head")
    phase_plan.prepare(net, plan)
    assert [row.lr for row in plan.rows] == [0.25, 0.5, 1.0]
    groups = phase_plan.groups(net, plan, weight_decay=0.1)
    assert sorted((g["lr"], g["weight_decay"], sum(p.numel() for p in g["params"])) for g in groups) == [
        (0.25, 0.0, 12), (0.25, 0.1, 16), (0.5, 0.0, 4), (0.5, 0.1, 16), (1.0, 0.0, 2), (1.0, 0.1, 8)
    ]  # fmt: skip


def test_a_second_phase_sees_no_gradient_of_the_first(tmp_path: Path) -> None:
    net = nn.Sequential()
    net.add_module("body", nn.Sequential(nn.Linear(4, 4)))
    net.add_module("head", nn.Sequential(nn.Linear(4, 2)))
    every = phase_plan.plan(net, "tune", Phase(train_from="all", lr=1.0), classifier="head")
    phase_plan.prepare(net, every)
    net(torch.randn(3, 4)).sum().backward()
    phase_plan.prepare(net, phase_plan.plan(net, "probe", Phase(train_from="head", lr=1.0), classifier="head"))
    assert all(p.grad is None for p in net.parameters())
