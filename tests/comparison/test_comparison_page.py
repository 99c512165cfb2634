"""The page of a comparison: in a real browser, with pictures of the images that flipped, and of bounded size."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reporting.chromium import Browser, browser
from tests.runs.run_folders import run_folder
from tlx.cli.main import main
from tlx.runs.small_pictures import BYTES, MOST

WITHOUT_PICTURES = 1_500_000  # bytes of a page, beside its pictures


def compared(folder: Path, runs: int, classes: int, images: int, seeds: int = 1) -> Path:
    """The page of finished runs with the same images, of which each run has others wrong."""
    folders = []
    for number in range(runs):
        one = run_folder(folder / f"run {number}", classes, images, min(images, 60), wrong=0.1 + 0.1 * number / runs)
        tree = {"seed": number % seeds, "training": {"lr": number // seeds}, "dataset": {"reader": {"name": "photos"}}}
        (one / "config.yaml").write_text(json.dumps(tree), encoding="utf-8")
        (one / "plan.json").write_text(json.dumps([{"stages": [{"stage": "head", "learns": 9}]}]), encoding="utf-8")
        summary = json.loads((one / "summary.json").read_text(encoding="utf-8"))
        summary["seconds"] = dict.fromkeys(("data", "features", "training", "evaluation", "total"), 1.0)
        summary |= {"val_accuracy": 0.5, "best_epoch": 8, "requested": {"training.lr": f"{number // seeds}"}}
        (one / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        if number:  # images are the same, and lie where those of the first run do
            rows = (one / "predictions.csv").read_text(encoding="utf-8").replace(str(one), str(folder / "run 0"))
            (one / "predictions.csv").write_text(rows, encoding="utf-8")
        folders.append(str(one))
    assert main(["report", *folders, "--html", str(folder / "comparison.html")]) == 0
    return folder / "comparison.html"


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two configurations with three seeds each."""
    return compared(tmp_path_factory.mktemp("a #comparison"), 6, 2, 60, seeds=3)


def test_images_that_flipped_have_a_picture_a_name_the_label_and_each_models_prediction(tmp_path: Path) -> None:
    text = compared(tmp_path, 2, 3, 60).read_text(encoding="utf-8")
    runs = [
        (tmp_path / f"run {number}" / "predictions.csv").read_text(encoding="utf-8").splitlines() for number in (0, 1)
    ]
    differ = [(a.split(","), b.split(",")) for a, b in zip(*runs, strict=True) if a[-1] != b[-1]]
    assert differ
    chosen = re.search(r"A is (\S+), B is (\S+)</p>", text)
    assert chosen is not None
    order = [int(name.rpartition("=")[2]) for name in chosen.groups()]
    for pair in differ:
        said = [pair[number][3].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for number in order]
        said = [words.replace("'", "&#39;") for words in said]
        label = pair[0][2].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;")
        lines = f"<span>is {label}</span><span>A: {said[0]}</span><span>B: {said[1]}</span>"
        name = Path(pair[0][1]).name
        assert re.search(rf'<div class="i i\d+" role="img" aria-label="{name}"></div><figcaption>{lines}', text)
    assert text.count("<figure><div") == len(differ)


def test_of_several_seeds_it_is_said_how_many_have_each_prediction(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"<span>[AB]: ([^<]*)</span>", text)
    assert found
    for words in found:
        counts = [int(number) for number in re.findall(r" (\d) of 3", words)]
        assert sum(counts) == 3
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(("runs", "classes", "images"), [(12, 2, 60), (3, 1_000, 5_000)])
def test_the_size_of_a_page_is_bounded(tmp_path: Path, runs: int, classes: int, images: int) -> None:
    text = compared(tmp_path, runs, classes, images).read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/jpeg;base64,[^)]*", text)
    assert 0 < len(pictures) <= MOST
    assert sum(map(len, pictures)) <= BYTES
    assert len(text) - sum(map(len, pictures)) < WITHOUT_PICTURES


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window_asks_for_nothing_and_all_pictures_are_decoded(
    opened: Browser, page: Path, width: int, scheme: str
) -> None:
    assert opened.faults_of(page, width, scheme) == []
    assert opened.value("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    decoded = opened.decoded()
    assert len(decoded) == page.read_text(encoding="utf-8").count("data:image/jpeg") > 5
    assert all(decoded)
    assert opened.value("""[...document.querySelectorAll('.strip > *')].every(
        mark => mark.offsetLeft >= -5 && mark.offsetLeft <= mark.parentElement.clientWidth)""")
    assert opened.value("document.querySelectorAll('svg polyline').length") == 4
    shades = opened.value("['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])")
    assert (shades[0] == "rgb(0, 0, 0)") == (scheme == "light")
