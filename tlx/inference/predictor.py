"""The saved model in use: opened from its folder, from images to probabilities."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from PIL import Image
from torch import Tensor, nn

from tlx.backbones.staged_network import Net
from tlx.config.schema import DEVICES
from tlx.core.device import autocast, device_of, sent
from tlx.core.errors import RequestError
from tlx.core.thread_pool import CHUNK, for_images, for_passes, side_by_side
from tlx.datasets.further_views import mean_logits
from tlx.datasets.image_decoding import UnreadableImage
from tlx.datasets.preprocessing import Preprocessing, as_batch
from tlx.features.frozen_forward import Forward, as_input, rows_per_pass
from tlx.inference.given_images import Picture, pixels, several
from tlx.inference.model_words import in_html, in_words
from tlx.inference.prediction_frame import prediction_frame
from tlx.inference.run_folder import model_folder
from tlx.inference.saved_model import Format, describe, opened, save
from tlx.inference.unknown_score import UnknownScore

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["UNKNOWN", "Format", "Model", "Picture", "Prediction", "describe", "load", "save"]

UNKNOWN = "unknown"  # the prediction for an image that is like none of the training images
_View = tuple[str, Tensor | str]  # an image's name, and what the network sees of it or why that cannot be had


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image; `error` is set, and the rest empty, where the image could not be read.

    Attributes:
        file: the path as it was given; empty for an image that came without one.
        prediction: the most probable class, or `unknown` where the score is above the model's threshold.
        probability: of the most probable class, 0..1.
        probabilities: of all classes, in the model's order; they sum to 1.
        unknown_score: how far the image is from the training images, 0..2; None where the model has none to compare.
    """

    file: str
    prediction: str = ""
    probability: float = 0.0
    probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: str = ""
    unknown_score: float | None = None

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
    unknown: UnknownScore | None = None

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
        """The score above which a prediction is `unknown`; None: every image has one of the classes."""
        return None if self.unknown is None else self.unknown.threshold

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
        self,
        images: Picture | Iterable[Picture],
        batch_size: int | None = None,
        *,
        unknown: bool = True,
        as_frame: Literal[False] = False,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        images: Picture | Iterable[Picture],
        batch_size: int | None = None,
        *,
        unknown: bool = True,
        as_frame: Literal[True],
    ) -> "DataFrame": ...

    def predict(
        self,
        images: Picture | Iterable[Picture],
        batch_size: int | None = None,
        *,
        unknown: bool = True,
        as_frame: bool = False,
    ) -> "list[Prediction] | DataFrame":
        """A prediction for each image, in order.

        Args:
            images: paths (`photos.zip/1.jpg` too), bytes of image files, Pillow's images, arrays and tensors in RGB
                (`[H, W, 3]` or `[3, H, W]`, uint8 or float in 0..1), mixed as you like, or one of them alone; or an
                array or tensor of several images. What is no image gives a prediction with an `error` and does not end
                the others. For more than memory holds: `stream`.
            batch_size, unknown: as `stream` takes them.
            as_frame: as a table: `file, prediction, probability`, the probability of each class as `p(class)`, `error`.

        Raises:
            RequestError: `images` is neither an image nor a list of them, or pandas is not installed.
        """
        found = self.stream(images, batch_size, unknown=unknown)
        return prediction_frame(found, self.classes) if as_frame else list(found)

    def stream(
        self, images: Picture | Iterable[Picture], batch_size: int | None = None, *, unknown: bool = True
    ) -> Iterator[Prediction]:
        """As `predict`, as they are computed: images are requested, and decoded in threads, only a little ahead.

        An array must not be overwritten before its prediction is there; Pillow's images may, as frames are.
        `batch_size`: images that are predicted together, None: as many as when the model was measured. A batch is
        filled up with images that can be read: predictions of a list are those of a run's test set, whatever lies
        between its images. `unknown`: False: each image has one of the classes, however unlike it is.
        """
        return (prediction for prediction, _ in self.with_views(images, batch_size, unknown=unknown))

    def with_views(
        self, images: Picture | Iterable[Picture], batch_size: int | None = None, *, unknown: bool = True
    ) -> Iterator[tuple[Prediction, Tensor | None]]:
        """As `stream`, each with what the network saw: uint8 `[3, S, S]`, None where the image could not be read."""
        batch_size = batch_size or rows_per_pass(self.device)
        batches = self._batches(self._views(several(images)), batch_size)
        answer = partial(self._predictions, unknown=unknown)
        for predictions in side_by_side(answer, batches, for_passes(self.device)):
            yield from predictions

    def logits(self, x: Tensor) -> Tensor:
        """uint8 `[N, 3, S, S]` → float32 `[N, classes]` on the CPU, as they were when the model was measured."""
        return self.outputs(x)[0]

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 `[N, 3, S, S]` → logits and, where the model has them, unknown scores `[N]`, float32 on the CPU."""
        return self.with_features(x)[1:]

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `outputs`, and before them what the last stage takes of the images themselves, on the model's device."""
        frozen, tail = self.halves
        features, found = list[Tensor](), list[Tensor]()
        for view in self.preprocessing.seen(sent(x, self.device)):
            with torch.no_grad(), autocast(self.device, self.precision):
                features.append(tail[:-1](as_input(frozen(view), self.precision)))
                found.append(tail[-1](features[-1]).float())
            del features[1:]
        with torch.no_grad():
            scores = None if self.unknown is None else self.unknown(features[0]).cpu()
        return features[0], mean_logits(found).cpu(), scores

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
            return name, self.preprocessing.of(pixels(image, self.preprocessing.range))
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

    def _predictions(self, held: list[_View], *, unknown: bool) -> list[tuple[Prediction, Tensor | None]]:
        views = [found for _, found in held if isinstance(found, Tensor)]
        answers = iter(self._answers(*self.outputs(as_batch(views))) if views else ())
        return [
            (self._prediction(name, *next(answers), unknown=unknown), found)
            if isinstance(found, Tensor)
            else (Prediction(name, error=found), None)
            for name, found in held
        ]

    def _answers(self, logits: Tensor, scores: Tensor | None) -> Iterator[tuple[list[float], float | None]]:
        """Of each image, the probabilities and the unknown score."""
        probabilities = (logits / self.temperature).softmax(1).tolist()
        return zip(probabilities, [None] * len(probabilities) if scores is None else scores.tolist(), strict=True)

    def _prediction(
        self, name: str, probabilities: list[float], score: float | None, *, unknown: bool = True
    ) -> Prediction:
        by_class = dict(zip(self.classes, probabilities, strict=True))
        best = max(by_class, key=lambda c: by_class[c])
        threshold = self.unknown_threshold
        beyond = unknown and score is not None and threshold is not None and score > threshold
        return Prediction(name, UNKNOWN if beyond else best, by_class[best], by_class, unknown_score=score)


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
    if model.unknown is not None:
        model.unknown.to(target)
    return model
