"""Checkpoints of other people's scripts: what is in them is found, read safely, and said; or refused in one line."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import logging
import os
import pathlib
import pickle
import random
import re
import types
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.backbones.test_factories import configured
from tlx.backbones.factories import build
from tlx.backbones.state_dicts import take
from tlx.config.schema import Head
from tlx.core.errors import RequestError


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    torch.manual_seed(7)
    state: dict[str, Tensor] = timm.create_model("test_resnet", num_classes=7).state_dict()
    return state


def beside(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same names with other values."""
    return {name: value + 1 for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def by_number(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `nn.Sequential(*network.children())[:-1]` names them."""
    children = [name for name, _ in timm.create_model("test_resnet").named_children()]
    parts = {name: name.partition(".") for name in tensors if not name.startswith("fc.")}
    return {f"{children.index(child)}.{rest}": tensors[name] for name, (child, _, rest) in parts.items()}


def taken(file: Path) -> dict[str, Tensor]:
    """The trunk's tensors, as a run with this file starts from them."""
    net, _ = build(configured("timm", name="test_resnet", weights=file), Head(), 3, seed=0)
    return {name: value for name, value in net.original_state().items() if not name.startswith("fc.")}


def refused(file: Path) -> str:
    with pytest.raises(RequestError) as caught:
        taken(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


# In the new format or the old one, and in which of pickle's protocols; 2 is torch's default.
WRITTEN = [(True, 2), (False, 2), (True, 3), (True, 4), (False, 4), (True, 5), (False, 5)]


def write(content: Any, file: Path, zipped: bool, protocol: int) -> None:
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)


Written = Callable[[dict[str, Tensor]], Any]
# content of the file, what is said about it (a pattern; "" for nothing)
FORMS: list[tuple[Written, str]] = [
    (lambda t: t, ""),
    (lambda t: {"model_state_dict": t, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(1)}}}}, ""),
    (lambda t: {"net": t, "acc": 90.0, "epoch": 3}, ""),
    (lambda t: {**t, "epoch": 3}, ""),
    (lambda t: under("module.", t), "weights; module. taken off the names"),
    (lambda t: under("_orig_mod.", t), "weights; _orig_mod. taken off the names"),
    (lambda t: under("module._orig_mod.", t), "weights; module. and _orig_mod. taken off the names"),
    (lambda t: {"a": {"b": [under("lit.backbone.encoder.", t)]}}, "weights of a.b.0; lit.backbone.encoder. taken off"),
    (
        lambda t: {n.replace("layer1.", "layer1._checkpoint_wrapped_module."): v for n, v in t.items()},
        "weights; _checkpoint_wrapped_module. taken off the names",
    ),
    (
        lambda t: {"state_dict": {**under("model.", t), "criterion.weight": torch.ones(7)}},
        r"weights of state_dict; model. taken off the names; tensors left out: 1 \(criterion.weight\)",
    ),
    (
        lambda t: {"state_dict": beside(t), "state_dict_ema": under("module.", t)},
        "weights of state_dict_ema; module. taken off the names; state_dict would fit as well",
    ),
    (lambda t: {"model": t, "ema": {n: v for n, v in beside(t).items() if "running" not in n}}, ""),
    (
        lambda t: {"student": under("module.backbone.", beside(t)), "teacher": under("backbone.", t)},
        r"weights of teacher; backbone. taken off the names; student \(module.backbone.…\) would fit as well",
    ),
    (
        lambda t: {"state_dict": {**under("module.encoder_k.", beside(t)), **under("module.encoder_q.", t)}},
        r"weights of state_dict; module.encoder_q. taken off the names; state_dict \(module.encoder_k.…\) would fit",
    ),
    (
        lambda t: {**t, "projector.0.weight": torch.ones(3, 3)},
        r"tensors left out, of layers that test_resnet does not have: 1 \(projector\)",
    ),
    (lambda t: {**t, "total_ops": torch.zeros(1), "layer1.0.total_ops": torch.zeros(1)}, "tensors left out, counts of"),
    (lambda t: {"last": beside(t), "best": t}, "weights of best; last would fit as well"),
    (
        lambda t: {"model": {**under("0.", by_number(t)), "1.8.weight": torch.ones(3, 3)}, "opt": {"state": []}},
        r"weights of model; 0. taken off the names; layers 0, 1, 4, 5, 6, 7 are conv1, bn1, layer1, layer2, layer3, "
        r"layer4; tensors left out: 1 \(1.8.weight\)",
    ),
    (lambda t: by_number(t), "weights; layers 0, 1, 4, 5, 6, 7 are conv1, "),
    (lambda t: {**by_number(t), "9.weight": t["fc.weight"]}, "weights; layers .* tensors left out: 1 "),
]


@pytest.mark.parametrize(("form", "line"), FORMS)
def test_the_state_dict_that_fits_is_found_and_what_was_done_is_said(
    form: Written, line: str, trained: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(form(trained), tmp_path / "a.pth.tar")
    with caplog.at_level(logging.INFO, logger="tlx"):
        found = taken(tmp_path / "a.pth.tar")
    assert all(torch.equal(value, trained[name]) for name, value in found.items())
    said = [text for text in caplog.messages if "its last layer" not in text]
    assert [bool(re.match(rf"{re.escape(str(tmp_path / 'a.pth.tar'))}: {line}", text)) for text in said] == [True][
        : bool(line)
    ]


def test_a_file_is_what_it_holds_and_not_what_it_is_called(trained: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: value.contiguous() for name, value in under("model.", trained).items()}, tmp_path / "a.pth")
    torch.save(under("net.", trained), tmp_path / "b.safetensors")
    torch.save({"model": under("net.", trained)}, tmp_path / "c.ckpt", _use_new_zipfile_serialization=False)
    for file in sorted(tmp_path.iterdir()):
        assert all(torch.equal(value, trained[name]) for name, value in taken(file).items()), file


class Colour(enum.Enum):
    RED = 1


class Options(dict[str, Any]):
    pass


class Steps(list[int]):
    pass


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    folder: Path = dataclasses.field(default_factory=Path)


@dataclasses.dataclass(slots=True)
class Slots:
    lr: float = 0.1


HARMLESS: dict[str, Any] = {
    "args": argparse.Namespace(lr=0.1, data=Path("photos")),
    "metric": np.float64(71.2),
    "array": np.arange(6.0).reshape(2, 3),
    "words": np.array(["a"], dtype=object),
    "dtype": np.dtype("f4"),
    "config": OmegaConf.create({"lr": 1, "layers": [1, {"a": None}]}),
    "path": pathlib.PurePosixPath("/a"),
    "when": datetime.datetime(2026, 1, 31, tzinfo=datetime.timezone.utc),  # noqa: UP017
    "took": datetime.timedelta(1),
    "default": collections.defaultdict(list, {"a": [1]}),
    "window": collections.deque([1, 2], maxlen=3),
    "counts": collections.Counter("abc"),
    "sets": ({1, 2}, frozenset([Path("a")])),
    "enum": {Colour.RED: Colour.RED},
    "options": Options(a=Options(b=1)),
    "steps": Steps([1, 2]),
    "settings": (Settings(), Slots()),
    "id": (uuid.UUID(int=1), decimal.Decimal("1.5")),
    "partial": functools.partial(int, base=2),
    "simple": types.SimpleNamespace(a=1),
    "random": (random.getstate(), np.random.get_state(), np.random.default_rng(0)),
    "classes": (int, Settings),
    "error": ValueError("x"),
}


@pytest.mark.parametrize(("zipped", "protocol"), WRITTEN)
def test_objects_of_any_class_beside_the_tensors_do_no_harm(
    zipped: bool, protocol: int, trained: dict[str, Tensor], tmp_path: Path
) -> None:
    before = set(torch.serialization.get_safe_globals())
    for content in ({"state_dict": trained, **HARMLESS}, *({name: v, "m": trained} for name, v in HARMLESS.items())):
        write(content, tmp_path / "a.pth", zipped, protocol)
        found, line = take(tmp_path / "a.pth", trained, "fc.")
        assert not line
        assert found.keys() == trained.keys()
        assert all(torch.equal(value, trained[name]) for name, value in found.items())
    assert set(torch.serialization.get_safe_globals()) == before


class Call:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize(("zipped", "protocol"), WRITTEN)
def test_nothing_in_a_file_is_run(
    zipped: bool, protocol: int, trained: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = [(os.mkdir, "ran"), (eval, "__import__('os').mkdir('ran')"), (Path.mkdir, Path("ran")), (open, "ran", "w")]
    for function, *arguments in calls:
        write({"state_dict": trained, "x": Call(function, *arguments)}, Path("a.pth"), zipped, protocol)
        if function == Path.mkdir and protocol > 3:  # its name says where it is: a stand-in is made, as below
            take(Path("a.pth"), trained, "fc.")
            continue
        with pytest.raises(RequestError, match=r"^a\.pth: damaged, or no file .*: .* (trust it|left out safely \(.*)$"):
            take(Path("a.pth"), trained, "fc.")
    write({"state_dict": trained, "x": Call(os.path.exists, "a.pth")}, Path("a.pth"), zipped, protocol)
    take(Path("a.pth"), trained, "fc.")  # a stand-in is made, and no function called
    assert os.listdir() == ["a.pth"]


def test_what_holds_no_state_dict_is_named(trained: dict[str, Tensor], tmp_path: Path) -> None:
    file, network = tmp_path / "a.pth", timm.create_model("test_resnet")
    for content in (network, {"ema": network.half(), "model": None}):
        for zipped in (True, False):
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            assert refused(file) == (
                f"{file}: holds a whole pickled network (timm.models.resnet.ResNet), which only its own code can open; "
                "where that is, save its state dict: torch.save(model.state_dict(), 'weights.pth')"
            )
    torch.save({"\x1b[31mred": 1, "epoch": 2}, file)
    assert refused(file).endswith(r"save `model.state_dict()`; it holds \x1b[31mred, epoch")
    torch.save(argparse.Namespace(lr=1), file)
    assert refused(file).endswith("holds a argparse.Namespace, not tensors by key; save `model.state_dict()`")
    file.write_bytes(pickle.dumps(trained))
    assert refused(file).endswith("written by pickle and not by torch.save; save it again with that")
    for content, words in {
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "a Git LFS pointer",
        b"\n<!DOCTYPE html>": "a web page, not the file itself",
        b"": "the file is empty",
        b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    }.items():
        file.write_bytes(content)
        assert f"damaged, or no file of weights (.pth, .safetensors): {words}" in refused(file)
    np.savez(tmp_path / "b.npz", a=1)
    assert refused(tmp_path / "b.npz").endswith("a zip archive that torch.save did not write")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program_is_called_one(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt") == (
        f"{tmp_path / 'a.pt'}: a TorchScript program (torch.jit.save), not a state dict; save one by "
        "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
    )


def test_weights_that_do_not_fit_are_never_taken(trained: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    few = {name: value for name, value in trained.items() if name.startswith("conv1.")}
    torch.save({"state_dict": under("model.", few)}, file)
    assert "does not fit test_resnet: 75 of 92 keys missing (conv1.0.weight, " in refused(file)
    one_less = {name: value for name, value in trained.items() if name != "layer2.0.conv1.weight"}
    torch.save(under("model.", one_less), file)
    assert refused(file).endswith("1 of 92 keys missing (layer2.0.conv1.weight)")
    torch.save({**trained, "bn1.running_var": trained["bn1.running_var"] * torch.inf}, file)
    assert refused(file) == (
        f"{file}: weights that are NaN or infinite, in 1 of 90 tensors (bn1.running_var); "
        "take one that was saved before the training diverged"
    )
    swapped = dict(zip(by_number(trained), [*by_number(trained).values()][::-1], strict=True))
    torch.save(swapped, file)
    assert "keys missing" in refused(file)
    torch.save({**trained, "layer2.1.conv1.weight": torch.ones(1)}, file)  # of a deeper network
    assert refused(file).endswith("keys left over (layer2.1.conv1.weight)")
    torch.save(under("model.", {**trained, "bn1.\x1bx": torch.ones(1)}), file)
    assert refused(file).endswith(r"keys left over (bn1.\x1bx)")
