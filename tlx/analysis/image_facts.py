"""What is known of one image without a network: of its file, and of its pixels. No torch here.

A JPEG of many pixels is decoded at a reduced size, which is as good for all of these figures.
"""

import io
import struct
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tlx.analysis.sharpness import reduced, sharpness
from tlx.datasets.content_digests import DIGITS
from tlx.datasets.file_kinds import FORMATS, HEAD, is_heif
from tlx.datasets.image_decoding import ORIENTATION, Pixels, UnreadableImage, decode, examined, pixels_of
from tlx.datasets.library_warnings import collected
from tlx.datasets.pixel_levels import Levels, deep

SIDE = 32  # of a thumbnail, pixels
REDUCED = 2_000_000  # pixels of a JPEG from which it is decoded at a reduced size
LEAST = 512  # pixels of the short side that a reduced size has at least
_SEVERAL = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "PPM")  # formats in which several frames or pages are another picture
_EXIF = {"exif", "Raw profile type exif"}
_MAKE, _MODEL = 0x010F, 0x0110  # EXIF's tags for the camera

Facts = NDArray[np.void]  # of RECORD

RECORD = np.dtype(
    [
        ("digest", "u1", DIGITS // 2),  # of the file's content
        ("pixels", "u1", DIGITS // 2),  # of the decoded pixels, upright
        ("size", "i8"),  # bytes of the file; 0: it is in memory
        ("format", "S8"),  # Pillow's name; empty: it is in memory
        ("mode", "S8"),
        ("width", "i4"),  # as a person sees it: turned as EXIF says
        ("height", "i4"),
        ("frames", "i4"),
        ("bits", "i4"),  # of a channel
        ("transparent", "?"),  # some pixel is not opaque
        ("orientation", "i4"),  # EXIF's, 1: as stored
        ("cut_short", "?"),  # readable, but its end is missing
        ("profile", "S40"),  # what its colour profile is called
        ("gamut", "f4"),  # the profile's area of colours, 1: that of sRGB; 0: none
        ("camera", "S40"),
        ("mean", "f4"),  # of the luminance, 0..255
        ("low", "f4"),  # below which a thousandth of the pixels lies
        ("high", "f4"),  # above which a thousandth lies
        ("sharpness", "f4"),  # of the sharpest part, 0..1; NaN: too small to say
        ("thumbnail", "u1", (SIDE, SIDE, 3)),  # the whole picture, squashed
    ]
)


def facts_of(content: "bytes | Pixels", digest: str, decoded: Pixels | None = None) -> Facts:
    """One record of `RECORD`.

    Args:
        content: the file's bytes, or the pixels where there is no file.
        digest: of the content, hex digits.
        decoded: the image's pixels, where they are at hand; of 8 bits.

    Raises `UnreadableImage`, as `decode` does.
    """
    found: Any = np.zeros((), RECORD)
    found["digest"] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    if isinstance(content, bytes):
        pixels = _of_file(content, found, decoded)
    else:
        found["mode"], found["frames"], found["bits"], found["orientation"] = b"RGB", 1, 8, 1
        pixels = content
        found["height"], found["width"] = pixels.shape[:2]
    _of_pixels(pixels, found)
    return found  # type: ignore[no-any-return]


def _of_file(content: bytes, found: Any, decoded: Pixels | None) -> Pixels:
    """Fills in what is known of a file; returns its pixels, perhaps at a reduced size."""
    found["size"] = len(content)
    with collected():
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Exception:  # whatever a damaged header leads to: `decode` says what it is
            image = None
        if image is None:
            pixels = decoded if decoded is not None else decode(content)
            found["format"] = b"HEIF" if is_heif(content[:HEAD]) else b""
            found["mode"], found["frames"], found["bits"], found["orientation"] = b"RGB", 1, 8, 1
            found["height"], found["width"] = pixels.shape[:2]
            return pixels
        whole = _of_header(image, found)
        width, height = image.size
        if image.format in ("JPEG", "MPO"):
            pixels, found["cut_short"] = _jpeg(content, width, height, decoded)
        elif deep(image):
            pixels = decode(content, _span(examined(content)))
        elif decoded is not None and not found["transparent"]:
            pixels = decoded
        else:
            pixels = pixels_of(image) if whole else decode(content)
            if found["transparent"]:  # a channel for it says little
                found["transparent"] = _sees_through(image)
    turned = found["orientation"] >= 5
    found["width"], found["height"] = (height, width) if turned else (width, height)
    return pixels


def _of_header(image: Image.Image, found: Any) -> bool:
    """Fills in what is known before the pixels are read; False where the metadata is damaged."""
    found["format"], found["mode"] = str(image.format).encode()[:8], image.mode.encode()[:8]
    found["bits"] = 1 if image.mode == "1" else 16 if deep(image) else 8
    found["transparent"] = image.has_transparency_data
    found["frames"], found["orientation"], whole = 1, 1, True
    try:
        if image.format in _SEVERAL:
            found["frames"] = getattr(image, "n_frames", 1)
            image.seek(0)
        # Pillow reads the pixels of a PNG to look for EXIF data behind them.
        exif: Any = image.getexif() if image.format != "PNG" or _EXIF & image.info.keys() else {}
        orientation = exif.get(ORIENTATION, 1)
        found["orientation"] = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
        camera = " ".join(str(exif[tag]).strip(" \0") for tag in (_MAKE, _MODEL) if tag in exif)
        found["camera"] = camera.encode("ascii", "replace")[:40]
    # Damaged metadata is no reason to know nothing of the picture.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error, Warning):
        whole = False
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        found["profile"], found["gamut"] = _profile(profile)
    return whole


@lru_cache(maxsize=64)
def _profile(content: bytes) -> tuple[bytes, float]:
    """What a colour profile is called, and its triangle of primaries (CIE xy) in those of sRGB; 0 where it has none."""
    try:
        profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(content)).profile
        name = str(profile.profile_description or "").strip().encode("ascii", "replace")[:40]
        corners = [primary[1][:2] for primary in (profile.red_primary, profile.green_primary, profile.blue_primary)]
    except (OSError, ValueError, TypeError, AttributeError, ImageCms.PyCMSError):
        return b"", 0.0
    (x1, y1), (x2, y2), (x3, y3) = corners
    return name, abs((x2 - x1) * (y3 - y1) - (x3 - x1) * (y2 - y1)) / 2 / _SRGB


_SRGB = 0.1121  # the area of sRGB's triangle, xy


def _jpeg(content: bytes, width: int, height: int, decoded: Pixels | None) -> tuple[Pixels, bool]:
    """(the pixels of a JPEG, whether its end is missing); a large one at a reduced size."""
    short = content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")  # the end of a picture before a picture's begin
    if width * height >= REDUCED or (decoded is not None and short):
        with Image.open(io.BytesIO(content)) as image:
            try:
                image.draft("RGB", (_reduced(width, height)))
                pixels = pixels_of(image)
            except UnreadableImage:
                return decode(content), short
        return pixels, short
    return (decode(content) if decoded is None else decoded), short


def _reduced(width: int, height: int) -> tuple[int, int]:
    scale = max(LEAST / min(width, height), (REDUCED / (width * height)) ** 0.5 / 2)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _span(levels: "Pixels | Levels | None") -> tuple[float, float]:
    """An image of more than 8 bits is looked at in its own range: that of a data set depends on the split."""
    if not isinstance(levels, Levels):
        return 0.0, 1.0
    return levels.low, levels.high if levels.high > levels.low else levels.low + 1


def _sees_through(image: Image.Image) -> bool:
    whole = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    extrema: Any = whole.getchannel("A").getextrema()
    return bool(extrema[0] < 255)


def _of_pixels(pixels: Pixels, found: Any) -> None:
    whole = np.ascontiguousarray(pixels)
    digest = sha256(f"{pixels.shape}".encode())
    digest.update(whole.data)
    found["pixels"] = np.frombuffer(digest.digest()[: DIGITS // 2], np.uint8)
    small = reduced(Image.fromarray(whole))
    found["thumbnail"] = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BOX))
    grey = small.convert("L")
    counts = np.cumsum(grey.histogram())
    outliers = counts[-1] // 1_000
    found["mean"] = 255 - counts[:-1].sum() / counts[-1]
    found["low"], found["high"] = np.searchsorted(counts, [outliers + 1, counts[-1] - outliers])
    found["sharpness"] = sharpness(grey)
