"""The data sets: what is found in a folder, what is wrong with it in one line, and the official files and no others."""

import dataclasses
import hashlib
import inspect
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.datasets.test_archives import serving
from tlx.config.dataset_schema import DatasetConfig
from tlx.config.hydra_session import CONF
from tlx.config.instantiate import component
from tlx.core.errors import RequestError
from tlx.core.safe_archive import content_digest
from tlx.datasets import readers
from tlx.datasets.readers import cifar10, image_folder, shapes, would_download
from tlx.datasets.splits import Parts, split
from tlx.datasets.synthetic_shapes import SHAPES, draw, generator

YAMLS = sorted(file.stem for file in (CONF / "dataset").glob("*.yaml"))


def node(name: str) -> dict[str, Any]:
    """The keys of a data set's reader, without those that every data set has."""
    loaded: dict[str, Any] = yaml.safe_load((CONF / "dataset" / f"{name}.yaml").read_text(encoding="utf-8"))
    common = {field.name for field in dataclasses.fields(DatasetConfig)}
    return {key: value for key, value in loaded.items() if key not in common}


def read(name: str, **changes: Any) -> Parts:
    """What a data set's YAML gives."""
    parts: Parts = component({**node(name), **changes}, "dataset")()
    return parts


def write(root: Path, *names: str) -> Path:
    """Files that look like images from outside: a reader opens none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(os.fsencode(name))
        else:
            path.mkdir(exist_ok=True)
    return root


def some(*folders: str, count: int = 3) -> list[str]:
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(count)]


def refused(root: Path | str | None, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        image_folder(None if root is None else str(root), **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the person's own cache."""
    place = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TLX_HOME", str(place))
    monkeypatch.setenv("no_proxy", "*")
    return place


# ---------------------------------------------------------------- folders


def test_a_folder_of_classes_is_one_part(tmp_path: Path) -> None:
    parts = image_folder(str(write(tmp_path, *some("dog", "cat"))))
    assert parts.classes == ("cat", "dog")
    assert (parts.val, parts.test) == (None, None)
    assert parts.train.names == ("cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg", "dog/2.jpg")
    assert parts.train.files == tuple(str(tmp_path / name) for name in parts.train.names)
    assert parts.train.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize(
    ("second", "part"), [("val", "val"), ("Valid", "val"), ("validation", "val"), ("Test", "test"), ("testing", "test")]
)
def test_parts_are_known_in_the_usual_spellings(train: str, second: str, part: str, tmp_path: Path) -> None:
    parts = image_folder(str(write(tmp_path, *some(f"{train}/a", f"{train}/b", f"{second}/a", f"{second}/b"))))
    assert parts.classes == ("a", "b")
    assert {"val": parts.val, "test": parts.test}[part] is not None
    assert {"val": parts.test, "test": parts.val}[part] is None


def test_three_parts_and_one_part_below_a_folder_called_train(tmp_path: Path) -> None:
    three = image_folder(
        str(write(tmp_path / "3", *some(*(f"{p}/{c}" for p in ("train", "val", "test") for c in "ab"))))
    )
    assert [len(part or ()) for part in (three.train, three.val, three.test)] == [6, 6, 6]  # type: ignore[arg-type]
    one = image_folder(str(write(tmp_path / "1", *some("train/a", "train/b"))))
    assert (len(one.train), one.val, one.test) == (6, None, None)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert image_folder(str(write(tmp_path, *some("train", "bus", "test")))).classes == ("bus", "test", "train")


def test_what_belongs_to_no_class_is_listed_and_litter_is_not_seen(tmp_path: Path) -> None:
    write(tmp_path, *some("train/a", "train/b", "test/a", "other"), "train/loose.png", "README.txt")
    write(tmp_path, ".git/x", "train/.cache/x.jpg", "train/a/.DS_Store", "train/a/Thumbs.db", "__MACOSX/train/a/x.jpg")
    parts = image_folder(str(tmp_path))
    assert dict(parts.skipped) == {
        str(tmp_path / "other"): "beside the parts' folders: belongs to none",
        str(tmp_path / "train/loose.png"): "beside the classes' folders: belongs to none",
    }
    assert parts.train.names == tuple(sorted(some("train/a", "train/b")))


def test_ignored_files_are_listed_whatever_on_error_says(tmp_path: Path) -> None:
    write(tmp_path, *some("a", "b"), "a/missing.gif", "b/x/missing.gif")
    parts = image_folder(str(tmp_path), ignore=["miss*.gif"])
    assert [path for path, _ in parts.skipped] == [str(tmp_path / "a/missing.gif"), str(tmp_path / "b/x/missing.gif")]
    assert len(parts.train) == 6


def test_files_at_any_depth_and_behind_links_count_once(tmp_path: Path) -> None:
    write(tmp_path / "data", *some("a", "a/deep/er", "b"))
    (tmp_path / "data/b/more").symlink_to(tmp_path / "data/a/deep")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data/a")
    parts = image_folder(str(tmp_path / "data"))
    assert np.bincount(parts.train.labels).tolist() == [6, 6]


@pytest.mark.parametrize("name", ["my photos (2)", "a=b", "#1", "Vögel 鳥", "x,y", "[z]"])
def test_names_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    parts = image_folder(str(write(tmp_path / name, *some(name, "other"))))
    assert sorted(parts.classes) == sorted([name, "other"])
    assert parts.train.files[0].startswith(str(tmp_path / name))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(write(tmp_path, *some("pics/a", "pics/b"))))
    assert image_folder("~/pics").source == str(tmp_path / "pics")


def test_a_folder_in_tlx_home_needs_no_root(own_home: Path) -> None:
    write(own_home / "data" / "birds", *some("a", "b"))
    assert len(image_folder(None, name="birds").train) == 6


# ---------------------------------------------------------------- what is wrong with a folder


def test_a_missing_folder_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    write(tmp_path, *some("photos/a"))
    assert refused(tmp_path / "fotos") == f"dataset.root={tmp_path / 'fotos'}: no such folder (did you mean 'photos'?)"
    assert refused(tmp_path / "no/where") == f"dataset.root={tmp_path / 'no/where'}: no such folder"
    assert refused("~nobody/photos") == "dataset.root=~nobody/photos: no such folder"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    write(tmp_path, "set.png")
    assert "set.png: is a file; give the folder" in refused(tmp_path / "set.png")


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert refused(tmp_path).endswith(
        "is empty: no sub-folder in it; give a folder with one sub-folder of images per class, two or more"
    )


def test_images_without_classes_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.PNG", "notes.txt")
    assert "holds 2 images but no sub-folder; give a folder with one sub-folder" in refused(tmp_path)


def test_one_class_is_named_and_a_folder_too_high_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "one", *some("ants"))
    assert "has one class only, 'ants'; two or more" in refused(tmp_path / "one")
    write(tmp_path / "high", *some("set/train/a", "set/train/b", "set/val/a"))
    assert f"(did you mean dataset.root={tmp_path / 'high/set'}?)" in refused(tmp_path / "high")
    write(tmp_path / "deep", *some("1/2/3/a", "1/2/3/b"))
    assert f"(did you mean dataset.root={tmp_path / 'deep/1/2/3'}?)" in refused(tmp_path / "deep")


def test_an_empty_class_and_an_empty_part_are_named(tmp_path: Path) -> None:
    write(tmp_path / "1", *some("a", "b"), "c/")
    assert refused(tmp_path / "1").endswith(f"class 'c' is empty ({tmp_path / '1/c'})")
    write(tmp_path / "2", *some("train/a", "train/b"), "test/a/")
    assert refused(tmp_path / "2").endswith("test/ holds no image")


def test_a_class_with_one_image_is_named(tmp_path: Path) -> None:
    parts = image_folder(str(write(tmp_path, *some("a"), "b/1.jpg")))
    with pytest.raises(RequestError, match=rf"class 'b' has 1 image \({tmp_path / 'b'}\); at least 3 are needed"):
        split(parts, DatasetConfig(), 0)


def test_a_class_whose_name_is_no_unicode_is_refused_and_a_file_is_not(tmp_path: Path) -> None:
    odd = os.fsdecode(b"bees\xff")
    write(tmp_path / "1", *some("train/ants", f"train/{odd}"))
    assert refused(tmp_path / "1") == (
        f"dataset.root={tmp_path / '1'}: the name of the class folder 'bees\\udcff' is no Unicode; rename it"
    )
    parts = image_folder(str(write(tmp_path / "2", *some("ants", "bees é 鳥"), f"ants/{odd}.jpg")))
    assert (tmp_path / "2/ants" / f"{odd}.jpg").is_file()
    assert f"ants/{odd}.jpg" in parts.train.names


def test_a_model_that_exists_may_be_measured_on_one_class(tmp_path: Path) -> None:
    assert image_folder(str(write(tmp_path, *some("ants"))), fewest=1).classes == ("ants",)
    assert "holds 3 images but no sub-folder" in refused(tmp_path / "ants", fewest=1)


@pytest.mark.parametrize("part", ["val", "test"])
def test_classes_that_training_lacks_are_named(part: str, tmp_path: Path) -> None:
    write(tmp_path, *some("train/ants", "train/bees", f"{part}/bee", f"{part}/wasps", f"{part}/ants"))
    text = refused(tmp_path)
    assert f"{part}/ has classes that train/ lacks: bee, wasps (did you mean 'bees'?)" in text
    assert text.endswith("the classes are those of the training part: ants, bees")


def test_two_spellings_of_a_part_and_a_missing_train_are_named(tmp_path: Path) -> None:
    write(tmp_path / "1", *some("train/a", "train/b", "val/a", "valid/a"))
    said = "val/ and valid/ are both a val part; keep one, or say which it is: dataset.splits.val=val"
    assert refused(tmp_path / "1").endswith(said)
    write(tmp_path / "2", *some("val/a", "test/b"))
    said = "has test/, val/ but no train/; say which it is: dataset.splits.train=…, or . where all folders are classes"
    assert refused(tmp_path / "2").endswith(said)
    measured = refused(tmp_path / "2", fewest=1)
    assert measured.endswith(f"but no train/; name the one to be measured: dataset.root={tmp_path / '2/test'}")
    assert image_folder(measured.rpartition("dataset.root=")[2], fewest=1).classes == ("b",)


def test_no_root_and_nothing_to_fetch_says_where_images_are_looked_for(own_home: Path) -> None:
    for name in ("shoes", "leaves", "image_folder"):
        with pytest.raises(RequestError) as caught:
            read(name)
        assert f"where are the images of {name}? Give dataset.root=<folder>" in str(caught.value)
        assert str(own_home / "data" / name) in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, *some("a", "b"))
    (tmp_path / "a").chmod(0)
    try:
        assert refused(tmp_path) == f"{tmp_path / 'a'}: cannot be read: permission denied"
    finally:
        (tmp_path / "a").chmod(0o755)


# ---------------------------------------------------------------- drawn shapes


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("size", [24, 96, 200])
def test_a_shape_lies_whole_and_visible_in_its_picture(shape: str, size: int) -> None:
    for number in range(20):
        pixels = draw(shape, generator(0, shape, "train", number), size, noise=0.0)
        assert pixels.shape == (size, size, 3)
        assert pixels.dtype == np.uint8
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (border == border[0]).all(), "the shape is cut off"
        covered = (np.abs(pixels.astype(int) - border[0]).sum(axis=-1) > 0).mean()
        assert 0.03 < covered < 0.75


def test_everything_about_a_picture_varies() -> None:
    clean = [draw("square", generator(0, "square", "train", i), 64, noise=0.0) for i in range(30)]
    grounds = {tuple(p[0, 0]) for p in clean}
    colours = {tuple(p.reshape(-1, 3)[np.abs(p.astype(int) - p[0, 0]).sum(-1).argmax()]) for p in clean}
    masks = [(p != p[0, 0]).any(-1) for p in clean]
    centres = np.array([np.argwhere(m).mean(0) for m in masks])
    areas = np.array([m.mean() for m in masks])
    boxes = np.array([np.ptp(np.argwhere(m), axis=0).prod() / m.sum() for m in masks])  # 1 upright, 2 on its corner
    assert len(grounds) == len(colours) == 30
    assert (np.ptp(centres, axis=0) > 10).all()
    assert areas.max() > 1.8 * areas.min()
    assert np.ptp(boxes) > 0.4
    noisy = draw("square", generator(0, "square", "train", 0), 64, noise=8.0)
    assert 5 < np.std(noisy[:3].astype(int) - clean[0][:3]) < 9


def test_a_picture_depends_on_seed_shape_part_and_number_alone() -> None:
    base = shapes(shapes=["star", "circle"], train=4, test=3)
    more = shapes(shapes=["square", "star"], train=9, test=3)
    for i in range(4):
        np.testing.assert_array_equal(base.train.decode(i), more.train.decode(9 + i))
    assert len(set(base.train.digests()) | set((base.test or base.train).digests())) == 14
    other = shapes(shapes=["star", "circle"], train=4, test=3, seed=1)
    assert not set(other.train.digests()) & set(base.train.digests())
    assert base.train.digests() == shapes(shapes=["star", "circle"], train=4, test=3).train.digests()


def test_shapes_have_files_named_by_part_and_number() -> None:
    parts = shapes(shapes=["star", "pentagon"], train=3, test=2)
    assert parts.train.files == tuple(f"train/{i}" for i in range(6))
    assert parts.test is not None
    assert parts.test.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": ["circle", "sqare"]}, r"no shape is called sqare \(did you mean 'square'\?\); there are circle, "),
        ({"shapes": ["circle"]}, r"dataset\.shapes=\['circle'\]: needs two different shapes"),
        ({"shapes": ["circle", "circle"]}, "needs two different shapes or more, each once"),
        ({"train": 1}, r"dataset\.train=1: must be at least 2"),
        ({"test": 0}, r"dataset\.test=0: must be at least 1"),
        ({"size": 23}, r"dataset\.size=23: must be at least 24"),
        ({"noise": -1.0}, r"dataset\.noise=-1\.0: must be at least 0"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        shapes(**{"shapes": ["circle", "square"], "train": 4, "test": 2, **change})


# ---------------------------------------------------------------- the YAMLs


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_names_a_reader_and_its_own_keys(name: str) -> None:
    keys = node(name)
    reader = component(keys, "dataset")  # an unknown key is an error
    inspect.signature(reader.func).bind(**{k: v for k, v in keys.items() if k != "_target_"})
    assert keys["name"] == name


@pytest.mark.parametrize(
    ("name", "classes"), [("shapes", {"circle", "square", "triangle"}), ("new_shapes", {"star", "pentagon"})]
)
def test_the_drawn_data_sets_have_their_classes_in_equal_numbers(name: str, classes: set[str]) -> None:
    data = split(read(name), DatasetConfig(), 0)
    assert set(data.classes) == classes
    for images in (data.train, data.val, data.test):
        assert len(set(np.bincount(images.labels).tolist())) == 1


def test_what_would_be_downloaded_is_said_without_a_network(own_home: Path, tmp_path: Path) -> None:
    said = {name: would_download(node(name)) for name in YAMLS}
    assert {name for name, text in said.items() if text} == {"cifar10", "ants_bees"}
    assert f"to {own_home / 'data/cifar10/cifar-10-batches-py'}" in str(said["cifar10"])
    assert "https://download.pytorch.org/tutorial/hymenoptera_data.zip" in str(said["ants_bees"])
    assert would_download({**node("cifar10"), "root": str(tmp_path)}) is None
    (own_home / "data/ants_bees").mkdir(parents=True)
    assert would_download(node("ants_bees")) is None


@pytest.mark.parametrize("name", ["cifar10", "ants_bees"])
def test_offline_names_file_url_and_place(name: str, own_home: Path) -> None:
    archive = node(name)["archive"]
    with pytest.raises(RequestError) as caught:
        read(name, offline=True)
    text = str(caught.value)
    assert "\n" not in text
    for part in (archive["urls"][0], archive["urls"][0].rsplit("/", 1)[1], str(own_home / "data"), "dataset.root="):
        assert part in text
    assert not list(own_home.iterdir())


# ---------------------------------------------------------------- CIFAR-10, in its official layout


def batches(count: int = 20) -> dict[str, bytes]:
    """Small files in the official layout: pickles of `data` and `labels`, and of the names."""
    rng = np.random.default_rng(0)
    files = {}
    for name in readers.CIFAR10:
        content: dict[str, Any] = {"label_names": list("abcdefghij")}
        if name != "batches.meta":
            labels = [i % 10 for i in range(count)]
            content = {"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), "labels": labels}
        files[name] = pickle.dumps(content, protocol=2)
    return files


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Such files, taken for the official ones."""
    files = batches()
    monkeypatch.setattr(readers, "CIFAR10", {name: hashlib.md5(body).hexdigest() for name, body in files.items()})
    return files


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, body in files.items():
        path = root / readers.CIFAR10_FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return root


def test_pictures_labels_and_names_are_those_of_the_files(small: dict[str, bytes], tmp_path: Path) -> None:
    parts = read("cifar10", root=str(folder_of(tmp_path, small)))
    assert parts.test is not None
    assert (parts.classes, len(parts.train), len(parts.test)) == (tuple("abcdefghij"), 100, 20)
    third = pickle.loads(small["data_batch_3"])
    for i in (0, 7, 19):
        red, green, blue = third["data"][i].reshape(3, 32, 32)
        np.testing.assert_array_equal(parts.train.decode(40 + i), np.stack([red, green, blue], axis=-1))
        assert parts.train.labels[40 + i] == third["labels"][i]
    assert (parts.train.files[3], parts.test.files[5]) == ("train/3", "test/5")
    data = split(parts, DatasetConfig(), 0)
    assert (len(data.train), len(data.val), len(data.test)) == (80, 20, 20)


def test_cifar10_is_fetched_checked_and_read(small: dict[str, bytes], own_home: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name, body in {**small, "readme.html": b"<html>"}.items():
            member = tarfile.TarInfo(f"{readers.CIFAR10_FOLDER}/{name}")
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
    body = out.getvalue()
    with serving({"/cifar-10-python.tar.gz": body}) as (host, requests):
        archive = {
            **node("cifar10")["archive"],
            "urls": [f"{host}/gone.tar.gz", f"{host}/cifar-10-python.tar.gz"],
            "checksum": f"md5:{hashlib.md5(body).hexdigest()}",
        }
        for _ in range(2):
            assert len(read("cifar10", archive=archive).train) == 100
    assert requests == {"/gone.tar.gz": 1, "/cifar-10-python.tar.gz": 1}
    assert (own_home / "data/cifar10" / readers.CIFAR10_FOLDER / "batches.meta").is_file()


def test_a_pickle_that_is_not_the_official_one_is_never_opened(small: dict[str, bytes], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    root = folder_of(tmp_path, {**small, "data_batch_2": pickle.dumps(Trap())})
    with pytest.raises(RequestError) as caught:
        cifar10(str(root), archive=node("cifar10")["archive"])
    text = str(caught.value)
    assert text.startswith(f"{root / readers.CIFAR10_FOLDER / 'data_batch_2'}: its md5 is ")
    assert f"not the official {readers.CIFAR10['data_batch_2']}" in text
    assert "was not opened" in text
    assert not (tmp_path / "opened").exists()


def test_a_wrong_root_for_cifar10_says_which_is_right(small: dict[str, bytes], tmp_path: Path) -> None:
    root = folder_of(tmp_path / "sets", small)
    archive = node("cifar10")["archive"]
    with pytest.raises(
        RequestError, match=rf"holds no folder cifar-10-batches-py \(did you mean dataset\.root={root}\?\)"
    ):
        cifar10(str(root / readers.CIFAR10_FOLDER), archive=archive)
    with pytest.raises(RequestError, match=r"holds no folder cifar-10-batches-py$"):
        cifar10(str(tmp_path), archive=archive)
    (root / readers.CIFAR10_FOLDER / "test_batch").unlink()
    with pytest.raises(RequestError, match="test_batch: cannot be read: no such file or directory"):
        cifar10(str(root), archive=archive)


# ---------------------------------------------------------------- the real data


@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [
        ("ants_bees", "hymenoptera_data", (195, 49, 153)),
        ("shoes", "Shoes", (64, 16, 18)),
        ("leaves", "Leaves", (288, 72, 120)),
    ],
)
def test_the_real_folders_have_their_known_sizes(name: str, folder: str, sizes: tuple[int, ...], shared: Path) -> None:
    data = split(read(name, root=str(shared / folder)), DatasetConfig(), 0)
    assert (len(data.train), len(data.val), len(data.test)) == sizes
    assert [Path(path).name for path, _ in data.skipped] == (["imageNotFound.gif"] if name == "ants_bees" else [])
    for i in range(0, len(data.test), 7):
        image = Image.open(data.test.files[i]).convert("RGB")
        np.testing.assert_array_equal(data.test.decode(i), np.asarray(image))


def test_the_official_ants_and_bees_are_known_by_their_content(shared: Path, own_home: Path) -> None:
    source = shared / "hymenoptera_data"
    assert content_digest(source) == node("ants_bees")["archive"]["content"]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for file in source.rglob("*"):
            packed.write(file, Path("hymenoptera_data") / file.relative_to(source))
        packed.writestr("hymenoptera_data/.DS_Store", b"litter")
        packed.writestr("__MACOSX/hymenoptera_data/._train", b"litter")
    with serving({"/hymenoptera_data.zip": out.getvalue()}) as (host, _):
        archive = {**node("ants_bees")["archive"], "urls": [f"{host}/hymenoptera_data.zip"]}
        parts = read("ants_bees", archive=archive)
    assert (len(parts.train), len(parts.val or ()), len(parts.skipped)) == (244, 153, 1)  # type: ignore[arg-type]
    assert parts.source == str(own_home / "data/ants_bees")


def test_the_official_cifar10_files_are_read(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / readers.CIFAR10_FOLDER
    folder.mkdir()
    for name in readers.CIFAR10:  # kept as one lossless picture a batch, between the pickle's head and tail
        if name == "batches.meta":
            body = (shared / "cifar10" / name).read_bytes()
        else:
            with Image.open(shared / "cifar10" / f"{name}.webp") as picture:
                tiles = np.asarray(picture.convert("RGB")).reshape(100, 32, 100, 32, 3)
            pixels = tiles.transpose(0, 2, 4, 1, 3).tobytes()
            ends = [(shared / "cifar10" / f"{name}.{end}").read_bytes() for end in ("head", "tail")]
            body = ends[0] + pixels + ends[1]
        (folder / name).write_bytes(body)
    parts = read("cifar10", root=str(tmp_path))
    assert parts.test is not None
    assert parts.classes[0] == "airplane"
    assert np.bincount(parts.train.labels).tolist() == [5_000] * 10
    assert np.bincount(parts.test.labels).tolist() == [1_000] * 10
    assert [parts.classes[label] for label in parts.test.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    assert [parts.classes[label] for label in parts.train.labels[:4]] == ["frog", "truck", "truck", "deer"]
