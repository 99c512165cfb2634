"""Images of more than 8 bits a channel: their values as they are, and the range of them that becomes black to white.

Pillow reads grey of more than 8 bits whole, in modes I;16, I and F; of colour in 16 bits it keeps the high byte alone,
and the low one is read here in a second pass. No torch here.
"""

import contextlib
import math
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

Range = tuple[float, float]  # the value that becomes black, and the one that becomes white
Values = NDArray[np.float32]  # [H, W] or [H, W, 3]

OUTLIERS = 0.001  # of an image's values at either end: hot and dead pixels do not make the range of all the others
DARK = 1 / 16  # of a range, below which an image is nearly black
CONTAINER = 65535  # of 16 bits; a header that says no less says nothing about what is in it
# Pillow's name of a byte order → of the other one, in which the low bytes are taken for the high ones.
_TURNED = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_COLOURS = ("RGB", "RGBX", "RGBA")  # of which both bytes are read; other channels (CMYK) keep their high bytes
_ENDS = ((340, 341), (280, 281))  # TIFF's tags for the lowest and highest value: SMin-, SMaxSampleValue; Min-, Max-


class Levels(NamedTuple):
    """What is known of one image of more than 8 bits.

    `low`, `high`: the lowest and the highest value but for outliers. `said`: the range that its header gives, or None.
    """

    low: float
    high: float
    said: Range | None = None


def deep(image: Image.Image) -> bool:
    """Whether the image has more than 8 bits a channel. Needs no pixel of it."""
    return image.mode.startswith(("I", "F")) or bool(_colour(image))


def loaded(image: Image.Image, reopened: Callable[[], Image.Image]) -> tuple[Values, Image.Image | None]:
    """The values of an image for which `deep` holds, and how opaque they are (mode L), None where all are.

    `reopened`: opens the same file once more; not called for a grey image.
    """
    raw = _colour(image)
    if not raw:
        most = _most(image)
        image.load()
        values = np.asarray(image).astype(np.float32)  # exact for 16 bits, and half of a float64 for a large image
        return values if most is None else np.rint(values * (most / CONTAINER)), None
    with reopened() as again:
        if raw == "LA;16B":  # read as four channels of 8 bits: the two bytes of each value
            _reread(again, "RGBA", "RGBA")
            high, low, opaque = again.getchannel("R"), again.getchannel("G"), again.getchannel("B")
            return np.asarray(high).astype(np.float32) * 256 + np.asarray(low), opaque
        image.load()
        _reread(again, again.mode, raw[:-3] + _TURNED[raw[-3:]])
        values = np.asarray(image)[..., :3].astype(np.float32) * 256 + np.asarray(again)[..., :3]
    return values, image.getchannel("A") if image.mode == "RGBA" else None


def said(image: Image.Image) -> Range | None:
    """The range that the header of an image gives, where that is less than what its 16 bits could hold."""
    if image.format == "PPM":
        found = _most(image)
        return None if found is None else (0.0, float(found))
    if image.format == "PNG":
        bits = _significant_bits(image)
        return None if bits is None or not 0 < bits < 16 else (0.0, 2.0**bits - 1)
    tags: Any = getattr(image, "tag_v2", {})
    for lowest, highest in _ENDS:
        with contextlib.suppress(TypeError, ValueError):
            low, high = _one(tags.get(lowest, 0), min), _one(tags[highest], max) if highest in tags else math.nan
            if low < high and (image.mode == "F" or (low, high) != (0.0, CONTAINER)):
                return low, high
    return (0.0, 4095.0) if _raw(image) == "I;12" else None


def levels(values: Values, opaque: Image.Image | None = None, declared: Range | None = None) -> Levels | None:
    """The levels of an image; None where none of its values is a number that can be seen."""
    seen = values if opaque is None else values[np.asarray(opaque) > 0]
    flat = seen[np.isfinite(seen)]
    if not flat.size:
        return None
    last = flat.size - 1
    place = int(OUTLIERS * last)
    ends = np.partition(flat, (place, last - place))
    return Levels(float(ends[place]), float(ends[last - place]), declared)


def eight_bit(values: Values, span: Range) -> NDArray[np.uint8]:
    """The values with `span` spread over 0..255; what lies outside is black or white, and what is no number black."""
    low, high = span
    scaled = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    np.clip(scaled, low, high, out=scaled)
    scaled -= np.float32(low)
    scaled *= np.float32(255.0 / (high - low))
    return np.rint(scaled, out=scaled).astype(np.uint8)


def misfit(values: Values, span: Range) -> tuple[str, Levels] | None:
    """Why an image does not fit the range, in words, and its levels: more than a few outliers lie outside, or it is
    nearly black. Else None."""
    low, high = span
    if not values.size:
        return None
    if not (values.min() >= low and values.max() <= high):
        found = levels(values)
        if found is not None and (found.low < low or found.high > high):
            return f"values outside of the range {words(span)} (dataset.range) are clipped", found
    found = levels(values[::4, ::4])  # a sixteenth of the pixels says whether all is dark
    if found is not None and dark(found, span):
        return f"nearly black in the range {words(span)} (dataset.range)", found
    return None


def dark(found: Levels, span: Range) -> bool:
    """Whether an image is nearly black in this range: it has 16 of the 256 levels at most."""
    low, high = span
    return found.high - low < DARK * (high - low)


def common_range(images: Iterable[Levels]) -> tuple[Range, bool] | None:
    """One range for the images of a data set, and whether their headers say it; None where there is no image.

    What all headers say is taken if all values lie in it (a PNG that says 10 bits may also hold values that were
    spread over 16). Else it is measured, and rounded outwards so that another seed rarely changes it: values from
    about 0 on have the range of the fewest bits that hold them, as 0 to 1023, or 0 to 1; others one that starts at
    the lowest value.
    """
    known = list(images)
    if not known:
        return None
    low, high = min(image.low for image in known), max(image.high for image in known)
    declared = [image.said for image in known if image.said is not None]
    if len(declared) == len(known):
        first, last = min(first for first, _ in declared), max(last for _, last in declared)
        if first <= low and high <= last:
            return (first, last), True
    if 0 <= low <= high / 2:
        bits = math.ceil(math.log2(high + 1)) if high > 1 else 0
        return (0.0, 2.0**bits - 1 if bits else 2.0 ** math.ceil(math.log2(high or 1))), False
    step = 2.0 ** (math.floor(math.log2(high - low or abs(high) or 1)) - 3)
    first, last = math.floor(low / step) * step, math.ceil(high / step) * step
    return (first, max(last, first + step)), False


def words(span: Range) -> str:
    """A range as a person reads it."""
    return f"{span[0]:.10g} to {span[1]:.10g}"


def _raw(image: Image.Image) -> str:
    """What Pillow calls the format of the pixels in the file; empty once they are read."""
    args = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _colour(image: Image.Image) -> str:
    """The format of colour in 16 bits; empty for all other images."""
    raw = _raw(image)
    colour, _, bits = raw.partition(";")
    return raw if raw == "LA;16B" or (colour in _COLOURS and bits in _TURNED) else ""


def _reread(image: Image.Image, mode: str, raw: str) -> None:
    """Reads the pixels of a file as if they were in another format of as many bits."""
    assert isinstance(image, ImageFile.ImageFile)
    image._mode = mode
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
    image.load()


def _most(image: Image.Image) -> int | None:
    """The largest value of a PGM, by whose header Pillow spreads its values over 16 bits; None for all others."""
    if image.format != "PPM" or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return None
    args = image.tile[0].args
    most = args[-1] if image.tile[0].codec_name.startswith("ppm") and isinstance(args, tuple) else None
    return most if isinstance(most, int) and most < CONTAINER else None


def _significant_bits(image: Image.Image) -> int | None:
    """The bits that a PNG's sBIT chunk says; None where it has none."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if file is None:
        return None
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            size = struct.unpack(">I", head[:4])[0]
            if head[4:] == b"sBIT":
                return max(file.read(size)[:3], default=None)
            file.seek(size + 4, 1)
    finally:
        file.seek(place)
    return None


def _one(value: Any, of: Callable[..., Any]) -> float:
    return float(of(value) if isinstance(value, tuple) else value)
