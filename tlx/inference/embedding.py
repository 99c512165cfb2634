"""Features of images by a saved model: what its classifier gets, one vector an image, and the prediction beside it."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlx.core.device import autocast, sent
from tlx.core.thread_pool import for_passes, side_by_side
from tlx.datasets.preprocessing import as_batch
from tlx.features.frozen_forward import Forward, as_input, rows_per_pass
from tlx.features.pooled_rows import vectors
from tlx.inference.predictor import Model, Picture, Prediction

__all__ = ["Embedded", "embedded"]
LAST = ("logits", "head")  # the stages that may be a model's classifier; the first of them begins it


class Embedded(NamedTuple):
    """An image's prediction, and its features, float32 [D]; None where it could not be read."""

    prediction: Prediction
    features: NDArray[np.float32] | None


def embedded(model: Model, images: Iterable[Picture], batch_size: int | None = None) -> Iterator[Embedded]:
    """Of each image, in order, as they are computed; predictions are those of `Model.stream`.

    The features are the input of the classifier: maps and tokens are averaged.
    """
    both = _both(model)

    def of(held: list[tuple[str, Tensor | str]]) -> list[Embedded]:
        views = [found for _, found in held if isinstance(found, Tensor)]
        rows = iter(zip(*both(as_batch(views)), strict=True) if views else ())
        found = []
        for name, view in held:
            if isinstance(view, Tensor):
                features, answer = next(rows)
                found.append(Embedded(model._prediction(name, *answer), features.numpy()))
            else:
                found.append(Embedded(Prediction(name, error=view), None))
        return found

    batches = model._batches(model._views(images), batch_size or rows_per_pass(model.device))
    for some in side_by_side(of, batches, for_passes(model.device)):
        yield from some


def _both(model: Model) -> Callable[[Tensor], tuple[Tensor, Iterable[tuple[list[float], float | None]]]]:
    """A function of uint8 [N, 3, S, S]: features [N, D], float32 on the CPU, and of each image its probabilities and
    unknown score."""
    names = [name for name, _ in model.net.named_children()]
    classifier = next(place for place, name in enumerate(names) if name in LAST)
    cut = names.index(model.format.cut)
    frozen, tail = model.halves
    if cut > classifier:  # the classifier's first layer was frozen
        frozen = Forward(model.net[:classifier], model.precision, exact=model.format.exact)
        tail, cut = model.net[classifier:].eval(), classifier
    children = list(tail.children())
    between, last = nn.Sequential(*children[: classifier - cut]), nn.Sequential(*children[classifier - cut :])

    def run(x: Tensor) -> tuple[Tensor, Iterable[tuple[list[float], float | None]]]:
        rows = frozen(sent(x, model.device))
        with torch.no_grad(), autocast(model.device, model.precision):
            features = between(as_input(rows, model.precision))
            seen = last[:-1](features)
            logits = last[-1](seen)
        with torch.no_grad():
            scores = None if model.unknown is None else model.unknown(seen).cpu()
        return vectors(features.float()).cpu(), model._answers(logits.float().cpu(), scores)

    return run
