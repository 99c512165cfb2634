"""What is an image shows in its content: the same files train, are measured and are predicted, the others are named."""

import io
import struct
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlx.config.dataset_schema import DatasetConfig
from tlx.datasets.file_kinds import is_image
from tlx.datasets.image_decoding import UnreadableImage, decode
from tlx.datasets.image_paths import find, none_of_them
from tlx.datasets.readers import image_folder
from tlx.datasets.splits import split
from tlx.runs.evaluate_model import _positions

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
# A name → the format in which a file of that name is written.
IMAGES = {
    "a.jfif": "JPEG",
    "b.jpe": "JPEG",
    "c": "JPEG",
    "d.jpeg_large": "JPEG",
    "e.jpg!d": "JPEG",
    "f.JPG": "JPEG",
    "g.mpo": "MPO",
    "h.tga": "TGA",
    "i.dat": "PNG",
    "j.": "WEBP",
    "k.img": "TIFF",
    "l.txt": "GIF",
    "m.x": "BMP",
    "n.pnm": "PPM",
    "o.bin": "PPM",
    "p.y": "AVIF",
    "q.z": "JPEG2000",
    "r.w": "ICO",
}


def others() -> dict[str, bytes]:
    """Files that are no images, some of which begin nearly so."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("x.txt", "x")
    return {
        "notes.txt": b"no image",
        "labels.csv": b"file,label\n",
        "empty": b"",
        "zeros.bin": bytes(4000),
        "P5 text": b"P5 is how a PGM begins",
        "BM.md": b"BMW cars are cars",
        "x.zip": archive.getvalue(),
        "film.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(400),
        "GIF": b"GIF89a",
        "y.pdf": b"%PDF-1.7\n",
    }


def written(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, format in IMAGES.items():
        Image.fromarray(PIXELS).save(folder / name, format)


def test_what_trains_is_what_is_predicted_and_the_rest_is_counted_and_named(tmp_path: Path) -> None:
    for name in "ab":
        written(tmp_path / "data" / name)
    data = split(image_folder(str(tmp_path / "data")), DatasetConfig(), 0)
    trained = sorted(file for images in (data.train, data.val, data.test) for file in images.files)
    assert len(trained) == 2 * len(IMAGES)
    for name, content in others().items():
        (tmp_path / "data/a" / name).write_bytes(content)
    left_out: list[Path] = []
    assert sorted(map(str, find([str(tmp_path / "data")], left_out))) == trained
    assert {file.name for file in left_out} == set(others())
    assert none_of_them(left_out[:1]).startswith("1 file that is no image: ")
    assert none_of_them(left_out) == (
        f"10 files that are no images: {', '.join(file.name for file in left_out[:4])} and 6 more"
    )
    matched: list[Path] = []
    assert len(list(find([str(tmp_path / "data/a/*")], matched))) == len(IMAGES)
    assert matched == left_out


def test_what_its_name_calls_an_image_is_one_and_is_found_to_be_broken(tmp_path: Path) -> None:
    for name in ("broken.png", "broken.JFIF", "broken.heic"):
        (tmp_path / name).write_text("no image")
        assert is_image(tmp_path / name)
        with pytest.raises(UnreadableImage, match="not an image"):
            decode(tmp_path / name)
    for name in ("photo.NEF", "photo.dng"):
        (tmp_path / name).write_text("no image")
        assert is_image(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    assert not is_image(tmp_path / "folder.png")
    assert not is_image(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Photoshop", b"8BPS\0\1" + bytes(300)),
        ("JPEG XL", b"\xff\x0a" + bytes(300)),
        ("DICOM", bytes(128) + b"DICM" + bytes(300)),
        ("FITS", b"SIMPLE  =                    T" + b" " * 300),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("SVG", b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("Canon raw", b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(300)),
        ("Canon raw", b"II*\0\x10\0\0\0CR\2\0" + bytes(300)),
        ("Olympus raw", b"IIRO\x08\0\0\0" + bytes(300)),
        ("Panasonic raw", b"IIU\0\x18\0\0\0" + bytes(300)),
    ],
)
def test_an_image_that_is_not_read_is_named_by_its_format(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(content)
    assert is_image(tmp_path / "picture")
    with pytest.raises(UnreadableImage, match=f"{name} is a format that is not read"):
        decode(content)


def test_a_photograph_of_a_telephone_needs_a_package_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert list(find([str(tmp_path)])) == [tmp_path / "photo"]
    with pytest.raises(UnreadableImage, match=r"pip install 'tlx-transfer\[heic\]'"):
        decode(tmp_path / "photo")


def test_a_photograph_of_a_telephone_is_read_with_it(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    smooth = np.stack(np.meshgrid(np.arange(64) * 3, np.arange(48) * 4), -1).astype(np.uint8)
    pixels = np.dstack([smooth, np.full((48, 64), 90, dtype=np.uint8)])
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "photo", format="HEIF", quality=95)
    assert is_image(tmp_path / "photo")
    for given in (tmp_path / "photo", (tmp_path / "photo").read_bytes()):
        assert np.abs(decode(given).astype(int) - pixels).mean() < 3


# ---------------------------------------------------------------- accents


def accented(root: Path, forms: dict[str, str]) -> Path:
    """Two classes with an accent and files with one, each split in its own Unicode form."""
    for number, (split_name, form) in enumerate(forms.items()):
        for label, name in enumerate(("Bär", "Zébra")):
            folder = root / unicodedata.normalize(form, f"{split_name}/{name}")
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = np.full((8, 8, 3), 40 * number + 20 * label + i, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / unicodedata.normalize(form, f"é{i}.png"))
    return root


def test_names_are_the_same_in_both_unicode_forms(tmp_path: Path) -> None:
    composed = accented(tmp_path / "a", {"train": "NFC", "test": "NFC"})
    mixed = accented(tmp_path / "b", {"train": "NFD", "test": "NFC"})
    first, second = (split(image_folder(str(root)), DatasetConfig(), 0) for root in (composed, mixed))
    assert second.classes == first.classes == ("Bär", "Zébra")
    assert second.fingerprint == first.fingerprint
    assert _positions(second.classes, [unicodedata.normalize("NFD", name) for name in first.classes]) == [0, 1]
    both = accented(tmp_path / "c", {".": "NFC"})
    accented(both, {".": "NFD"})
    assert len(image_folder(str(both)).train) == 24
    assert image_folder(str(both)).classes == first.classes


def test_a_path_typed_in_the_other_unicode_form_is_found(tmp_path: Path) -> None:
    there = tmp_path / unicodedata.normalize("NFD", "é.png")
    Image.fromarray(PIXELS).save(there)
    assert list(find([str(tmp_path / "é.png")])) == [there]
    folder = tmp_path / unicodedata.normalize("NFC", "Zürich")
    folder.mkdir()
    written(folder / "a")
    written(folder / "b")
    assert image_folder(unicodedata.normalize("NFD", str(folder))).source == str(folder)


@pytest.mark.parametrize("bits", [16, 64])
def test_a_tiff_of_pixels_that_are_not_read_is_not_called_no_image(bits: int, tmp_path: Path) -> None:
    file = tmp_path / "x.tif"
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(file)
    single = file.read_bytes()
    entry = struct.pack("<HHIHH", 258, 3, 1, 32, 0)  # bits of a value
    assert single.count(entry) == 1
    file.write_bytes(single.replace(entry, struct.pack("<HHIHH", 258, 3, 1, bits, 0)))
    assert is_image(file)
    with pytest.raises(UnreadableImage, match="whose kind of pixels is not read; floats are read as grey of 32 bits"):
        decode(file)
