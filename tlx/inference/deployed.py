"""What is written when a model is exported: the network with its calibration and, for pixels, its preprocessing."""

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tlx.datasets.further_views import mean_logits
from tlx.datasets.image_decoding import Pixels
from tlx.datasets.traced_view import TracedView
from tlx.inference.predictor import Model

__all__ = ["OUTPUTS", "Deployed", "Logits", "logits_of", "logits_of_pixels", "outputs"]

OUTPUTS = ("logits", "probabilities", "unknown_score", "unknown")  # the last two where the model has them

Logits = Callable[[Tensor], Tensor]  # what a file takes → float32 logits, with as many dimensions less

BATCH = 32  # images in one forward pass of a comparison


def outputs(model: Model) -> tuple[str, ...]:
    """The names of what a file of this model gives, in order."""
    return OUTPUTS[: 2 + (model.unknown is not None) + (model.unknown_threshold is not None)]


class Deployed(nn.Module):
    """A network with its calibration, and with its preprocessing where it takes pixels of any size.

    Takes uint8 as `deployed_inputs` has it, and returns those of `OUTPUTS` that the model has: logits and
    probabilities, float32 `[N, classes]`, probabilities = softmax(logits / temperature); the score for images that are
    like none of the training images, float32 `[N]`, and whether it is above the threshold, bool `[N]`. Of one image
    all are without `[N]`. Takes the network over: its weights get the plain layout.
    """

    def __init__(self, model: Model, name: str) -> None:
        super().__init__()
        # channels_last is for this process; a program that is written with it cannot tell that its weights are whole.
        net = model.net.to(memory_format=torch.contiguous_format)
        self.body, self.last = net[:-1], net[-1]
        self.view = None if name == "resized" else TracedView(model.preprocessing)
        self.unknown, self.outputs = model.unknown, outputs(model)
        self.temperature, self.seen = model.temperature, model.preprocessing.seen
        self.name, self.size = name, model.preprocessing.input_size

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 as `deployed_inputs` has it → what `outputs` names."""
        given = images[None] if self.name == "image" else images
        views = self.seen(given if self.view is None else self.view(given))
        features = self.body(views[0])
        logits = mean_logits([self.last(features).float(), *(self.last(self.body(v)).float() for v in views[1:])])
        found = [logits, (logits / self.temperature).softmax(1)]
        if self.unknown is not None:
            scores = self.unknown(features)
            found.append(scores)
            if self.unknown.threshold is not None:
                found.append(scores > self.unknown.threshold)
        return tuple(one[0] for one in found) if self.name == "image" else tuple(found)

    def example(self) -> tuple[Tensor, dict[int, torch.export.Dim]]:
        """Black images to trace it with, and the sides that stay open. Two images: one would be taken for a constant,
        as would be sides that are equal."""
        open_sides = {"image": ("height", "width"), "images": ("batch", "height", "width"), "resized": ("batch",)}
        sides = {"batch": 2, "height": self.size + 17, "width": self.size + 40}
        names = open_sides[self.name]
        fixed = (3, self.size, self.size) if self.name == "resized" else (3,)
        shape = (*(sides[side] for side in names), *fixed)
        return torch.zeros(shape, dtype=torch.uint8), {at: torch.export.Dim(side) for at, side in enumerate(names)}


def logits_of(network: Logits, views: Tensor) -> Tensor:
    """The logits of `network` for all views, uint8 `[N, 3, S, S]`: the first alone, the others in batches.

    So a file that takes only the batch size it was made with is found out.
    """
    batches = [views[:1], *torch.split(views[1:], BATCH)]
    with torch.no_grad():
        return torch.cat([network(batch).float() for batch in batches if len(batch)])


def logits_of_pixels(network: Logits, name: str, images: Iterable[Pixels]) -> Tensor:
    """As `logits_of`, by a file that takes `image` or `images` of any size; neighbours of one size are one batch."""
    tensors = (torch.from_numpy(pixels) for pixels in images)
    found = []
    with torch.no_grad():
        for _, group in itertools.groupby(enumerate(tensors), lambda pair: (pair[0] == 0, pair[1].shape)):
            alike = (one for _, one in group)
            if name == "image":
                found += [network(one)[None] for one in alike]
            else:
                batches = iter(lambda some=alike: list(itertools.islice(some, BATCH)), [])  # type: ignore[misc]
                found += [network(torch.stack(batch)) for batch in batches]
    return torch.cat(found).float()
