"""The subcommand that uses a model: which files it takes, what it writes of them, and what damaged files make of it."""

import base64
import csv
import hashlib
import html
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from tests.conftest import ROOT
from tlx.backbones import factories
from tlx.cli.predict import SUBCOMMAND
from tlx.config.dataset_schema import DatasetConfig
from tlx.config.schema import Backbone, Head
from tlx.core.errors import RequestError
from tlx.core.thread_pool import CHUNK
from tlx.datasets.folder_layout import walk
from tlx.datasets.image_paths import find
from tlx.datasets.readers import image_folder
from tlx.datasets.splits import split
from tlx.inference import prediction_gallery, predictor, saved_model
from tlx.inference.predictor import Model, Prediction
from tlx.reporting.screen import live

CLASSES = ("ant & <b>", "bee", "çà")
SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing but tells images apart."""
    home = tmp_path_factory.mktemp("run é")
    stages = {"conv1": ["conv1"], "conv2": ["conv2"], "fc": ["fc"], "head": ["head"]}
    backbone = Backbone(
        "tlx.backbones.small_cnn", "small_cnn", weights="none", input_size=SIZE, resize=str(SIZE), crop=str(SIZE),
        mean=[0, 0, 0], std=[1, 1, 1], interpolation="bilinear", stages=stages,
    )  # fmt: skip
    net, preprocessing = factories.build(backbone, Head(), len(CLASSES), seed=0)
    with torch.no_grad():
        net[-1][-1].weight.mul_(30)
    facts = {"data": {"name": "drawn", "fingerprint": "0", "seed": 0}}
    saved_model.save(
        home / "model", net, backbone, Head(), CLASSES, preprocessing, saved_model.Format("fp32", "head"), facts
    )
    return home


@pytest.fixture(scope="module")
def opened(folder: Path) -> Model:
    return predictor.load(folder, "cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images at two depths, and what an operating system leaves beside them."""
    rng = np.random.default_rng(0)
    for i in range(10):
        file = tmp_path / "photos" / ("inner" if i % 2 else ".") / f"{i}.{'png' if i % 3 else 'JPG'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3)).astype(np.uint8)).save(file)
    for name in ("notes.txt", "._1.jpg", "inner/.hidden.png"):
        (tmp_path / "photos" / name).write_text("no image")
    return tmp_path / "photos"


def run_predict(*words: object) -> int:
    """Runs the subcommand `python -m tlx predict`; its exit code."""
    return SUBCOMMAND.main([str(word) for word in words])


def names(*paths: object) -> list[str]:
    return [file.name for file in find([str(path) for path in paths])]


def test_files_folders_patterns_and_a_list_are_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert names(photos) == ["0.JPG", "2.png", "4.png", "6.JPG", "8.png", "1.png", "3.JPG", "5.png", "7.png", "9.JPG"]
    assert sorted(names(photos / "**" / "*.png")) == ["1.png", "2.png", "4.png", "5.png", "7.png", "8.png"]
    assert names(photos / "*") == ["0.JPG", "2.png", "4.png", "6.JPG", "8.png"]
    odd = tmp_path / "a[1]*.png"
    shutil.copy(photos / "2.png", odd)
    assert names(odd, photos / "notes.txt") == ["a[1]*.png", "notes.txt"]  # what is named is taken
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/photos/2.png", "~/photos/inner/?.JPG") == ["2.png", "3.JPG", "9.JPG"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos / '2.png'}\n\nnot there.jpg\r\n~/photos/4.png\n"))
    assert [str(file) for file in find(["-", str(photos / "0.JPG")])] == [
        str(photos / "2.png"), "not there.jpg", str(tmp_path / "photos/4.png"), str(photos / "0.JPG")
    ]  # fmt: skip


def test_a_folder_is_searched_as_the_training_searches_it(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / ".hidden").mkdir(parents=True)
    for place in (".", ".hidden"):
        shutil.copy(photos / "2.png", tmp_path / "elsewhere" / place / "linked.png")
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (photos / "inner" / "round").symlink_to(photos)
    (photos / "broken.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(photos / "pipe.png")
    found = [file.relative_to(photos).as_posix() for file in find([str(photos)])]
    assert len(found) == len(set(found)) == 11
    assert found[-1] == "link/linked.png"
    assert set(map(str, find([str(photos)]))) < set(walk(str(photos)))


def test_a_listed_name_need_not_be_unicode_and_a_pipe_is_a_row(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\xfe.png")
    shutil.copy(photos / "2.png", odd)
    os.mkfifo(tmp_path / "pipe.png")
    listed = b"\n".join(map(os.fsencode, (odd, tmp_path / "pipe.png", photos / "2.png")))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed), encoding="utf-8"))
    assert run_predict(folder, "-", "--json") == 1
    first, pipe, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["file"], pipe) == (str(odd), {"file": str(tmp_path / "pipe.png"), "error": "not a file"})
    assert first["probabilities"] == last["probabilities"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("below", ["", "photos", "photos/inner"])
def test_an_archive_is_read_in_place_and_gives_the_rows_of_the_folder(
    opened: Model, photos: Path, tmp_path: Path, kind: str, below: str
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "some é"), kind, tmp_path, "photos"))
    before = sorted(tmp_path.rglob("*"))
    left_out: list[Path] = []
    files = list(find([str(archive / below)], left_out))
    of_folder = list(find([str(tmp_path / below if below else photos)]))
    assert [file.relative_to(archive) for file in files] == [file.relative_to(tmp_path) for file in of_folder]
    assert [file.name for file in left_out] == ([] if below == "photos/inner" else ["notes.txt"])
    inside, outside = opened.predict(files), opened.predict(of_folder)
    assert [one.probabilities for one in inside] == [one.probabilities for one in outside]
    assert [one.file for one in inside] == list(map(str, files))
    assert list(find([str(files[0])])) == files[:1]  # one file of it
    assert sorted(tmp_path.rglob("*")) == before


def test_what_an_archive_cannot_give_is_said(folder: Path, opened: Model, photos: Path, tmp_path: Path) -> None:
    whole = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "photos"))
    packed = Path(shutil.make_archive(str(tmp_path / "a"), "gztar", tmp_path, "photos"))
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.zip"
    broken.write_bytes(whole.read_bytes()[:-40])
    none = Path(shutil.make_archive(str(tmp_path / "none"), "zip", tmp_path, "empty"))
    for path, line in (
        (packed, "a.tar.gz: a compressed tar cannot be read in place"),
        (broken, "broken.zip: it is damaged"),
        (none, "none.zip: holds no image (no file)"),
        (whole / "photos/none", "none: no such file or folder"),
        (whole / "photos/2.png/3.png", "3.png: no such file or folder"),
    ):
        with pytest.raises(RequestError, match=re.escape(line)):
            names(path)
    content = bytearray(whole.read_bytes())
    entry = zipfile.ZipFile(whole).getinfo("photos/2.png")
    content[entry.header_offset + 200] ^= 1
    whole.write_bytes(content)
    found = opened.predict([whole / "photos/2.png", whole / "photos/4.png", whole / "gone.png", broken / "2.png"])
    assert [bool(one.error) for one in found] == [True, False, True, True]
    assert "checksum" in found[0].error or "damaged" in found[0].error
    assert run_predict(folder, whole, "--csv", tmp_path / "rows.csv") == 1
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 11


def test_a_picture_with_an_archive_in_its_end_is_a_picture(photos: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "photos"))
    both = tmp_path / "both.png"
    both.write_bytes((photos / "2.png").read_bytes() + archive.read_bytes())
    assert list(find([str(both)])) == [both]


def test_what_cannot_be_found_is_said(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = {
        str(tmp_path / "nowhere"): "nowhere: no such file or folder",
        str(tmp_path / "empty"): "empty: holds no image (no file)",
        str(photos / "*.gif"): "*.gif: no image is named so (no file)",
        "https://example.org/cat.jpg": "https://example.org/cat.jpg: a URL; nothing is fetched here",
        "file:///cat.jpg": "file:///cat.jpg: a URL; nothing is fetched here",
    }
    for path, line in said.items():
        with pytest.raises(RequestError) as raised:
            names(path)
        assert line in str(raised.value)
    for typed, line in (("\n", "-: no path on stdin"), ("a.jpg\ns3://b/c.jpg\n", "s3://b/c.jpg: a URL")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(RequestError, match=re.escape(line)):
            names("-")


def test_every_form_says_the_same_rows(
    folder: Path, opened: Model, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes((photos / "2.png").read_bytes()[:80])
    files = [str(file) for file in find([str(photos)])]
    expected = opened.predict(files)
    targets = [tmp_path / f"made/t.{form}" for form in ("csv", "json", "html")]
    assert run_predict(folder, photos, "--csv", targets[0], "--json", targets[1], "--html", targets[2]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    left_out = "left out: 1 file that is no image: notes.txt\n"
    # No progress: no terminal.
    written = re.escape("".join(f"written: {target}\n" for target in targets))
    assert re.fullmatch(rf"{left_out}11 images, \d+ images/s, 1 could not be read\n{written}", said.err)
    with targets[0].open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    rows = [json.loads(line) for line in targets[1].read_text(encoding="utf-8").splitlines()]
    page = targets[2].read_text(encoding="utf-8")
    assert [row["file"] for row in table] == [row["file"] for row in rows] == files
    for p, cells, row in zip(expected, table, rows, strict=True):
        assert p.error == cells["error"] == row.get("error", "")
        assert p.prediction == cells["prediction"] == row.get("prediction", "")
        if not p.error:
            assert row["probabilities"] == p.probabilities
            assert [cells[f"p({name})"] for name in CLASSES] == [f"{p.probabilities[name]:.6f}" for name in CLASSES]
        assert page.count(html.escape(p.file)) == 1
    assert [p.file for p in expected if p.error] == [str(photos / "broken.png")]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["t.csv", "t.html", "t.json"]


def test_the_most_probable_classes_are_named(
    folder: Path, opened: Model, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p = opened.predict([photos / "2.png"])[0]
    ranked = sorted(p.probabilities.values(), reverse=True)
    assert [share for _, share in p.top(9)] == ranked
    assert p.top(1) == [(p.prediction, p.probability)]
    assert run_predict(folder, photos / "2.png", "--top", 2, "--csv") == 0
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["file", "prediction", "probability", "top1", "p(top1)", "top2", "p(top2)", "error"]
    assert row[3:7] == [text for name, share in p.top(2) for text in (name, f"{share:.6f}")]
    assert run_predict(folder, photos / "2.png", "--top", 9, "--json") == 0  # there are three
    found = json.loads(capsys.readouterr().out)
    assert [(one["class"], one["probability"]) for one in found["top"]] == p.top(3)
    assert run_predict(folder, photos / "2.png", "--top", 1) == 0
    header_line, line = capsys.readouterr().out.splitlines()
    assert header_line.split() == ["prediction", "probability", "top", "1", "file"]
    assert line.endswith(f"{p.probability:.4f}  {photos / '2.png'}")
    assert header_line.index("file") == line.index(str(photos))


WRONG = {
    "--top 0": "--top 0: must be at least 1",
    "--batch-size 0": "--batch-size 0: must be at least 1",
    "--device banana": "--device banana: must be auto, cpu",
    "--csv 2.png": "--csv 2.png: the file's name must end in .csv; put the images before it",
    "--html -": "--html -: the file's name must end in .html",
    "--json folder.json": "--json folder.json: is a folder; give the name of a file",
    **{
        f"--{form} /proc/x.{form}": f"cannot write /proc/x.{form}: No such file or directory; take another place "
        f"(--{form} FILE)"
        for form in ("csv", "json", "html")
    },
    "--html g.html --sort sure": "--sort sure: must be least-sure, most-sure, given, class",
    "--sort given": "--sort given: is the order of the pictures of --html; add --html FILE.html",
    "--csv --json": "--csv --json: both to stdout cannot be separated; give one of them a file",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_option_is_named(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(RequestError) as raised:
        run_predict(folder, photos / "2.png", *words.split())
    assert str(raised.value).startswith(WRONG[words])


def test_a_file_is_written_whole_or_not_at_all(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Model.outputs
    calls: list[int] = []

    def interrupted(self: Model, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, x)

    monkeypatch.setattr(Model, "outputs", interrupted)
    (tmp_path / "old.csv").write_text("kept")
    with pytest.raises(KeyboardInterrupt):
        run_predict(folder, photos, "--csv", tmp_path / "old.csv", "--html", tmp_path / "new.html", "--batch-size", 4)
    assert calls[:2] == [4, 4]
    assert (tmp_path / "old.csv").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "old.csv"}


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_names_that_would_write_to_the_screen_or_the_page_are_escaped(
    folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    titles = ["<script>alert(1)<", '" onload="x', "new\nline", "\x1b[31mred", "\u202egpj.exe", os.fsdecode(b"\xff\xfe")]
    for title in titles:
        shutil.copy(photos / "2.png", evil / f"{title}.png")
    (evil / "<i>broken.png").write_bytes(b"")
    assert run_predict(folder, evil) == 1
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 8
    assert said.replace("\n", "").isprintable()
    assert "new\\nline" in said
    assert run_predict(folder, evil, "--html", tmp_path / "p.html", "--json", tmp_path / "p.json") == 1
    rows = [json.loads(line) for line in (tmp_path / "p.json").read_text(encoding="utf-8").splitlines()]
    assert {row["file"] for row in rows} == {str(file) for file in evil.iterdir()}
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    seen = Tags()
    seen.feed(page)
    assert {tag for tag, _ in seen.found} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "nav", "a", "script"),
        *("div", "figure", "figcaption", "img", "span", "table", "tr", "td"),
    }
    attributes = [(name, str(value)) for _, pairs in seen.found for name, value in pairs]
    assert not [name for name, _ in attributes if name.startswith("on")]
    links = {value.partition(",")[0] for name, value in attributes if name in ("src", "href")}
    assert links <= {"data:image/jpeg;base64", "#all", "#errors", *(f"#n{i + 1}" for i in range(len(titles)))}
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert f"script-src 'sha256-{digest}'" in page, "no other script runs"
    assert len([value for name, value in attributes if name == "title"]) == len(titles)
    assert "default-src 'none'" in page


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes a gallery of so many predictions and errors; its pages in order."""

    def draw(images: int, errors: int = 0, order: str = "least-sure", name: str = "g #1%") -> list[Path]:
        rng, file = np.random.default_rng(0), tmp_path / f"{name}.html"
        with prediction_gallery.gallery(file, CLASSES, 2, order) as page:
            for i, share in enumerate(rng.uniform(0.5, 1, images).tolist()):
                found = (*CLASSES, "unknown")[0 if i % 9 == 0 else 3 if i == 5 else 1]
                view = torch.full((3, 40, 40), i % 256, dtype=torch.uint8)
                page(Prediction(f"{i}.png", found, share, {"bee": share, CLASSES[0]: 1 - share}), view)
            for i in range(errors):
                page(Prediction(f"broken {i}.png", error="is no image"), None)
        rest = prediction_gallery.further(file)
        return [file, *sorted(rest.iterdir(), key=lambda one: int(one.stem))] if rest.is_dir() else [file]

    return draw


@pytest.mark.parametrize("order", prediction_gallery.ORDERS)
def test_pictures_are_in_the_order_that_was_requested_a_hundred_on_a_page(
    drawn: Callable[..., list[Path]], order: str
) -> None:
    texts = [page.read_text(encoding="utf-8") for page in drawn(450, order=order)]
    assert [text.count("<figure ") for text in texts] == [100, 100, 100, 100, 50]
    assert "<p>450 images, " in texts[0]
    whole = "".join(texts)
    assert re.findall(r'<figure id="n(\d+)">', whole) == [str(n) for n in range(1, 451)]
    shares = [float(share) for share in re.findall(r"<span>bee ([\d.]+)%</span>", whole)]
    files = [int(number) for number in re.findall(r'title="(\d+)\.png"', whole)]
    assert sorted(files) == list(range(450))
    heads = [html.unescape(head) for head in re.findall(r'<h2 id="c\d">(.*)</h2>', whole)]
    if order == "given":
        assert files == list(range(450))
    elif order == "class":
        assert heads == [CLASSES[0], *["bee"] * 5, "unknown"]  # a page that goes on with a class says which
        assert shares == [*sorted(shares[:50]), *sorted(shares[50:449]), shares[449]]
        links = re.findall(r'<a href="([^"]*#c\d)">.*\((\d+)\)</a>', texts[0])
        folder = "./g%20%231%25-pages"
        assert links == [("#c0", "50"), ("#c1", "399"), (f"{folder}/5.html#c2", "1")]
    else:
        assert shares == sorted(shares, reverse=order == "most-sure")
    assert (order == "class") == bool(heads)


def test_every_link_of_a_gallery_leads_somewhere_also_where_it_was_moved(
    drawn: Callable[..., list[Path]], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (drawn(1250)[0], tmp_path / "g #1%-pages"):
        path.rename(elsewhere / path.name)
    first = elsewhere / "g #1%.html"
    pages = [first, *(elsewhere / "g #1%-pages").iterdir()]
    assert len(pages) == 13
    ids = {page: set(re.findall(r' id="(\w+)"', page.read_text(encoding="utf-8"))) for page in pages}
    for page in pages:
        links = re.findall(r' href="([^"]*)"', page.read_text(encoding="utf-8"))
        for link in links:
            path, _, fragment = link.partition("#")
            target = Path(os.path.normpath(page.parent / unquote(path))) if path else page
            assert target in ids, link
            assert fragment in ("", "all") or fragment in ids[target], link
        assert len(links) < 430, "four for each picture, and few for the other pages"


def test_an_earlier_gallerys_pages_go_and_nothing_else_does(
    drawn: Callable[..., list[Path]], folder: Path, photos: Path, tmp_path: Path
) -> None:
    assert len(drawn(150)) == 2
    assert len(drawn(20, errors=3)) == 1
    assert len(pages := drawn(101, errors=120)) == 3
    assert [page.read_text().count("<td>is no image</td>") for page in pages] == [0, 99, 21]
    assert "#errors" in pages[0].read_text()
    mine = tmp_path / "g #1%-pages" / "mine.txt"
    mine.touch()
    with pytest.raises(RequestError, match=re.escape("its further pages go to the folder")):
        run_predict(folder, photos, "--html", tmp_path / "g #1%.html")
    with pytest.raises(RequestError, match=re.escape("its further pages go to the folder")):
        drawn(20)
    assert mine.exists()


def test_progress_is_shown_on_a_terminal_only(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with live():
        assert run_predict(folder, photos, "--csv", tmp_path / "t.csv", "--html", tmp_path / "t.html") == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "0 of 10 images" in plain
    written = f"written: {tmp_path / 't.csv'}\nwritten: {tmp_path / 't.html'}\n"
    said = re.sub(r"[^\n]*\r", "", plain)
    assert re.search(r"left out: 1 file that is no image: notes.txt\n10 images, \d+ images/s\n", said)
    assert "".join(written.split()) in "".join(said.split())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with live():
        assert run_predict(folder, photos, "--csv", tmp_path / "t.csv") == 0
    assert "\x1b" not in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_images_are_read_a_little_ahead(opened: Model, photos: Path) -> None:
    read = 0

    def images() -> Iterator[Path]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield photos / "2.png"

    predictions = opened.stream(images(), batch_size=8)
    for _ in range(100):
        next(predictions)
    assert read <= 104 + (4 * torch.get_num_threads() + 1) * CHUNK
    predictions.close()  # type: ignore[attr-defined]
    assert len(opened.predict(photos / "2.png" for _ in range(3))) == 3


def test_whatever_lies_between_them_images_get_the_same_predictions(
    opened: Model, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "no.png").write_text("no image")
    good = [str(file) for file in find([str(photos)])] * 5
    mixed = [file for name in good for file in (name, str(tmp_path / "no.png"), "missing.jpg")]
    found = opened.predict(mixed)
    assert [p.file for p in found] == mixed
    assert [p for p in found if not p.error] == opened.predict(good)
    assert {p.error for p in found} == {"", "not an image, or of an unknown format", "no such file or directory"}


def test_an_image_may_be_given_in_any_way(opened: Model, photos: Path) -> None:
    file = photos / "2.png"
    array = np.asarray(Image.open(file))
    given = [file, str(file), file.read_bytes(), array, array[:, :, ::-1].copy()[:, :, ::-1], Image.open(file)]
    found = [opened.predict([one])[0] for one in given]
    assert {p.probability for p in found} == {found[0].probability}
    assert [bool(p.file) for p in found] == [True, True, False, False, False, False]
    modes = {mode: Image.open(file).convert(mode) for mode in ("L", "RGBA", "CMYK", "P", "1", "F", "I")}
    assert not [mode for mode, p in zip(modes, opened.predict(modes.values()), strict=True) if p.error]
    turned = Image.open(file)
    turned.getexif()[0x0112] = 3  # upside down
    assert opened.predict([turned])[0].probability == opened.predict([array[::-1, ::-1]])[0].probability
    wrong = [array.astype(np.float32), array[:, :, 0], np.zeros((0, 4, 3), np.uint8), b"", b"nothing"]
    errors = [p.error for p in opened.predict(wrong)]
    assert re.fullmatch(
        r"an array of float32 \[42, 50, 3\] with values from \d+ to \d+; it must be .* 0\.\.1", errors[0]
    )
    assert all("it must be uint8 [H, W, 3]" in error for error in errors[:3])
    assert errors[3:] == ["the file is empty", "not an image, or of an unknown format"]
    line = "https://example.org/cat.jpg: a URL; nothing is fetched here: download it and give the file's path"
    assert [p.error for p in opened.predict(["https://example.org/cat.jpg"])] == [line]
    others = opened.predict([("photo", torch.zeros(3, 8, 8)), None])  # type: ignore[list-item]
    advice = "is no image; give a path, a file's bytes, uint8 [H, W, 3] or a Pillow image"
    assert [other.error for other in others] == [f"tuple {advice}", f"NoneType {advice}"]


def test_an_array_or_a_tensor_in_any_usual_form_is_the_same_image(opened: Model, photos: Path) -> None:
    array = np.asarray(Image.open(photos / "2.png"))
    tensor = torch.from_numpy(array.copy())
    forms: list[Any] = [
        *(
            array,
            array.transpose(2, 0, 1),
            array / 255,
            (array / 255).astype(np.float32),
            array.transpose(2, 0, 1) / 255,
        ),
        *(tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1) / 255, (tensor / 255).requires_grad_()),
    ]
    expected = opened.predict([photos / "2.png"])[0].probability
    assert [p.probability for p in opened.predict(forms)] == [expected] * len(forms)
    for one in (
        *forms,
        photos / "2.png",
        str(photos / "2.png"),
        (photos / "2.png").read_bytes(),
        Image.fromarray(array),
    ):
        (found,) = opened.predict(one)
        assert (found.probability, found.error) == (expected, "")
    for several in (np.stack([array] * 2), torch.stack([tensor.permute(2, 0, 1)] * 2), iter([array] * 2)):
        assert [p.probability for p in opened.predict(several)] == [expected] * 2
    # An array whose first and last sides are both 3 is read in the usual order of its kind.
    odd = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9
    first = opened.predict(torch.from_numpy(odd))[0].probability
    assert first == opened.predict(np.ascontiguousarray(odd.transpose(1, 2, 0)))[0].probability


def test_what_is_no_image_alone_is_one_line(opened: Model, tmp_path: Path) -> None:
    for one, error in (
        ("photo.jpg", "no such file or directory"),
        (tmp_path, "not a file"),
        (np.zeros((9, 9), np.uint8), "an array of uint8 [9, 9]; it must be uint8 [H, W, 3]"),
        (np.zeros((9, 9, 3), np.complex64), "an array of complex64 [9, 9, 3]; it must be uint8 [H, W, 3]"),
        (np.zeros((9, 9, 3), np.int64), "an array of int64 [9, 9, 3]; it must be uint8 [H, W, 3]"),
        (torch.full((3, 9, 9), -2.0), "an array of float32 [3, 9, 9] with values from -2 to -2; it must be"),
        (np.full((9, 9, 3), np.nan), "an array of float64 [9, 9, 3] with values from nan to nan; it must be"),
    ):
        (found,) = opened.predict(one)
        assert error in found.error
    wrong: list[tuple[Any, str]] = [
        (np.zeros((9, 9, 3), np.uint8).tolist(), r"predict: nested lists are no image; numpy\.array"),
        (np.zeros((1, 2, 9, 9, 3), np.uint8), r"predict: an array \[1, 2, 9, 9, 3\]; one image is uint8 \[H, W, 3\]"),
        (5, "predict takes an image, or a list of images .* no int"),
        ({"image": "photo.jpg"}, "no dict"),
        (io.BytesIO(b"x"), "no BytesIO"),
        (bytearray(b"xyz"), "no bytearray"),
        (memoryview(np.zeros((9, 9, 3), np.uint8)), "no memoryview"),
    ]
    for given, said in wrong:
        with pytest.raises(RequestError, match=said):
            opened.predict(given)


def test_the_frames_of_an_animation_are_images_of_their_own(opened: Model) -> None:
    frames = [np.full((20, 20, 3), value, np.uint8) for value in range(0, 250, 5)]
    file = io.BytesIO()
    first, *others = map(Image.fromarray, frames)
    first.save(file, "TIFF", save_all=True, append_images=others)
    found = opened.predict(ImageSequence.Iterator(Image.open(file)))
    assert found == opened.predict(frames)
    assert len({p.probability for p in found}) > 40
    cut = Image.open(io.BytesIO(file.getvalue()[:400]))
    assert "truncated" in opened.predict([cut])[0].error


def test_a_device_that_does_not_exist_is_said(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"^device banana: must be auto, cpu, cuda, cuda:<number> or mps$"):
        predictor.load(folder, "banana")


def test_what_the_model_says_of_itself_is_obeyed(folder: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    before = predictor.load(tmp_path, "cpu").predict(find([str(photos)]))
    saved_model.describe(tmp_path / "model", {"temperature": 2.0})
    warm = predictor.load(tmp_path, "cpu").predict(find([str(photos)]))
    for a, b in zip(before, warm, strict=True):
        root = np.sqrt(list(a.probabilities.values()))
        assert list(b.probabilities.values()) == pytest.approx((root / root.sum()).tolist(), abs=1e-6)


def png(width: int, height: int) -> bytes:
    """A black image of any size, packed small."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" * ((width + 7) // 8 + 1)) * min(height, 200_000), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_image_bombs_are_one_row_with_their_path(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large.png").write_bytes(png(12_000, 12_000))
    (tmp_path / "narrow.png").write_bytes(png(1, 150_000))  # small, until its short side is 32 pixels
    assert run_predict(folder, tmp_path) == 1
    large, narrow = capsys.readouterr().out.splitlines()[1:]
    assert re.search(r"large.png: .* pixels.* limit|large.png: .* pixels are more than 100,000,000", large)
    assert narrow.endswith("narrow.png: 1 x 150000 pixels are too narrow: resized they are more than 100,000,000")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut out, doubled or cut off."""
    array = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place, length = int(rng.integers(len(array))), int(rng.integers(1, 24))
        kind = int(rng.integers(4))
        if kind == 0:
            array[place : place + length] = rng.bytes(len(array[place : place + length]))
        elif kind == 1:
            del array[place : place + length]
        elif kind == 2:
            array[place:place] = array[place : place + length]
        elif rng.integers(3) == 0:
            del array[place:]
        array = array or bytearray(b"\0")
    return bytes(array)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "TGA", "ICO", "PPM"])
def test_damaged_pictures_are_rows(folder: Path, opened: Model, tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(len(form) * 100 + ord(form[0]))
    picture = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)).save(picture, form)
    for i in range(10):
        (tmp_path / f"{i}.jpg").write_bytes(mutated(picture.getvalue(), rng))
    before = set(tmp_path.parent.rglob("*"))
    found = opened.predict(find([str(tmp_path)]))
    assert len(found) == 10
    assert all(bool(p.error) != bool(p.prediction) and "\n" not in p.error for p in found)
    assert any(p.error for p in found) or form == "TGA"  # which has neither a beginning nor checks
    assert set(tmp_path.parent.rglob("*")) == before


def test_a_damaged_picture_trains_whole_or_is_listed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(20):
            picture = io.BytesIO()
            form = ("JPEG", "PNG", "GIF", "TIFF", "WEBP")[i % 5]
            Image.fromarray(rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)).save(picture, form)
            data = picture.getvalue() if i % 2 else mutated(picture.getvalue(), rng)
            (tmp_path / name / f"{i:02}.jpg").write_bytes(data)
    data = split(image_folder(str(tmp_path)), DatasetConfig(on_error="skip"), seed=0)
    used = [file for images in (data.train, data.val, data.test) for file in images.files]
    skipped = dict(data.skipped)
    assert sorted([*used, *skipped]) == sorted(map(str, tmp_path.glob("*/*.jpg")))
    assert 0 < len(skipped) < 20
    assert all(int(Path(file).stem) % 2 == 0 and why and "\n" not in why for file, why in skipped.items())
    for part in (data.train, data.val, data.test):
        assert all(part.decode(i).shape[2] == 3 for i in range(len(part)))


def test_a_damaged_model_is_one_line_whatever_was_damaged(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    whole = {file.name: file.read_bytes() for file in (folder / "model").iterdir()}
    weights, description = "model.safetensors", "model.json"
    head = 8 + struct.unpack("<Q", whole[weights][:8])[0]
    said = []
    for i in range(45):
        files = dict(whole)
        if i % 3 == 0:
            files[description] = mutated(whole[description], rng)
        else:
            files[weights] = mutated(whole[weights][:head], rng) + whole[weights][head:]
        if i % 3 == 2:  # whoever damaged it has made its checksum fit
            known = json.loads(whole[description])
            known["weights"] = f"sha256:{hashlib.sha256(files[weights]).hexdigest()}"
            files[description] = json.dumps(known).encode()
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        try:
            assert len(predictor.load(tmp_path, "cpu").predict([np.zeros((9, 9, 3), np.uint8)])) == 1
        except RequestError as error:
            said.append(str(error))
    assert len(said) >= 40
    assert all(line.startswith(str(tmp_path)) and "\n" not in line for line in said)


def _set(known: dict[str, object], path: str, value: object) -> None:
    *parents, leaf = path.split(".")
    for parent in parents:
        known = known[parent]  # type: ignore[assignment]
    known[leaf] = value


LIES = {
    "backbone._target_": ("os.system", "backbone._target_=os.system is none of tlx's own networks"),
    "backbone.weights": ("/etc/passwd", "the backbone has weights from elsewhere"),
    "backbone.url": ("https://example.org/x", "the backbone has weights from elsewhere"),
    "backbone.arguments": ({"checkpoint_path": "x.pth"}, "backbone.arguments.checkpoint_path would open another file"),
    "backbone.input_size": (10**9, "images of 1000000000 pixels, resized to 32"),
    "preprocessing.resize": (10**9, "images of 32 pixels, resized to 1000000000"),
    "classes": (["a", "a", "b"], "classes are not a list of different names"),
    "precision": ("fp8", "precision=fp8, exact=False"),
    "cut": ("layer9", "cut=layer9 is no stage"),
    "temperature": (0, "temperature=0: must be above 0"),
    "weights": ("sha256:0", "model.safetensors is not the file that model.json was written for"),
    "head": ({"hidden": ["wide"]}, "damaged ("),
    "format": (99, "format 99; this version of tlx reads format 1"),
}


@pytest.mark.parametrize("key", LIES)
def test_a_description_that_nobody_saved_is_refused(folder: Path, tmp_path: Path, key: str) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    value, line = LIES[key]
    _set(known, key, value)
    file.write_text(json.dumps(known), encoding="utf-8")
    with pytest.raises(RequestError) as raised:
        predictor.load(tmp_path, "cpu")
    assert line in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "model"))


def test_a_description_nested_without_end_is_damaged(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("[" * 100_000)
    with pytest.raises(RequestError, match=r"model: damaged \(RecursionError: "):
        predictor.load(tmp_path, "cpu")


def test_what_is_measured_is_added_and_nothing_else_changes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    before = json.loads(file.read_text(encoding="utf-8"))
    metrics = {"test_accuracy": 0.5, "test_accuracy_interval": [0.1, 0.9]}
    saved_model.describe(tmp_path / "model", {"metrics": metrics})
    assert predictor.load(tmp_path, "cpu").description == {**before, "metrics": metrics}
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.json", "model.safetensors"]
    assert list(before["versions"]) == ["tlx", "torch", "torchvision", "timm"]


def process(code: str, *words: object, cwd: Path) -> str:
    """What a Python process of its own prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# Everything that an attack would need is refused while the model is opened and used.
WATCHED = """
import sys
import tlx.inference.predictor
from tlx.cli import predict
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "pickle.find_class", "subprocess.Popen", "os.system",
                 "os.fork", "os.exec", "os.posix_spawn"):
        raise AssertionError(f"{event} {arguments}")
    if event == "exec" and sys.argv[1] in arguments[0].co_filename:
        raise AssertionError(f"code of the model's folder: {arguments}")
sys.addaudithook(watch)
assert predict.SUBCOMMAND.main(sys.argv[1:]) == 1
"""


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


def test_predict_executes_nothing_that_lies_in_its_way(folder: Path, photos: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    home = tmp_path / "run"
    shutil.copytree(folder, home)
    code = f"open({str(sprung)!r}, 'w')"
    for name in ("__init__.py", "tlx.py", "torch.py", "sitecustomize.py", "model.py", "conftest.py", "code/timm.py"):
        for place in (home, home / "model", photos):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(code)
    trap = pickle.dumps(Trap(sprung))
    for name in ("model.pkl", "pytorch_model.bin", "model.pth", "data.pkl"):
        (home / "model" / name).write_bytes(trap)
    (home / "config.yaml").write_text(f"backbone: {{_target_: os.system, command: touch {sprung}}}")
    (photos / "pickle.jpg").write_bytes(trap)
    (photos / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    shutil.copy(photos / "2.png", photos / "$(touch sprung);`touch sprung`.png")
    work = tmp_path / "work"
    work.mkdir()
    process(WATCHED, home, photos, "--csv", work / "t.csv", "--html", work / "t.html", cwd=work)
    assert not sprung.exists()
    assert sorted(file.name for file in work.iterdir()) == ["t.csv", "t.html"]
    with (work / "t.csv").open(encoding="utf-8") as file:
        rows = {Path(row["file"]).name: row["error"] for row in csv.DictReader(file)}
    assert {name for name, error in rows.items() if error} == {"pickle.jpg", "script.png"}
    assert len(rows) == 13


# The largest that the process has been, in KiB (bytes on macOS), after a short and after a long list of images.
LONG = """
import io, resource, sys
from tlx.cli.predict import predict
def peak(images):
    sys.stdin = io.StringIO(f"{sys.argv[2]}\\n" * images)
    assert predict(sys.argv[1], ["-"], {"csv": f"{images}.csv"}, device="cpu") == 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak(300), peak(1500))
"""


def test_a_long_list_takes_no_more_memory_than_a_short_one(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3)).astype(np.uint8)).save(tmp_path / "a.jpg")
    short, long = map(int, process(LONG, folder, tmp_path / "a.jpg", cwd=tmp_path).split())
    assert (long - short) * (1 if sys.platform == "darwin" else 1024) < 30e6
    assert len((tmp_path / "1500.csv").read_text().splitlines()) == 1501
