"""Faults that are planted in a folder: each kind is found and named with its file; a clean folder has no finding."""

import io
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from tlx.analysis.finding import number_of
from tlx.cli.main import main
from tlx.core.errors import RequestError

SIZE = (96, 96)


def pixels(name: str, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture of its own for each name: soft patches under sharp blocks."""
    rng = np.random.default_rng(list(name.encode("utf-8", "surrogateescape")))
    width, height = size
    soft = Image.fromarray(rng.integers(40, 200, (4, 4, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    whole = np.array(soft).astype(np.int16)
    blocks = rng.integers(-40, 56, (max(1, height // 8), max(1, width // 8), 3)).repeat(8, 0).repeat(8, 1)
    whole[: blocks.shape[0], : blocks.shape[1]] += blocks[:height, :width]
    return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or pixels(path.name)).save(path, **options)
    return path


def clean(root: Path) -> Path:
    for split, number in (("train", 6), ("test", 3)):
        for of in ("cat", "dog"):
            for i in range(number):
                save(root / split / of / f"{split}-{of}-{i}.png")
    return root


def audit(root: Path, output: Path, *more: str, code: int = 0) -> dict[str, dict[str, object]]:
    """The findings by kind, of the process's own output."""
    printed = io.StringIO()
    import contextlib

    with contextlib.redirect_stdout(printed):
        ended = main(["audit", "dataset=image_folder", f"dataset.root={root}", f"output={output}", "--json", *more])
    assert ended == code
    return {finding["kind"]: finding for finding in json.loads(printed.getvalue())}


def jpeg(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", **options)
    return content.getvalue()


def wide_profile() -> bytes:
    """A profile whose primaries lie far outside of those of sRGB: theirs, with the numbers of its green one moved."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(struct.unpack(">I", content[128:132])[0]):
        tag, offset, _ = struct.unpack(">4sII", content[132 + 12 * number : 144 + 12 * number])
        if tag == b"gXYZ":
            content[offset + 8 : offset + 20] = struct.pack(">iii", *(round(v * 65536) for v in (0.20, 0.70, 0.05)))
    return bytes(content)


def turned(image: Image.Image) -> dict[str, object]:
    exif = image.getexif()
    exif[0x0112] = 6
    return {"exif": exif}


FOLDER = "train/cat"
Plant = Callable[[Path], object]

# Kind → (the file that is named, what plants it). The file's path is below the root.
FILES: dict[str, tuple[str, str, Plant]] = {
    "zero bytes": ("empty_file", "train/cat/nothing.jpg", lambda p: p.write_bytes(b"")),
    "truncated JPEG": (
        "truncated",
        "train/cat/short.jpg",
        lambda p: p.write_bytes((data := jpeg(pixels("short", (200, 200)), quality=95))[: len(data) // 2]),
    ),
    "truncated PNG": (
        "truncated",
        "train/dog/short.png",
        lambda p: p.write_bytes(save(p).read_bytes()[: p.stat().st_size // 2]),
    ),
    "text called jpg": ("not_an_image", "train/cat/words.jpg", lambda p: p.write_text("this is no image")),
    "a page called jpg": ("not_an_image", "test/cat/page.jpg", lambda p: p.write_text("<html>not found</html>")),
    "a raw file": ("unreadable", "train/cat/raw.dng", lambda p: p.write_bytes(b"FUJIFILMCCD-RAW " + bytes(300))),
    "Photoshop": ("unreadable", "train/dog/layers.psd", lambda p: p.write_bytes(b"8BPS" + bytes(300))),
    "a link to nothing": ("unreadable", "train/cat/gone.png", lambda p: p.symlink_to("nowhere.png")),
    "a link to itself": ("unreadable", "train/dog/self.png", lambda p: p.symlink_to(p.name)),
    "a pipe": ("unreadable", "train/cat/pipe.png", lambda p: os.mkfifo(p)),
    "a bomb": (
        "unreadable",
        "train/dog/bomb.png",
        lambda p: p.write_bytes(_claims(save(p, pixels("bomb")).read_bytes(), 60_000, 60_000)),
    ),
    "damaged chunk": ("unreadable", "train/cat/bits.png", lambda p: p.write_bytes(_damaged(save(p).read_bytes()))),
    "PNG called jpg": ("wrong_extension", "train/cat/really.jpg", lambda p: pixels("really").save(p, "PNG")),
    "JPEG called png": ("wrong_extension", "train/dog/really.png", lambda p: pixels("other").save(p, "JPEG")),
    "JPEG called txt": ("wrong_extension", "test/dog/really.txt", lambda p: pixels("more").save(p, "JPEG")),
    "animated GIF": (
        "animated",
        "train/cat/moves.gif",
        lambda p: save(p, pixels("m0"), save_all=True, append_images=[pixels("m1")]),
    ),
    "pages of a TIFF": (
        "animated",
        "train/dog/pages.tif",
        lambda p: save(p, pixels("p0"), save_all=True, append_images=[pixels("p1")]),
    ),
    "16 bits grey": (
        "sixteen_bit",
        "train/cat/deep.png",
        lambda p: Image.fromarray(np.asarray(pixels("deep").convert("L")).astype(np.uint16) * 200).save(p),
    ),
    "floats": (
        "sixteen_bit",
        "train/dog/floats.tif",
        lambda p: Image.fromarray(np.asarray(pixels("floats").convert("L")).astype(np.float32) / 255).save(p),
    ),
    "CMYK": ("cmyk", "train/cat/print.jpg", lambda p: pixels("print").convert("CMYK").save(p)),
    "alpha": ("transparent", "train/cat/glass.png", lambda p: _see_through(pixels("glass")).save(p)),
    "a transparent colour": (
        "transparent",
        "train/dog/hole.png",
        lambda p: pixels("hole").quantize(16).save(p, transparency=3),
    ),
    "turned": ("rotated", "train/cat/turned.jpg", lambda p: save(p, (i := pixels("turned", (120, 96))), **turned(i))),
    "wide gamut": ("wide_gamut", "train/cat/wide.jpg", lambda p: save(p, pixels("wide"), icc_profile=wide_profile())),
    "tiny": ("tiny", "train/cat/icon.png", lambda p: save(p, pixels("icon", (8, 8)))),
    "huge": ("huge", "test/cat/wall.png", lambda p: save(p, pixels("wall").resize((400, 400)))),
    "constant": ("constant", "train/cat/grey.png", lambda p: save(p, Image.new("RGB", SIZE, (90, 90, 90)))),
    "very dark": ("very_dark", "train/dog/night.png", lambda p: save(p, pixels("night").point(lambda v: v // 10))),
    "very bright": (
        "very_bright",
        "train/cat/sun.png",
        lambda p: save(p, pixels("sun").point(lambda v: 230 + v // 12)),
    ),
    "blurred": (
        "blurred",
        "train/dog/soft.png",
        lambda p: save(p, pixels("soft", (256, 256)).filter(ImageFilter.GaussianBlur(6))),
    ),
    "panorama": ("centre_crop", "train/cat/wide.png", lambda p: save(p, pixels("pan", (400, 96)))),
    "the same in test": ("test_copies", "test/cat/again.png", lambda p: _copy(p, "train/cat/train-cat-0.png")),
    "the same, saved anew": ("test_copies", "test/dog/anew.bmp", lambda p: _saved_anew(p, "train/dog/train-dog-0.png")),
    "the same twice": ("copies", "train/dog/twice.png", lambda p: _copy(p, "train/dog/train-dog-1.png")),
    "under another label": (
        "contradictory_copies",
        "train/dog/cat.png",
        lambda p: _copy(p, "train/cat/train-cat-2.png"),
    ),
    "beside the classes": ("left_out", "train/alone.png", lambda p: save(p)),
    "a line break": ("odd_name", "train/cat/line\nbreak.png", lambda p: save(p)),
    "a tab": ("odd_name", "train/dog/tab\tbed.png", lambda p: save(p)),
    "a hidden folder": ("hidden_folder", "train/.bird", lambda p: save(p / "1.png")),
    "an empty class": ("empty_class", "train/bird", lambda p: p.mkdir()),
    "a class of test alone": ("unknown_class", "test/fish", lambda p: save(p / "fish.png")),
    "case": ("class_names", "train/Cat/upper.png", lambda p: save(p)),
    "spaces": ("class_names", "train/dog /blank.png", lambda p: save(p)),
    "a class in a class": ("class_in_class", "train/cat/dog/inner.png", lambda p: save(p)),
    "links in a circle": ("link_loop", "train/cat/round", lambda p: p.symlink_to("..", target_is_directory=True)),
    "a closed folder": ("closed_folder", "train/dog/closed", lambda p: (save(p / "x.png"), p.chmod(0))),
}  # fmt: skip


def _root(path: Path) -> Path:
    return next(parent.parent for parent in path.parents if parent.name in ("train", "test"))


def _copy(path: Path, source: str) -> None:
    shutil.copy(_root(path) / source, path)


def _saved_anew(path: Path, source: str) -> None:
    Image.open(_root(path) / source).save(path)


def _see_through(image: Image.Image) -> Image.Image:
    opaque = Image.new("L", image.size, 255)
    opaque.paste(0, (10, 10, 40, 40))
    image.putalpha(opaque)
    return image


def _claims(png: bytes, width: int, height: int) -> bytes:
    import zlib

    head = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


def _damaged(png: bytes) -> bytes:
    place = png.index(b"IDAT") + 4
    return png[:place] + bytes(64) + png[place + 64 :]


def shown(finding: dict[str, object]) -> set[str]:
    return {os.path.abspath(path) for group in finding["files"] for path in group}  # type: ignore[union-attr, attr-defined]


def test_each_planted_fault_is_found_and_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, and none hides another."""
    monkeypatch.setattr("tlx.analysis.pixel_checks.HUGE", 150_000)  # to make one of 50 million takes seconds
    root = clean(tmp_path / "data")
    for _, file, plant in FILES.values():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        plant(root / file)
    found = audit(root, tmp_path / "out")
    assert len(FILES) >= 40
    missed = {
        name: found.get(kind, {}).get("files", f"no {kind}")
        for name, (kind, file, _) in FILES.items()
        if kind not in found or (str(root / file) not in shown(found[kind]) and kind not in ("class_names",))
    }
    (root / "train/dog/closed").chmod(0o700)
    assert not missed


def test_a_clean_folder_has_no_finding_and_the_second_audit_reads_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = clean(tmp_path / "data")
    assert audit(root, tmp_path / "out") == {}
    monkeypatch.setattr("tlx.analysis.fact_reading.facts_of", lambda *_: pytest.fail("a picture is decoded again"))
    assert audit(root, tmp_path / "out") == {}


def test_names_of_255_bytes_and_of_no_unicode_do_not_matter(tmp_path: Path) -> None:
    root = clean(tmp_path / "data")
    save(root / "train/cat" / ("n" * 251 + ".png"))
    save(root / "train/cat" / os.fsdecode(b"caf\xe9.png"))
    assert audit(root, tmp_path / "out") == {}


def test_objects_on_black_and_sharp_pictures_with_a_smooth_background_are_not_called_wrong(tmp_path: Path) -> None:
    root = clean(tmp_path / "data")
    for i in range(6):
        black = Image.new("RGB", (200, 200))
        black.paste(pixels(f"object {i}", (60, 60)), (20 * i, 60))
        save(root / f"train/cat/black-{i}.png", black)
        smooth = pixels(f"sky {i}", (200, 200)).filter(ImageFilter.GaussianBlur(30))
        smooth.paste(pixels(f"bird {i}", (40, 40)), (80, 20 * i))
        save(root / f"train/dog/smooth-{i}.png", smooth)
    assert audit(root, tmp_path / "out") == {}


def test_one_class_with_most_images_is_named_with_what_always_answering_it_gives(tmp_path: Path) -> None:
    root = clean(tmp_path / "data")
    for i in range(70):
        save(root / f"train/dog/more-{i}.png")
    (imbalance,) = audit(root, tmp_path / "out").values()
    assert imbalance["kind"] == "imbalance"
    assert "'dog' has 76 training images, 'cat' 6" in str(imbalance["message"])
    assert "accuracy of 50.0% on test" in str(imbalance["message"])


def test_with_fail_an_error_ends_the_audit_with_1(tmp_path: Path) -> None:
    root = clean(tmp_path / "data")
    assert audit(root, tmp_path / "out", "dataset.audit=fail") == {}
    (root / "train/cat/broken.jpg").write_bytes(b"")
    assert audit(root, tmp_path / "out", "dataset.audit=fail", code=1)
    assert audit(root, tmp_path / "out")


def test_a_wrong_request_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["seed=1"], ["dataset=image_folder", f"dataset.root={tmp_path / 'nowhere'}"]):
        assert main(["audit", *words]) == 2
    assert "dataset: which data?" in capsys.readouterr().err


def test_what_is_left_out_of_a_run_is_left_out_and_other_keys_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = clean(tmp_path / "data")
    save(root / "train/cat/grey.png", Image.new("RGB", SIZE, (90, 90, 90)))
    for kind in ("train", "test"):
        _copy(root / kind / "dog/again.png", "train/dog/train-dog-0.png")
    (tmp_path / "list").write_text("train/cat/grey.png\n")
    more = ["backbone=small_cnn", f"dataset.exclude={tmp_path / 'list'}", "dataset.drop_duplicates=true"]
    assert {"constant", "test_copies"} <= audit(root, tmp_path / "out", more[0]).keys()
    assert capsys.readouterr().err == ""
    assert audit(root, tmp_path / "out", *more, "training.epochs=3", "strategy=finetune", "dataset.limit.train=4") == {}
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": has no effect: ")[0] for line in said[:3]] == [
        f"warning: {word}" for word in ("training.epochs=3", "strategy=finetune", "dataset.limit.train=4")
    ]
    assert [line.partition(": ")[0] for line in said[3:]] == ["exclude", "drop_duplicates"]
    words = ["audit", "dataset=image_folder", f"dataset.root={root}", f"dataset.exclude={tmp_path / 'nowhere'}"]
    assert main(words) == 2
    assert "nowhere: cannot be read" in capsys.readouterr().err


def test_the_list_takes_near_copies_of_test_images_out_of_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = clean(tmp_path / "data")
    for file, quality in (("test/cat/again.jpg", 60), ("train/cat/third.jpg", 80)):
        Image.open(root / "train/cat/train-cat-0.png").save(root / file, quality=quality)
    listed, words = tmp_path / "list.txt", (root, tmp_path / "out", "backbone=small_cnn")
    (across,) = audit(*words, "--list", str(listed))["near_duplicates_across_splits"]["files"]
    assert Path(across[0]) == root / "test/cat/again.jpg"  # one pair, though train has two of them
    lines = [line for line in listed.read_text().splitlines() if line and not line.startswith("#")]
    assert sorted(lines) == ["train/cat/third.jpg", "train/cat/train-cat-0.png"]
    capsys.readouterr()
    assert "near_duplicates_across_splits" not in audit(*words, f"dataset.exclude={listed}")
    assert "exclude: 2 train" in capsys.readouterr().err


def test_tables_with_bom_semicolons_quotes_and_windows_paths_are_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = clean(tmp_path / "data")
    rows = [path.relative_to(root) for path in sorted(root.rglob("*.png"))]
    text = "path;label;split\r\n" + "".join(
        f'"{PureWindowsPath(row)}";"{row.parts[1]}";{row.parts[0]}\r\n' for row in rows
    )
    table = tmp_path / "labels.csv"
    table.write_bytes(b"\xef\xbb\xbf" + (text + '"train\\cat\\gone.png";cat;train\r\n').encode())
    words = ["audit", "dataset=csv", f"dataset.root={table}", f"dataset.images={root}", f"output={tmp_path / 'out'}"]
    assert main([*words, "--json"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)
    assert finding["kind"] == "left_out"
    assert "gone.png" in finding["files"][0][0]
    assert f"row {len(rows) + 2}" in finding["message"]


def test_the_page_has_pictures_side_by_side_and_fetches_nothing(tmp_path: Path) -> None:
    root = clean(tmp_path / "data")
    _copy(root / "test/cat/again.png", "train/cat/train-cat-0.png")
    page = tmp_path / "audit.html"
    audit(root, tmp_path / "out", "--html", str(page))
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 2
    assert "http" not in text.replace("http-equiv", "")


def test_a_list_is_read_as_it_is_written(tmp_path: Path) -> None:
    from tlx.datasets.left_out import without_listed
    from tlx.datasets.readers import image_folder

    root = clean(tmp_path / "data")
    save(root / "train/cat/grey\n.png", Image.new("RGB", SIZE))
    save(root / "test/cat/white.png", Image.new("RGB", SIZE, "white"))
    audit(root, tmp_path / "out", "--list", str(tmp_path / "list.txt"))
    parts = image_folder(str(root))
    assert parts.test is not None
    sets, (line,) = without_listed({"train": parts.train, "test": parts.test}, str(tmp_path / "list.txt"))
    assert set(parts.train.names) - set(sets["train"].names) == {"train/cat/grey\n.png"}
    assert sets["test"].names == parts.test.names
    assert line.startswith("exclude: 1 train images are left out, as list.txt says; 1 of its paths are test images")
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(RequestError, match="names no image"):
        without_listed({"train": parts.train}, str(tmp_path / "none.txt"))
    (tmp_path / "all.txt").write_text("\n".join(parts.test.names))
    with pytest.raises(RequestError, match=r"^dataset\.exclude=.*all\.txt: leaves no val image$"):
        without_listed({"train": parts.train, "val": parts.test}, str(tmp_path / "all.txt"))


def test_an_overlap_with_the_pretraining_images_is_a_note_where_the_weights_are_of_them(tmp_path: Path) -> None:
    root, words = clean(tmp_path / "data"), "dataset.pretraining_overlap='half of them (https://example.org)'"
    found = audit(root, tmp_path / "out", words)
    assert list(found) == ["pretraining_overlap"]
    assert found["pretraining_overlap"]["severity"] == "note"
    assert "half of them (https://example.org)" in str(found["pretraining_overlap"]["message"])
    assert not audit(root, tmp_path / "out", words, "backbone.weights=none")


def test_numbers_have_their_noun() -> None:
    assert number_of(1, "image looks like a placeholder", "images look like placeholders").startswith("1 image looks")
    assert [number_of(n, "group") for n in (0, 1, 2, 1200)] == ["0 groups", "1 group", "2 groups", "1,200 groups"]
