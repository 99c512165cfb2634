"""A comparison as one page, with nothing beside it: table, picture, every two of them, the images that flipped."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from tlx.comparison.comparison import SAME, Comparison, Pair
from tlx.comparison.flips import Flip, flips
from tlx.comparison.text_table import cells, chosen, head, left_out, notes, p_value, points
from tlx.core.choose_by import shown
from tlx.core.errors import printable
from tlx.datasets.image_decoding import UnreadableImage, decode
from tlx.inference.prediction_gallery import QUALITY, SIDE
from tlx.reporting.text_table import near

MATRIX = 24  # configurations that are set against each other, the first by validation
PAIRS = 66  # pairs whose images are shown, those with the chosen one first
SHOWN = 12  # images of a pair that either side has right more often
PICTURES = 240  # different images on the page; the others have their names only

# Nothing is fetched and nothing runs, whatever a file's name holds.
TOP = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Comparison</title>
<style>
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem; }
h2 { margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
thead th { border-bottom: 1px solid; }
td.words, thead th:last-child { text-align: left; white-space: normal; min-width: 11rem; }
.matrix td, .matrix th { text-align: center; font-size: 12px; }
.matrix td:first-child { text-align: left; }
.same { opacity: .6; }
.better { color: #1f8a4c; }
.worse { color: #c0392b; }
ul { padding-left: 1.2rem; opacity: .8; }
summary { cursor: pointer; margin: .5rem 0; overflow-wrap: anywhere; }
.page { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
figcaption span { display: block; }
.file { opacity: .7; }
.plot { width: 100%; max-width: 75rem; background: white; }
"""


def page(comparison: Comparison, picture: bytes) -> str:
    """The page; `picture`: PNG, or empty for none."""
    pairs = sorted((pair for pair in comparison.pairs if pair.found), key=lambda pair: (pair.first, pair.second))
    flipped = [(pair, flips(pair.matched)) for pair in pairs[:PAIRS]]
    spans = (run.summary.get("range") for each in comparison.configurations for run in each.runs)
    pictures = _Pictures(next(filter(None, spans), None))
    # Each picture is on the page once, as a class of its own, however many pairs it is in.
    details = "".join(line for pair, found in flipped for line in _details(comparison, pair, found, pictures))
    data = base64.b64encode(picture).decode()
    parts = [
        TOP,
        *pictures.styles(),
        "</style>\n</head>\n<body>\n<h1>Comparison</h1>\n",
        *_table(comparison),
        f'<p><img class=plot alt="Test accuracies and learning curves" src="data:image/png;base64,{data}"></p>\n'
        if picture
        else "",
        *_matrix(comparison),
        *_runs(comparison),
    ]
    if details:
        parts += [
            "<h2>Images that flipped</h2>\n<p>Right more often in one than in the other, in the runs that are paired"
        ]
        rest = len(pairs) - len(flipped)
        parts += [f"; {rest} pairs more are not shown" if rest else "", ".</p>\n", details]
    return "".join([*parts, "</body>\n</html>\n"])


def _table(comparison: Comparison) -> Iterator[str]:
    yield "<div class=wide><table>\n<thead><tr>"
    yield from (f"<th>{_text(name)}</th>" for name in head(comparison))
    yield "</tr></thead>\n"
    for place in range(len(comparison.configurations)):
        *row, words = cells(comparison, place)
        inner = "".join(f"<td>{_text(cell)}</td>" for cell in row)
        yield f"<tr>{inner}<td class=words>{_text(words)}</td></tr>\n"
    yield "</table></div>\n"
    yield from (f"<p><b>{_text(line)}</b></p>\n" for line in chosen(comparison))
    yield "<ul>\n"
    yield from (f"<li>{_text(line)}</li>\n" for line in (*notes(comparison), *left_out(comparison)))
    yield "</ul>\n"


def _matrix(comparison: Comparison) -> Iterator[str]:
    """What each row's configuration has more than each column's, in points."""
    number = min(len(comparison.configurations), MATRIX)
    if number < 2:
        return
    yield "<h2>Every two</h2>\n<p>The row's lead over the column in percentage points, its 95 % interval, and p after "
    yield f"Holm's correction for {comparison.tested} tests.</p>\n"
    yield "<div class=wide><table class=matrix>\n<thead><tr><th></th>"
    yield from (f"<th>{place + 1}</th>" for place in range(number))
    yield "</tr></thead>\n"
    for row in range(number):
        yield f"<tr><td>{row + 1} {_text(comparison.configurations[row].label)}</td>"
        for column in range(number):
            yield "<td></td>" if row == column else _cell(comparison.pair(row, column), row)
        yield "</tr>\n"
    yield "</table></div>\n"


def _runs(comparison: Comparison) -> Iterator[str]:
    """Every run: its draw, what it found, and where it lies."""
    yield "<h2>Runs</h2>\n<div class=wide><table>\n<thead><tr>"
    columns = ("configuration", "seed", "fold", "test accuracy", comparison.rule, "folder")
    yield from (f"<th>{_text(name)}</th>" for name in columns)
    yield "</tr></thead>\n"
    for one in comparison.configurations:
        for run in one.runs:
            draw = ("-" if value is None else str(value) for value in run.draw)
            figure = run.validation(comparison.rule)
            row = [one.label, *draw, f"{run.accuracy:.1%}", "-" if figure is None else shown(figure, comparison.rule)]
            inner = "".join(f"<td>{_text(cell)}</td>" for cell in row)
            yield f"<tr>{inner}<td class=words>{_text(near(run.folder))}</td></tr>\n"
    yield "</table></div>\n"


def _cell(pair: Pair, row: int) -> str:
    words = pair.words(row)
    if pair.found is None or pair.p is None:
        return f"<td class=same>{_text(words)}</td>"
    lead = points(pair.found, turned=row != pair.first).replace(" (", "<br>(")
    kind = "same" if words == SAME else words
    title = _text(f"{pair.found.method}, {pair.found.runs} pairs of runs; p before correction {p_value(pair.found.p)}")
    return f'<td class={kind} title="{title}">{lead}<br>p {_text(p_value(pair.p))}<br>{_text(words)}</td>'


class _Pictures:
    """Small pictures of image files, each once. `span`: of those of more than 8 bits, as `decode` has it."""

    def __init__(self, span: Sequence[float] | None) -> None:
        self.span = None if span is None else (span[0], span[1])
        self.known: dict[str, int | None] = {}
        self.data: list[str] = []

    def of(self, file: str) -> int | None:
        """The picture's number; None where there is no such file, or enough pictures."""
        if file not in self.known:
            self.known[file] = self._make(Path(file)) if len(self.data) < PICTURES else None
        return self.known[file]

    def styles(self) -> Iterator[str]:
        """A CSS class for each."""
        yield f".i {{ width: {SIDE}px; height: {SIDE}px; background: center / contain no-repeat; }}\n"
        for number, data in enumerate(self.data):
            yield f".i{number} {{ background-image: url(data:image/jpeg;base64,{data}); }}\n"

    def _make(self, file: Path) -> int | None:
        try:
            small = Image.fromarray(decode(file, self.span))
        except (OSError, ValueError, UnreadableImage):  # `test/3` of a drawn data set, or the file has gone
            return None
        small.thumbnail((SIDE, SIDE))
        jpeg = io.BytesIO()
        small.save(jpeg, "JPEG", quality=QUALITY)
        self.data.append(base64.b64encode(jpeg.getbuffer()).decode())
        return len(self.data) - 1


def _details(comparison: Comparison, pair: Pair, found: list[Flip], pictures: _Pictures) -> Iterator[str]:
    first, second = (comparison.configurations[place].label for place in (pair.first, pair.second))
    won = [flip for flip in found if flip.first > flip.second]
    lost = [flip for flip in found if flip.first < flip.second]
    opened = " open" if (pair.first, pair.second) == (0, 1) else ""
    yield f"<details{opened}><summary>{_text(first)} against {_text(second)}: "
    yield f"{len(won)} and {_images(len(lost))}</summary>\n"
    for name, some in ((first, won), (second, lost)):
        more = f", {SHOWN} of them shown" if len(some) > SHOWN else ""
        yield f"<p>{_text(name)} has {_images(len(some))} right more often{more}</p>\n<div class=page>\n"
        yield from (_figure(flip, pictures) for flip in some[:SHOWN])
        yield "</div>\n"
    yield "</details>\n"


def _figure(flip: Flip, pictures: _Pictures) -> str:
    number = pictures.of(flip.file)
    shown = "" if number is None else f'<div class="i i{number}"></div>'
    counts = (
        f"right in {flip.first} of {flip.of} against {flip.second} of {flip.of}"
        if flip.of > 1
        else " against ".join(flip.said)
    )
    lines = [f"is {flip.label}", counts]
    said = "".join(f"<span>{_text(line)}</span>" for line in lines)
    name = _text(flip.file.replace("\\", "/").rpartition("/")[2] or flip.file)
    said += f'<span class=file title="{_text(flip.file)}">{name}</span>'
    return f"<figure>{shown}<figcaption>{said}</figcaption></figure>\n"


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _text(text: str) -> str:
    return html.escape(printable(text))
