"""Decoded pixels to network input: the evaluation view, random views, and the normalisation in the network."""

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from tlx.decoding import MAX_PIXELS, Pixels, UnreadableImage
from tlx.errors import RequestError, nearest
from tlx.levels import Range
from tlx.runtime import seed_from

__all__ = ["Normalize", "Preprocessing", "ShearZoom", "as_batch", "random_view"]

INTERPOLATIONS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST_EXACT,  # what Pillow calls nearest
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input; one object for evaluation, prediction and export.

    `input_size`: side of the network's input, pixels. `resize`: the short side is brought to this, pixels, or None:
    both sides to `input_size`. `crop`: side of the centre crop, pixels, or None. `mean`, `std`: a channel, of values
    in [0, 1]. `interpolation`: bilinear, bicubic or nearest. `range`: the values that become black and white when an
    image of more than 8 bits is decoded; None: no such image was trained on. Raises `RequestError` where these
    contradict each other.
    """

    input_size: int
    resize: int | None
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    range: Range | None = None

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
            raise RequestError(f"backbone.crop={self.crop}: resize=squash takes no crop; set backbone.crop=null")
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise RequestError(f"backbone.crop={self.crop}: must not be above backbone.resize={self.resize}")
        if self.crop not in (None, size):
            raise RequestError(f"backbone.crop={self.crop}: must be backbone.input_size={size}, or null for no crop")
        if self.crop is None and self.resize not in (None, size):
            raise RequestError(
                f"backbone.resize={self.resize} without a crop: must be backbone.input_size={size}, or squash; "
                f"or set backbone.crop={size}"
            )

    def view(self, image: Tensor) -> Tensor:
        """The one deterministic view of an image: uint8 [3, H, W] to uint8 [3, input_size, input_size].

        Raises `RequestError` for an image that is not square where neither a crop nor squash makes it so, and
        `UnreadableImage` for one so narrow that it would not fit into memory.
        """
        height, width = image.shape[-2:]
        short, long = sorted((height, width))
        if self.resize is not None and long / short * self.resize**2 > MAX_PIXELS:  # small until it is resized
            raise UnreadableImage(
                f"{width} x {height} pixels are too narrow: resized they are more than {MAX_PIXELS:,}"
            )
        mode = INTERPOLATIONS[self.interpolation]
        size = [self.input_size, self.input_size] if self.resize is None else [self.resize]
        result: Tensor = F.resize(image, size, interpolation=mode, antialias=True)
        if self.crop is not None:
            result = F.center_crop(result, [self.crop, self.crop])
        height, width = result.shape[-2:]
        if height != width:
            raise RequestError(
                f"backbone.crop=null leaves an image of {width} x {height} pixels: "
                f"set backbone.crop={self.input_size} or backbone.resize=squash"
            )
        return result

    def of(self, pixels: Pixels) -> Tensor:
        """The view of decoded pixels: uint8 [H, W, 3] to uint8 [3, input_size, input_size]. Raises as `view`."""
        return self.view(torch.from_numpy(pixels).permute(2, 0, 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; without a range where there is none, as it was before there were any."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        span = values.pop("range")
        return values if span is None else {**values, "range": list(span)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`."""
        lists = {name: tuple(values[name]) for name in ("mean", "std", "range") if name in values}
        return cls(**{**values, **lists})


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


# Every way in which torch draws on the CPU and that takes a generator (`_` at the end: in place).
_FUNCTIONS = (
    "rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial poisson binomial "
    "_sample_dirichlet _standard_gamma"
)
_METHODS = "uniform_ normal_ random_ bernoulli bernoulli_ exponential_ cauchy_ geometric_ log_normal_ multinomial"
_RANDOM = frozenset([getattr(torch, f) for f in _FUNCTIONS.split()] + [getattr(Tensor, m) for m in _METHODS.split()])


class _Draws(TorchFunctionMode):
    """Within it everything that torch draws in this thread comes from one seed.

    torchvision's transforms draw from torch's global generator, which all threads share: seeding it for each image
    would disturb the dropout of a network that trains meanwhile in another thread, and be disturbed by it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.generators = seed, dict[torch.device, torch.Generator]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RANDOM and kwargs.get("generator") is None:
            like = next((value.device for value in args if isinstance(value, Tensor)), torch.device("cpu"))
            device = torch.device(kwargs.get("device") or like)
            if device not in self.generators:
                self.generators[device] = torch.Generator(device).manual_seed(self.seed)
            kwargs = {**kwargs, "generator": self.generators[device]}
        return func(*args, **kwargs)


_one = threading.Lock()  # held by whoever draws from NumPy's or Python's generator: all threads share them


@contextlib.contextmanager
def _shared_draws(seed: int) -> Iterator[None]:
    """Within it what NumPy's global generator and Python's draw comes from one seed; afterwards they are as before.

    One thread at a time: nothing draws from them in a thread's own stead, as `_Draws` does for torch.
    """
    with _one:
        python, numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _torch_alone(transform: object) -> bool:
    """Whether a transform is known to draw from torch only: it and what it holds are torchvision's (v2) or tlx's.

    torchvision's first version has some that draw from Python's generator; one of a user's own may draw from any.
    """
    return isinstance(transform, Hashable) and _known_torch_alone(transform)


@functools.lru_cache(maxsize=64)
def _known_torch_alone(transform: Hashable) -> bool:
    kind = transform if hasattr(transform, "__qualname__") else type(transform)
    module = f"{kind.__module__}."
    if not module.startswith(("torchvision.transforms.v2.", "torch.", "tlx.")):
        return False
    return all(map(_torch_alone, _callables(getattr(transform, "__dict__", {}).values())))


def _callables(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, Mapping):
            yield from _callables(value.values())
        elif isinstance(value, list | tuple | set):
            yield from _callables(value)
        elif callable(value) and not isinstance(value, type):
            yield value


def random_view(
    image: Tensor, transforms: Sequence[Callable[[Tensor], Tensor]], *, seed: int, epoch: int, index: int
) -> Tensor:
    """The image after the transforms, in order, whose draws come only from `(seed, epoch, index)`, on its device.

    uint8 [3, H, W] to what the last transform gives (uint8 [3, H', W']). Whatever torch, NumPy's global generator and
    Python's `random` draw inside is covered; the global generators are as they were afterwards, and threads do not
    disturb each other: transforms that may draw from NumPy or Python take turns.
    """
    if not transforms:
        return image
    own = seed_from(seed, epoch, index)
    alone = all(map(_torch_alone, transforms))
    with _Draws(own), contextlib.nullcontext() if alone else _shared_draws(own):
        for transform in transforms:
            image = transform(image)
    return image


class ShearZoom(nn.Module):
    """Shears along x and zooms each axis by its own factor about the centre; edges are replicated, not filled.

    `degrees`: the shear is drawn from ±degrees. `scale`: (low, high) of the factor by which each axis is stretched.
    uint8 or float [..., C, H, W] in and out, same shape. torchvision has neither a zoom per axis nor replicated edges.
    """

    def __init__(self, degrees: float, scale: Sequence[float]) -> None:
        super().__init__()
        if degrees < 0 or degrees >= 90:
            raise RequestError(f"augmentation: ShearZoom degrees={degrees} must be in 0..90 (90 excluded)")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise RequestError(f"augmentation: ShearZoom scale={list(scale)} must be [low, high] with 0 < low <= high")
        self.degrees, self.scale = float(degrees), (float(scale[0]), float(scale[1]))

    def forward(self, image: Tensor) -> Tensor:
        """uint8 or float [..., C, H, W] to the same dtype and shape."""
        low, high = self.scale
        zoom_x, zoom_y = (low + (high - low) * torch.rand(2)).tolist()
        angle = torch.deg2rad(self.degrees * (2 * torch.rand(()) - 1))
        height, width = image.shape[-2:]
        # From output to input coordinates, both -1..1 over the image: the inverse of the stretch, in pixels' aspect.
        shear = float(torch.sin(angle)) * height / width
        theta = torch.tensor([[1 / zoom_x, -shear / zoom_y, 0.0], [0.0, float(torch.cos(angle)) / zoom_y, 0.0]])
        batch = image.reshape(-1, *image.shape[-3:])
        grid = nn.functional.affine_grid(theta.expand(len(batch), 2, 3), list(batch.shape), align_corners=False)
        moved = nn.functional.grid_sample(
            batch.float(), grid.to(image.device), mode="bilinear", padding_mode="border", align_corners=False
        )
        if not image.is_floating_point():
            moved = moved.round().clamp(0, 255)
        return moved.to(image.dtype).reshape(image.shape)
