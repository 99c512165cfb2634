"""The data sets: each reader is a function that a YAML in conf/dataset names, and lists what is there as `Parts`.

A reader reads no picture (`tlx.data.split` does, and says what is wrong with any); it finds the files, the classes
and the parts, and what is wrong with those. `root` is a folder as the person gave it, or None: `data/<name>` under
TLX_HOME, fetched there where the data set has an archive; with `offline` the network is left alone.
"""

import dataclasses
import hashlib
import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tlx.config.dataset_schema import TABLES, data_name
from tlx.core.errors import RequestError, empty, nearest, reason
from tlx.datasets.archive_index import is_archive
from tlx.datasets.archives import Archive, home, obtain, pending
from tlx.datasets.class_folders import check_classes
from tlx.datasets.folder_layout import (
    Faults,
    class_name,
    existing,
    images_of,
    is_folder,
    no_classes,
    refuse,
    subfolders,
)
from tlx.datasets.image_sources import Stacked
from tlx.datasets.images import Images
from tlx.datasets.split_folders import split_folders, top_folder
from tlx.datasets.splits import Parts
from tlx.datasets.synthetic_shapes import Drawn, known

# https://www.cs.toronto.edu/~kriz/cifar.html; the md5 of each file as in torchvision's integrity check.
CIFAR10 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
ZIPPED = ", or a zip or tar of it"
CIFAR10_FOLDER = "cifar-10-batches-py"


def image_folder(
    root: str | None,
    *,
    name: str = "image_folder",
    ignore: Sequence[str] = (),
    archive: Mapping[str, Any] | None = None,
    offline: bool = False,
    fewest: int = 2,
    splits: Mapping[str, str | None] | None = None,
    faults: Faults | None = None,
) -> Parts:
    """A folder with one sub-folder per class, or with such folders for train, val and test in the usual spellings.

    The classes are the training part's sub-folders, sorted. Every file in them, at any depth, is an image, but for
    hidden ones and those whose name matches `ignore`: these are listed as skipped. `fewest`: classes; a model that
    exists can be measured on one. `splits`: the folder of a split, where its name does not say it (`split_folders`).
    `name`: what the data set is called; the default stands for the folder's own name. `faults`: of an audit, which
    reads what there is and takes (kind, path, message) of what is refused otherwise.

    Raises `RequestError` where the folder is missing, empty, has fewer classes, an empty class, one whose name is no
    Unicode, folders that look like splits instead of classes, or a part with classes that the training part lacks.
    """
    folder = _located(root, name, archive_of(archive) if archive else None, offline)
    key = f"dataset.root={root or folder}"
    parts, skipped = split_folders(folder, key, splits, measured=fewest < 2)
    found = [entry.name for entry in subfolders(parts["train"])]
    if not (splits or {}).get("train"):
        check_classes(folder, parts["train"], found, key)
    names = sorted({class_name(name) for name in found})
    if len(names) < fewest:
        raise RequestError(f"{key}: {no_classes(parts['train'], names)}")
    for shown in (name.encode("utf-8", "backslashreplace").decode() for name in names):
        if shown not in names:
            raise RequestError(f"{key}: the name of the class folder '{shown}' is no Unicode; rename it")
    learned = set(names)
    for place in parts.values():
        if unknown := sorted({class_name(entry.name) for entry in subfolders(place)} - set(names)):
            message = (
                f"{place.name}/ has classes that {parts['train'].name}/ lacks: {', '.join(unknown)}"
                f"{nearest(unknown[0], names)}; the classes are those of the training part: {', '.join(names)}"
            )
            refuse(faults, key, "unknown_class", place / unknown[0], message)
            names = sorted({*names, *unknown})
    images = dict[str, Any]()
    for part, place in parts.items():
        images[part], left_out = images_of(folder, place, names, ignore, faults)
        skipped += left_out
        if not len(images[part]):
            refuse(faults, key, "empty_split", place, f"{place.name}/ holds no image")
    for label, count in enumerate(np.bincount(images["train"].labels, minlength=len(names))):
        if not count and names[label] in learned:
            place = parts["train"] / names[label]
            refuse(faults, key, "empty_class", place, f"class '{names[label]}' is empty ({place})")
    places = {} if parts == {"train": folder} else parts
    origins = {part: f"{place.relative_to(folder).as_posix()}/" for part, place in places.items()}
    called = data_name(name, image_folder.__name__, root, published=archive is not None)
    return Parts(called, tuple(names), **images, skipped=tuple(skipped), source=str(folder), folders=origins)


def cifar10(
    root: str | None,
    *,
    archive: Mapping[str, Any],
    name: str = "cifar10",
    offline: bool = False,
) -> Parts:
    """CIFAR-10 from its official Python files: 50,000 and 10,000 images of 32 x 32 in ten classes (Krizhevsky, 2009).

    The files are pickles: none is opened before its md5 was found to be the official one. Raises `RequestError`
    where a file is missing or another.
    """
    folder = _located(root, name, archive_of(archive), offline, CIFAR10_FOLDER)
    if not os.path.isdir(folder):
        hint = ""
        if (folder.parent / "data_batch_1").is_file():
            hint = f" (did you mean dataset.root={folder.parent.parent}?)"
        raise RequestError(f"dataset.root={root}: holds no folder {CIFAR10_FOLDER}{hint}")
    names = ["batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))]
    with warnings.catch_warnings(), ThreadPoolExecutor() as threads:
        # Written by a numpy of 2009, whose dtypes today's numpy reads and warns about.
        warnings.simplefilter("ignore")
        official = list(threads.map(_official, [folder / name for name in names]))  # all, before one is opened
        meta, test, *train = threads.map(_opened, official)
    classes = tuple(meta["label_names"])
    parts: dict[str, Images] = {}
    for part, batches in (("train", train), ("test", [test])):
        pixels = np.concatenate([batch["data"] for batch in batches])
        labels = [label for batch in batches for label in batch["labels"]]
        parts[part] = Images([f"{part}/{i}" for i in range(len(labels))], labels, Stacked(pixels))
    return Parts(name, classes, parts["train"], test=parts["test"], source=str(folder))


def shapes(
    *,
    shapes: Sequence[str],
    train: int,
    test: int,
    size: int = 96,
    noise: float = 8.0,
    seed: int = 0,
    name: str = "shapes",
) -> Parts:
    """Shapes drawn in memory, one class a shape, with `train` and `test` images each.

    `size`: the side, pixels. `noise`: standard deviation, levels of 0..255. Position, size, rotation, colours and
    noise are random and depend only on `seed`, the shape, the part and the image's number. Raises `RequestError` for
    a shape that cannot be drawn, or fewer than two.
    """
    known(shapes)
    if len(set(shapes)) < 2 or len(set(shapes)) != len(shapes):
        raise RequestError(f"dataset.shapes={list(shapes)}: needs two different shapes or more, each once")
    for key, value, least in (("train", train, 2), ("test", test, 1), ("size", size, 24), ("noise", noise, 0)):
        if value < least:
            raise RequestError(f"dataset.{key}={value}: must be at least {least}")
    parts: dict[str, Images] = {}
    for part, count in (("train", train), ("test", test)):
        read = Drawn(tuple(shapes), part, count, size, noise, seed)
        labels = np.repeat(np.arange(len(shapes)), count)
        parts[part] = Images([f"{part}/{i}" for i in range(len(labels))], labels, read)
    return Parts(name, tuple(shapes), parts["train"], test=parts["test"], source=f"drawn (seed {seed})")


def archive_of(keys: Mapping[str, Any]) -> Archive:
    """The archive that a YAML describes. Raises `RequestError` for a key that is missing or that it does not take."""
    names = [field.name for field in dataclasses.fields(Archive)]
    try:
        return Archive(**keys)
    except TypeError as error:
        unknown = next((key for key in keys if key not in names), "")
        wrong = (
            f"{unknown}: no such key{nearest(unknown, names)}" if unknown else reason(error).partition("missing ")[2]
        )
        raise RequestError(f"dataset.archive: {wrong}; its keys: {', '.join(names)}") from error


def folder_of(reader: Mapping[str, Any]) -> Path | None:
    """Where the files of a data set are, or would be put; None for one that is drawn. `reader`: the YAML's own keys."""
    if "root" not in reader:
        return None
    if reader["root"] is None and not reader.get("name"):
        raise RequestError("dataset.name: needs a value; where the files are put is called by it")
    base = home() / "data" / reader["name"] if reader["root"] is None else Path(os.path.expanduser(str(reader["root"])))
    return base / archive_of(reader["archive"]).to if reader.get("archive") else base


def would_download(reader: Mapping[str, Any]) -> str | None:
    """What reading this data set would download first, in a line, or None. `reader`: the YAML's own keys."""
    folder = folder_of(reader)
    if folder is None or reader["root"] is not None or not reader.get("archive"):
        return None
    return pending(archive_of(reader["archive"]), folder)


def _located(root: str | None, name: str, archive: Archive | None, offline: bool, inside: str = "") -> Path:
    """The folder of the data set, fetched where it may be."""
    if root is not None:
        if not root.strip():
            raise empty("dataset.root=")
        folder = existing(os.path.expanduser(root))
        if os.path.isfile(folder) and not inside and is_archive(folder):
            return top_folder(folder)
        if os.path.isfile(folder):
            table = "; dataset=csv reads a table" if folder.suffix.lower() in TABLES else ""
            raise RequestError(
                f"dataset.root={root}: is a file; give the folder that holds the classes' folders{table or ZIPPED}"
            )
        if not is_folder(folder):
            siblings = [entry.name for entry in subfolders(folder.parent)] if os.path.isdir(folder.parent) else []
            raise RequestError(f"dataset.root={root}: no such folder{nearest(folder.name, siblings)}")
        return folder / inside
    folder = home() / "data" / name / inside
    if archive is not None:
        obtain(archive, folder, offline=offline)
    elif not os.path.isdir(folder):
        raise RequestError(
            f"dataset.root: where are the images of {name}? Give dataset.root=<folder>, or put them in {folder}"
        )
    return folder


def _official(file: Path) -> bytes:
    """One of CIFAR-10's pickles, known to be the official one."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise RequestError(f"{file}: cannot be read: {reason(error).lower()}") from error
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != CIFAR10[file.name]:
        raise RequestError(
            f"{file}: its md5 is {found}, not the official {CIFAR10[file.name]}: it is damaged or another file, and "
            f"was not opened; remove {file.parent} and set dataset.root=null to fetch it anew"
        )
    return raw


def _opened(official: bytes) -> dict[str, Any]:
    """What a pickle holds; its images, if it has any, as uint8 [N, 32, 32, 3]."""
    batch: dict[str, Any] = pickle.loads(official, encoding="latin1")
    if "data" in batch:  # [N, 3072], a channel after the other
        batch["data"] = np.ascontiguousarray(batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return batch
