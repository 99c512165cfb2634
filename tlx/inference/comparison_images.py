"""The images that an exported model is compared on: given ones, those of the run's test set, or else drawn ones."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.core import csv_cells
from tlx.core.errors import RequestError
from tlx.datasets.image_decoding import Pixels, UnreadableImage, decode
from tlx.datasets.image_sources import content_of
from tlx.datasets.pixel_levels import Range
from tlx.datasets.synthetic_shapes import SHAPES, draw, generator

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.datasets.preprocessing import Preprocessing

__all__ = ["Content", "Pictures", "of_file", "pictures", "tested_files"]

MOST, DRAWN, NOISE = 1000, 12, 4  # test images, and those that are made where there are none

Content = Callable[[str], "bytes | Pixels | None"]  # of an image by the name that a run has for it


@dataclass(frozen=True)
class Pictures:
    """Images to compare on.

    Attributes:
        views: what the network sees of them, uint8 `[N, 3, S, S]`.
        decoded: what decodes each once more: as pixels they may be many.
        labels: the class of each, "" where it is not known.
        words: which images, for a person.
    """

    views: "Tensor"
    decoded: Sequence[Callable[[], Pixels]]
    labels: Sequence[str]
    words: str

    def __iter__(self) -> Iterator[Pixels]:
        return (picture() for picture in self.decoded)


def pictures(preprocessing: "Preprocessing", files: Sequence[Path], home: Path, content: Content) -> Pictures:
    """The images to compare on.

    Args:
        files: the ones given, of which the first are taken.
        home: the run's folder, whose table says which its test images are, and of which class: those that can still be
            read, evenly chosen where there are more than `MOST`.
        content: reads these.

    Raises:
        RequestError: one of `files` cannot be read.
    """
    if files:
        given = [partial(_given, file, preprocessing.range) for file in files[:MOST]]
        views = [_view(preprocessing, picture, file) for picture, file in zip(given, files, strict=False)]
        of = f"the first {len(given):,} of {len(files):,}" if len(given) < len(files) else str(len(given))
        return _stacked(views, given, [""] * len(given), f"{of} images")
    table = list(_table(home))
    step = max(len(table) / MOST, 1.0)
    known, labels, views = list[Callable[[], Pixels]](), list[str](), list["Tensor"]()
    for name, label in (table[int(at * step)] for at in range(min(len(table), MOST))):
        with suppress(OSError, ValueError, RequestError):
            picture = partial(_tested, content, name, preprocessing.range)
            views.append(preprocessing.of(picture()))
            known.append(picture)
            labels.append(label)
    if known:
        of = f"the run's {len(known):,}" if len(known) == len(table) else f"{len(known):,} of the run's {len(table):,}"
        return _stacked(views, known, labels, f"{of} test images")
    # No picture of anybody's: shapes, and noise, which has all frequencies; in sizes about that of the network.
    shapes, made = list(SHAPES), list[Pixels]()
    for i in range(DRAWN + NOISE):
        random, size = generator(0, shapes[i % len(shapes)], "export", i), preprocessing.input_size + 7 * i
        noise = random.integers(0, 256, (size, size, 3)).astype("uint8")
        made.append(draw(shapes[i % len(shapes)], random, size) if i < DRAWN else noise)
    words = f"{len(made)} drawn images (the run's test images are not at hand)"
    views = [preprocessing.of(one) for one in made]
    return _stacked(views, [partial(_made, one) for one in made], [""] * len(made), words)


def _stacked(
    views: "list[Tensor]", decoded: Sequence[Callable[[], Pixels]], labels: Sequence[str], words: str
) -> Pictures:
    import torch

    return Pictures(torch.stack(views), decoded, labels, words)


def _view(preprocessing: "Preprocessing", picture: Callable[[], Pixels], file: Path) -> "Tensor":
    try:
        return preprocessing.of(picture())
    except (UnreadableImage, RequestError) as error:
        raise RequestError(f"{file}: {error}") from error


def of_file(name: str) -> bytes | None:
    """A file's content; None for what is no file, as `test/3`, or a file that has gone."""
    found = content_of(Path(name))
    if isinstance(found, bytes):
        return found
    return found.read_bytes() if found.is_file() else None


def tested_files(home: Path) -> Iterator[Path]:
    """The files of the run's test set, as far as its table names any."""
    yield from (Path(name) for name, _ in _table(home))


def _table(home: Path) -> Iterator[tuple[str, str]]:
    """The name and the label of each of the run's test images."""
    with suppress(OSError, ValueError, csv.Error), (home / "predictions.csv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table):
            yield csv_cells.text(row.get("file") or ""), csv_cells.text(row.get("label") or "")


def _made(pixels: Pixels) -> Pixels:
    return pixels


def _given(file: Path, span: Range | None) -> Pixels:
    return decode(content_of(file), span, str(file))


def _tested(content: Content, name: str, span: Range | None) -> Pixels:
    found = content(name)
    if found is None:
        raise RequestError(f"{name}: this test image of the run is not at hand")
    return decode(found, span, name) if isinstance(found, bytes) else found
