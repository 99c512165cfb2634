"""Files to pixels: any image a person may have becomes uint8 RGB, upright (numpy and Pillow only: no torch)."""

import io
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from tlx.errors import reason

Pixels = NDArray[np.uint8]

# Raster formats only. Pillow goes by content, not by name: without this list a PostScript file called cat.jpg would
# be handed to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
MAX_PIXELS = 100_000_000  # larger than any camera's picture; 300 MB decoded
LARGE = 20_000_000  # pixels above which images are decoded one after the other, however many threads ask for them
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A bomb is refused below by its size; Pillow's own warning about it would be a second message. What it warns about
# in a file's metadata does not touch the pixels. (Filters, not catch_warnings: that one is not safe in threads.)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImage(ValueError):
    """The bytes are not an image that can be decoded whole; the message is the reason."""


_one = threading.Lock()  # held by whoever decodes a large image


def decode(data: bytes | Path) -> Pixels:
    """The picture in a file or in its bytes, the way a person sees it.

    Any mode becomes RGB (transparency over white, 16 bit scaled down, the first frame of an animation) and the EXIF
    orientation is applied. Returns uint8 [H, W, 3]; raises `UnreadableImage` where the data is truncated, is no
    image, or would unpack to more than 100 million pixels.
    """
    with _told():
        if isinstance(data, Path):
            found = data.stat()
            if not stat.S_ISREG(found.st_mode):  # a pipe or a device would be waited for
                raise UnreadableImage("not a file")
            size = found.st_size
        else:
            size = len(data)
        if not size:
            raise UnreadableImage("the file is empty")
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS) as image:
            return pixels_of(image)


def pixels_of(image: Image.Image) -> Pixels:
    """One of Pillow's images, in any mode, as `decode` has it; what it has not read of its file is read now.

    Returns uint8 [H, W, 3], a copy. Raises `UnreadableImage` as `decode` does.
    """
    with _told():
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UnreadableImage(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
        alone: AbstractContextManager[object] = _one if width * height > LARGE else nullcontext()
        with alone:
            image.load()
            return np.array(_rgb(_upright(image)), dtype=np.uint8)


@contextmanager
def _told() -> Iterator[None]:
    """What Pillow raises on damaged data, as `UnreadableImage`; MemoryError and programming errors pass."""
    try:
        yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage("not an image, or of an unknown format") from None
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError) as error:
        raise UnreadableImage(reason(error).lower()) from error
    except (struct.error, ZeroDivisionError, Image.DecompressionBombError, Warning) as error:
        raise UnreadableImage(reason(error).lower()) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    # Damaged EXIF data is no reason to lose the picture.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, Warning):
        return image
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _eight_bit(image).convert("RGB")
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        white = Image.new("RGBA", whole.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, whole).convert("RGB")
    if image.mode == "LAB":  # the one mode that Pillow's convert() does not take to RGB
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return cast("Image.Image", ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits: integers are 0..65535; floats 0..1, or 0..255 where any is above 1."""
    values = np.asarray(image).astype(np.float32)  # exact for 16 bits, and half of a float64 for a large image
    top = 65535.0
    if image.mode == "F":
        np.nan_to_num(values, copy=False)
        top = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
    np.clip(values, 0.0, top, out=values)
    values *= 255.0 / top
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8), mode="L")
