"""The saved model in use: opened from its folder, from images to probabilities."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tlx.backbones.staged_network import Net
from tlx.config.schema import DEVICES
from tlx.core.device import autocast, device_of, sent
from tlx.core.errors import RequestError
from tlx.core.thread_pool import CHUNK, for_images, for_passes, side_by_side
from tlx.datasets.folder_layout import local
from tlx.datasets.image_decoding import Pixels, UnreadableImage, decode, pixels_of
from tlx.datasets.image_sources import content_of
from tlx.datasets.pixel_levels import Range
from tlx.datasets.preprocessing import Preprocessing, as_batch
from tlx.features.frozen_forward import Forward, as_input, rows_per_pass
from tlx.inference.model_words import in_html, in_words
from tlx.inference.prediction_frame import prediction_frame
from tlx.inference.run_folder import model_folder
from tlx.inference.saved_model import Format, describe, opened, save

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["UNKNOWN", "Format", "Model", "Picture", "Prediction", "describe", "load", "save"]

SHAPES = "uint8 [H, W, 3] or [3, H, W], or float in 0..1"  # of an array
HALF = 0.5 / 255  # by which a float may lie outside of 0..1: it rounds to the same level
UNKNOWN = "unknown"  # the prediction where no class is probable enough

# A path, the bytes of a file, one of Pillow's images in any mode, or an array or tensor in RGB, `[H, W, 3]` or
# `[3, H, W]`: uint8, or float in 0..1.
Picture = Path | str | bytes | NDArray[Any] | Tensor | Image.Image
_View = tuple[str, Tensor | str]  # an image's name, and what the network sees of it or why that cannot be had


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
        """The k most probable classes (all, where there are fewer) with their probabilities, highest first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:k]


@dataclass(frozen=True)
class Model:
    """A network with everything that is needed to use it as it was measured."""

    net: Net
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    format: Format
    description: Mapping[str, Any]

    def __repr__(self) -> str:
        return "\n".join(in_words(self.description, str(self.device)))

    def _repr_html_(self) -> str:
        return in_html(self.description, str(self.device))

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

    @overload
    def predict(
        self, images: Picture | Iterable[Picture], batch_size: int | None = None, *, as_frame: Literal[False] = False
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self, images: Picture | Iterable[Picture], batch_size: int | None = None, *, as_frame: Literal[True]
    ) -> "DataFrame": ...

    def predict(
        self, images: Picture | Iterable[Picture], batch_size: int | None = None, *, as_frame: bool = False
    ) -> "list[Prediction] | DataFrame":
        """A prediction for each image, in order.

        Args:
            images: paths (`photos.zip/1.jpg` too), bytes of image files, Pillow's images, arrays and tensors in RGB
                (`[H, W, 3]` or `[3, H, W]`, uint8 or float in 0..1), mixed as you like, or one of them alone; or an
                array or tensor of several images. What is no image gives a prediction with an `error` and does not end
                the others. For more than memory holds: `stream`.
            batch_size: as `stream` takes it.
            as_frame: as a table: `file, prediction, probability`, the probability of each class as `p(class)`, `error`.

        Raises:
            RequestError: `images` is neither an image nor a list of them, or pandas is not installed.
        """
        found = self.stream(images, batch_size)
        return prediction_frame(found, self.classes) if as_frame else list(found)

    def stream(self, images: Picture | Iterable[Picture], batch_size: int | None = None) -> Iterator[Prediction]:
        """As `predict`, as they are computed: images are requested, and decoded in threads, only a little ahead.

        An array must not be overwritten before its prediction is there; Pillow's images may, as frames are.
        `batch_size`: images that are predicted together, None: as many as when the model was measured. A batch is
        filled up with images that can be read: predictions of a list are those of a run's test set, whatever lies
        between its images.
        """
        return (prediction for prediction, _ in self.with_views(images, batch_size))

    def with_views(
        self, images: Picture | Iterable[Picture], batch_size: int | None = None
    ) -> Iterator[tuple[Prediction, Tensor | None]]:
        """As `stream`, each with what the network saw: uint8 `[3, S, S]`, None where the image could not be read."""
        batch_size = batch_size or rows_per_pass(self.device)
        batches = self._batches(self._views(_several(images)), batch_size)
        for predictions in side_by_side(self._predictions, batches, for_passes(self.device)):
            yield from predictions

    def logits(self, x: Tensor) -> Tensor:
        """uint8 `[N, 3, S, S]` → float32 `[N, classes]` on the CPU, as they were when the model was measured."""
        frozen, tail = self.halves
        rows = frozen(sent(x, self.device))
        with torch.no_grad(), autocast(self.device, self.precision):
            logits: Tensor = tail(as_input(rows, self.precision))
        return logits.float().cpu()

    def probabilities(self, x: Tensor) -> Tensor:
        """uint8 `[N, 3, S, S]` → float32 `[N, classes]` on the CPU, each row summing to 1."""
        return (self.logits(x) / self.temperature).softmax(1)

    def _views(self, images: Iterable[Picture]) -> Iterator[_View]:
        """Each image as `_view` has it, in order."""
        given = map(self._later, images)
        chunks = iter(lambda: list(itertools.islice(given, CHUNK)), [])
        for views in side_by_side(lambda chunk: [view() for view in chunk], chunks, for_images(self.device)):
            yield from views

    def _later(self, image: Picture) -> Callable[[], _View]:
        """`_view` of an image, by whoever calls it; one of Pillow's is looked at now: it may soon be another."""
        if not isinstance(image, Image.Image):
            return partial(self._view, image)
        view = self._view(image)
        return lambda: view

    def _view(self, image: Picture) -> _View:
        name = str(image) if isinstance(image, str | Path) else ""
        try:
            return name, self.preprocessing.of(_pixels(image, self.preprocessing.range))
        except (UnreadableImage, RequestError) as error:
            return name, str(error)
        except MemoryError:
            return name, "does not fit into the memory that is free"

    @staticmethod
    def _batches(views: Iterable[_View], size: int) -> Iterator[list[_View]]:
        """Stretches with `size` images that could be read, or with none."""
        held, readable = list[_View](), 0
        for name, found in views:
            held.append((name, found))
            readable += isinstance(found, Tensor)
            if readable in (0, size):
                yield held
                held, readable = [], 0
        if held:
            yield held

    def _predictions(self, held: list[_View]) -> list[tuple[Prediction, Tensor | None]]:
        views = [found for _, found in held if isinstance(found, Tensor)]
        probabilities = iter(self.probabilities(as_batch(views)).tolist() if views else [])
        return [
            (self._prediction(name, next(probabilities)), found)
            if isinstance(found, Tensor)
            else (Prediction(name, error=found), None)
            for name, found in held
        ]

    def _prediction(self, name: str, probabilities: list[float]) -> Prediction:
        by_class = dict(zip(self.classes, probabilities, strict=True))
        best = max(by_class, key=lambda c: by_class[c])
        unknown = self.unknown_threshold is not None and by_class[best] < self.unknown_threshold
        return Prediction(name, UNKNOWN if unknown else best, by_class[best], by_class)


def load(folder: str | Path, device: str = "auto") -> Model:
    """Opens a saved model: a run's folder or its `model/`. Nothing is executed or downloaded.

    Raises:
        RequestError: there is no whole model of a known format, or no such device.
    """
    form, words = DEVICES
    if not re.fullmatch(form, device):
        raise RequestError(f"device {device}: must be {words}")
    path = model_folder(folder)
    target = device_of(device)
    model = Model(*opened(path))
    model.net.to(target).to(memory_format=torch.channels_last)
    return model


def _array(image: NDArray[Any] | Tensor) -> Pixels:
    """uint8 `[H, W, 3]` of an array or a tensor. Raises UnreadableImage."""
    usual = not isinstance(image, Tensor)  # `[3, H, 3]` is read in the usual order of its kind
    if isinstance(image, Tensor):
        here = image.detach().cpu()
        values: NDArray[Any] = (here.float() if here.is_floating_point() else here).numpy()  # NumPy has no bfloat16
    else:
        values = image
    given = f"an array of {str(image.dtype).removeprefix('torch.')} {list(values.shape)}"
    first, last = (values.ndim == 3 and values.shape[at] == 3 for at in (0, 2))
    if not (first or last) or not values.size or not (values.dtype == np.uint8 or values.dtype.kind == "f"):
        raise UnreadableImage(f"{given}; it must be {SHAPES}")
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -HALF and high <= 1 + HALF):  # nor where one is no number
            raise UnreadableImage(f"{given} with values from {low:g} to {high:g}; it must be {SHAPES}")
        values = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    pixels: Pixels = values.transpose(1, 2, 0) if first and not (last and usual) else values
    return np.require(pixels, requirements=["C", "W"])


def _several(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """What was given as a list of images: one image alone is a list of one.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(images, str | bytes | Path | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim > 4:
            raise RequestError(f"predict: an array {list(images.shape)}; one image is {SHAPES}, several [N, …]")
        numbers = isinstance(images, Tensor) or images.dtype.kind in "biufc"
        return [images] if images.ndim < 4 and numbers else images
    unusual = isinstance(images, Mapping | bytearray | memoryview | range) or hasattr(images, "read")
    if unusual or not isinstance(images, Iterable):
        kind = type(images).__name__
        raise RequestError(f"predict takes an image, or a list of images as in predict(['photo.jpg']), no {kind}")
    if isinstance(images, list) and images and isinstance(images[0], list):
        raise RequestError("predict: nested lists are no image; numpy.array(image, dtype='uint8') makes one of them")
    return images


def _pixels(image: Picture, span: Range | None) -> Pixels:
    """uint8 `[H, W, 3]` of what may be given; `span`: see `decode`. Raises UnreadableImage; for a URL RequestError."""
    if isinstance(image, Image.Image):
        return pixels_of(image, span)
    if isinstance(image, np.ndarray | Tensor):
        return _array(image)
    if isinstance(image, bytes):
        return decode(image, span)
    if isinstance(image, str | Path):
        return decode(content_of(local(str(image))), span, str(image))
    kind = type(image).__name__
    raise UnreadableImage(f"{kind} is no image; give a path, a file's bytes, uint8 [H, W, 3] or a Pillow image")
