"""Stages of models whose blocks do not run in sequence: they compute the same, under the same keys, for any batch."""

import copy
import pickle
from collections.abc import Mapping

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.backbones.test_factories import configured
from tlx.backbones.factories import build
from tlx.backbones.staged_network import Net, of_parts
from tlx.backbones.traced_stages import traced
from tlx.config.schema import Head, Phase
from tlx.training.phase_plan import plan

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
        assert torch.equal(features, whole(x))
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


def test_a_way_that_depends_on_pixels_is_not_cut() -> None:
    assert traced(Undecided().eval(), torch.randn(3, 3, SIZE, SIZE), "fc") is None


def test_stages_of_timm_models_whose_blocks_do_not_run_in_sequence() -> None:
    stages: Mapping[str, int] = {"test_mambaout": 7, "deit_tiny_distilled_patch16_224": 14}
    for name, least in stages.items():
        config = configured("timm", name=name, weights="none", input_size=SIZE)
        net, _ = build(config, Head(), 3, seed=0)
        assert net.fine
        assert len(net) >= least
        keys = timm.create_model(name, num_classes=3).state_dict().keys()
        assert {key for key in net.original_state() if "head" not in key} == {key for key in keys if "head" not in key}
        again, _ = build(config, Head(), 3, seed=1)
        again.load_original(net.original_state())
        x = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
        assert torch.equal(net(x), again(x))


def test_last_holds_a_tenth_of_the_parameters_before_the_classifier() -> None:
    sizes = {"a": 500, "b": 300, "c": 60, "d": 60, "head": 700}
    net = nn.Sequential()
    for name, size in sizes.items():
        net.add_module(name, nn.Linear(size, 1, bias=False))
    found = plan(net, "tune", Phase(train_from="last"), classifier="head")
    assert found.rows[found.cut].stage == "c"
    found = plan(net[:2].append(nn.Linear(2, 2)), "tune", Phase(train_from="last"), classifier="b")
    assert found.cut == 0
