"""The pages in a real browser: they fit a narrow screen, and pictures are enlarged by click and key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.reporting.chromium import Browser, browser
from tlx.inference.prediction_gallery import gallery
from tlx.inference.predictor import Prediction
from tlx.reporting import html_pages
from tlx.reporting.line_chart import Frame, line

LONG = "strategy=feature_extraction_with_a_name_that_has_no_space_in_it " * 3


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first page of a gallery of two."""
    file = tmp_path_factory.mktemp("pages") / "a #1.html"
    with gallery(file, ["ant", "b" * 80], 2) as page:
        for i in range(103):
            probabilities = {"ant": 0.5 + i / 1000, "b" * 80: 0.5 - i / 1000}
            name = f"/some/where/{'long_name' * 20}{i}.png"
            page(Prediction(name, "ant", 0.5 + i / 1000, probabilities), torch.zeros(3, 40, 40, dtype=torch.uint8))
    return file


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's page, with long names."""
    file = tmp_path_factory.mktemp("comparison") / "comparison.html"
    cells = [[LONG], *([["95.0% to 97.0%", "over runs and 153 images"]] * 9), {"link": "./x", "words": "x" * 90}]
    entry = {"picture": None, "lines": ["is ant"], "name": "n" * 90, "file": "f" * 90}
    side = {"words": LONG, "entries": [entry]}
    matrix = [{"label": LONG, "cells": [{"lines": ["+0.1", "(-1.0 to +1.0)"], "kind": "same"}] * 12}] * 12
    strip = {"label": LONG, "words": LONG, "colour": "red", "mean": 100.0, "left": 0.0, "width": 100.0, "title": LONG}
    chart = {**Frame(LONG, 1, 9, 0.0, 1.0).drawn(), "lines": [line(LONG, "one", [(50.0, 9.0)], colour="red")]}
    text = html_pages.page(
        "comparison.html", title=LONG, result=LONG, facts=[("data set", "x" * 300)], command="x" * 300,
        head=["column"] * 11, rows=[cells] * 3, notes=[LONG], matrix=matrix, tested=1, run_head=["column"] * 11,
        accuracies={"rows": [{**strip, "runs": [0.0, 100.0]}] * 3, "ticks": [(0.0, "0%")], "dots": True, "unshown": 1},
        charts=[chart] * 2, runs=[cells] * 3, unshown=0, pictures={}, pixels=128,
        details=[{"summary": LONG, "names": (LONG, LONG), "opened": True, "sides": [side]}],
    )  # fmt: skip
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["pictures", "comparison"])
def test_no_page_is_wider_than_the_window(
    opened: Browser, request: pytest.FixtureRequest, name: str, width: int
) -> None:
    opened.open(request.getfixturevalue(name), width)
    assert opened.value("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    sizes = (
        "[...document.querySelectorAll('td, p, li, dd, figcaption')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(opened.value(sizes)) >= 12


def test_a_headers_text_stands_where_its_columns_does(opened: Browser, comparison: Path) -> None:
    opened.open(comparison, 1280)
    edges = """[...document.querySelectorAll('.rows')].map(table => [...table.rows].map(row =>
        [...row.cells].map(cell => {
        const range = document.createRange(), left = getComputedStyle(cell).textAlign == 'left'
        range.selectNodeContents(cell)
        const box = range.getBoundingClientRect()
        return Math.round(left ? box.left : box.right)
    })))"""
    for head, *rows in opened.value(edges):
        assert all(row == head for row in rows)


def test_a_picture_is_enlarged_by_a_click_and_keys_move_over_the_pages(opened: Browser, pictures: Path) -> None:
    opened.open(pictures, 1280)
    small = opened.value("document.querySelector('#n5 img').clientWidth")
    opened.click("#n5 img")
    opened.until("location.hash == '#n5'")
    assert opened.value("document.querySelector('figure:target img').clientWidth") > 2 * small
    for key, hash in (("ArrowRight", "#n6"), ("ArrowLeft", "#n5"), ("ArrowLeft", "#n4"), ("Escape", "#all")):
        opened.key(key)
        opened.until(f"location.hash == '{hash}'")
    assert opened.value("document.querySelectorAll('figure:target').length") == 0
    opened.open(pictures, 1280, fragment="#n100")
    for key, hash, page in (("ArrowRight", "#n101", "/2.html"), ("ArrowLeft", "#n100", "/a%20%231.html")):
        opened.key(key)
        opened.until(f"location.hash == '{hash}' && document.readyState == 'complete'")
        assert opened.value("location.pathname").endswith(page)
        assert opened.value("document.querySelectorAll('figure:target').length") == 1


def test_a_script_that_is_not_the_pages_own_does_not_run(opened: Browser, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    added = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    file.write_text(pictures.read_text(encoding="utf-8").replace("</body>", f"{added}</body>"), encoding="utf-8")
    opened.open(file, 390)
    assert opened.value("document.title") == "Predictions, page 1 of 2"
