"""Predictions as one page of pictures, with nothing beside it: for thousands of images, sorted by class."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from tlx.reporting.html_pages import data_url, written

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.inference.predictor import Prediction

__all__ = ["Gallery"]

SIDE = 112  # pixels of a picture on the page
QUALITY = 75  # of its JPEG
PAGE = 200  # pictures that are opened together: a browser draws only what is open


@dataclass(frozen=True)
class _Entry:
    """One picture, but for its pixels: `place` and `size` say where its JPEG is kept."""

    prediction: str
    probability: float
    file: str
    top: tuple[tuple[str, float], ...]
    place: int
    size: int

    @property
    def lines(self) -> list[str]:
        """What stands below it."""
        return [f"{name} {share:.1%}" for name, share in self.top]

    @property
    def name(self) -> str:
        """The file's, without its folder."""
        return self.file.replace("\\", "/").rpartition("/")[2]


class Gallery:
    """Takes predictions as they come and writes the page at the end of the block, unless an exception ends it.

    Pictures wait in a file, so that memory holds a line for each. Sorted by class, in each the most probable first.
    What could not be read is listed below.
    """

    def __init__(self, stream: IO[str], classes: Sequence[str], top: int) -> None:
        """`top`: so many classes below each picture, the most probable first."""
        self.stream, self.classes, self.top = stream, list(classes), top
        self.entries: list[_Entry] = []
        self.errors: list[tuple[str, str]] = []
        self.end = 0
        self._within = ExitStack()

    def __enter__(self) -> "Gallery":
        self.pictures = self._within.enter_context(tempfile.TemporaryFile())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._within:
            if kind is None:
                self._write()

    def __call__(self, p: "Prediction", view: "Tensor | None") -> None:
        """A prediction, and what the network saw: uint8 `[3, S, S]`."""
        if view is None:
            self.errors.append((p.file, p.error))
            return
        picture = Image.fromarray(view.permute(1, 2, 0).numpy())
        picture.thumbnail((SIDE, SIDE))
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=QUALITY)
        size = self.pictures.write(jpeg.getbuffer())
        self.entries.append(_Entry(p.prediction, p.probability, p.file, tuple(p.top(self.top)), self.end, size))
        self.end += size

    def _write(self) -> None:
        names = [*self.classes, *sorted({entry.prediction for entry in self.entries} - set(self.classes))]
        sections = {name: [entry for entry in self.entries if entry.prediction == name] for name in names}
        sections = {name: entries for name, entries in sections.items() if entries}
        for entries in sections.values():
            entries.sort(key=lambda entry: -entry.probability)
        content = {
            "images": f"{len(self.entries) + len(self.errors):,}",
            "sections": [
                {"name": name, "count": f"{len(entries):,}", "pages": list(_pages(entries))}
                for name, entries in sections.items()
            ],
            "errors": self.errors,
            "picture": self._picture,
            "side": SIDE,
        }
        for piece in written("predictions.html", **content):
            self.stream.write(piece)

    def _picture(self, entry: _Entry) -> str:
        """The address of an entry's picture, read where it waits: all of them need not fit into memory."""
        self.pictures.seek(entry.place)
        return data_url(self.pictures.read(entry.size), "jpeg")


def _pages(entries: Sequence[_Entry]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(entries), PAGE):
        some = entries[start : start + PAGE]
        sure = f"{some[0].probability:.1%} to {some[-1].probability:.1%}"
        yield {"words": f"{start + 1:,} to {start + len(some):,}: {sure}", "entries": some}
