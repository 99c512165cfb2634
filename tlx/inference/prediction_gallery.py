"""Predictions as one page of pictures, with nothing beside it: for thousands of images, sorted by class."""

import base64
import html
import io
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from PIL import Image

from tlx.core.errors import printable

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.inference.predictor import Prediction

__all__ = ["Gallery"]

SIDE = 112  # pixels of a picture on the page
QUALITY = 75  # of its JPEG
PAGE = 200  # pictures that are opened together: a browser draws only what is open

# Nothing is fetched and nothing runs, whatever a file's name holds.
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Predictions</title>
<style>
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
h2 { margin: 2rem 0 .5rem; }
summary { cursor: pointer; margin: .5rem 0; }
.page { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
img { display: block; }
figcaption, td { font-size: 12px; overflow-wrap: anywhere; }
figcaption span { display: block; }
.file { opacity: .7; }
td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
</style>
</head>
<body>
<h1>Predictions</h1>
"""


@dataclass(frozen=True)
class _Entry:
    """One picture, but for its pixels: `place` and `size` say where its JPEG is kept."""

    prediction: str
    probability: float
    file: str
    top: tuple[tuple[str, float], ...]
    place: int
    size: int


class Gallery:
    """Takes predictions as they come and writes the page at the end of the block, unless an exception ends it.

    Pictures wait in a file, so that memory holds a line for each. They are sorted by class, in each the surest first;
    what could not be read is listed below.
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
        links = [f'<a href="#c{i}">{_text(name)} ({len(of):,})</a>' for i, (name, of) in enumerate(sections.items())]
        links += [f'<a href="#errors">not read ({len(self.errors):,})</a>'] if self.errors else []
        self.stream.write(HEAD)
        self.stream.write(f"<p>{len(self.entries) + len(self.errors):,} images</p>\n<nav>{' '.join(links)}</nav>\n")
        for number, (name, entries) in enumerate(sections.items()):
            self.stream.write(f'<h2 id="c{number}">{_text(name)}</h2>\n')
            entries.sort(key=lambda entry: -entry.probability)
            for start in range(0, len(entries), PAGE):
                self._page(entries, start)
        if self.errors:
            rows = "\n".join(f"<tr><td>{_text(file)}</td><td>{_text(error)}</td></tr>" for file, error in self.errors)
            self.stream.write(f'<h2 id="errors">Could not be read</h2>\n<table>\n{rows}\n</table>\n')
        self.stream.write("</body>\n</html>\n")

    def _page(self, entries: Sequence[_Entry], start: int) -> None:
        some = entries[start : start + PAGE]
        words = f"{start + 1:,} to {start + len(some):,}: {some[0].probability:.1%} to {some[-1].probability:.1%}"
        self.stream.write(f"<details{'' if start else ' open'}><summary>{words}</summary>\n<div class=page>\n")
        for entry in some:
            self.pictures.seek(entry.place)
            data = base64.b64encode(self.pictures.read(entry.size)).decode()
            best = "".join(f"<span>{_text(name)} {share:.1%}</span>" for name, share in entry.top)
            name = _text(entry.file.replace("\\", "/").rpartition("/")[2])
            self.stream.write(
                f'<figure><img width={SIDE} height={SIDE} alt="" src="data:image/jpeg;base64,{data}">'
                f'<figcaption>{best}<span class=file title="{_text(entry.file)}">{name}</span></figcaption></figure>\n'
            )
        self.stream.write("</div>\n</details>\n")


def _text(text: str) -> str:
    return html.escape(printable(text))
