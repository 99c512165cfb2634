"""The saved model: weights, stage table, classes and preprocessing in one folder; from images to probabilities."""

import collections
import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tlx import __version__, backbones
from tlx.config import Backbone, Head
from tlx.decoding import MAX_PIXELS, Pixels, UnreadableImage, _rgb, _upright, decode
from tlx.errors import RequestError, reason
from tlx.forward import Forward, as_input, rows_per_pass
from tlx.pixels import Preprocessing
from tlx.runtime import atomic, autocast, device_of
from tlx.stages import Net
from tlx.unpack import checksum

__all__ = ["UNKNOWN", "Format", "Model", "Picture", "Prediction", "describe", "load", "save"]

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
UNKNOWN = "unknown"  # the prediction where no class is probable enough
AHEAD = 64  # images that are decoded before they are asked for
# What a description may call to make its network.
MAKERS = [f"{make.__module__}.{make.__name__}" for make in (backbones.torchvision, backbones.timm, backbones.small_cnn)]
SIZES = range(1, 8193)  # pixels of the sides that a description may ask images to be resized to

# A path, the bytes of a file, uint8 `[H, W, 3]` in RGB, or one of Pillow's images in any mode.
Picture = Path | str | bytes | Pixels | Image.Image


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image; `error` is set, and the rest empty, where the image could not be read.

    Attributes:
        file: the path as it was given; empty for an image that came without one.
        prediction: the most probable class, or `unknown` where its probability is below the model's threshold.
        probability: of the most probable class, 0..1.
        probabilities: of all classes, in the model's order; they sum to 1.
    """

    file: str
    prediction: str = ""
    probability: float = 0.0
    probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: str = ""

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k most probable classes (all, where there are fewer) with their probabilities, the surest first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:k]


@dataclass(frozen=True)
class Format:
    """How a network computed when it was measured: its number format, the first stage that was not frozen, and whether
    the stages before it ran as they are (`exact`) or folded."""

    precision: str
    cut: str
    exact: bool = False


@dataclass(frozen=True)
class Model:
    """A network with everything that is needed to use it as it was measured."""

    net: Net
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    format: Format
    description: Mapping[str, Any]

    @property
    def precision(self) -> str:
        """The number format: `fp32` or `bf16`."""
        return self.format.precision

    @property
    def temperature(self) -> float:
        """By what the logits are divided before they become probabilities; 1.0 until it is calibrated."""
        return float(self.description["temperature"])

    @property
    def unknown_threshold(self) -> float | None:
        """The probability below which a prediction is `unknown`; None: every image has one of the classes."""
        value: float | None = self.description["unknown_threshold"]
        return value

    @cached_property
    def halves(self) -> tuple[Forward, nn.Sequential]:
        """The stages that were frozen in the run, as they ran there, and those behind them."""
        cut = [name for name, _ in self.net.named_children()].index(self.format.cut)
        return Forward(self.net[:cut], self.precision, exact=self.format.exact), self.net[cut:].eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device

    def predict(self, images: Iterable[Picture], batch_size: int | None = None) -> list[Prediction]:
        """A prediction for each image, in order.

        `images`: paths, bytes of image files, uint8 `[H, W, 3]` arrays, Pillow's images, mixed as you like. What is no
        image gives a prediction with an `error`; it does not end the others. For more than memory holds: `stream`.
        """
        return list(self.stream(images, batch_size))

    def stream(self, images: Iterable[Picture], batch_size: int | None = None) -> Iterator[Prediction]:
        """As `predict`, as they are computed: images are asked for, and decoded in threads, only a little ahead.

        `batch_size`: images that are answered together; None: as when the test set was measured. A batch is filled up
        with images that can be read, so that the answers of a list are those of a run's test set, whatever lies between them.
        """
        return (prediction for prediction, _ in self.with_views(images, batch_size))

    def with_views(
        self, images: Iterable[Picture], batch_size: int | None = None
    ) -> Iterator[tuple[Prediction, Tensor | None]]:
        """As `stream`, each with what the network saw: uint8 `[3, S, S]`, None where the image could not be read."""
        if isinstance(images, str | bytes | Path):
            raise RequestError("predict takes a list of images, as in predict(['photo.jpg'])")
        batch_size = batch_size or rows_per_pass(self.device)
        held: list[tuple[str, Tensor | str]] = []
        readable = 0
        for name, found in self._views(images, max(AHEAD, batch_size)):
            held.append((name, found))
            readable += isinstance(found, Tensor)
            if readable in (0, batch_size):
                yield from self._answers(held)
                held, readable = [], 0
        yield from self._answers(held)

    def probabilities(self, x: Tensor) -> Tensor:
        """uint8 `[N, 3, S, S]` → float32 `[N, classes]` on the CPU, each row summing to 1."""
        frozen, tail = self.halves
        rows = frozen(x.to(self.device))
        with torch.no_grad(), autocast(self.device, self.precision):
            logits: Tensor = tail(as_input(rows, self.precision))
        return (logits.float() / self.temperature).cpu().softmax(1)

    def _views(self, images: Iterable[Picture], ahead: int) -> Iterator[tuple[str, Tensor | str]]:
        """Each image as `_view` has it, in order, by threads; at most `ahead` of them wait to be asked for."""
        waiting: collections.deque[Future[tuple[str, Tensor | str]]] = collections.deque()
        threads = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 16))
        try:
            for image in images:
                waiting.append(threads.submit(self._view, image))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _view(self, image: Picture) -> tuple[str, Tensor | str]:
        """An image's name, and what the network sees of it, or why that cannot be had."""
        name = str(image) if isinstance(image, str | Path) else ""
        try:
            pixels = _pixels(image)
            return name, self.preprocessing.view(torch.from_numpy(pixels).permute(2, 0, 1))
        except (UnreadableImage, RequestError) as error:
            return name, str(error)
        except MemoryError:
            return name, "does not fit into the memory that is free"

    def _answers(self, held: list[tuple[str, Tensor | str]]) -> Iterator[tuple[Prediction, Tensor | None]]:
        views = [found for _, found in held if isinstance(found, Tensor)]
        answers = iter(self.probabilities(torch.stack(views)).tolist() if views else [])
        for name, found in held:
            if isinstance(found, Tensor):
                yield self._prediction(name, next(answers)), found
            else:
                yield Prediction(name, error=found), None

    def _prediction(self, name: str, probabilities: list[float]) -> Prediction:
        by_class = dict(zip(self.classes, probabilities, strict=True))
        best = max(by_class, key=lambda c: by_class[c])
        unknown = self.unknown_threshold is not None and by_class[best] < self.unknown_threshold
        return Prediction(name, UNKNOWN if unknown else best, by_class[best], by_class)


def save(
    folder: Path,
    net: Net,
    backbone: Backbone,
    head: Head,
    classes: Iterable[str],
    preprocessing: Preprocessing,
    how: Format,
    facts: Mapping[str, Any],
) -> None:
    """Writes the model's folder, whole or not at all.

    Weights go under the original network's own key names. `facts` (data, identity) is added to `model.json`.
    """
    # What rebuilds the network: no weights of its own, and its stage table written out so that nothing is searched.
    seen = preprocessing.to_dict()
    size = "squash" if seen["resize"] is None else str(seen["resize"])
    crop = None if seen["crop"] is None else str(seen["crop"])
    table = None if net.layout.table is None else {stage: list(parts) for stage, parts in net.layout.table.items()}
    architecture = dataclasses.asdict(
        dataclasses.replace(
            backbone,
            weights="none",
            url=None,
            stages=table,
            input_size=seen["input_size"],
            resize=size,
            crop=crop,
            mean=seen["mean"],
            std=seen["std"],
            interpolation=seen["interpolation"],
        )
    )
    description = {
        "format": FORMAT,
        "backbone": architecture,
        "head": dataclasses.asdict(head),
        "classes": list(classes),
        "preprocessing": seen,
        **dataclasses.asdict(how),
        "temperature": 1.0,
        "unknown_threshold": None,
        "versions": {"tlx": __version__, **{name: version(name) for name in ("torch", "torchvision", "timm")}},
        **facts,
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.original_state().items()}
    with atomic(folder) as temporary:
        temporary.mkdir()
        try:
            save_file(state, temporary / WEIGHTS)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
        _write(temporary / DESCRIPTION, {**description, "weights": checksum(temporary / WEIGHTS, "sha256")})


def describe(folder: Path, facts: Mapping[str, Any]) -> None:
    """Adds `facts` to what the model in `folder` says of itself, as its metrics once it is measured.

    `model.json` is replaced whole or not at all; the weights are not touched.
    """
    known = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    with atomic(folder / DESCRIPTION) as file:
        _write(file, {**known, **facts})


def load(folder: str | Path, device: str = "auto") -> Model:
    """Opens a saved model: a run's folder or its `model/`. Nothing is executed or downloaded.

    Raises:
        RequestError: there is no whole model of a known format.
    """
    path = Path(os.path.expanduser(folder))
    path = path / "model" if (path / "model").is_dir() else path
    for name in (WEIGHTS, DESCRIPTION):
        if not (path / name).is_file():
            raise RequestError(f"{folder}: no saved model here ({path / name} is missing); give a run's folder")
    target = device_of(device)
    try:
        model = _opened(path)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({reason(error)})") from error
    except Exception as error:  # files that anybody may have written, or damage that anything may come of
        raise RequestError(f"{path}: damaged ({type(error).__name__}: {reason(error)})") from error
    model.net.to(target).to(memory_format=torch.channels_last)
    return model


def _opened(path: Path) -> Model:
    """The model in the folder `path`, on the CPU. Raises anything where its files say something impossible."""
    description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    if description["format"] != FORMAT:
        raise RequestError(f"format {description['format']}; this version of tlx reads format {FORMAT}")
    # A model of before they were written has none.
    if "weights" in description and checksum(path / WEIGHTS, "sha256") != description["weights"]:
        raise RequestError(f"damaged ({WEIGHTS} is not the file that {DESCRIPTION} was written for)")
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    classes = tuple(description["classes"])
    how = Format(description["precision"], description["cut"], description["exact"])
    backbone, head = Backbone(**description["backbone"]), Head(**description["head"])
    if problem := next(_impossible(description, preprocessing, classes, backbone), None):
        raise RequestError(f"damaged ({problem})")
    net, _ = backbones.build(backbone, head, len(classes), seed=0, offline=True, drawn=False)
    if how.cut not in dict(net.named_children()):
        raise RequestError(f"damaged ({DESCRIPTION}: cut={how.cut} is no stage)")
    net.load_original(load_file(path / WEIGHTS), where=WEIGHTS)
    net.eval().requires_grad_(False)
    return Model(net, preprocessing, classes, how, description)


def _impossible(
    description: Mapping[str, Any], preprocessing: Preprocessing, classes: tuple[Any, ...], backbone: Backbone
) -> Iterator[str]:
    """What a description that `save` wrote never says, and what would call or open something but our networks."""
    if backbone._target_ not in MAKERS:
        yield f"backbone._target_={backbone._target_} is none of tlx's own networks"
    if backbone.weights != "none" or backbone.url is not None:
        yield "the backbone has weights from elsewhere"
    for argument in backbone.arguments:
        if re.search("pretrained|checkpoint|cache|weights", argument):
            yield f"backbone.arguments.{argument} would open another file"
    if not all(isinstance(name, str) for name in classes) or not len(set(classes)) == len(classes) > 0:
        yield "classes are not a list of different names"
    if description["precision"] not in ("fp32", "bf16") or not isinstance(description["exact"], bool):
        yield f"precision={description['precision']}, exact={description['exact']}"
    size = backbone.input_size
    if size != preprocessing.input_size or size not in SIZES or (preprocessing.resize or size) not in SIZES:
        yield f"images of {size} pixels, resized to {preprocessing.resize}"
    temperature, threshold = description["temperature"], description["unknown_threshold"]
    if not _number(temperature) or temperature <= 0:
        yield f"temperature={temperature}: must be above 0"
    if threshold is not None and not (_number(threshold) and 0 <= threshold <= 1):
        yield f"unknown_threshold={threshold}: must be null or in 0..1"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _write(file: Path, description: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def _pixels(image: Picture) -> Pixels:
    """uint8 `[H, W, 3]` of whatever may be given. Raises UnreadableImage."""
    if isinstance(image, Image.Image):
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImage(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        try:
            return np.array(_rgb(_upright(image)), dtype=np.uint8)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow reads a file only when it is asked for its pixels
            raise UnreadableImage(reason(error).lower()) from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UnreadableImage(f"an array of {image.dtype} {list(image.shape)}; it must be uint8 [H, W, 3]")
        return np.require(image, requirements=["C", "W"])
    return decode(image if isinstance(image, bytes) else Path(os.path.expanduser(image)))
