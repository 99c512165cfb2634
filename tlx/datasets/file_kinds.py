"""What kind of file it is: an image, one of a format that is not read, or none. By content, whatever its name says.

A file is taken for an image where its first bytes are those of a picture's format, or where its name says that it is a
picture (then what is wrong with it is worth saying).
"""

import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from PIL import Image

from tlx.datasets.archive_index import inside

# Raster formats only. Pillow goes by content, not by name: without this list a PostScript file called cat.jpg would
# be handed to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
NAMES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".tga", ".ico", ".heic", ".heif", ".hif"),
    *(".jxl", ".psd", ".dcm", ".exr", ".svg"),  # of pictures that are not read, which is said
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"),  # of cameras
)
LARGEST = 500_000_000  # bytes of a file in an archive that is looked at
HEAD = 160  # bytes of a file that are looked at
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BEGINNINGS = (  # of images that are not read
    ("JPEG XL", b"\xff\x0a"),
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("Photoshop", b"8BPS"),
    ("OpenEXR", b"\x76\x2f\x31\x01"),
    ("Radiance HDR", b"#?RADIANCE"),
    ("FITS", b"SIMPLE  ="),
    ("JPEG XR", b"II\xbc"),
    ("Fujifilm raw", b"FUJIFILMCCD-RAW"),
    ("Canon raw", b"II*\0\x10\0\0\0CR"),
    ("Olympus raw", b"IIR"),
    ("Panasonic raw", b"IIU\0"),
    ("SVG", b"<svg"),
)


def is_heif(head: bytes) -> bool:
    """Whether a file that begins so is HEIC or HEIF, as telephones write it."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF


def unread(head: bytes) -> str | None:
    """The name of the format of an image that tlx does not read, or None. `head`: the first bytes of the file."""
    if head[4:12] == b"ftypcrx ":
        return "Canon raw"
    if head[128:132] == b"DICM":
        return "DICOM"
    if head.startswith(b"<?xml") and b"<svg" in head:
        return "SVG"
    return next((name for name, beginning in _BEGINNINGS if head.startswith(beginning)), None)


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF, or of a camera whose raw format is one."""
    return head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def is_image(file: str | Path) -> bool:
    """Whether a file is an image, by what it begins with, or else by its name; no pixels are read."""
    if not os.path.lexists(file):
        return _in_archive(file)
    if str(file).lower().endswith(NAMES):
        return os.path.isfile(file)
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return False
        with open(file, "rb") as content:
            return _is_image(content)
    except Exception:  # whatever a damaged header leads to: the file does not say that it is an image
        return False


def _in_archive(file: str | Path) -> bool:
    """As `is_image`, for a file in an archive."""
    try:
        found = inside(file)
        if found is None or (entry := found[0].files.get(found[1])) is None:
            return False
        return str(file).lower().endswith(NAMES) or _is_image(io.BytesIO(found[0].read(entry, LARGEST)))
    except Exception:  # as above
        return False


def _is_image(content: IO[bytes]) -> bool:
    head = content.read(HEAD)
    if is_heif(head) or unread(head):
        return True
    if not any(_begins(name, head) for name in FORMATS):
        return False
    content.seek(0)
    with Image.open(content, formats=FORMATS):  # a text may begin with P5 or BM
        return True


def only_images(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(the images, the other files), in order."""
    images = [is_image(file) for file in files]
    return (
        [file for file, image in zip(files, images, strict=True) if image],
        [file for file, image in zip(files, images, strict=True) if not image],
    )


def _begins(name: str, head: bytes) -> bool:
    """Whether Pillow takes a file that begins so for one of the format; TGA has no mark of its own."""
    Image.init()
    accept: Any = Image.OPEN[name][1] if name in Image.OPEN else None
    return accept is not None and bool(accept(head[:16]))
