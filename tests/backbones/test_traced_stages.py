"""Stages of models whose blocks do not run in sequence: they compute the same, under the same keys, for any batch."""

import copy
import pickle
from collections.abc import Mapping

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.backbones.test_factories import configured
from tlx.backbones import factories
from tlx.backbones.factories import build
from tlx.backbones.staged_network import Net, of_parts
from tlx.backbones.timm_stages import Traced
from tlx.backbones.traced_stages import traced
from tlx.config.schema import Head, Phase
from tlx.features.weight_fingerprint import fingerprint
from tlx.training.phase_plan import longer_last, plan

SIZE = 32


class Block(nn.Module):
    """Two layers and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.inner(x)
        return added


class Branches(nn.Module):
    """Two branches that are mixed: two tensors cross each cut between blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.ModuleList([Block(4), Block(4)])
        self.right = nn.ModuleList([Block(4), Block(4)])
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = torch.nn.functional.max_pool2d(a, 2)
        for left, right in zip(self.left, self.right, strict=True):
            a, b = left(a), right(b)
        both: Tensor = self.fc(torch.cat([a.mean((2, 3)), b.mean((2, 3))], 1))
        return both


class Windows(nn.Module):
    """A number of images in shapes, a class token, a table that a tensor of no parameter makes, an item set."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.scale = torch.linspace(1, 2, 8)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True) for _ in range(2)])
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Parameter(torch.zeros(3))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = self.embed(x)
        x = x.reshape(n * 2, 8, -1).reshape(n, 8, -1).transpose(1, 2) * self.scale
        x = torch.cat([self.token.expand(n, -1, -1), x], 1)
        x[:, 0] = 1.0
        for i, block in enumerate(self.blocks):
            x = block(x + torch.full((n, 1, 1), float(i), device=x.device))
        logits: Tensor = self.fc(self.drop(x[:, 0]))
        return logits


class Lists(nn.Module):
    """Modules that change the list they are given, one whose `forward` is called, layouts that a copy would not have,
    and something after the classifier that does nothing."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = Block(4), Block(4)

        def forward(self, both: list[Tensor]) -> list[Tensor]:
            both[0], both[1] = self.one(both[0]), self.other(both[1])
            return [both[0] + both[1], both[1].transpose(2, 3).contiguous().transpose(2, 3)]

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([self.Mixed(), self.Mixed()])
        self.reduce = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 5)
        self.nothing = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        both = [x, x]
        for block in self.blocks:
            both = block(both)
        logits: Tensor = self.nothing(self.fc(self.reduce.forward(both[0] * both[1]).mean((2, 3))))
        return logits


class Patches(nn.Module):
    """The first axis is that of all images' patches; `major=False`: all images' first patches come first."""

    def __init__(self, major: bool = True) -> None:
        super().__init__()
        self.major = major
        self.embed = nn.Sequential(nn.Conv2d(3, 8, 8, 8))
        self.inner = nn.ModuleList([nn.Sequential(nn.Linear(8, 8)) for _ in range(2)])
        self.outer = nn.ModuleList([nn.Sequential(nn.Linear(8, 8)) for _ in range(2)])
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = patches.mean(1)
        patches = patches.reshape(n * 16, 8) if self.major else patches.transpose(0, 1).reshape(n * 16, 8)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            patches = inner(patches)
            shaped = patches.reshape(n, 16, 8) if self.major else patches.reshape(16, n, 8).transpose(0, 1)
            tokens = outer(tokens + shaped.mean(1))
        logits: Tensor = self.fc(tokens)
        return logits


class Undecided(nn.Module):
    """What it does depends on the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(3), Block(3)])
        self.fc = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks if x.mean() > -9 else self.blocks[:1]:
            x = block(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def network(model: nn.Module) -> Net:
    torch.manual_seed(0)
    parts = traced(model.eval(), torch.randn(3, 3, SIZE, SIZE), "fc")
    assert parts is not None
    return of_parts(parts, "fc").eval()


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        (Branches, ["stem", "left_0", "right_0", "left_1", "right_1", "head"]),
        (Windows, ["stem", "blocks_0", "blocks_1", "head"]),
        (Lists, ["stem", "blocks_0", "blocks_1", "reduce", "head"]),
        (Patches, ["stem", "inner_0", "outer_1", "head"]),
    ],
)
def test_traced_stages_compute_and_learn_as_the_model_does(model: type[nn.Module], stages: list[str]) -> None:
    torch.manual_seed(0)
    whole = model().eval()
    net = network(whole)
    assert [name for name, _ in net.named_children()] == stages
    own = net.original_state()
    assert {key: value.data_ptr() for key, value in own.items()} == {
        key: value.data_ptr() for key, value in whole.state_dict().items()
    }
    for n in (1, 5):
        x = torch.randn(n, 3, SIZE, SIZE)
        expected = torch.autograd.grad(whole(x).square().sum(), list(whole.parameters()), allow_unused=True)
        features = x
        for stage in net:
            features = stage(features)
            assert features.shape[0] == n  # a row an image: what is cached
        assert torch.equal(features, whole(x)) or (n == 1 and torch.allclose(features, whole(x), atol=1e-6))
        found = torch.autograd.grad(net(x).square().sum(), list(whole.parameters()), allow_unused=True)
        assert all(
            a is b is None or torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(expected, found, strict=True)
        )


def test_a_traced_network_can_be_copied_pickled_and_loaded() -> None:
    net, x = network(Windows()), torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = net(x)
        twin = copy.deepcopy(net)
        assert torch.equal(pickle.loads(pickle.dumps(net))(x), expected)
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()
        assert torch.equal(net(x), expected)  # the copy shares nothing
        another = network(Windows())
        another.load_original(net.original_state())
        assert torch.equal(another(x), expected)


def test_a_part_says_in_its_text_what_it_does() -> None:
    class Other(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flip(3))

    texts = [str(network(kind())) for kind in (Branches, Branches, Other)]
    assert texts[0] == texts[1] != texts[2]  # cached features are known by it


def test_parts_with_other_constants_are_not_the_same() -> None:
    one, other = Windows(), Windows()
    other.load_state_dict(one.state_dict())
    other.scale = torch.linspace(1, 3, 8)
    assert fingerprint(network(one)[:1]) != fingerprint(network(other)[:1])  # cached features are known by it


def test_a_module_called_head_that_learns_is_a_stage_of_another_name() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(3), Block(3)])
            self.head = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x: Tensor) -> Tensor:
            a = self.blocks[0](x)
            features: Tensor = self.head(self.blocks[1](a) + a)
            return features

    parts = traced(Pooled().eval(), torch.randn(3, 3, SIZE, SIZE), None)
    assert parts is not None
    assert list(parts)[-1] == "head"
    assert [sum(p.numel() for p in part.parameters()) for part in parts.values()][-2:] == [48, 0]


def test_rows_that_are_not_those_of_images_are_not_cut() -> None:
    parts = traced(Patches(major=False).eval(), torch.randn(3, 3, SIZE, SIZE), "fc")
    assert parts is None


def test_a_way_that_depends_on_pixels_is_not_cut() -> None:
    assert traced(Undecided().eval(), torch.randn(3, 3, SIZE, SIZE), "fc") is None


def test_stages_of_timm_models_whose_blocks_do_not_run_in_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    searched, search = list[str](), factories.stages_of
    monkeypatch.setattr(
        factories, "stages_of", lambda model, cfg, size: searched.append(cfg.name) or search(model, cfg, size)
    )
    stages: Mapping[str, int] = {"test_mambaout": 7, "deit_tiny_distilled_patch16_224": 14}
    for name, least in stages.items():
        config = configured("timm", name=name, weights="none", input_size=SIZE)
        net, _ = build(config, Head(), 3, seed=0)
        assert net.fine
        assert len(net) >= least
        keys = timm.create_model(name, num_classes=3).state_dict().keys()
        assert {key for key in net.original_state() if "head" not in key} == {key for key in keys if "head" not in key}
        x = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
        others = Traced(("stem", "other"), net.layout.last)  # as another version of timm may have made them
        same = [Traced(net.traced, net.layout.last)] if net.traced else []  # none of a chain of modules
        for known in (None, *same, others):
            again, _ = build(config, Head(), 3, seed=1, drawn=False, traced=known)
            again.load_original(net.original_state())
            assert torch.equal(net(x), again(x))
            assert again.traced == net.traced
        assert searched == [name] * 3  # the first time, with nothing known, and with what is no more
        assert same or not name.startswith("deit")
        searched.clear()


def test_last_holds_a_tenth_of_the_parameters_before_the_classifier() -> None:
    sizes = {"a": 500, "b": 300, "c": 60, "d": 60, "head": 700}
    net = nn.Sequential()
    for name, size in sizes.items():
        net.add_module(name, nn.Linear(size, 1, bias=False))
    found = plan(net, "tune", Phase(train_from="last"), classifier="head")
    assert found.rows[found.cut].stage == "c"
    found = plan(net[:2].append(nn.Linear(2, 2)), "tune", Phase(train_from="last"), classifier="b")
    assert found.cut == 0


def test_a_run_is_known_by_where_last_begins_if_that_is_more_than_a_stage() -> None:
    net = nn.Sequential()
    for name, size in {"a": 500, "b": 60, "c": 60, "head": 700}.items():
        net.add_module(name, nn.Linear(size, 1, bias=False))
    tuned, probed = Phase(train_from="last"), Phase(train_from="classifier")
    assert longer_last(net, [probed, tuned], classifier="head") == "b"
    assert longer_last(net, [probed], classifier="head") == ""
    assert longer_last(net[1:], [tuned], classifier="head") == ""
    assert longer_last(net, [tuned], classifier="head", fine=False) == ""
