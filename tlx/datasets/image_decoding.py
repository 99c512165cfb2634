"""Files to pixels: any image a person may have becomes uint8 RGB, upright (no torch)."""

import io
import logging
import re
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from tlx.core.errors import reason
from tlx.datasets.file_kinds import FORMATS, HEAD, is_heif, is_tiff, unread
from tlx.datasets.library_warnings import collected
from tlx.datasets.pixel_levels import Levels, Range, deep, eight_bit, levels, loaded, misfit, said, words

try:
    import simplejpeg
except ImportError:  # not built for every machine: Pillow has the same pixels, more slowly
    simplejpeg = None

Pixels = NDArray[np.uint8]
Source = bytes | Path | None  # where an image was opened from, if that is known

log = logging.getLogger("tlx")

MAX_PIXELS = 100_000_000  # of an image, where nothing else is said; 300 MB decoded
MAX_BYTES = 500_000_000  # of one file
LARGE = 20_000_000  # pixels above which images are decoded one after the other, however many threads ask for them
TIFF = "a TIFF that is damaged, or whose kind of pixels is not read; floats are read as grey of 32 bits"
ORIENTATION = 0x0112
UPRIGHT: dict[int, Callable[["Pixels"], "Pixels"]] = {  # by what the EXIF orientation says
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
# A bomb is refused below by its size; Pillow's own warning about it would be a second message. What it warns about
# in a file's metadata does not touch the pixels. (Filters, not catch_warnings: that one is not safe in threads.)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImage(ValueError):
    """The bytes are not an image that can be decoded whole; the message is the reason."""


_one = threading.Lock()  # held by whoever decodes a large image
_warned = set[str]()
_most = MAX_PIXELS


def allow(pixels: int) -> None:
    """Says how many pixels an image may have, from now on and in this process; Pillow's own limit is raised with it."""
    global _most
    _most = pixels
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)


def allowed() -> int:
    """How many pixels an image may have."""
    return _most


def decode(data: bytes | Path, span: Range | None = None, name: str = "") -> Pixels:
    """The picture in a file or in its bytes, the way a person sees it.

    Any mode becomes RGB (transparency over white, the first frame of an animation) and the EXIF orientation is
    applied. `span`: the values that become black and white in an image of more than 8 bits; None: 0 and 65535, or, of
    floats, 0 and 1, 255 where any is above 1. `name`: of the image, for warnings.

    Returns uint8 [H, W, 3]; raises `UnreadableImage` where the data is truncated, is no image, or would unpack to more
    pixels than `allow` says.
    """
    name = name or (str(data) if isinstance(data, Path) else "")
    with _decoding_errors(name), _opened(data) as image:
        return _pixels(image, data, span, name)


def examined(data: bytes, name: str = "") -> Pixels | Levels | None:
    """What `decode` makes of an image, where that is known without a range; of one of more than 8 bits its levels.

    None where such an image has no value that is a number. Raises `UnreadableImage` as `decode` does.
    """
    with _decoding_errors(name), _opened(data) as image:
        if not deep(image):
            return _pixels(image, data)
        with _one_if_large(image):
            declared = said(image)
            return levels(*loaded(image, lambda: _opened(data)), declared)


def pixels_of(image: Image.Image, span: Range | None = None) -> Pixels:
    """One of Pillow's images, in any mode, as `decode` has it; what it has not read of its file is read now.

    Returns uint8 [H, W, 3], a copy. Raises `UnreadableImage` as `decode` does.
    """
    with _decoding_errors(""):
        return _pixels(image, _content(image) if deep(image) else None, span)


def _opened(data: bytes | Path) -> Image.Image:
    """The image in a file or in its bytes; its pixels are not read yet."""
    if isinstance(data, Path):
        found = data.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device would be waited for
            raise UnreadableImage("not a file")
        size = found.st_size
    else:
        size = len(data)
    if not size:
        raise UnreadableImage("the file is empty")
    if size > MAX_BYTES:  # a film among the photographs
        raise UnreadableImage(f"{size / 1e6:,.0f} MB are more than an image has")
    try:
        return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
    except UnidentifiedImageError:
        head = _head(data)
        if is_heif(head):
            return _heif(data)
        if kind := unread(head):
            raise UnreadableImage(f"{kind} is a format that is not read; save it as PNG or JPEG") from None
        if is_tiff(head):
            raise UnreadableImage(TIFF) from None
        raise


def _head(data: bytes | Path) -> bytes:
    if isinstance(data, bytes):
        return data[:HEAD]
    with data.open("rb") as file:
        return file.read(HEAD)


def _heif(data: bytes | Path) -> Image.Image:
    """An image of a telephone, by Pillow's plugin for them, where that is installed."""
    try:
        import pillow_heif
    except ImportError:
        raise UnreadableImage("HEIC and HEIF need pillow-heif: pip install 'tlx-transfer[heic]'") from None
    pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=("HEIF",))


def _content(image: Image.Image) -> bytes | None:
    """The file of one of Pillow's images whose pixels have not been read, left where it was; None where there is none.

    To read colour of 16 bits takes the file twice.
    """
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None):
        return None
    place = file.tell()
    try:
        file.seek(0)
        content: bytes = file.read()
    finally:
        file.seek(place)
    return content


@contextmanager
def _one_if_large(image: Image.Image) -> Iterator[None]:
    """Large images are decoded one after the other; too large ones are refused."""
    width, height = image.size
    if width * height > _most:
        raise UnreadableImage(_too_many(f"{width} x {height} pixels", width * height))
    alone: AbstractContextManager[object] = _one if width * height > LARGE else nullcontext()
    with alone:
        yield


def _pixels(image: Image.Image, source: Source, span: Range | None = None, name: str = "") -> Pixels:
    with _one_if_large(image):
        pixels = _jpeg(image, source)
        if pixels is None:
            shown = _scaled(image, source, span, name) if deep(image) else image
            shown.load()
            pixels = np.array(_rgb(shown), dtype=np.uint8)
        return _upright(pixels, image)


def _scaled(image: Image.Image, source: Source, span: Range | None, name: str) -> Image.Image:
    """An image of more than 8 bits with its range spread over 8; as it is, where there is no range."""
    named = f"{name}: " if name else ""
    if span is None:
        what = "an image of more than 8 bits, for which no range is known"
        _once(what, f"{named}{what}: 0 becomes black and 65535 white (of floats 1, or 255 where any is above 1)")
        return image
    values, opaque = loaded(image, lambda: _opened(cast("bytes | Path", source)))
    if found := misfit(values, span):
        what, ends = found
        _once(what, f"{named}{what}: this image has {words((ends.low, ends.high))}")
    grey_or_colour = Image.fromarray(eight_bit(values, span))
    if opaque is None:
        return grey_or_colour
    return Image.merge("RGBA", (*grey_or_colour.convert("RGB").split(), opaque))


def _once(key: str, line: str) -> None:
    """Warns once in this process, whatever the number of images."""
    if key not in _warned:
        _warned.add(key)
        log.warning("%s", line)


def _jpeg(image: Image.Image, source: Source) -> Pixels | None:
    """A JPEG's pixels, as Pillow has them in a third more time; None for all but a plain and undamaged one."""
    if simplejpeg is None or source is None or image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        return cast(Pixels, simplejpeg.decode_jpeg(content, "RGB"))
    except ValueError:  # Pillow reads some of what is not as it should be, and says what is wrong with the rest
        return None


@contextmanager
def _decoding_errors(name: str) -> Iterator[None]:
    """What Pillow raises on damaged data, as `UnreadableImage`; MemoryError and programming errors pass.

    What libraries remark on an image that they read all the same is a warning, once for each file.
    """
    with collected() as remarks:
        try:
            yield
        except UnreadableImage:
            raise
        except UnidentifiedImageError:
            raise UnreadableImage("not an image, or of an unknown format") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            number = int(re.findall(r"\d+", str(error))[0])
            raise UnreadableImage(_too_many(f"{number:,} pixels", number)) from None
        except (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError) as error:
            raise UnreadableImage(_in_words(error, remarks)) from error
        # RuntimeError: what the library behind AVIF has to say.
        except (RuntimeError, struct.error, ZeroDivisionError, Warning) as error:
            raise UnreadableImage(_in_words(error, remarks)) from error
    if remarks:
        more = f" (and {len(remarks) - 1} more)" if len(remarks) > 1 else ""
        line = f"{name or 'an image'}: may be damaged: {remarks[0]}{more}"
        _once(name or line, line)


def _in_words(error: BaseException, remarks: Sequence[str]) -> str:
    """Why an image cannot be read; Pillow gives numbers of some decoders, and libtiff the words beside."""
    why = re.sub(r"^decoder error -?\d+( when reading image file)?", "its data is damaged", reason(error).lower())
    return f"{why} ({remarks[0]})" if remarks else why


def _too_many(what: str, pixels: int) -> str:
    return f"{what} are more than {_most:,}; runtime.max_pixels={pixels} takes them (predict: --max-pixels {pixels})"


def _upright(pixels: Pixels, image: Image.Image) -> Pixels:
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    # Damaged EXIF data is no reason to lose the picture.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, Warning):
        return pixels
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


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
