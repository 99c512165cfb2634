"""The frozen part as it runs: the same function as its modules, row by row, however it is recorded and folded."""

import operator
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional

from tlx.core.device import autocast
from tlx.datasets.preprocessing import Normalize
from tlx.features import graph_fusion
from tlx.features.batches import CachedRows, Through
from tlx.features.cpu_kernels import by_rows, max_pool
from tlx.features.frozen_forward import Forward, as_input, recipe, rows_per_pass
from tlx.features.graph_tracing import recorded
from tlx.training.evaluation import logits

aten = torch.ops.aten


def by_timm(name: str, **values: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=7, **values)


def by_torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, num_classes=7)


def first(blocks: int, make: Callable[[], Any]) -> Callable[[], nn.Module]:
    """The stem and the first blocks: the rest is more of the same."""

    def made() -> nn.Module:
        net = make()
        parts = {name: [*part] if name in ("blocks", "features") else [part] for name, part in net.named_children()}
        stem = [part for name in ("stem", "conv_stem", "bn1") for part in parts.get(name, [])]
        rest = [part for name in ("blocks", "features", "s1", "s2", "s3") for part in parts.get(name, [])]
        return nn.Sequential(*stem, *rest[:blocks])

    return made


# Networks of many kinds, and the smallest input that each takes well.
CPU = torch.device("cpu")

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet": (by_torchvision("resnet18"), 48),
    "inverted residuals, relu6": (first(8, by_torchvision("mobilenet_v2")), 32),
    "fire modules": (by_torchvision("squeezenet1_1"), 32),
    "large kernels, dropout": (by_torchvision("alexnet"), 64),
    "average pools": (by_timm("resnet10t"), 48),
    "vit": (by_timm("test_vit", img_size=64), 64),
    "padding by the input's size": (first(3, by_timm("tf_efficientnet_lite0")), 32),
    "norms before convolutions": (by_timm("resnetv2_18", in_chans=3), 48),
    "dense": (by_timm("densenet121", growth_rate=8, block_config=(2, 2)), 32),
    "groups": (first(3, by_timm("regnetx_002")), 32),
    "hardswish, squeeze and excite": (first(4, by_timm("mobilenetv3_small_050")), 32),
    "convnext": (by_timm("test_convnext"), 32),
    "standardised weights": (by_timm("test_nfnet"), 48),
}


def stirred(net: nn.Module) -> nn.Sequential:
    """`net` as it is frozen: no BatchNorm is the identity any more."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return nn.Sequential(net).eval()


def by_modules(net: nn.Module, x: Tensor, precision: str = "fp32") -> Tensor:
    """What the modules make of whole batches."""
    lacks = -len(x) % rows_per_pass(CPU)
    full = torch.cat([x, x.new_zeros(lacks, *x.shape[1:])])
    with torch.no_grad(), autocast(x.device, precision):
        found = [net(as_input(some, precision)) for some in torch.split(full, rows_per_pass(CPU))]
    return torch.cat(found)[: len(x)]


def apart(a: Tensor, b: Tensor) -> float:
    """The distance of `a` from `b`, as a share of `b`."""
    return float((a.float() - b.float()).norm() / b.float().norm())


def is_recorded(precision: str) -> bool:
    """Whether convolutions in this format are recorded: without vectors that can take bf16, oneDNN refuses it."""
    return precision == "fp32" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def targets(forward: Forward) -> list[Any]:
    """What a recorded part calls, in order."""
    assert isinstance(forward._run, fx.GraphModule)
    return [node.target for node in forward._run.graph.nodes if node.op == "call_function"]


def same(module: nn.Module, x: Tensor, tolerance: float = 1e-5) -> list[Any]:
    """Checks that the recorded part computes what `module` does; what it calls."""
    net = stirred(module)
    forward = Forward(net, "fp32")
    found, expected = forward(x), by_modules(net, x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    half = Forward(net, "bf16")(x)
    rounding = apart(by_modules(net, x, "bf16"), expected)
    assert apart(half, expected) <= 2 * rounding + 1e-3
    return targets(forward)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_folded_is_the_same_network(name: str) -> None:
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    net, x = stirred(make()), torch.randn(33, 3, size, size)
    expected = by_modules(net, x)
    forward = Forward(net, "fp32")
    found = forward(x)
    assert apart(found, expected) < 1e-4
    assert recipe(CPU, "fp32", exact=False) == f"fp32 folded {rows_per_pass(CPU)}"
    targets(forward)  # it is recorded
    half = Forward(net, "bf16")
    rounding = apart(by_modules(net, x, "bf16"), expected)
    assert 1e-4 < rounding < 0.1
    assert apart(half(x), expected) < 1.5 * rounding
    # A row does not depend on the rows it comes with, nor on their number.
    assert torch.equal(forward(x[3:10]), found[3:10])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_row_does_not_depend_on_its_batch(precision: str, exact: bool) -> None:
    net = stirred(timm.create_model("test_resnet", num_classes=7))
    x = torch.randint(0, 256, (70, 3, 32, 32)).float() / 255
    forward = Forward(net, precision, exact=exact)
    whole = forward(x)
    order = torch.randperm(70)
    for rows in (1, 7, 32, 33, 70):
        for index in torch.split(order, rows):
            assert torch.equal(forward(x[index]), whole[index])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_exact_is_fp32_as_the_modules_are(precision: str) -> None:
    net = stirred(torchvision.models.get_model("resnet18", num_classes=7))
    x = torch.randn(40, 3, 32, 32)
    forward = Forward(net, precision, exact=True)
    assert torch.equal(forward(x), by_modules(net, x))
    assert recipe(CPU, "fp32", exact=True) == f"fp32 plain {rows_per_pass(CPU)}"


def test_nothing_frozen_gives_the_rows_themselves_and_no_rows_give_none() -> None:
    x = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    assert Forward(nn.Sequential(), "bf16")(x) is x
    forward = Forward(stirred(nn.Conv2d(3, 4, 3)), "fp32")
    assert forward(torch.zeros(0, 3, 8, 8)).shape == (0, 4, 6, 6)


def test_batch_norms_and_additions_of_a_resnet_are_gone() -> None:
    net = stirred(torchvision.models.get_model("resnet18", num_classes=7))
    for precision in ("fp32", "bf16"):
        forward = Forward(net, precision)
        forward(torch.randn(1, 3, 48, 48))
        if not is_recorded(precision):
            assert not isinstance(forward._run, fx.GraphModule)
            continue
        called = targets(forward)
        assert not {aten.native_batch_norm.default, aten.relu.default, aten.add.Tensor} & {*called}
        assert aten.max_pool2d_with_indices.default not in called
        assert called.count(max_pool) == 1
        onednn = torch.ops.mkldnn._convolution_pointwise
        assert called.count(onednn.default) + called.count(onednn.binary) == 20
        assert called.count(onednn.binary) == 8
        assert aten.convolution.default not in called
        # Nothing that no operation holds is kept, and nothing is computed that does not depend on the rows.
        graph = forward._run.graph  # type: ignore[union-attr]
        used = {node.target for node in graph.nodes if node.op == "get_attr"}
        assert used == {*dict(forward._run.named_buffers()), *dict(forward._run.named_parameters())}  # type: ignore[union-attr]
        assert all(
            any(n.op != "get_attr" for n in node.all_input_nodes) for node in graph.nodes if node.op == "call_function"
        )


def test_recording_changes_nothing_in_the_network() -> None:
    net = stirred(timm.create_model("test_resnet", num_classes=7))
    before, modes = deepcopy(net.state_dict()), [m.training for m in net.modules()]
    for precision in ("fp32", "bf16"):
        Forward(net, precision)(torch.randn(3, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert modes == [m.training for m in net.modules()]
    net(torch.randn(2, 3, 32, 32)).sum().backward()  # and it learns as before
    assert all(p.grad is not None for p in net.parameters())


class Block(nn.Module):
    """A convolution and what a test does with it."""

    def __init__(self, use: Callable[..., Tensor], *more: nn.Module, conv: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1) if conv is None else conv
        self.more, self.use = nn.ModuleList(more), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.conv, *self.more)


IMAGES = (5, 3, 9, 9)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(4, 8, 3, bias=False),
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, groups=4, bias=False),
        nn.Conv2d(4, 8, (3, 1), dilation=2, padding="same"),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 8, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)], ids=str)
def test_a_batch_norm_goes_into_any_convolution_before_it(conv: nn.Module, norm: nn.Module) -> None:
    called = same(nn.Sequential(conv, norm, nn.ReLU()), torch.randn(5, 4, 9, 9))
    assert aten.native_batch_norm.default not in called
    assert aten.relu.default not in called


@pytest.mark.parametrize(
    ("conv", "norm", "shape"),
    [
        (nn.ConvTranspose2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), (5, 3, 9, 9)),
        (nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), (5, 3, 9)),
        (nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), (5, 3, 5, 5, 5)),
        (nn.Linear(3, 8), nn.BatchNorm1d(8), (5, 3)),
        (nn.Identity(), nn.BatchNorm2d(3), (5, 3, 9, 9)),
    ],
    ids=str,
)
def test_what_is_no_convolution_of_two_dimensions_stays(conv: nn.Module, norm: nn.Module, shape: Any) -> None:
    called = same(nn.Sequential(conv, norm, nn.ReLU()), torch.randn(shape))
    assert called.count(aten.native_batch_norm.default) == 1
    assert called.count(aten.relu.default) == 1


def test_statistics_of_the_batch_are_not_folded() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)).eval()
    forward, x = Forward(net, "fp32"), torch.randn(32, 3, 9, 9)
    torch.testing.assert_close(forward(x), by_modules(net, x), rtol=1e-5, atol=1e-5)
    assert aten.native_batch_norm.default in targets(forward)


@pytest.mark.parametrize(
    "use",
    [
        lambda x, conv, norm: (lambda y: norm(y) + y)(conv(x)),
        lambda x, conv, norm: (lambda y: torch.relu(y) + norm(y))(conv(x)),
        lambda x, conv, norm: (lambda y: torch.cat([norm(y), y], 1))(conv(x)),
    ],
)
def test_a_convolution_that_something_else_uses_keeps_its_own_output(use: Callable[..., Tensor]) -> None:
    called = same(Block(use, nn.BatchNorm2d(8)), torch.randn(IMAGES))
    assert called.count(aten.native_batch_norm.default) == 1


def test_two_batch_norms_of_one_convolution_both_stay() -> None:
    called = same(
        Block(lambda x, conv, a, b: a(conv(x)) * b(conv(x)), nn.BatchNorm2d(8), nn.BatchNorm2d(8)), torch.randn(IMAGES)
    )
    assert aten.native_batch_norm.default not in called  # two passes through it are two convolutions
    called = same(
        Block(lambda x, conv, a, b: (lambda y: a(y) * b(y))(conv(x)), nn.BatchNorm2d(8), nn.BatchNorm2d(8)),
        torch.randn(IMAGES),
    )
    assert called.count(aten.native_batch_norm.default) == 2


ADDED = torch.ops.mkldnn._convolution_pointwise.binary


@pytest.mark.parametrize(
    ("use", "merged"),
    [
        (lambda x, conv, two: conv(x) + two(x), True),
        (lambda x, conv, two: torch.relu(two(x) + conv(x)), True),
        (lambda x, conv, two: two(x).add_(conv(x)), True),
        (lambda x, conv, two: conv(x) + two(x).contiguous(), True),
        (lambda x, conv, two: conv(x) + two(x).mean((2, 3), keepdim=True), False),  # another shape
        (lambda x, conv, two: conv(x)[:, :1] + two(x), False),
        (lambda x, conv, two: torch.add(conv(x), two(x), alpha=2), False),
        (lambda x, conv, two: (lambda y: y + y)(conv(x)), False),
        (lambda x, conv, two: conv(x) + 1, False),
        (lambda x, conv, two: conv(x) + two(x).double(), False),
        (lambda x, conv, two: torch.sigmoid(conv(x)) + torch.tanh(two(x)), False),
        (lambda x, conv, two: (lambda y: y * 2 + (y + torch.sigmoid(two(x))))(conv(x)), False),
    ],
)
def test_an_addition_is_merged_where_it_is_a_plain_one(use: Callable[..., Tensor], merged: bool) -> None:
    called = same(Block(use, nn.Conv2d(3, 8, 1)), torch.randn(IMAGES))
    assert called.count(ADDED) == merged


ACTIVATIONS = [
    *(nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(), nn.Hardtanh(0.0, 1.0)),
    *(nn.Hardtanh(-2.0, 1.0), nn.Hardtanh(-1.0, 0.5), nn.Hardtanh(-0.5, 2.5, inplace=True), nn.SiLU()),
    *(nn.SiLU(inplace=True), nn.Hardswish(), nn.Hardswish(inplace=True), nn.GELU(), nn.Sigmoid(), nn.LeakyReLU(0.2)),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_any_activation_behind_a_convolution_and_behind_an_addition(activation: nn.Module) -> None:
    x = 3 * torch.randn(IMAGES)
    called = same(Block(lambda x, conv, act: act(conv(x)), activation), x)
    merged = isinstance(activation, nn.ReLU | nn.ReLU6 | nn.Hardtanh | nn.SiLU | nn.Hardswish)
    assert (len(called) == 1) is merged
    called = same(Block(lambda x, conv, two, act: act(conv(x) + two(x)), nn.Conv2d(3, 8, 1), activation), x)
    assert called.count(ADDED) == 1
    assert (len(called) == 2) is isinstance(activation, nn.ReLU)


def test_an_activation_that_writes_over_its_input_does_not_write_over_a_convolutions_other_user() -> None:
    # The in-place ReLU changes `y` for the addition too.
    same(Block(lambda x, conv, act: (lambda y: act(y) + y)(conv(x)), nn.ReLU(inplace=True)), torch.randn(IMAGES))


class Padded(nn.Module):
    """A convolution behind zeros (left, right, top, bottom)."""

    def __init__(self, conv: nn.Conv2d, sides: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.conv, self.sides, self.value = conv, sides, value

    def forward(self, x: Tensor) -> Tensor:
        padded: Tensor = self.conv(functional.pad(x, self.sides, value=self.value))
        return padded


@pytest.mark.parametrize("size", [13, 14])
@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (2, 1, 1, 2), (1, 1, 1, 1), (0, 2, 1, 0), (3, 0, 0, 0)])
@pytest.mark.parametrize("padding", [0, 1])
def test_zeros_around_a_map_become_the_padding_of_the_convolution(
    padding: int, sides: tuple[int, ...], size: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 8, size, size)
    depthwise = Padded(nn.Conv2d(8, 8, 3, stride=2, groups=8, padding=padding), sides)
    assert aten.constant_pad_nd.default not in same(depthwise, x)
    assert aten.constant_pad_nd.default not in same(Padded(nn.Conv2d(3, 8, 3, padding=padding), sides), x[:, :3])
    # More zeros in the kernel of many channels cost more than they save; as many on both sides need none.
    dense = same(Padded(nn.Conv2d(8, 8, 3, stride=2, padding=padding), sides), x)
    assert (aten.constant_pad_nd.default in dense) == (sides != (1, 1, 1, 1))


@pytest.mark.parametrize(
    "module",
    [
        Padded(nn.Conv2d(8, 8, 3, groups=8), (0, 1, 0, 1), value=1.0),
        Padded(nn.Conv2d(8, 8, 3, groups=8), (-1, 1, 0, 1)),
        Padded(nn.Conv2d(8, 8, 3, groups=8, dilation=2), (0, 1, 0, 1)),
        Padded(nn.Conv2d(8, 8, 3, groups=8), (0, 1)),
    ],
)
def test_other_padding_stays(module: nn.Module) -> None:
    torch.manual_seed(0)
    assert aten.constant_pad_nd.default in same(module, torch.randn(9, 8, 14, 14))


def test_zeros_that_something_else_uses_stay() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, groups=8)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor) -> Tensor:
            padded = functional.pad(x, (0, 1, 0, 1))
            found: Tensor = self.conv(padded) + padded[:, :, 1:-1, 1:-1]
            return found

    assert aten.constant_pad_nd.default in same(Twice(), torch.randn(9, 8, 14, 14))


class Scaled(nn.Module):
    """What pixels go through before the first convolution: `steps`, and that."""

    def __init__(self, steps: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.steps, self.conv = steps, nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(self.steps(x))
        return found


MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
NORMALIZE = Normalize(MEAN.tolist(), STD.tolist())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("steps", "ours"),
    [
        (NORMALIZE, True),
        (lambda x: x.float() * 0.5 + STD.view(3, 1, 1), True),
        (lambda x: x.float() / 255, True),
        (lambda x: x.float() - torch.arange(14.0), False),  # a value a column
        (lambda x: (x.float() / 255).sub(STD.view(3, 1, 1), alpha=2), True),  # the division alone
        (lambda x: (x / 255.0 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1), False),  # torch divides integers itself
    ],
)
def test_pixels_are_scaled_by_rows_to_the_same_bit(
    steps: Callable[[Tensor], Tensor], ours: bool, precision: str
) -> None:
    torch.manual_seed(0)
    module = Scaled(steps)
    x = torch.randint(0, 256, (9, 3, 14, 14), dtype=torch.uint8)
    forward, net = Forward(nn.Sequential(module).eval(), precision), nn.Sequential(module).eval()
    assert apart(forward(x), by_modules(net, x, precision)) < 1e-6
    if not is_recorded(precision):
        assert not isinstance(forward._run, fx.GraphModule)
        return
    assert (by_rows in targets(forward)) == ours
    assert isinstance(forward._run, fx.GraphModule)
    for node in [node for node in forward._run.graph.nodes if node.target is by_rows]:
        rows = by_rows(as_input(x, precision), *fx.node.map_arg(node.args[1:], forward_value(forward)))
        assert rows.is_contiguous(memory_format=torch.channels_last)
        if steps is NORMALIZE:
            assert torch.equal(rows, NORMALIZE(x).to(rows.dtype))


def forward_value(forward: Forward) -> Callable[[fx.Node], Any]:
    return lambda node: getattr(forward._run, str(node.target))


@pytest.mark.parametrize("kernel", [1, 2, 3, (3, 2), 5])
@pytest.mark.parametrize("stride", [1, 2, (3, 1), 4])
def test_max_pool_is_torchs(kernel: Any, stride: Any) -> None:
    torch.manual_seed(0)
    pair = nn.modules.utils._pair  # type: ignore[attr-defined]
    for height in range(1, 9):
        for padding in ((0, 0), (1, 0), (1, 1), (2, 2)):
            if any(2 * p >= k for p, k in zip(padding, pair(kernel), strict=True)):
                continue
            x = torch.randn(2, 3, height, 7).to(memory_format=torch.channels_last)
            if height + 2 * padding[0] < pair(kernel)[0]:
                continue
            expected = functional.max_pool2d(x, kernel, stride, padding)
            assert torch.equal(max_pool(x, pair(kernel), pair(stride), padding), expected)
    x[0, 0, 2, 2] = torch.nan
    torch.testing.assert_close(
        max_pool(x, pair(kernel), pair(stride), (0, 0)), functional.max_pool2d(x, kernel, stride), equal_nan=True
    )


@pytest.mark.parametrize(
    ("pool", "ours"),
    [
        (nn.MaxPool2d(3, 2, 1), True),
        (nn.MaxPool2d(2), True),
        (nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0)), True),
        (nn.MaxPool2d(2, padding=1), False),
        (nn.MaxPool2d(3, 2, ceil_mode=True), False),
        (nn.MaxPool2d(3, 2, dilation=2), False),
    ],
    ids=str,
)
def test_a_pool_is_replaced_where_the_rule_holds(pool: nn.Module, ours: bool) -> None:
    called = same(nn.Sequential(nn.Conv2d(3, 8, 3), pool), torch.randn(5, 3, 12, 12))
    assert (max_pool in called, aten.max_pool2d_with_indices.default in called) == (ours, not ours)


def test_a_pool_whose_places_are_used_stays() -> None:
    pool = nn.MaxPool2d(2, return_indices=True)
    called = same(Block(lambda x, conv: operator.add(*pool(conv(x)))), torch.randn(IMAGES))
    assert max_pool not in called


class Sees(nn.Module):
    """A path that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y.relu() if y.sum() > 0 else -y


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_path_that_depends_on_values_runs_as_its_modules_do(precision: str, caplog: pytest.LogCaptureFixture) -> None:
    net, x = nn.Sequential(Sees()).eval(), torch.randn(40, 6)
    forward = Forward(net, precision)
    with caplog.at_level("INFO", "tlx"):
        found = forward(x)
    assert torch.equal(found, by_modules(net, x, precision))
    assert not isinstance(forward._run, fx.GraphModule)
    (line,) = [record.message for record in caplog.records if record.name == "tlx"]
    assert line.startswith("the frozen part cannot be recorded: ")
    assert torch.equal(forward(-x), by_modules(net, -x, precision))


@pytest.mark.parametrize(
    ("use", "why"),
    [
        (lambda x, conv: conv(x) * x.sum().item(), "item"),
        (lambda x, conv: conv(x) * float(x[0, 0, 0, 0]), "item"),
        (lambda x, conv: conv(x) * x.tolist()[0][0][0][0], "tolist"),
        (lambda x, conv: conv(x) + float(x.detach().numpy().sum()), "numpy"),
        (lambda x, conv: conv(x) * torch.nonzero(x > 0).shape[0], "nonzero"),
        (lambda x, conv: conv(x) * x[x > 0].shape[0], "nonzero"),
        (lambda x, conv: conv(x) * torch.unique(x.round()).numel(), "unique"),
        (lambda x, conv: conv(x) if torch.equal(x, x) else x, "equal"),
        (lambda x, conv: conv(x) * torch.as_strided(x, (1,), (1,), 3), "where values lie"),
        (lambda x, conv: conv(x) * torch.rand(1, generator=torch.Generator().manual_seed(3)), "random numbers"),
        # These are written over where others see it.
        (lambda x, conv: (lambda y: (y[:, :2].add_(1), y)[1])(conv(x)), "that others see"),
        (lambda x, conv: (lambda y, view: (y.mul_(2), view)[1])(*(lambda y: (y, y.flatten(2)))(conv(x))), "others see"),
        (lambda x, conv: (lambda y: (y.unbind(1)[0].zero_(), y)[1])(conv(x)), "that others see"),
        (lambda x, conv: conv(x) + torch.ones(8, 1, 1).add_(conv.bias.add_(0)[:1]), "that others see"),
        (lambda x, conv: (lambda y: torch.add(y, 1, out=y))(conv(x)), "writes over a tensor"),
        (lambda x, conv: conv(x).bfloat16().add_(conv(x)).float(), "changes the format"),
        (lambda x, conv: conv(x)[:, :, 1:].transpose_(2, 3), "writes over a tensor"),
        # What is found of a reflection's layout is wrong: what was recorded fails when it runs.
        (lambda x, conv: torch.flatten(functional.pad(conv(x), (1, 1, 1, 1), mode="reflect"), 1), "view size"),
    ],
)
def test_what_cannot_be_recorded_runs_as_its_modules_do(
    use: Callable[..., Tensor], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    net, x = stirred(Block(use)), torch.randn(IMAGES)
    before = deepcopy(net.state_dict())
    forward = Forward(net, "fp32")
    with caplog.at_level("INFO", "tlx"):
        found = forward(x)
    lines = [record.message for record in caplog.records if record.name == "tlx"]
    assert torch.equal(found, by_modules(net, x))
    (line,) = lines
    assert line.startswith("the frozen part cannot be recorded: ")
    assert why in line
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    "use",
    [
        lambda x, conv: conv(x).mul_(2).add_(x.mean()).clamp_(-1, 1),
        lambda x, conv: (lambda y: y.add_(y).sub_(torch.ones_like(y)))(conv(x)),
        lambda x, conv: conv(x).flatten(2).relu_(),  # nobody sees any more what it is a view of
        lambda x, conv: (lambda y: y.masked_fill_(y > 0, 3.0))(conv(x)).permute(0, 2, 3, 1).contiguous().neg_(),
        lambda x, conv: (lambda y, old: y.relu_() + old)(*(lambda y: (y, y * 1))(conv(x))),
        lambda x, conv: (lambda y, same: y.relu_() + same)(*(lambda y: (y, y))(conv(x))),
        lambda x, conv: torch.zeros(8, 9, 9).repeat(len(x), 1, 1, 1).copy_(conv(x)).div_(3),
        lambda x, conv: x.add_(1) + conv(x).mean(),
    ],
)
def test_what_is_written_over_before_others_see_it_is_recorded(use: Callable[..., Tensor]) -> None:
    net, x = stirred(Block(use)), torch.randn(IMAGES).repeat(2, 1, 1, 1)[: rows_per_pass(CPU)]
    kept = x.clone()
    forward = Forward(net, "fp32")
    found = forward(x)
    torch.testing.assert_close(x, kept, rtol=0, atol=0)
    torch.testing.assert_close(found, by_modules(net, x), rtol=1e-5, atol=1e-5)
    targets(forward)


class Keeps(nn.Module):
    """A module that keeps what it has computed for its next call."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.index = nn.Parameter(torch.randn(3, 3)), torch.tensor([2, 0, 1])
        self.known: dict[str, Tensor] = {}
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if "bias" not in self.known:
            self.known["bias"] = self.bias[:, self.index]
        self.last, self.more = x, x
        return x @ self.known["bias"]


def test_recording_leaves_nothing_behind() -> None:
    module = Keeps()
    net, x = nn.Sequential(module).eval(), torch.randn(rows_per_pass(CPU), 3)
    recorded(net, net, x)
    assert module.known == {}
    assert module.last is None
    assert not hasattr(module, "more")
    forward = Forward(net, "fp32")
    torch.testing.assert_close(forward(x), net(x))
    targets(forward)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_that_computes_something_else_is_not_used(
    precision: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a version of a library in which an operation means another thing."""
    net, x = stirred(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())), torch.randn(IMAGES)
    if is_recorded(precision):
        monkeypatch.setitem(graph_fusion._ACTIVATIONS, aten.relu.default, lambda args: ("tanh", []))  # type: ignore[index]
        forward = Forward(net, precision)
        assert torch.equal(forward(x), by_modules(net, x, precision))
        (line,) = [record.message for record in caplog.records if record.name == "tlx"]
        assert line.startswith("the graph of the frozen part differs from its modules by ")
        assert torch.equal(forward(-x), by_modules(net, -x, precision))
    monkeypatch.undo()
    forward = Forward(net, precision)
    assert apart(forward(x), by_modules(net, x)) < 0.02
    assert isinstance(forward._run, fx.GraphModule) is is_recorded(precision)


def test_values_that_are_not_finite_are_compared_by_their_places() -> None:
    net, x = stirred(nn.Conv2d(3, 8, 3)), torch.randn(IMAGES)
    x[0, 0, 0, 0] = torch.nan
    forward = Forward(net, "fp32")
    torch.testing.assert_close(forward(x), by_modules(net, x), rtol=1e-5, atol=1e-5, equal_nan=True)
    targets(forward)


class Watched(fx.Interpreter):
    """Runs a recorded graph, and looks at every tensor in it."""

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, Tensor) and n.users:
            said = n.meta["val"]
            strides = [
                [step for step, size in zip(t.stride(), t.shape, strict=True) if size > 1] for t in (found, said)
            ]
            assert (found.shape, found.dtype, strides[0]) == (said.shape, said.dtype, strides[1]), n.format_node()
        return found


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As passes run on a CPU: threads that share one may sum in another order from time to time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_recorded_of_a_tensor_is_what_it_is(name: str) -> None:
    """Nothing was computed, and yet its shape, format and layout are known; and all of it is what the modules do."""
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    net = stirred(make())
    for precision in ("fp32", "bf16"):
        x = as_input(torch.randn(rows_per_pass(CPU), 3, size, size), precision)
        forward = Forward(net, precision)
        with torch.no_grad():
            graph, held = recorded(net, forward._modules, x)
            assert torch.equal(Watched(fx.GraphModule(held, graph)).run(x), forward._modules(x))


class Mixed(nn.Module):
    """A part that computes in fp32 whatever is around it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        with torch.autocast("cpu", enabled=False):
            return self.two(y.float())  # type: ignore[no-any-return]


@pytest.mark.parametrize("module", [Sees(), Mixed()], ids=lambda m: type(m).__name__)
def test_who_asks_for_rows_does_not_change_them(module: nn.Module) -> None:
    """Rows are computed before a phase, or in the middle of an evaluation, which has an autocast of its own."""
    frozen, rows = nn.Sequential(module).eval(), CachedRows([torch.randn(40, 6)], torch.zeros(40, dtype=torch.long))
    x = rows.views[0][torch.arange(40)]
    once = Forward(frozen, "bf16")(x)
    found = logits(nn.Sequential(nn.Identity()), Through(Forward(frozen, "bf16"), rows), "bf16")
    assert torch.equal(found, once.float())


def test_a_new_forward_sees_weights_that_have_changed() -> None:
    net, x = stirred(timm.create_model("test_resnet", num_classes=7)), torch.randn(3, 3, 32, 32)
    before = Forward(net, "fp32")(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    after = Forward(net, "fp32")(x)
    assert apart(after, before) > 1e-2
    assert apart(after, by_modules(net, x)) < 1e-4
