"""Decoded pixels to network input: the evaluation view, random views, and the normalisation in the network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlx.core.deferred_compiler import compiler_deferred
from tlx.core.errors import RequestError, nearest
from tlx.datasets.further_views import FurtherView
from tlx.datasets.image_decoding import MAX_PIXELS, Pixels, UnreadableImage
from tlx.datasets.pixel_levels import Range

with compiler_deferred():
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

__all__ = ["Normalize", "Preprocessing", "as_batch"]

INTERPOLATIONS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST_EXACT,  # what Pillow calls nearest
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input; one object for evaluation, prediction and export.

    `input_size`: side of the network's input, pixels. `resize`: the short side is brought to this, pixels, or None:
    both sides to `input_size` or, with `pad`, the long side, with borders of the mean colour at the short one. `crop`:
    side of the centre crop, pixels, or None. `mean`, `std`: a channel, of values in [0, 1]. `interpolation`: bilinear,
    bicubic or nearest. `range`: the values that become black and white when an image of more than 8 bits is decoded;
    None: no such image was trained on. `views`: further ones, over which the model averages. Raises `RequestError`
    where these contradict each other.
    """

    input_size: int
    resize: int | None
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    range: Range | None = None
    pad: bool = False
    views: tuple[FurtherView, ...] = ()

    def __post_init__(self) -> None:
        size = self.input_size
        if size < 1:
            raise RequestError(f"backbone.input_size={size}: must be at least 1 pixel")
        if self.interpolation not in INTERPOLATIONS:
            hint = nearest(self.interpolation, INTERPOLATIONS)
            raise RequestError(f"backbone.interpolation={self.interpolation}: one of {', '.join(INTERPOLATIONS)}{hint}")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise RequestError(f"backbone.{key}={list(values)}: needs three values: red, green, blue")
        if min(self.std) <= 0:
            raise RequestError(f"backbone.std={list(self.std)}: every value must be above 0")
        if self.resize is None and self.crop is not None:
            how = "pad" if self.pad else "squash"
            raise RequestError(f"backbone.crop={self.crop}: resize={how} takes no crop; set backbone.crop=null")
        if self.resize is not None and self.pad:
            raise ValueError("borders are added where both sides become input_size")
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise RequestError(f"backbone.crop={self.crop}: must not be above backbone.resize={self.resize}")
        if self.crop not in (None, size):
            raise RequestError(f"backbone.crop={self.crop}: must be backbone.input_size={size}, or null for no crop")
        if self.crop is None and self.resize not in (None, size):
            raise RequestError(
                f"backbone.resize={self.resize} without a crop: must be backbone.input_size={size}, squash or pad; "
                f"or set backbone.crop={size}"
            )

    def view(self, image: Tensor) -> Tensor:
        """The one deterministic view of an image: uint8 [3, H, W] to uint8 [3, input_size, input_size].

        Raises `RequestError` for an image that is not square where neither a crop nor squash nor pad makes it so, and
        `UnreadableImage` for one so narrow that it would not fit into memory.
        """
        height, width = image.shape[-2:]
        short, long = sorted((height, width))
        if self.resize is not None and long / short * self.resize**2 > MAX_PIXELS:  # small until it is resized
            raise UnreadableImage(
                f"{width} x {height} pixels are too narrow: resized they are more than {MAX_PIXELS:,}"
            )
        mode = INTERPOLATIONS[self.interpolation]
        side = self.input_size
        if self.pad:
            sides = [max(round(length * side / long), 1) for length in (height, width)]
            return self._with_borders(F.resize(image, sides, interpolation=mode, antialias=True))
        size = [side, side] if self.resize is None else [self.resize]
        result: Tensor = F.resize(image, size, interpolation=mode, antialias=True)
        if self.crop is not None:
            result = F.center_crop(result, [self.crop, self.crop])
        height, width = result.shape[-2:]
        if height != width:
            raise RequestError(
                f"backbone.crop=null leaves an image of {width} x {height} pixels: "
                f"set backbone.crop={self.input_size}, backbone.resize=squash or backbone.resize=pad"
            )
        return result

    def seen(self, view: Tensor) -> list[Tensor]:
        """The evaluation view of an image, or of several, `[…, 3, S, S]`, and the further ones."""
        return [view, *(further.of(view) for further in self.views)]

    def _with_borders(self, image: Tensor) -> Tensor:
        """The image in the middle of a square of the mean colour, which the network sees as zeros."""
        down, across = (self.input_size - length for length in image.shape[-2:])
        colour = [round(255 * mean) for mean in self.mean]
        borders = [across // 2, down // 2, across - across // 2, down - down // 2]  # left, top, right, bottom
        result: Tensor = F.pad(image, borders, fill=colour)
        return result

    def of(self, pixels: Pixels) -> Tensor:
        """The view of decoded pixels: uint8 [H, W, 3] to uint8 [3, input_size, input_size]. Raises as `view`."""
        return self.view(torch.from_numpy(pixels).permute(2, 0, 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; range, pad and views only where there are such, as it was before there were any."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        span, pad, views = (values.pop(name) for name in ("range", "pad", "views"))
        more = {"range": span and list(span), "pad": pad, "views": list(views)}
        return values | {name: value for name, value in more.items() if value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`."""
        lists = {name: tuple(values[name]) for name in ("mean", "std", "range") if name in values}
        views = tuple(FurtherView(**view) for view in values.get("views", ()))
        return cls(**{**values, **lists, "views": views})


def as_batch(views: Sequence[Tensor]) -> Tensor:
    """uint8 `[3, S, S]` each to `[N, 3, S, S]` with the channels last, as they are decoded and as convolutions take
    them: a copy of whole rows."""
    return torch.stack([view.permute(1, 2, 0) for view in views]).permute(0, 3, 1, 2)


class Normalize(nn.Module):
    """Pixels to what the network was trained on: the first module of every network.

    uint8 or float [N, 3, S, S] in 0..255 to float32 of the same shape, `(x / 255 - mean) / std` a channel. Mean and
    std are no part of the state dict, so that its keys stay the original network's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 or float [N, 3, S, S] in 0..255 to float32 [N, 3, S, S]."""
        return (x.float() / 255 - self.mean) / self.std

    def extra_repr(self) -> str:
        """Mean and std, in a printed network."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"
