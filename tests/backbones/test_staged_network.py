"""Stage tables, original keys, heads and discovery, on the real networks."""

import copy
import dataclasses
import logging
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tlx.backbones import factories
from tlx.backbones.factories import Original
from tlx.backbones.heads import replace_head
from tlx.backbones.stage_discovery import discover
from tlx.backbones.staged_network import Net, body_head, staged
from tlx.backbones.submodules import part
from tlx.config.compose import compose
from tlx.config.schema import Backbone
from tlx.core.errors import RequestError
from tlx.datasets.preprocessing import Normalize

WRITTEN = (
    "resnet18",
    "resnet50",
    "alexnet",
    "vgg16",
    "mobilenet_v2",
    "squeezenet1_1",
    "efficientnet_lite0",
    "small_cnn",
)
SIZE = 64


def configured(name: str) -> Backbone:
    node = compose([f"backbone={name}", "backbone.weights=none", f"backbone.input_size={SIZE}"]).backbone
    backbone = OmegaConf.to_object(node)
    assert isinstance(backbone, Backbone)
    return backbone


@pytest.fixture(scope="module", params=WRITTEN)
def backbone(request: pytest.FixtureRequest) -> tuple[Backbone, Original]:
    """Each network of conf/backbone with a stage table, built once (a VGG takes seconds)."""
    config = configured(request.param)
    torch.manual_seed(0)
    found = factories.original(config)
    found.model.eval()
    return config, found


def pixels(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def as_net(config: Backbone, found: Original) -> Net:
    assert found.stages is not None
    return staged(found.model, found.stages, Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), config.classifier).eval()


def test_a_written_table_computes_what_the_original_computes(backbone: tuple[Backbone, Original]) -> None:
    config, found = backbone
    net = as_net(config, found)
    x = pixels()
    with torch.no_grad():
        assert torch.equal(net(x), found.model(net[0][0](x)))
    assert {id(p) for p in net.parameters()} == {id(p) for p in found.model.parameters()}
    assert list(net.original_state()) == list(found.model.state_dict())


def test_every_stage_but_the_head_owns_parameters_and_gives_one_row_of_features(
    backbone: tuple[Backbone, Original],
) -> None:
    config, found = backbone
    net = as_net(config, found)
    replace_head(net, 3, sample=pixels(1))
    assert all(any(True for _ in stage.parameters()) for stage in net.children())
    with torch.no_grad():
        features = net[:-1](pixels())
    assert features.ndim == 2
    assert features.shape[1] == net[-1][0].in_features
    assert net(pixels()).shape == (2, 3)


def test_a_slice_shares_its_stages_and_the_parts_make_the_whole(backbone: tuple[Backbone, Original]) -> None:
    net = as_net(*backbone)
    x = pixels()
    with torch.no_grad():
        whole = net(x)
        for cut in range(len(net)):
            assert type(net[: cut + 1]) is nn.Sequential
            x = net[cut : cut + 1](x)
    assert torch.equal(x, whole)
    assert net[:2][0] is net[0]


def test_the_original_library_loads_a_linear_heads_state_strictly(backbone: tuple[Backbone, Original]) -> None:
    config, found = backbone
    net = as_net(config, found)
    replace_head(net, 3, sample=pixels(1))
    state = net.original_state()
    if config.name == "small_cnn":  # has no last layer of its own
        assert state.keys() - found.model.state_dict().keys() == {"head.weight", "head.bias"}
        return
    other = dataclasses.replace(config, arguments={"num_classes": 3})
    fresh = factories.original(other, Path("its own weights are not needed")).model.eval()
    fresh.load_state_dict(state, strict=True)
    x = pixels()
    with torch.no_grad():
        expected = fresh(net[0][0](x))
        if net.layout.pointwise:  # SqueezeNet rectifies its classifier's map before it pools it
            assert state["classifier.1.weight"].shape == (3, 512, 1, 1)
        else:
            assert torch.equal(net(x), expected)


@pytest.mark.parametrize(
    ("hidden", "dropout", "append"),
    [([], 0.0, False), ([], 0.5, False), ([5, 4], 0.4, False), ([], 0.0, True), ([5], 0.1, True)],
)
def test_a_saved_network_loads_into_one_built_alike(hidden: list[int], dropout: float, append: bool) -> None:
    config = configured("resnet18")
    found, again = factories.original(config), factories.original(config)
    nets = [as_net(config, found), as_net(config, again)]
    for net in nets:
        replace_head(net, 3, hidden, dropout, append)
    state = nets[0].original_state()
    assert len(state) == len(nets[0].state_dict())
    nets[1].load_original(copy.deepcopy(state))
    x = pixels()
    with torch.no_grad():
        assert torch.equal(nets[0].eval()(x), nets[1].eval()(x))


def test_append_keeps_the_last_layer_as_logits_and_its_keys() -> None:
    config = configured("resnet18")
    found = factories.original(config)
    net = as_net(config, found)
    before = net(pixels()).detach()
    replace_head(net, 3, append=True)
    assert [name for name, _ in net.named_children()][-2:] == ["logits", "head"]
    assert net.layout.classifier == "logits"
    assert torch.equal(net[:-1](pixels()), before)
    assert list(net.original_state())[-4:] == ["fc.weight", "fc.bias", "head.weight", "head.bias"]
    with pytest.raises(RequestError, match="head=append: this backbone has no fully-connected last layer to keep"):
        replace_head(net, 3, append=True)


def test_append_where_the_original_calls_its_own_layer_head() -> None:
    model = timm.create_model("test_vit").eval()
    table = discover(model, torch.randn(2, 3, 160, 160), "head")
    assert table is not None
    net = staged(model, table)
    replace_head(net, 3, append=True)
    assert list(net.original_state())[-4:] == ["head.weight", "head.bias", "new_head.weight", "new_head.bias"]


@pytest.mark.parametrize("name", ["squeezenet1_1", "small_cnn"])
def test_append_needs_a_fully_connected_last_layer(name: str) -> None:
    config = configured(name)
    net = as_net(config, factories.original(config))
    with pytest.raises(RequestError, match=r"head=append: .* no fully-connected last layer to keep; take head=linear"):
        replace_head(net, 3, append=True, sample=pixels(1))


def test_a_new_head_replaces_whatever_head_there_was() -> None:
    config = configured("small_cnn")
    net = as_net(config, factories.original(config))
    replace_head(net, 6, [8, 4], 0.1, sample=pixels(1))
    replace_head(net, 2)
    assert net(pixels()).shape == (2, 2)
    assert list(net.original_state())[-2:] == ["head.weight", "head.bias"]


def test_states_that_do_not_fit_are_refused_with_counts_and_first_keys_and_all_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = configured("small_cnn")
    net = as_net(config, factories.original(config))
    replace_head(net, 2, sample=pixels(1))
    state = net.original_state()
    state["strange.weight"] = state.pop("conv1.0.weight")
    state["head.bias"] = torch.zeros(7)
    with caplog.at_level(logging.INFO, logger="tlx"), pytest.raises(RequestError) as caught:
        net.load_original(state, "a.pth")
    assert caplog.messages == [
        "keys missing: conv1.0.weight",
        "keys left over: strange.weight",
        "keys of another shape: head.bias [7] instead of [2]",
    ]
    assert str(caught.value) == (
        "a.pth: 1 of 8 keys missing (conv1.0.weight); 1 of 8 keys left over (strange.weight); "
        "1 of 8 keys of another shape (head.bias [7] instead of [2])"
    )
    own = net.original_state()
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="tlx"), pytest.raises(RequestError, match=r"8 of 8 keys missing .*, …\)"):
        net.load_original({}, "a.pth")
    assert caplog.messages == [f"keys missing: {', '.join(own)}"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"stem": ["conv2"], "head": ["head"]}, "SmallCNN's parameter conv1.0.weight is in no stage"),
        (
            {"stem": ["conv1", "conv2", "conv1"], "fc": ["fc"], "head": ["head"]},
            "conv1.0.weight is in more than one stage",
        ),
        (
            {"stem": ["flaten", "conv2"], "head": ["head"]},
            r"SmallCNN has no part 'flaten' \(did you mean 'flatten'\?\)",
        ),
        ({"stem": ["conv1[0:9]"], "head": ["head"]}, r"conv1\[0:9\] is out of range, conv1 has 3 children"),
        ({"stem": ["conv1"], "pool": ["pool"], "head": ["head"]}, "backbone.stages.pool: owns no parameters"),
        (
            {"stem": ["conv1"], "append": ["conv2", "fc"], "head": ["head"]},
            "backbone.stages.append: no name for a stage",
        ),
        ({"stem": ["conv1"], "top": ["fc"]}, "backbone.stages: the last stage must be called head, not top"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(table: dict[str, list[str]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        staged(factories.SmallCNN(16), table)


def test_an_unknown_classifier_stage_lists_the_stages() -> None:
    model = factories.SmallCNN(16)
    table = {"conv1": ["conv1"], "conv2": ["conv2"], "fc": ["fc"], "head": ["head"]}
    with pytest.raises(
        RequestError, match=r"backbone.classifier=fcc: no such stage \(did you mean 'fc'\?\); stages: conv1"
    ):
        staged(model, table, classifier="fcc")


SEQUENTIAL = {  # one small member of each family: (stages, first, last before the head)
    "resnet10t": (6, "conv1", "layer4"),
    "test_resnet": (6, "conv1", "layer4"),
    "resnext26ts": (6, "stem", "stages_3"),
    "test_convnext": (6, "stem", "stages_3"),
    "test_efficientnet": (7, "stem", "blocks_4"),
    "mobilenetv2_035": (9, "stem", "blocks_6"),
    "mobilenetv3_small_050": (8, "stem", "blocks_5"),
    "regnetx_002": (6, "stem", "s4"),
    "densenet121": (9, "features_conv0", "features_denseblock4"),
    "swin_tiny_patch4_window7_224": (6, "patch_embed", "layers_3"),  # timm has no smaller one
    "test_vit": (8, "patch_embed", "blocks_5"),
    "test_vit3": (12, "patch_embed", "attn_pool"),
    "deit_tiny_patch16_224": (14, "patch_embed", "blocks_11"),
    "mixer_s32_224": (10, "stem", "blocks_7"),
}


def untrained(name: str, **arguments: int) -> nn.Module:
    settings = timm.get_pretrained_cfg(name)
    size = {"img_size": SIZE} if settings.fixed_input_size else {}
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **size, **arguments).eval()


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_stages_of_a_timm_model_are_found_and_compute_the_same(name: str) -> None:
    model = untrained(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, SIZE, SIZE, generator=generator)
    table = discover(model, x, model.pretrained_cfg["classifier"])
    assert table is not None
    names = list(table)
    assert (len(names), names[0], names[-2], names[-1]) == (*SEQUENTIAL[name], "head")
    net = staged(model, table).eval()
    x = torch.randn(1, 3, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        features = net[:-1](x)
        assert features.ndim == 2
        assert torch.equal(net[-1](features), model(x))
    after = net.original_state()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())  # it was stirred, and put back
    replace_head(net, 3, sample=x)
    last = f"{model.pretrained_cfg['classifier']}."
    shapes = {key: (3 if key.startswith(last) else len(v), *v.shape[1:]) if v.ndim else () for key, v in before.items()}
    assert {key: tuple(value.shape) for key, value in net.original_state().items()} == shapes


def test_a_plain_chain_of_layers_has_a_stage_for_each() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())))
    model = nn.Sequential(
        OrderedDict(features=features, pool=nn.AvgPool2d(2), flatten=nn.Flatten(), fc=nn.Linear(3, 5))
    )
    assert discover(model, torch.randn(2, 3, 8, 8), "fc") == {
        "features_0": ["features.0", "features.1", "features.2"],
        "features_3": ["features.3", "features.4", "features.5"],
        "features_6": ["features.6", "features.7", "features.8", "pool", "flatten"],
        "head": ["fc"],
    }


def test_blocks_that_do_not_run_in_sequence_are_not_taken_for_a_chain() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((self.a(x) + self.b(x)).mean((2, 3)))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.b(self.a(self.a(x))).mean((2, 3)))

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Linear(3, 5)
            self.extra = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.b(self.a(x)).mean((2, 3)))

    for model in (Branches(), Twice(), Unused()):
        assert discover(model, torch.randn(2, 3, 8, 8), "fc") is None
    assert discover(untrained("test_mambaout"), torch.randn(2, 3, SIZE, SIZE), "head.fc") is None


def test_body_and_head_compute_the_same_under_the_same_keys() -> None:
    model = untrained("test_mambaout")
    keys = list(model.state_dict())
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = model(x)
        net = body_head(model, "head.fc")
        assert torch.equal(net(x), expected)
        assert net[:-1](x).ndim == 2
    assert not net.fine
    assert net.table is None
    assert sorted(net.original_state()) == sorted(keys)


def test_a_network_with_a_method_as_a_part_can_be_copied_pickled_and_moved() -> None:
    model = untrained("test_vit")
    x = torch.randn(2, 3, SIZE, SIZE)
    table = discover(model, x, "head")
    assert table is not None
    net = staged(model, table).eval()
    with torch.no_grad():
        expected = net(x)
        twin = copy.deepcopy(net)
        assert torch.equal(pickle.loads(pickle.dumps(net))(x), expected)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(net(x), expected)  # the copy shares nothing
        assert not torch.equal(twin(x), expected)
        twin.load_state_dict(net.state_dict())
        assert torch.equal(twin(x), expected)
        double = copy.deepcopy(net).double()(x.double())
    assert torch.allclose(double.float(), expected, atol=1e-4)
    net(x).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_method_part_holds_what_it_uses_and_nothing_else() -> None:
    model = untrained("test_vit")
    shell = part(model, "._pos_embed")
    assert {name for name, _ in shell.named_parameters()} == {"pos_embed", "cls_token"}
    assert {name for name, _ in shell.named_children()} == {"pos_drop"}
