"""The page of a run: what it says, how large it is, and that it works in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.reporting.chromium import Browser, browser
from tests.runs.run_folders import run_folder
from tlx.cli.main import main
from tlx.runs import report_page
from tlx.runs.small_pictures import BYTES, MOST

ASSETS = ROOT / "tests" / "assets" / "0.1.0"
WITHOUT_PICTURES = 1_500_000  # bytes of a page, beside its pictures


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with two classes and 60 images."""
    return report_page.write(run_folder(tmp_path_factory.mktemp("a #run") / "run", 2, 60, 60))


@pytest.mark.parametrize(("classes", "images"), [(2, 10), (100, 2_000), (1_000, 50_000)])
def test_the_size_of_a_page_is_bounded(tmp_path: Path, classes: int, images: int) -> None:
    folder = run_folder(tmp_path / "run", classes, images, min(images, 60))
    text = report_page.write(folder).read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/jpeg;base64,[^)]*", text)
    assert len(pictures) <= MOST
    assert sum(map(len, pictures)) <= BYTES
    assert len(text) - sum(map(len, pictures)) < WITHOUT_PICTURES
    accuracy = json.loads((folder / "summary.json").read_text())["test_accuracy"]
    assert f"{accuracy:.1%} of {images:,} test images are classified correctly" in text


def test_every_mistake_is_behind_a_cell(two: Path) -> None:
    text = two.read_text(encoding="utf-8")
    confusion = json.loads((two.parent / "summary.json").read_text())["confusion"]
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            link = re.search(rf'href="#cell-{i}-{j}">(\d+)<small>([\d.]+)%', text)
            assert link is not None
            assert (int(link[1]), float(link[2])) == (count, round(100 * count / sum(row), 1))
            panel = text[text.index(f'id="cell-{i}-{j}"') :].partition("</div>\n</div>")[0]
            assert panel.count("<figure>") == min(count, 12)


def test_what_was_found_with_features_is_on_the_page(two: Path) -> None:
    text = two.read_text(encoding="utf-8")
    predicted = (two.parent / "predictions.csv").read_text().splitlines()[1:]
    wrong = sum(line.endswith(",0") for line in predicted)
    assert text.count('<div class="near">') == min(wrong, report_page.GALLERY)
    assert text.count('<circle class="rim"') == wrong
    for words in (
        "brightness 1 to 9",
        "Typical images of cluster 3",
        "looks like class &lt;1&gt;",
        "Of 1,234 training images, those",
        "The temperature is 1.50",
        "Fisher&#39;s exact test",
    ):
        assert words in text.replace("Fisher's", "Fisher&#39;s")


def test_names_are_escaped(two: Path) -> None:
    text = two.read_text(encoding="utf-8")
    assert "class &lt;0&gt; &amp; &#39;co&#39;" in text
    assert "<alike>" not in text
    assert "javascript:" not in text  # no picture


@pytest.mark.parametrize("name", ["finished", "interrupted", "uninterrupted"])
def test_a_run_of_an_earlier_version_has_a_page(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / name
    shutil.copytree(ASSETS / name, folder)
    assert main(["report", str(folder)]) == 0
    assert str(folder / "report.html") in capsys.readouterr().err
    text = (folder / "report.html").read_text(encoding="utf-8")
    summary = json.loads((folder / "summary.json").read_text())
    if summary["test_accuracy"] is None:
        assert f"The run is {summary['status']}; its test accuracy was not measured" in text
    else:
        assert f"{summary['test_accuracy']:.1%} of 18 test images" in text
        assert text.count("data:image/jpeg") == 18  # they are drawn again


def test_of_a_sweep_it_is_the_comparisons_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ASSETS / "sweeps" / "lr", tmp_path / "sweeps" / "lr")
    assert main(["report", "lr", "--output", str(tmp_path)]) == 0
    assert "comparison.html" in capsys.readouterr().err
    assert "Pairwise tests" in (tmp_path / "sweeps" / "lr" / "comparison.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = run_folder(tmp_path / "run", 2, 10, 0)
    (folder / "predictions.csv").write_text("no table")
    with report_page.spared("report.html"):
        report_page.write(folder, lambda file: None)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "report.html was not written" in caplog.text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window_asks_for_nothing_and_all_pictures_are_decoded(
    opened: Browser, two: Path, width: int, scheme: str
) -> None:
    assert opened.faults_of(two, width, scheme) == []
    assert opened.value("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    decoded = opened.decoded()
    assert len(decoded) == two.read_text(encoding="utf-8").count("data:image/jpeg") > 30
    assert all(decoded)
    assert opened.value("document.querySelectorAll('svg polyline').length") == 5


def test_cells_open_by_mouse_and_by_keyboard(opened: Browser, two: Path) -> None:
    opened.open(two, 1280)
    shown = "[...document.querySelectorAll('.opened')].filter(e => e.offsetHeight).map(e => e.id)"
    assert opened.value(shown) == []
    opened.value("document.querySelector('#at-0-1').scrollIntoView({block: 'center'})")
    opened.click("#at-0-1")
    opened.until(f"{shown} == 'cell-0-1'")
    opened.click("#cell-0-1 .shut")
    opened.until(f"{shown} == ''")
    # The next Tab goes on from the cell that was closed.
    opened.key("Tab")
    assert opened.value("document.activeElement.id") == "at-1-0"
    opened.key("Enter")
    opened.until(f"{shown} == 'cell-1-0'")
    assert opened.value("document.activeElement.id") == "cell-1-0"
    opened.key("Escape")
    opened.until(f"{shown} == ''")
    assert opened.value("location.hash") == "#at-1-0"
