"""Names in any script are drawn by a font that has their letters, or as escapes with one line; never as boxes."""

import logging
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from tests.core.confusion_matrices import counted
from tlx.core.errors import printable
from tlx.reporting import fonts as module
from tlx.reporting import run_plots
from tlx.reporting.fonts import lettering

LATER = "猫犬鳥"
NAMES = {
    "latin": ["Käfer", "Übergröße"],
    "decomposed": ["Ka\u0308fer", "e\u0301te\u0301"],
    "greek and cyrillic": ["γάτα", "собака"],
    "arabic": ["قطة", "كلب"],
    "symbols": ["$x$ costs _1_", "a\\b^{c}"],
}


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No font but Matplotlib's own is installed, whatever the machine has."""
    module._said.clear()
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if "mpl-data" in font.fname])
    yield
    module._said.clear()


def made_font(file: Path, letters: str) -> str:
    """A font of squares in which these letters, and all of ASCII, have glyphs."""
    codes = [ord(letter) for letter in sorted({*letters, *string.printable.strip(), *" …–×"})]
    pen = TTGlyphPen(None)
    for place, move in enumerate(((50, 0), (50, 700), (650, 700), (650, 0))):
        (pen.lineTo if place else pen.moveTo)(move)
    pen.closePath()
    square, names = pen.glyph(), [".notdef", *(f"u{code:x}" for code in codes)]
    build = FontBuilder(1000, isTTF=True)
    build.setupGlyphOrder(names)
    build.setupCharacterMap({code: f"u{code:x}" for code in codes})
    build.setupGlyf(dict.fromkeys(names, square))
    build.setupHorizontalMetrics(dict.fromkeys(names, (700, 50)))
    build.setupHorizontalHeader(ascent=800, descent=-200)
    build.setupNameTable({"familyName": file.stem, "styleName": "Regular"})
    build.setupOS2()
    build.setupPost()
    build.save(file)
    return str(file)


def drawn(classes: Sequence[str], folder: Path) -> None:
    """All pictures of a run with these classes; a warning is an error."""
    k = len(classes)
    run_plots.confusion(counted(np.eye(k, dtype=np.int64) + 1), classes, folder / "confusion.png")
    pictures = [np.zeros((20, 20, 3), dtype=np.uint8)] * (2 * k)
    run_plots.predictions(
        pictures, [*range(k)] * 2, [*range(k), *[0] * k], [0.9] * (2 * k), classes, folder / "grid.png"
    )
    row = {"train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "lr": 1e-3, "epoch": 1}
    run_plots.curves([{**row, "phase": name, "epoch": i + 1} for i, name in enumerate(classes)], folder / "curves.png")
    for name in ("confusion", "grid", "curves"):
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()


@pytest.mark.parametrize("script", NAMES)
def test_names_that_matplotlibs_font_has_are_drawn_as_they_are(
    script: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert lettering(NAMES[script]).names == NAMES[script]
    drawn(NAMES[script], tmp_path)
    assert not caplog.records


def test_an_installed_font_that_has_the_letters_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fontManager.addfont(made_font(tmp_path / "Some.ttf", "猫"))
    file = made_font(tmp_path / "Whole.ttf", LATER)
    fontManager.addfont(file)
    assert lettering([*LATER, "cat"]) == ([*LATER, "cat"], file)
    drawn([*LATER, "cat"], tmp_path)
    assert not caplog.records
    assert lettering(["ants", "bees"]).font != file  # what needs none has Matplotlib's


def test_letters_that_no_font_has_are_escapes_and_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "tlx")
    names = ["cat", "猫", "白い犬", "🐱 kitten", "a\nb"]
    found = lettering(names)
    assert found.names == ["cat", r"\u732b", r"\u767d\u3044\u72ac", found.names[3], r"a\nb"]
    assert all(name.isprintable() for name in found.names)
    drawn(names, tmp_path)
    assert [record.message for record in caplog.records][:1] == [
        "pictures: no installed font has the letters of 猫, 白い犬, a\\nb: they are written as escapes; a font such "
        "as Noto Sans CJK has those of Chinese, Japanese and Korean"
    ]
    assert len(caplog.records) == 1


def test_an_installed_font_that_has_some_of_the_names_is_better_than_none(tmp_path: Path) -> None:
    file = made_font(tmp_path / "Some.ttf", "猫犬")
    fontManager.addfont(file)
    assert lettering(["猫", "犬", "鳥"]) == (["猫", "犬", r"\u9ce5"], file)


def test_a_font_that_cannot_be_opened_is_passed_over(tmp_path: Path) -> None:
    file = made_font(tmp_path / "Once.ttf", LATER)
    fontManager.addfont(file)
    Path(file).write_bytes(b"no font any more")
    assert lettering(["猫"]).names == [printable("\u732b").encode("unicode_escape").decode()]
