"""Small pictures for a page, each once, as many as a page may have: whatever the data set, its size is bounded."""

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from tlx.datasets.image_decoding import Pixels, UnreadableImage, decode, pixels_of
from tlx.datasets.images import Images
from tlx.datasets.pixel_levels import Range
from tlx.reporting import html_pages

SIDE, QUALITY = 128, 75  # pixels of a small picture, and of its JPEG
MOST = 320  # different pictures on a page
BYTES = 3_000_000  # of all of them, as the page has them

Read = Callable[[str], "bytes | Pixels | None"]  # an image's content by its name; None where it is not at hand


def of_sets(sets: Iterable[Images]) -> Read:
    """Of images that are at hand, by their names; others are read from their files."""
    known = {file: (images, index) for images in sets for index, file in enumerate(images.files)}

    def read(file: str) -> "bytes | Pixels | None":
        if file not in known:
            return of_files(file)
        images, index = known[file]
        row = int(images.rows[index])
        cached = images.store.cached.get(row)
        return images.store.read(row) if cached is None else cached

    return read


def of_files(file: str) -> bytes | None:
    """A file's content; None for what is no file, as `test/3` of drawn images, or a file that has gone."""
    path = Path(file)
    return path.read_bytes() if path.is_file() else None


class SmallPictures:
    """Takes the names of images in the order of their weight, and makes the pictures of the first at the end.

    `span`: what is black and white in images of more than 8 bits.
    """

    def __init__(self, read: Read, span: Sequence[float] | None = None) -> None:
        self.read, self.span = read, None if span is None else (span[0], span[1])
        self.numbers: dict[str, int] = {}

    def of(self, file: str) -> int | None:
        """The picture's number; None where there are enough."""
        if file not in self.numbers and len(self.numbers) < MOST:
            self.numbers[file] = len(self.numbers)
        return self.numbers.get(file)

    def made(self) -> dict[int, str]:
        """The address of each picture by its number, without those that cannot be read, or do not fit any more."""
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as threads:  # decoding leaves Python's lock
            pictures = list(threads.map(self._made, self.numbers))
        found, size = dict[int, str](), 0
        for number, picture in enumerate(pictures):
            if picture is not None and size + len(picture) <= BYTES:
                found[number] = picture
                size += len(picture)
        return found

    def _made(self, file: str) -> str | None:
        try:
            content = self.read(file)
            small = None if content is None else small_picture(content, SIDE, self.span)
        except (OSError, ValueError, UnreadableImage):
            return None
        if small is None:
            return None
        jpeg = io.BytesIO()
        small.save(jpeg, "JPEG", quality=QUALITY)
        return html_pages.data_url(jpeg.getvalue(), "jpeg")


def small_picture(content: "bytes | Pixels", side: int, span: Range | None = None) -> Image.Image:
    """An image in a square of so many pixels. A large JPEG is decoded at a reduced size.

    Raises `UnreadableImage`, `OSError` or `ValueError`.
    """
    small = _reduced(content, side) if isinstance(content, bytes) else Image.fromarray(content)
    if small is None:
        small = Image.fromarray(decode(content, span))  # type: ignore[arg-type]
    small.thumbnail((side, side))
    return small


def _reduced(content: bytes, side: int) -> Image.Image | None:
    """A JPEG at about twice the side that is needed; None for other formats, and for what is damaged."""
    if not content.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            image.draft("RGB", (2 * side, 2 * side))
            return Image.fromarray(pixels_of(image))
    except (OSError, ValueError, UnreadableImage):
        return None
