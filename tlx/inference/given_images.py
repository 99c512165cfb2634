"""What a user may give as an image to predict, as pixels."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tlx.core.errors import RequestError
from tlx.datasets.folder_layout import local
from tlx.datasets.image_decoding import Pixels, UnreadableImage, decode, pixels_of
from tlx.datasets.image_sources import content_of
from tlx.datasets.pixel_levels import Range

__all__ = ["Picture", "pixels", "several"]

SHAPES = "uint8 [H, W, 3] or [3, H, W], or float in 0..1"  # of an array
HALF = 0.5 / 255  # by which a float may lie outside of 0..1: it rounds to the same level

# A path, the bytes of a file, one of Pillow's images in any mode, or an array or tensor in RGB, `[H, W, 3]` or
# `[3, H, W]`: uint8, or float in 0..1.
Picture = Path | str | bytes | NDArray[Any] | Tensor | Image.Image


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
    rgb: Pixels = values.transpose(1, 2, 0) if first and not (last and usual) else values
    return np.require(rgb, requirements=["C", "W"])


def several(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
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


def pixels(image: Picture, span: Range | None) -> Pixels:
    """uint8 `[H, W, 3]` of whatever may be given; `span` as `decode` has it.

    Raises UnreadableImage, and RequestError for a URL.
    """
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
