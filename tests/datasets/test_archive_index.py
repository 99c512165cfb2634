"""Zip and tar archives read in place: the data set of the unpacked folder; what is wrong with them is a line."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tlx.cli.main import main
from tlx.config.dataset_schema import DatasetConfig
from tlx.core.errors import RequestError
from tlx.datasets import image_folder
from tlx.datasets.splits import Data, split

assert ROOT
NAMES = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in ("bees", "Ämter 1") for i in range(4)]


def png(seed: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


FILES = {name: png(seed) for seed, name in enumerate(NAMES)} | {"train/ids": b"no image", "README.md": b"photos"}


def zipped(path: Path, files: Mapping[str, bytes] = FILES, above: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(f"{above}{name}", content)
        archive.writestr("__MACOSX/._x.jpg", b"\0")
    return path


def tarred(path: Path, files: Mapping[str, bytes] = FILES, above: str = "", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(f"{above}{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def unpacked(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(root: Path, **common: object) -> Data:
    return split(image_folder(str(root)), DatasetConfig(**common), seed=3)  # type: ignore[arg-type]


def refused(root: Path, **common: object) -> str:
    with pytest.raises(RequestError) as caught:
        read(root, **common)
    assert "\n" not in str(caught.value)
    return str(caught.value)


MADE: dict[str, Callable[[Path], Path]] = {
    "zip": lambda folder: zipped(folder / "photos.zip"),
    "stored": lambda folder: zipped(folder / "photos.zip", method=zipfile.ZIP_STORED),
    "in a folder": lambda folder: zipped(folder / "photos.zip", above="photos/"),
    "tar": lambda folder: tarred(folder / "photos.tar"),
    "in two folders": lambda folder: tarred(folder / "photos.tar", above="./my/photos/"),
    "pax": lambda folder: tarred(folder / "photos.tar", {**FILES, "other/" + "x" * 200: b""}, above="a/"),
}


@pytest.mark.parametrize("kind", MADE)
def test_an_archive_is_the_data_set_of_the_unpacked_folder(tmp_path: Path, kind: str) -> None:
    folder, archive = read(unpacked(tmp_path / "photos")), read(MADE[kind](tmp_path))
    assert archive.fingerprint == folder.fingerprint
    assert (archive.name, archive.classes, archive.origins) == (folder.name, folder.classes, folder.origins)
    for one, other in ((folder.train, archive.train), (folder.test, archive.test)):
        assert one.names == other.names
        assert all(np.array_equal(one.decode(i), other.decode(i)) for i in range(len(one)))
        assert all(f"photos.{'tar' if 'photos.tar' in file else 'zip'}/" in file for file in other.files)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_many_threads_and_other_processes_read_it(tmp_path: Path, kind: str) -> None:
    images = image_folder(str(MADE[kind](tmp_path))).train
    again = pickle.loads(pickle.dumps(images))
    order = [i % len(images) for i in range(400)]
    with ThreadPoolExecutor(8) as threads:
        for i, pixels in zip(order, threads.map(again.decode, order), strict=True):
            assert np.array_equal(pixels, images.decode(i))


def test_a_folder_of_an_archive_and_a_split_in_it_can_be_named(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip")
    assert len(image_folder(str(archive / "train")).train) == 8
    parts = image_folder(str(archive), splits={"train": "val", "test": "train"})
    assert parts.folders == {"train": "val/", "test": "train/"}


def test_one_without_classes_says_what_a_folder_says(tmp_path: Path) -> None:
    flat = zipped(tmp_path / "flat.zip", {f"{i}.png": png(i) for i in range(3)})
    assert "holds 3 images but no sub-folder" in refused(flat)
    assert "has one class only, 'ants'" in refused(zipped(tmp_path / "one.zip", {"ants/1.png": png(0)}))
    assert "no such folder" in refused(tmp_path / "nothing.zip")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_says_how_to_make_a_plain_one(tmp_path: Path, mode: str) -> None:
    said = refused(tarred(tmp_path / f"photos.tar.{mode[2:]}", mode=mode))
    assert "a compressed tar cannot be read in place" in said
    program = {"gz": "gunzip", "bz2": "bunzip2", "xz": "unxz"}[mode[2:]]
    assert said.endswith(f"make a plain tar of it once: {program} photos.tar.{mode[2:]}")


@pytest.mark.parametrize("name", ["../evil/1.png", "/etc/1.png", "a/../../b/1.png", "C:/a/1.png", "..\\evil\\1.png"])
def test_a_path_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    assert "a path that leads outside" in refused(zipped(tmp_path / "a.zip", {**FILES, name: b""}))
    if "\\" not in name:
        assert "a path that leads outside" in refused(tarred(tmp_path / "a.tar", {**FILES, name: b""}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_path_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for name in (NAMES[0], "train"):
        for kind, made in ((zipfile.ZipFile, "a.zip"), (None, "a.tar")):
            path = zipped(tmp_path / made) if kind else tarred(tmp_path / made)
            if kind:
                with zipfile.ZipFile(path, "a") as archive:
                    archive.writestr(name, b"other")
            else:
                with tarfile.open(path, "a") as tape:
                    tape.addfile(tarfile.TarInfo(name))
            assert f"it holds a path twice: {name}" in refused(path)
    deep = zipped(tmp_path / "deep.zip", {"a/" * 150 + "1.png": b""})
    assert "folders in each other" in refused(deep)


def patched(path: Path, find: Callable[[bytes], int], offset: int, value: bytes) -> Path:
    """The archive with other bytes at `offset` from where `find` says."""
    content = bytearray(path.read_bytes())
    start = find(bytes(content)) + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def central(name: str) -> Callable[[bytes], int]:
    """Where the central directory of a zip has a file."""
    return lambda content: content.rindex(name.encode()) - 46


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (8, struct.pack("<H", 0x1), "it is encrypted; unpack the archive with its password"),
        (10, struct.pack("<H", 9), "it is compressed by a method that is not read here (number 9)"),
        (24, struct.pack("<I", 2_000_000_000), "2,000 MB are more than an image has"),
        (24, struct.pack("<I", 10), "it has another size than the 10 bytes that the archive says"),
        (16, b"\0\0\0\0", "its checksum is not the one that the archive has"),
        (38, struct.pack("<I", 0o120777 << 16), "a link, which is not followed in an archive"),
    ],
)
def test_a_file_of_a_zip_that_cannot_be_read_is_named(tmp_path: Path, offset: int, value: bytes, why: str) -> None:
    name = "train/bees/2.png"
    path = patched(zipped(tmp_path / "photos.zip"), central(name), offset, value)
    said = refused(path)
    assert said.startswith(f"{path}/{name}: cannot be read as an image ({why}")
    left_out = read(path, on_error="skip").skipped
    assert [file for file, reason in left_out if why in reason] == [f"{path}/{name}"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """One file whose content says that it is small; and many that share one content."""
    files = {**FILES, "train/bees/9.png": b"\0" * 30_000_000}
    path = patched(zipped(tmp_path / "a.zip", files), central("train/bees/9.png"), 24, struct.pack("<I", 1_000))
    assert "9.png: cannot be read as an image (it has another size than the 1,000 bytes" in refused(path)
    first = struct.pack("<I", 0)
    shared = patched(zipped(tmp_path / "b.zip"), central("train/bees/2.png"), 42, first)
    assert refused(shared) == f"{shared}: files overlap in it, as in a zip bomb"


def test_links_of_a_tar_are_not_followed_but_for_another_name_of_a_file(tmp_path: Path) -> None:
    path = tarred(tmp_path / "photos.tar")
    with tarfile.open(path, "a") as tape:
        hard, soft = tarfile.TarInfo("train/bees/8.png"), tarfile.TarInfo("train/bees/9.png")
        hard.type, hard.linkname = tarfile.LNKTYPE, "train/bees/1.png"
        soft.type, soft.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tape.addfile(hard)
        tape.addfile(soft)
    assert "train/bees/9.png: cannot be read as an image (a link or a device" in refused(path)
    data = read(path, on_error="skip")
    assert sum(len(images) for images in (data.train, data.val)) == 9


def test_what_is_cut_off_or_no_archive_says_so(tmp_path: Path) -> None:
    for path in (zipped(tmp_path / "a.zip"), tarred(tmp_path / "a.tar")):
        os.truncate(path, path.stat().st_size // 2)
        assert str(path) in refused(path)
    (tmp_path / "b.zip").write_bytes(b"no zip")
    assert "b.zip: it is damaged, or no zip or tar archive" in refused(tmp_path / "b.zip")


def test_any_damage_is_a_line_or_a_data_set(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(150):
        path = (zipped if number % 2 else tarred)(tmp_path / f"{number}.{'zip' if number % 2 else 'tar'}")
        content = bytearray(path.read_bytes())
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(256)
        path.write_bytes(content)
        try:
            read(path, on_error="skip")
        except RequestError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_run_on_an_archive_uses_the_features_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    unpacked(tmp_path / "photos"), zipped(tmp_path / "photos.zip")
    words = [
        "dataset=image_folder",
        "backbone=small_cnn",
        "backbone.input_size=32",
        "training.epochs=1",
        "tracking=none",
    ]
    tables = []
    for root in ("photos", "photos.zip"):
        assert main([*words, f"dataset.root={root}"]) == 0
        folder = max(Path("outputs").glob("2*/*"), key=lambda folder: folder.stat().st_mtime_ns)
        tables.append((folder / "predictions.csv").read_text())
    assert "photos.zip/val/" in tables[1]
    assert tables[0].replace("photos/", "photos.zip/") == tables[1]
