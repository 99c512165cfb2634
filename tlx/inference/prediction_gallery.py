"""Predictions as pages of pictures, a hundred on each: for thousands of images, the least confident first.

The first page is the file that was requested; the others lie in a folder beside it. So a browser opens a megabyte or
two, however many images there are, and moving the file with its folder breaks no link.
"""

import contextlib
import io
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError
from tlx.reporting import html_pages

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.inference.predictor import Prediction

__all__ = ["FIRST", "ORDERS", "Gallery", "check", "gallery"]

SIDE = 112  # pixels of a small picture on a page
LARGE = 320  # pixels of a picture that can be enlarged, at most; no more than the network saw
QUALITY = 75  # of its JPEG
PAGE = 100  # images of a page
PLACE = "--html FILE"  # what names the page's file
NEAR = 2  # pages before and behind this one that it links to, beside the first and the last

# The words of `--sort`, and what a page says of it.
ORDERS = {
    "least-sure": "least confident first",
    "most-sure": "most confident first",
    "given": "in the order in which they were given",
    "class": "by predicted class, in each the least confident first",
}
FIRST = next(iter(ORDERS))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One picture, but for its pixels: `place` and `size` say where its JPEG is kept. `number`: from 1, when sorted."""

    prediction: str
    probability: float
    file: str
    top: tuple[tuple[str, float], ...]
    place: int
    size: int
    number: int = 0

    @property
    def lines(self) -> list[str]:
        """What stands below it."""
        known = any(name == self.prediction for name, _ in self.top)
        return [*([] if known else [self.prediction]), *(f"{name} {share:.1%}" for name, share in self.top)]

    @property
    def name(self) -> str:
        """The file's, without its folder."""
        return self.file.replace("\\", "/").rpartition("/")[2]


class Gallery:
    """Takes predictions as they come; pictures wait in a file, so that memory holds a line for each."""

    def __init__(self, pictures: IO[bytes], classes: Sequence[str], top: int, words: str = "") -> None:
        """`top`: so many classes below each picture, the most probable first. `words`: of an order of its own."""
        self.pictures, self.classes, self.top, self.words = pictures, list(classes), top, words
        self.entries: list[_Entry] = []
        self.errors: list[tuple[str, str]] = []
        self.end = 0

    def __call__(self, p: "Prediction", view: "Tensor | None") -> None:
        """A prediction, and what the network saw: uint8 `[3, S, S]`."""
        if view is None:
            self.errors.append((p.file, p.error))
            return
        picture = Image.fromarray(view.permute(1, 2, 0).numpy())
        picture.thumbnail((LARGE, LARGE))
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=QUALITY)
        size = self.pictures.write(jpeg.getbuffer())
        self.entries.append(_Entry(p.prediction, p.probability, p.file, tuple(p.top(self.top)), self.end, size))
        self.end += size

    def picture(self, entry: _Entry) -> str:
        """The address of an entry's picture, read where it waits: all of them need not fit into memory."""
        self.pictures.seek(entry.place)
        return html_pages.data_url(self.pictures.read(entry.size), "jpeg")

    @property
    def names(self) -> list[str]:
        """The classes that were predicted, in the model's order, and behind them `unknown`."""
        found = {entry.prediction for entry in self.entries}
        return [*(name for name in self.classes if name in found), *sorted(found - set(self.classes))]

    def sorted(self, order: str) -> list[_Entry]:
        """The entries in one of `ORDERS`, numbered."""
        places = {name: place for place, name in enumerate(self.names)}
        keys: dict[str, Callable[[_Entry], Any]] = {
            "least-sure": lambda entry: entry.probability,
            "most-sure": lambda entry: -entry.probability,
            "given": lambda _: 0,
            "class": lambda entry: (places[entry.prediction], entry.probability),
        }
        return [replace(entry, number=n) for n, entry in enumerate(sorted(self.entries, key=keys[order]), 1)]


@contextlib.contextmanager
def gallery(file: Path, classes: Sequence[str], top: int, order: str = FIRST, words: str = "") -> Iterator[Gallery]:
    """What takes predictions in the block; at its end the pages are written, unless an exception ends it.

    `words`: what the order `given` means, where somebody has sorted the images.

    Raises:
        RequestError: the pages cannot be written, or there are other files where they belong.
    """
    with atomic(file, PLACE) as first, tempfile.TemporaryFile(dir=first.parent) as pictures:
        found = Gallery(pictures, classes, top, words)
        yield found
        check(file)
        pages = _Pages(file, found, order)
        if pages.number > 1:
            with atomic(further(file), PLACE) as folder:
                folder.mkdir()
                for page in range(2, pages.number + 1):
                    (folder / f"{page}.html").write_text(pages.text(page), encoding="utf-8")
        elif further(file).is_dir():  # of an earlier gallery with more images
            shutil.rmtree(further(file))
        first.write_text(pages.text(1), encoding="utf-8")


def further(file: Path) -> Path:
    """The folder of all pages but the first."""
    return file.with_name(f"{file.stem}-pages")


def check(file: Path) -> None:
    """Raises RequestError where the folder of the further pages holds anything that no gallery has written."""
    folder = further(file)
    others = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in others if not re.fullmatch(r"\d+\.html", name)]
    if others or (folder.exists() and not folder.is_dir()):
        what = f"holds {others[0]}" if others else "is a file"
        raise RequestError(
            f"--html {file}: its further pages go to the folder {folder}, which {what}; take another name"
        )


class _Pages:
    """The pages of a gallery, one at a time; what could not be read comes behind all pictures."""

    def __init__(self, file: Path, found: Gallery, order: str) -> None:
        self.file, self.found, self.order = file, found, order
        self.entries, self.names = found.sorted(order), found.names
        self.number = max(1, -(-(len(self.entries) + len(found.errors)) // PAGE))
        self.script = html_pages.script("gallery.js")

    def text(self, page: int) -> str:
        """A page, from 1."""
        start = (page - 1) * PAGE
        some = self.entries[start : start + PAGE]
        unread = start - len(self.entries)
        several = f", page {page:,} of {self.number:,}" if self.number > 1 else ""
        return html_pages.page(
            "predictions.html",
            title=f"Predictions{several}",
            words=self._words(),
            classes=self._classes() if page == 1 else [],
            links=list(self._links(page)),
            sections=self._sections(some),
            errors=self.found.errors[max(0, unread) : max(0, unread + PAGE)],
            images=len(self.entries),
            picture=self.found.picture,
            address=lambda number: self._address(self._page_of(number - 1), page, f"#n{number}"),
            script=self.script,
        )

    def _words(self) -> str:
        errors = f", {len(self.found.errors):,} could not be read" if self.found.errors else ""
        images = len(self.entries) + len(self.found.errors)
        order = self.found.words or ORDERS[self.order]
        return f"{images:,} images, {order}{errors}. The pictures are what the network saw; click to enlarge."

    def _sections(self, some: Sequence[_Entry]) -> list[dict[str, Any]]:
        if self.order != "class":
            return [{"name": "", "number": 0, "entries": some}] if some else []
        places = {name: place for place, name in enumerate(self.names)}
        return [
            {"name": name, "number": places[name], "entries": list(entries)}
            for name, entries in groupby(some, key=lambda entry: entry.prediction)
        ]

    def _classes(self) -> list[dict[str, Any]]:
        """How many images each class has, with a link where they lie together; a link to what could not be read."""
        counts = Counter(entry.prediction for entry in self.entries)
        found, before = [], 0
        for place, name in enumerate(self.names):
            first = self._address(self._page_of(before), 1, f"#c{place}") if self.order == "class" else None
            found.append({"words": f"{name} ({counts[name]:,})", "address": first})
            before += counts[name]
        if self.found.errors:
            words = f"not read ({len(self.found.errors):,})"
            found.append({"words": words, "address": self._address(self._page_of(before), 1, "#errors")})
        return found

    def _links(self, page: int) -> Iterator[dict[str, Any]]:
        """Links to the pages before and behind, to some numbers near this page, to the first and the last."""
        yield {"words": "previous", "address": self._address(page - 1, page) if page > 1 else None}
        shown = {1, self.number, *range(max(1, page - NEAR), min(self.number, page + NEAR) + 1)}
        last = 0
        for number in sorted(shown):
            if number > last + 1:
                yield {"words": "…", "address": None}
            yield {"words": f"{number:,}", "address": None if number == page else self._address(number, page)}
            last = number
        yield {"words": "next", "address": self._address(page + 1, page) if page < self.number else None}

    def _page_of(self, place: int) -> int:
        """The page of an image, by its place from 0."""
        return place // PAGE + 1

    def _address(self, page: int, seen_from: int, fragment: str = "") -> str:
        if page == seen_from:
            return fragment
        return html_pages.link(self._path(page), self._path(seen_from)) + fragment

    def _path(self, page: int) -> Path:
        return self.file if page == 1 else further(self.file) / f"{page}.html"
