"""Splits: stratified, fixed by seed, nested; every image read once, and what cannot be read is said before training."""

import dataclasses
import itertools
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import open_dict
from PIL import Image

from tests.conftest import ROOT
from tlx.config.compose import compose
from tlx.config.dataset_schema import DatasetConfig, Limit
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.datasets import content_digests, image_sources
from tlx.datasets import images as image_module
from tlx.datasets.content_digests import Decoded
from tlx.datasets.image_sources import FileBytes, Stacked
from tlx.datasets.images import Images
from tlx.datasets.splits import Data, Parts, split


def part(counts: list[int], name: str = "train", start: int = 0) -> Images:
    """Images of one pixel whose value is their number, so that they can be distinguished."""
    labels = np.repeat(np.arange(len(counts)), counts)
    numbers = start + np.arange(len(labels))
    pixels = np.stack([numbers % 256, numbers // 256, numbers * 0], axis=-1).astype(np.uint8)
    return Images([f"{name}/{i}" for i in range(len(labels))], labels, Stacked(pixels.reshape(-1, 1, 1, 3)))


def parts(train: list[int], val: list[int] | None = None, test: list[int] | None = None) -> Parts:
    return Parts(
        "numbers",
        tuple("abcdefghij"[: len(train)]),
        part(train),
        None if val is None else part(val, "val", 10_000),
        None if test is None else part(test, "test", 20_000),
    )


def counts(images: Images) -> list[int]:
    return np.bincount(images.labels).tolist()


def common(**values: Any) -> DatasetConfig:
    limit = Limit(**{k.removeprefix("limit_"): values.pop(k) for k in list(values) if k.startswith("limit_")})
    return DatasetConfig(limit=limit, **values)


# ---------------------------------------------------------------- which part is which


def test_of_one_part_test_and_validation_are_split_off() -> None:
    data = split(parts([100, 50]), common(), 0)
    assert [counts(s) for s in (data.test, data.val, data.train)] == [[20, 10], [16, 8], [64, 32]]
    names = [*data.train.files, *data.val.files, *data.test.files]
    assert sorted(names) == sorted(part([100, 50]).files)


@pytest.mark.parametrize("second", ["val", "test"])
def test_of_two_parts_the_second_is_the_test_set_whatever_it_is_called(second: str) -> None:
    given = parts([123, 121], **{second: [70, 83]})
    data = split(given, common(), 0)
    assert data.test.files == getattr(given, second).files
    assert (len(data.train), len(data.val), len(data.test)) == (195, 49, 153)


def test_three_parts_stay_as_they_are() -> None:
    given = parts([30, 30], [4, 4], [5, 6])
    data = split(given, common(), 0)
    assert (data.train.files, data.val.files, data.test.files) == (given.train.files, given.val.files, given.test.files)


# ---------------------------------------------------------------- properties of a split


@pytest.mark.parametrize("sizes", [[123, 121], [40, 40], [2, 2], [2, 1000], [7, 11, 13, 17], [5] * 10])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_a_split_is_stratified_and_leaves_every_class_on_both_sides(
    sizes: list[int], fraction: float, seed: int
) -> None:
    data = split(parts(sizes, test=[1] * len(sizes)), common(val_fraction=fraction), seed)
    val, train = np.array(counts(data.val)), np.array(counts(data.train))
    assert (val + train == sizes).all()
    assert (val >= 1).all()
    assert (train >= 1).all()
    exact = np.array(sizes) * fraction
    assert (np.abs(val - exact) <= 1).all()
    if (exact >= 1).all() and (np.array(sizes) - exact >= 1).all():
        assert val.sum() == round(sum(sizes) * fraction)


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    splits = [split(parts([50, 50]), common(), seed) for seed in (3, 3, 4)]
    assert splits[0].val.files == splits[1].val.files
    assert splits[0].fingerprint == splits[1].fingerprint
    assert splits[0].val.files != splits[2].val.files
    assert splits[0].fingerprint != splits[2].fingerprint


def test_a_class_is_split_the_same_whatever_other_classes_there_are() -> None:
    alone, beside = (split(parts([40, n], test=[1, 1]), common(), 5) for n in (30, 31))
    assert [f for f, y in zip(alone.val.files, alone.val.labels, strict=True) if y == 0] == [
        f for f, y in zip(beside.val.files, beside.val.labels, strict=True) if y == 0
    ]


@pytest.mark.parametrize("seed", [0, 7])
def test_few_shot_sets_are_nested_and_leave_the_other_sets_alone(seed: int) -> None:
    whole = split(parts([60, 40, 50]), common(), seed)
    sets = [split(parts([60, 40, 50]), common(per_class=n), seed) for n in (1, 2, 5, 20)]
    for smaller, larger in itertools.pairwise(sets):
        assert set(smaller.train.files) < set(larger.train.files) < set(whole.train.files)
    assert [counts(data.train) for data in sets] == [[n] * 3 for n in (1, 2, 5, 20)]
    assert all(data.val.files == whole.val.files and data.test.files == whole.test.files for data in sets)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("which", ["train", "val", "test"])
def test_limited_sets_are_nested_stratified_and_exact(seed: int, which: str) -> None:
    sizes = [300, 100, 50]
    whole = getattr(split(parts(sizes, sizes, sizes), common(), seed), which)
    before: set[str] = set()
    for limit in (9, 45, 46, 90, 225, 450, 999):
        limited = getattr(split(parts(sizes, sizes, sizes), common(**{f"limit_{which}": limit}), seed), which)
        assert len(limited) == min(limit, len(whole))
        assert before <= set(limited.files) <= set(whole.files)
        share = np.array(counts(limited)) - len(limited) * np.array(sizes) / sum(sizes)
        assert (np.abs(share) <= 1).all()
        assert list(limited.files) == sorted(limited.files, key=whole.files.index)
        before = set(limited.files)


def test_labels_follow_their_images() -> None:
    given = parts([30, 20, 10])
    data = split(given, common(limit_train=17), 2)
    label = dict(zip(given.train.files, given.train.labels.tolist(), strict=True))
    for images in (data.train, data.val, data.test):
        assert [label[file] for file in images.files] == images.labels.tolist()
        for i, file in enumerate(images.files):
            number = int(file.split("/")[1])
            assert images.decode(i)[0, 0].tolist() == [number % 256, number // 256, 0]


# ---------------------------------------------------------------- folds


def folded(given: Parts, folds: int, seed: int = 0, **values: Any) -> list[Data]:
    return [split(given, common(folds=folds, fold=fold, **values), seed) for fold in range(folds)]


def held_out(given: Parts, runs: list[Data], which: str) -> list[Images]:
    """The sets that take turns: every image is in exactly one, and in a run no image is in two of its sets."""
    sets = [getattr(data, which) for data in runs]
    files = Counter(file for images in sets for file in images.files)
    pool = [*given.train.files, *(given.val.files if given.val and given.test else ())]
    assert files == Counter(pool)
    for data in runs:
        parts = (data.train, data.val, data.test)
        assert sum(map(len, parts)) == len(set().union(*(images.files for images in parts)))
        assert min(map(min, map(counts, parts))) >= 1
    return sets


def are_even(sets: list[Images], sizes: list[int]) -> None:
    found = np.array([np.bincount(images.labels, minlength=len(sizes)) for images in sets])
    assert (np.abs(found - np.array(sizes) / len(sets)) < 1).all()
    assert np.ptp(found.sum(1)) <= 1


SIZES = [[123, 121], [10, 40], [7, 11, 13, 17], [5] * 10]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("folds", "seed"), [(2, 0), (3, 1), (5, 2**32 - 1)])
def test_of_one_part_each_image_is_tested_once_over_the_folds(sizes: list[int], folds: int, seed: int) -> None:
    given = parts(sizes)
    runs = folded(given, folds, seed)
    are_even(held_out(given, runs, "test"), sizes)
    for data in runs:
        left = np.array(sizes) - counts(data.test)
        assert (np.abs(np.array(counts(data.val)) - 0.2 * left) <= 1).all()
        assert len(data.train) + len(data.val) == left.sum()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("folds", "seed"), [(2, 0), (5, 3)])
@pytest.mark.parametrize("second", ["val", "test"])
def test_a_test_set_stays_and_each_training_image_validates_once(
    sizes: list[int], folds: int, seed: int, second: str
) -> None:
    given = parts(sizes, **{second: [3] * len(sizes)})
    runs = folded(given, folds, seed)
    are_even(held_out(given, runs, "val"), sizes)
    assert all(data.test.files == getattr(given, second).files for data in runs)


def test_a_validation_part_beside_a_test_set_is_dealt_with_what_trains() -> None:
    given = parts([20, 11], [4, 9], [5, 5])
    runs = folded(given, 4)
    are_even(held_out(given, runs, "val"), [24, 20])
    assert given.val is not None
    colours = {
        file: images.decode(i)[0, 0].tolist()
        for images in (given.train, given.val)
        for i, file in enumerate(images.files)
    }
    for data in runs:
        assert data.test.files == parts([1, 1], test=[5, 5]).test.files  # type: ignore[union-attr]
        for images in (data.train, data.val):
            sent = pickle.loads(pickle.dumps(images))
            assert [sent.decode(i)[0, 0].tolist() for i in range(len(images))] == [colours[f] for f in images.files]


def test_folds_are_the_same_every_time_and_others_with_another_seed() -> None:
    given = parts([30, 20], test=[2, 2])
    tests = [[data.val.files for data in folded(given, 3, seed)] for seed in (1, 1, 2)]
    assert tests[0] == tests[1]
    assert not set(tests[0]) & set(tests[2])
    fingerprints = {data.fingerprint for data in folded(given, 3, 1)}
    assert len(fingerprints) == 3
    assert folded(given, 3, 1)[2].fingerprint in fingerprints


def test_few_shot_and_limits_are_taken_of_a_fold() -> None:
    given = parts([30, 20])
    whole, few = folded(given, 5), folded(given, 5, per_class=3, limit_test=4)
    for one, other in zip(whole, few, strict=True):
        assert counts(other.train) == [3, 3]
        assert set(other.train.files) < set(one.train.files)
        assert len(other.test) == 4
        assert set(other.test.files) < set(one.test.files)
        assert other.val.files == one.val.files


@pytest.mark.parametrize(
    ("sizes", "folds", "options", "message"),
    [
        ([9, 4], 5, {}, "dataset.folds=5: class 'b' has 4 images (train); at least 5 are needed, one for each fold"),
        ([9, 1], 2, {"test": [1, 1]}, "dataset.folds=2: class 'b' has 1 image (train); at least 2 are needed, one for"),
        ([9, 3], 2, {}, "dataset.folds=2: class 'b' has 3 images (train); at least 4 are needed, two for each fold"),
        ([9, 0], 3, {}, "dataset.folds=3: class 'b' has 0 images; at least 3 are needed, one for each fold"),
    ],
)
def test_more_folds_than_a_class_has_images_are_refused(
    sizes: list[int], folds: int, options: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        split(parts(sizes, **options), common(folds=folds, fold=0), 0)
    assert message in str(caught.value)
    enough = [max(size, 4 if folds == 2 and not options else folds) for size in sizes]
    folded(parts(enough, **options), folds)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"folds": 5}, "dataset.folds=5: needs dataset.fold beside it, as in dataset.folds=5 dataset.fold=0"),
        ({"fold": 0}, "dataset.fold=0: needs dataset.folds beside it, as in dataset.folds=5 dataset.fold=0"),
        ({"folds": 5, "fold": 5}, "dataset.fold=5: must be less than dataset.folds=5; the first is 0"),
        ({"folds": 5, "fold": -1}, "dataset.fold=-1: must be at least 0"),
        ({"folds": 1, "fold": 0}, "dataset.folds=1: must be at least 2"),
        ({"folds": "two", "fold": 0}, "dataset.folds=two: must be a whole number or null"),
    ],
)
def test_folds_that_do_not_exist_are_refused(words: dict[str, Any], message: str) -> None:
    node = compose([f"dataset.{key}={value}" for key, value in words.items()])
    with open_dict(node):
        node.pop("hydra")
    with pytest.raises(RequestError) as caught:
        checked(node)
    assert str(caught.value) == message


# ---------------------------------------------------------------- requests that cannot be met


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        (
            [10, 1],
            {"test": [1, 1]},
            "class 'b' has 1 image .*at least 2 are needed, one each for training and validation",
        ),
        ([10, 1], {}, "class 'b' has 1 image .*at least 3 are needed, one each for training, validation and test"),
        ([2, 10], {}, "class 'a' has 2 images .*at least 3 are needed"),
        ([10, 1], {"val": [1, 1], "test": [1, 1]}, "class 'b' has 1 image .*at least 2 are needed"),
        ([10, 0], {"test": [1, 1]}, "class 'b' has 0 images; at least 2 are needed"),
    ],
)
def test_a_class_with_too_few_images_is_named(sizes: list[int], options: dict[str, list[int]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        split(parts(sizes, **options), common(), 0)


def test_more_images_per_class_than_there_are_is_an_error_with_the_number() -> None:
    with pytest.raises(RequestError, match=r"dataset\.per_class=9: class 'b' has 8 training images; at most 8"):
        split(parts([20, 10], test=[1, 1]), common(per_class=9), 0)


def test_a_limit_that_loses_a_class_is_an_error() -> None:
    with pytest.raises(
        RequestError, match=r"dataset\.limit\.train=2: leaves class '.' without .* each of the 3 classes"
    ):
        split(parts([20, 20, 20]), common(limit_train=2), 0)


# ---------------------------------------------------------------- files


def folder(root: Path, files: dict[str, bytes | int]) -> Parts:
    """Files of two classes, by `<class>/<name>`; an int is an image with that seed."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            noise = np.random.default_rng(content).integers(0, 256, (12, 9, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path, "PNG")
        else:
            path.write_bytes(content)
    classes = sorted({name.split("/")[0] for name in files})
    names = sorted(files)
    paths = tuple(str(root / name) for name in names)
    labels = [classes.index(name.split("/")[0]) for name in names]
    return Parts("files", tuple(classes), Images(paths, labels, FileBytes(paths), names))


def again(root: Path, names: Sequence[str]) -> Parts:
    """The same files, looked for a second time."""
    paths = tuple(str(root / name) for name in sorted(names))
    labels = ["ab".index(name[0]) for name in sorted(names)]
    return Parts("files", ("a", "b"), Images(paths, labels, FileBytes(paths), sorted(names)))


GOOD: dict[str, bytes | int] = {f"{c}/{i}.png": 100 * k + i for k, c in enumerate("ab") for i in range(8)}


def test_an_unreadable_file_is_named_with_reason_number_and_remedy(tmp_path: Path) -> None:
    data = folder(tmp_path, {**GOOD, "a/9.jpg": b"not a picture", "b/9.png": b""})
    with pytest.raises(RequestError) as caught:
        split(data, common(), 0)
    text = str(caught.value)
    assert "\n" not in text
    assert str(tmp_path / "a/9.jpg") in text or str(tmp_path / "b/9.png") in text
    assert "and 1 more of 18 files" in text
    assert "dataset.on_error=skip" in text


def test_a_truncated_file_is_found(tmp_path: Path) -> None:
    data = folder(tmp_path, GOOD)
    whole = (tmp_path / "a/3.png").read_bytes()
    (tmp_path / "a/3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match=r"a/3\.png: cannot be read as an image \(.+\) of 16 files"):
        split(data, common(), 0)


def test_skipped_files_are_listed_and_never_replaced(tmp_path: Path) -> None:
    bad: dict[str, bytes | int] = {"a/bad.png": b"no", "b/bad.png": b"no"}
    whole = split(folder(tmp_path / "1", {**GOOD, "a/bad.png": 1000, "b/bad.png": 1001}), common(), 0)
    data = split(folder(tmp_path / "2", {**GOOD, **bad}), common(on_error="skip"), 0)
    assert sorted(path for path, _ in data.skipped) == [str(tmp_path / "2" / name) for name in sorted(bad)]
    assert {reason for _, reason in data.skipped} == {"not an image, or of an unknown format"}
    for name in ("train", "val", "test"):  # the others are where they were
        assert list(getattr(data, name).names) == [n for n in getattr(whole, name).names if n not in bad]


def test_a_class_that_loses_all_its_training_images_is_an_error(tmp_path: Path) -> None:
    files = {**GOOD, **{f"b/{i}.png": b"no" for i in range(8)}}
    with pytest.raises(RequestError, match=r"dataset\.on_error=skip .*leaves class 'b' without a training image"):
        split(folder(tmp_path, files), common(on_error="skip"), 0)


def test_a_file_that_vanished_or_may_not_be_a_picture_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path, GOOD)
    (tmp_path / "a/0.png").unlink()
    with pytest.raises(RequestError, match=r"a/0\.png: cannot be read as an image \(no such file or directory\)"):
        split(data, common(), 0)
    monkeypatch.setattr(image_sources, "MAX_BYTES", 10)
    with pytest.raises(RequestError, match="MB are more than an image has"):
        split(folder(tmp_path, GOOD), common(), 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_a_socket_and_a_device_are_no_images_and_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path, {**GOOD, "a/pipe.png": b"", "a/socket.png": b"", "b/device.png": b""})
    for name in ("a/pipe.png", "a/socket.png", "b/device.png"):
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "b/device.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path / "a")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        skipped = dict(split(data, common(on_error="skip"), 0).skipped)
    assert skipped.keys() == {str(tmp_path / name) for name in ("a/pipe.png", "a/socket.png", "b/device.png")}
    assert skipped[str(tmp_path / "a/pipe.png")] == skipped[str(tmp_path / "b/device.png")] == "not a file"


def test_files_outside_a_limit_are_not_read(tmp_path: Path) -> None:
    data = folder(tmp_path, GOOD)
    kept = split(data, common(limit_train=4), 0)
    unused = set(split(data, common(), 0).train.files) - set(kept.train.files)
    for file in unused:
        Path(file).write_bytes(b"broken")
    assert split(data, common(limit_train=4), 0).fingerprint == kept.fingerprint


# ---------------------------------------------------------------- decoded once, kept while it fits


class Counting:
    """Reads like the reader it wraps, and counts."""

    def __init__(self, inner: FileBytes) -> None:
        self.inner, self.reads = inner, Counter[int]()

    def __call__(self, index: int) -> bytes:
        self.reads[index] += 1
        return self.inner(index)


def counting(data: Parts) -> tuple[Parts, Counting]:
    read = Counting(FileBytes(data.train.files))
    images = Images(data.train.files, data.train.labels, read, data.train.names)
    return dataclasses.replace(data, train=images), read


def use(data: Data) -> None:
    for images in (data.train, data.val, data.test):
        assert [images.decode(i).shape for i in range(len(images))] == [(12, 9, 3)] * len(images)
        images.digests()


def test_a_file_is_read_once_while_pixels_fit_and_again_where_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, read = counting(folder(tmp_path, GOOD))
    use(split(data, common(), 0))
    assert set(read.reads.values()) == {1}

    monkeypatch.setattr(
        image_module, "free_memory", lambda: 5 * 12 * 9 * 3 / image_module.MEMORY_SHARE
    )  # memory for five images
    data, read = counting(folder(tmp_path, GOOD))
    use(split(data, common(), 0))
    assert Counter(read.reads.values()) == {1: 5, 2: 11}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is read of each file from now on; however young files are, they are kept in mind."""
    monkeypatch.setattr(content_digests, "RACE", -1.0)
    monkeypatch.setattr(content_digests.seen, "digests", {})
    found, read = Counter[str](), FileBytes.__call__

    def counted(self: FileBytes, index: int) -> bytes:
        found[self.paths[index]] += 1
        return read(self, index)

    monkeypatch.setattr(FileBytes, "__call__", counted)
    return found


def test_the_next_job_of_a_process_reads_only_what_has_changed(tmp_path: Path, read: Counter[str]) -> None:
    decoded = Decoded(None)
    first = split(folder(tmp_path, GOOD), common(), 0, decoded)
    assert set(read.values()) == {1}
    decoded.add(digest for images in (first.train, first.val, first.test) for digest in images.digests())
    read.clear()
    given = again(tmp_path, [*GOOD])
    assert split(given, common(), 0, decoded).fingerprint == first.fingerprint
    assert split(given, common(folds=4, fold=1), 0, decoded).test.digests()
    assert not read
    assert split(given, common(), 0, Decoded(None)).fingerprint == first.fingerprint  # what is unknown is decoded
    assert set(read.values()) == {1}


@pytest.mark.parametrize("change", ["written", "same times", "replaced", "linked elsewhere", "removed"])
def test_a_changed_file_is_read_again(tmp_path: Path, read: Counter[str], change: str) -> None:
    folder(tmp_path, GOOD)
    file, new = tmp_path / "a/3.png", tmp_path / "new"
    content, other = (path.read_bytes().ljust(2_000, b"\0") for path in (tmp_path / "a/4.png", file))
    file.write_bytes(other)
    first = split(again(tmp_path, [*GOOD]), common(), 0)
    before = file.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    if change in ("written", "same times"):
        file.write_bytes(content)
    else:
        new.write_bytes(content)
    if change == "same times":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "replaced":
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        new.replace(file)
    elif change != "written":
        file.unlink()
    if change == "linked elsewhere":
        file.symlink_to(new)
    read.clear()
    if change == "removed":
        with pytest.raises(RequestError, match=r"a/3\.png: cannot be read as an image \(no such file or directory\)"):
            split(again(tmp_path, [*GOOD]), common(), 0)
        return
    assert split(again(tmp_path, [*GOOD]), common(), 0).fingerprint != first.fingerprint


def test_a_file_that_has_just_changed_is_not_kept_in_mind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert content_digests.RACE >= 2  # the coarsest clock of a file system in use, FAT's
    monkeypatch.setattr(content_digests.seen, "digests", {})
    monkeypatch.setattr(content_digests, "RACE", 3_600.0)
    data = folder(tmp_path, GOOD)
    os.utime(tmp_path / "a/1.png", (1, 1))  # an old date is no proof: the system knows when it was given
    split(data, common(), 0)
    assert not content_digests.seen.digests
    monkeypatch.setattr(content_digests, "RACE", 0.0)
    tomorrow = time.time() + 86_400
    os.utime(tmp_path / "a/2.png", (tomorrow, tomorrow))
    split(data, common(), 0)
    assert content_digests.seen.digests.keys() == set(data.train.files) - {str(tmp_path / "a/2.png")}


def test_images_survive_pickling_without_what_is_kept(tmp_path: Path) -> None:
    images = split(folder(tmp_path, GOOD), common(), 0).train
    sent = pickle.dumps(images)
    again = pickle.loads(sent)
    assert (again.files, again.names, again.digests()) == (images.files, images.names, images.digests())
    np.testing.assert_array_equal(again.labels, images.labels)
    np.testing.assert_array_equal(again.decode(3), images.decode(3))
    assert len(sent) < sum(images.decode(i).nbytes for i in range(len(images)))


def test_decoding_from_many_threads_gives_each_its_image(tmp_path: Path) -> None:
    images = folder(tmp_path, GOOD).train
    expected = [images.decode(i) for i in range(len(images))]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(i for i in range(len(images)) if not np.array_equal(images.decode(i), expected[i]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---------------------------------------------------------------- the fingerprint


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    one, two = (split(folder(tmp_path / where, GOOD), common(), 0) for where in ("here", "elsewhere (2)"))
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 64


@pytest.mark.parametrize("change", ["content", "name", "label", "missing", "split"])
def test_every_change_of_the_data_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    before = split(folder(tmp_path / "1", GOOD), common(), 0).fingerprint
    files, options = dict(GOOD), {}
    if change == "content":
        files["a/0.png"] = 999
    elif change == "name":
        files["a/0 .png"] = files.pop("a/0.png")
    elif change == "label":
        files["b/0.png"], files["a/0.png"] = files["a/0.png"], files["b/0.png"]
    elif change == "missing":
        del files["b/5.png"]
    else:
        options = {"val_fraction": 0.4}
    assert split(folder(tmp_path / "2", files), common(**options), 0).fingerprint != before


def test_data_needs_no_torch() -> None:
    code = "import sys, tlx.datasets.splits, tlx.datasets.readers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
