"""Networks by `_target_`: torchvision's, timm's, our small one; built as named stages with weights and a new head."""

import importlib
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from tlx.backbones import pretrained_weights, weight_loading
from tlx.backbones.heads import replace_head
from tlx.backbones.huggingface import architecture
from tlx.backbones.pooled_stages import with_pooled
from tlx.backbones.staged_network import Net, body_head, of_parts, staged
from tlx.backbones.timm_stages import OtherStages, Traced, stages_again, stages_of
from tlx.config.schema import Backbone, Head
from tlx.core.activity import importing
from tlx.core.deferred_compiler import compiler_deferred
from tlx.core.errors import RequestError, nearest, reason
from tlx.datasets.preprocessing import Normalize, Preprocessing

__all__ = ["Original", "SmallCNN", "build", "original", "small_cnn", "timm", "torchvision"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Original:
    """A network as its library builds it.

    `stages`: None where its blocks do not run in sequence; then `classifier` is the path of its last layer, or None,
    and `parts` has the stages that tracing finds, if it does. `loaded`: whether it has its weights already.
    """

    model: nn.Module
    stages: Mapping[str, list[str]] | None
    preprocessing: Preprocessing
    classifier: str | None = None
    loaded: bool = False
    parts: Mapping[str, nn.Sequential] | None = None


def build(
    backbone: Backbone,
    head: Head,
    classes: int,
    *,
    seed: int,
    offline: bool = False,
    drawn: bool = True,
    traced: Traced | None = None,
) -> tuple[Net, Preprocessing]:
    """The network with its weights and a new head, and the preprocessing that belongs to it.

    Random numbers come from `seed` alone; torch's global generator is left as it was. The new head's do not depend on
    where the other weights come from. `drawn=False`: where a state follows that overwrites all of it, zeros will do.
    `traced`: of a network of timm that is built again; its stages are not searched.

    Raises:
        RequestError: an unknown network, weights that cannot be had or do not fit, values that contradict each other.
    """
    file = pretrained_weights.locate(backbone, offline=offline)
    try:
        return _built(backbone, head, classes, file, seed, traced, drawn=drawn)
    except OtherStages:
        return _built(backbone, head, classes, file, seed, None, drawn=drawn)


def _built(
    backbone: Backbone, head: Head, classes: int, file: Path | None, seed: int, traced: Traced | None, *, drawn: bool
) -> tuple[Net, Preprocessing]:
    # A network without a table is run to find its last layer: with zeros all its layers look alike.
    with torch.random.fork_rng(devices=[]), nullcontext() if drawn or not (backbone.stages or traced) else _Undrawn():
        torch.manual_seed(seed)
        found = original(backbone, file, traced)
        normalize = Normalize(found.preprocessing.mean, found.preprocessing.std)
        if found.parts is not None:
            net = of_parts(found.parts, found.classifier, normalize)
        elif found.stages is None:
            net = body_head(found.model, found.classifier, normalize)
        else:
            net = staged(found.model, found.stages, normalize, backbone.classifier)
        if file is not None and not found.loaded:
            weight_loading.load(net, file, backbone, keep_last=head.append)
        if head.stages:
            net = with_pooled(net, head.stages)
        torch.manual_seed(seed)
        size = found.preprocessing.input_size
        sample = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        replace_head(net, classes, head.hidden, head.dropout, head.append, sample, head.references)
    return net.eval(), found.preprocessing


def original(backbone: Backbone, file: Path | None = None, traced: Traced | None = None) -> Original:
    """The network that `backbone._target_` builds, with its own last layer and, unless `loaded`, random weights.

    `file`: its weights; what they will overwrite is then not drawn (a VGG takes seconds).
    """
    module, _, function = backbone._target_.rpartition(".")
    try:
        make: Callable[[Backbone, Path | None], Original] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        hint = nearest(backbone._target_, [f"tlx.backbones.{name}" for name in ("torchvision", "timm", "small_cnn")])
        raise RequestError(f"backbone._target_={backbone._target_}: no such function{hint}") from error
    with _Undrawn() if file is not None and backbone.stages else nullcontext():
        return make(backbone, file) if traced is None else make(backbone, file, traced)  # type: ignore[call-arg]


def torchvision(cfg: Backbone, _file: Path | None = None) -> Original:
    """torchvision's model `cfg.name` with the stage table of the YAML, which it needs."""
    with compiler_deferred():
        from torchvision import models

    if cfg.name not in models.list_models(models):
        hint = nearest(cfg.name, models.list_models(models))
        raise RequestError(f"backbone.name={cfg.name}: torchvision has no such model for images{hint}")
    if not cfg.stages:
        raise RequestError(f"backbone.stages: torchvision's {cfg.name} needs a stage table; or take backbone=timm")
    model = _construct(partial(models.get_model, cfg.name), cfg, weights=None)
    return Original(model, cfg.stages, _preprocessing(cfg))


def timm(cfg: Backbone, file: Path | None = None, known: Traced | None = None) -> Original:
    """timm's model `cfg.name`; stages of the YAML, or else found by running it; preprocessing of its weights.

    Weights of timm's own are loaded by timm, which knows how older files are to be converted.
    """
    with importing("timm"), compiler_deferred():
        import timm as library

    architecture(cfg.name)
    own = file is not None and cfg.weights == "imagenet" and (cfg.url or "").startswith("hub:")
    published = library.get_pretrained_cfg(cfg.name)
    arguments: dict[str, Any] = {}
    if published is not None and published.fixed_input_size and cfg.input_size not in (None, published.input_size[-1]):
        arguments["img_size"] = cfg.input_size
    if own:
        arguments["pretrained_cfg_overlay"] = {"file": str(file), "custom_load": False}
    try:
        model: Any = _construct(partial(library.create_model, cfg.name), cfg, pretrained=own, **arguments)
    except (RuntimeError, OSError, ValueError, AssertionError, SafetensorError, UnpicklingError) as error:
        what = f"{file} does not fit {cfg.name}, or is damaged" if own else f"backbone.name={cfg.name}"
        raise RequestError(f"{what}: {reason(error)}") from error
    preprocessing = _preprocessing(cfg, model.pretrained_cfg)
    if cfg.stages:
        return Original(model, cfg.stages, preprocessing, loaded=own)
    size = preprocessing.input_size
    if known is None:
        stages, parts, path = stages_of(model, cfg, size)
    else:
        stages, (parts, path) = None, stages_again(model, size, known)
    return Original(model, stages, preprocessing, classifier=path, loaded=own, parts=parts)


def small_cnn(cfg: Backbone, _file: Path | None = None) -> Original:
    """`SmallCNN` for images of `cfg.input_size`."""
    preprocessing = _preprocessing(cfg)
    model = _construct(SmallCNN, cfg, input_size=preprocessing.input_size)
    return Original(model, cfg.stages, preprocessing)


class SmallCNN(nn.Module):
    """Two blocks of convolution, ReLU and pooling, and a fully-connected layer of 128.

    float [N, 3, S, S] → features [N, 128]; it has no last layer of its own.
    """

    def __init__(self, input_size: int, channels: tuple[int, int] = (32, 64), width: int = 128) -> None:
        super().__init__()
        first, second = channels
        self.conv1 = nn.Sequential(nn.Conv2d(3, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(1))
        self.fc = nn.Sequential(nn.Linear(second * (input_size // 4) ** 2, width), nn.ReLU())
        self.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float [N, 3, S, S] → [N, 128]."""
        features: Tensor = self.head(self.fc(self.conv2(self.conv1(x))))
        return features


class _Undrawn(TorchFunctionMode):
    """Within it tensors are zeroed where they would be filled with random numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            tensor.detach().zero_()
            return tensor
        return func(*args, **kwargs)


# torch.nn.init's functions come here themselves, and what they call does not.
_INIT = "normal_ uniform_ trunc_normal_ kaiming_normal_ kaiming_uniform_ xavier_normal_ xavier_uniform_"
_DRAWS = frozenset([Tensor.normal_, Tensor.uniform_, *(getattr(init, name) for name in _INIT.split())])


def _construct(make: Callable[..., nn.Module], cfg: Backbone, **arguments: Any) -> nn.Module:
    try:
        return make(**{**cfg.arguments, **arguments})
    except TypeError as error:
        if not cfg.arguments:
            raise
        raise RequestError(
            f"backbone.arguments={cfg.arguments}: {cfg.name} does not take them ({reason(error)})"
        ) from error


def _preprocessing(cfg: Backbone, known: Mapping[str, Any] | None = None) -> Preprocessing:
    """`cfg`'s values; `known` (timm's settings of the weights) fills in those left open."""
    known = known or {}
    own_size = known.get("input_size", (3, None, None))[-1]
    size = cfg.input_size or own_size
    if size is None or (cfg.resize == "auto" and not known):
        raise RequestError(
            f"backbone.{'resize=auto' if size else 'input_size=null'}: {cfg.name} needs a number of pixels"
        )
    crop_mode = known.get("crop_mode", "center")
    resize: int | None
    pad = cfg.resize == "pad"
    if pad or cfg.resize == "squash" or (cfg.resize == "auto" and crop_mode == "squash"):
        resize = None
    elif cfg.resize in ("auto", None):
        resize = int(size / known.get("crop_pct", 1.0))  # rounded down, as timm does
    else:
        resize = int(str(cfg.resize))
    if cfg.crop == "auto":
        crop = None if resize is None else size
    else:
        crop = None if cfg.crop is None or resize is None else int(cfg.crop)
    mean, std = cfg.mean or known.get("mean"), cfg.std or known.get("std")
    if mean is None or std is None:
        raise RequestError(f"backbone.{'mean' if mean is None else 'std'}=null: {cfg.name} needs three values")
    interpolation = known.get("interpolation", "bilinear") if cfg.interpolation == "auto" else cfg.interpolation
    return Preprocessing(size, resize, crop, tuple(mean), tuple(std), interpolation, pad=pad)
