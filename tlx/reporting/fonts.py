"""Names in any script in a picture: a font that has their letters, or else the letters that it lacks as escapes.

Matplotlib's own font, DejaVu Sans, has Latin, Greek, Cyrillic, Arabic and more, but no Chinese, Japanese or Korean.
"""

import functools
import logging
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tlx.core.errors import printable

NEEDED = frozenset(map(ord, string.printable.strip() + " …–×"))  # what else is written in a picture's font
SHOWN = 3  # names in a message

log = logging.getLogger("tlx")
_said = set[tuple[str, ...]]()


class Lettering(NamedTuple):
    """Names as they can be drawn, and the file of the font that can draw them."""

    names: list[str]
    font: str


def lettering(names: Sequence[str]) -> Lettering:
    """The names, and a font that has the letters of all of them, or else of as many as an installed one has.

    A letter that it lacks becomes an escape (`\\\\u732b`), with one line that says so.
    """
    own = _own()
    if all(name.isascii() and name.isprintable() for name in names):
        return Lettering(list(names), own)
    needed = [frozenset(map(ord, name)) for name in names]

    def drawn(font: str) -> int:
        return sum(letters <= _letters(font) for letters in needed)

    font = own if drawn(own) == len(names) else max((own, *_installed()), key=drawn)
    known = _letters(font)
    lacking = tuple(name for name, letters in zip(names, needed, strict=True) if not letters <= known)
    if lacking and lacking not in _said:
        _said.add(lacking)
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        log.warning(
            "pictures: no installed font has the letters of %s%s: they are written as escapes; a font such as Noto "
            "Sans CJK has those of Chinese, Japanese and Korean",
            ", ".join(map(printable, lacking[:SHOWN])),
            more,
        )
    return Lettering(["".join(c if ord(c) in known else _escaped(c) for c in name) for name in names], font)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _own() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


def _installed() -> Iterator[str]:
    """The other fonts of this machine with plain letters, upright ones of usual weight first; each file once."""
    from matplotlib.font_manager import fontManager

    usual = ("normal", "regular", "book", "roman", "400")
    fonts = sorted(fontManager.ttflist, key=lambda font: (str(font.weight) not in usual, font.name, font.fname))
    upright = (font.fname for font in fonts if font.style == "normal" and not font.name.startswith("Last Resort"))
    return (file for file in dict.fromkeys(upright) if _letters(file) >= NEEDED)


@functools.lru_cache(maxsize=1024)
def _letters(font: str) -> frozenset[int]:
    """The code points of a font that can be drawn in any size; none of one that cannot be opened."""
    from matplotlib.ft2font import FT2Font

    try:
        opened = FT2Font(font)
        return frozenset(opened.get_charmap()) if opened.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
