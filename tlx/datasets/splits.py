"""Labelled images and their splits: which image trains, which chooses, which is measured. No torch here.

A reader (`tlx.datasets`) lists what is there as `Parts`; `split` makes the three sets of a run of it, reads every
image once, and says what cannot be read before anything is trained.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlx.core.errors import RequestError
from tlx.datasets import group_splits, left_out
from tlx.datasets.content_digests import Decoded
from tlx.datasets.images import Images, joined, read_all
from tlx.datasets.stratified_splits import cut, fold, order, ranks

if TYPE_CHECKING:
    from tlx.config.dataset_schema import DatasetConfig

__all__ = ["Data", "Images", "Parts", "split", "whole"]


@dataclass(frozen=True)
class Parts:
    """A data set as its reader found it: the parts it comes in, nothing split or limited yet.

    `skipped`: (path, reason) of files that were left out on purpose. `source`: where the data is from, in words.
    `folders`: the folder of each part, as `train/`, where the parts are folders. `notes`: what the reader has decided
    by itself, in lines.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images | None = None
    test: Images | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    source: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """The three sets of a run. Validation chooses; the test set chooses nothing.

    `skipped`: (path, reason) of every file that was left out. `fingerprint`: sha256 in hex over split, name, label
    and content of every image and the class list. `origins`: where each set's images come from, in words, where the
    data set's parts are folders. `notes`: what is said before training: how the data was read, how groups are split.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    test: Images
    skipped: tuple[tuple[str, str], ...]
    fingerprint: str
    source: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def test_fingerprint(self) -> str:
        """The same over the test set alone."""
        return _fingerprint({"test": self.test}, self.classes)

    @property
    def val_fingerprint(self) -> str:
        """The same over the validation set alone."""
        return _fingerprint({"val": self.val}, self.classes)


def split(
    parts: Parts,
    common: "DatasetConfig",
    seed: int,
    decoded: Decoded | None = None,
    decode: Collection[str] | None = None,
    keys: left_out.Keys = Images.digests,
) -> Data:
    """The three sets of a run: stratified, and the same for the same seed.

    The test set is the test part; where there are two parts only, the second (unless `splits` says that it validates);
    where there is none, `test_fraction` of the training part. Validation is the validation part, or `val_fraction` of
    what trains.

    With `folds` the images are dealt into so many folds, the same ones for every `fold` of a seed. Where there is a
    test set it stays, and the fold is the validation set: of the training part, with the validation part's images
    where there is one. Where there is one part only the fold is the test set, and validation is cut from the rest. So
    each image that is dealt is held out once over the folds.

    With `group` all images of a group are on one side of each of these cuts (`group_splits`).

    Then `per_class` and `limit` are taken (a larger one holds the smaller), and every image left is read: what cannot
    be decoded is an error or, with `on_error: skip`, left out and listed, never replaced. `decoded` knows images that
    can be. `decode`: the sets whose images are decoded, not only hashed; None: all. `keys`: by which copies are known,
    where `drop_duplicates` leaves them out (`left_out`).

    Raises `RequestError` for a class with too few images, a limit that leaves a class without any, unreadable files.
    """
    parts = _in_groups(parts, common.group)
    train, val, test = parts.train, parts.val, parts.test
    origins, validates = dict(parts.folders), common.splits.val is not None
    if test is None and val is not None and not validates:
        val, test = None, val
        if "val" in origins:
            origins["test"] = origins.pop("val")
    if common.folds is not None and common.fold is not None:
        pool = train if val is None or test is None else joined([train, val])
        # Beside a fold one image trains and, where the fold is the test set, one validates.
        needed, uses = (
            (4, "two for each fold") if common.folds == 2 and test is None else (common.folds, "one for each fold")
        )
        _enough(pool, parts.classes, needed, uses, f"dataset.folds={common.folds}")
        train, held_out = fold(pool, common.folds, common.fold, seed)
        dealt = f"fold {common.fold + 1} of {common.folds}"
        if test is None:
            test, origins = held_out, _with(origins, "test", dealt)
        else:
            val, origins = held_out, _with(origins, "val", dealt)
    elif test is None:
        uses = "one each for training and test" if val is not None else "one each for training, validation and test"
        _enough(train, parts.classes, 3 if val is None else 2, uses)
        train, test = cut(train, common.test_fraction, seed, salt=0)
        origins = _with(origins, "test", "created from")
    else:
        _enough(train, parts.classes, 2, "one each for training and validation")
    assert test is not None
    if val is None:
        train, val = cut(train, common.val_fraction, seed, salt=1)
        origins = _with(origins, "val", "created from")
    group_splits.check({"train": train, "val": val, "test": test})
    if train.groups is not None:
        _complete(train, parts.classes, "dataset.group")
    notes = (*parts.notes, *group_splits.described({"train": train, "val": val, "test": test}, parts.classes))
    sets, said = left_out.without_requested({"train": train, "val": val, "test": test}, common, keys)
    train, val, test, notes = sets["train"], sets["val"], sets["test"], (*notes, *said)
    _complete(train, parts.classes, "dataset.exclude, dataset.drop_duplicates")
    if common.per_class is not None:
        train = _few(train, common.per_class, seed, parts.classes)
    limits = (common.limit.train, common.limit.val, common.limit.test)
    sets = {
        name: images
        if limit is None or limit >= len(images)
        else images.subset(np.sort(order(images.labels, seed)[:limit]))
        for name, images, limit in zip(("train", "val", "test"), (train, val, test), limits, strict=True)
    }
    _complete(sets["train"], parts.classes, f"dataset.limit.train={common.limit.train}")
    total = sum(map(len, sets.values()))
    sets, unreadable = read_all(sets, decoded, decode)
    if unreadable and common.on_error == "fail":
        raise _unreadable(unreadable, total)
    _complete(sets["train"], parts.classes, f"dataset.on_error=skip ({_listed(unreadable)})")
    for part, images in sets.items():
        if not len(images):
            raise RequestError(f"dataset: no readable image is left in the {part} set; skipped: {_listed(unreadable)}")
    fingerprint, skipped = _fingerprint(sets, parts.classes), parts.skipped + unreadable
    return Data(
        parts.name,
        parts.classes,
        **sets,
        skipped=skipped,
        fingerprint=fingerprint,
        source=parts.source,
        origins=origins,
        notes=notes,
    )


def _in_groups(parts: Parts, group: str | None) -> Parts:
    """The parts with groups by a regular expression, unless their reader has found them, or there are to be none."""
    sets = {"train": parts.train, "val": parts.val, "test": parts.test}
    if group is None or group == group_splits.NONE or any(images.groups for images in sets.values() if images):
        return parts
    return replace(parts, **group_splits.grouped(sets, group))  # type: ignore[arg-type]


def whole(parts: Parts, common: "DatasetConfig", decoded: Decoded | None = None) -> Data:
    """All images of a data set in its own parts, some of which may be empty. Raises `RequestError` as `split` does."""
    none = parts.train.subset([])
    sets = {"train": parts.train, "val": parts.val or none, "test": parts.test or none}
    read, unreadable = read_all(sets, decoded)
    if unreadable and common.on_error == "fail":
        raise _unreadable(unreadable, sum(map(len, sets.values())))
    skipped, fingerprint = parts.skipped + unreadable, _fingerprint(read, parts.classes)
    train, val, test = read.values()
    return Data(parts.name, parts.classes, train, val, test, skipped, fingerprint, parts.source, notes=parts.notes)


def _with(origins: Mapping[str, str], name: str, how: str) -> dict[str, str]:
    """Where a set comes from that is made of the training part, and of the validation part where that is in it."""
    if not origins:
        return {}
    of = " and ".join(dict.fromkeys(origins[part] for part in ("train", name) if part in origins))
    return {**origins, name: f"{how} {of}"}


def unread(parts: Parts, common: "DatasetConfig", key: str = "dataset") -> dict[str, str]:
    """The keys of `common` that `split` does not read for these parts, each with the reason and what to type.

    `key`: of the data set in the configuration.
    """
    validates = parts.val is not None and (parts.test is not None or common.splits.val is not None)
    tested = parts.test is not None or (parts.val is not None and not validates)
    found = {}
    if common.folds is not None:
        found[f"{key}.test_fraction"] = f"with {key}.folds each fold is held out; change {key}.folds"
    elif tested:
        found[f"{key}.test_fraction"] = f"the data has a test part of its own; {key}.limit.test takes less of it"
    if common.folds is not None and tested:
        found[f"{key}.val_fraction"] = f"the data has a test part, so that the fold validates; change {key}.folds"
    elif validates:
        found[f"{key}.val_fraction"] = f"the data has a validation part of its own; {key}.limit.val takes less of it"
    return found


def _few(images: Images, per_class: int, seed: int, classes: Sequence[str]) -> Images:
    counts = np.bincount(images.labels, minlength=len(classes))
    least = int(counts.argmin())
    if counts[least] < per_class:
        raise RequestError(
            f"dataset.per_class={per_class}: class '{classes[least]}' has {counts[least]} training images; "
            f"at most {counts[least]}"
        )
    return images.subset(np.flatnonzero(ranks(images.labels, seed) < per_class))


def _enough(train: Images, classes: Sequence[str], needed: int, uses: str, key: str = "dataset") -> None:
    counts = np.bincount(train.labels, minlength=len(classes))
    for label in np.flatnonzero(counts < needed).tolist():
        members = np.flatnonzero(train.labels == label)
        where = f" ({Path(train.files[members[0]]).parent})" if len(members) else ""
        number = f"{counts[label]} image{'' if counts[label] == 1 else 's'}"
        raise RequestError(f"{key}: class '{classes[label]}' has {number}{where}; at least {needed} are needed, {uses}")


def _complete(train: Images, classes: Sequence[str], key: str) -> None:
    counts = np.bincount(train.labels, minlength=len(classes))
    if counts.min() == 0:
        raise RequestError(
            f"{key}: leaves class '{classes[int(counts.argmin())]}' without a training image; "
            f"each of the {len(classes)} classes needs one"
        )


def _unreadable(bad: Sequence[tuple[str, str]], total: int) -> RequestError:
    path, reason = bad[0]
    more = "" if len(bad) == 1 else f", and {len(bad) - 1} more"
    return RequestError(
        f"{path}: cannot be read as an image ({reason}){more} of {total} files; repair or remove what is broken, or "
        "leave it out with dataset.on_error=skip"
    )


def _listed(bad: Sequence[tuple[str, str]]) -> str:
    return ", ".join(path for path, _ in bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")


def _fingerprint(sets: Mapping[str, Images], classes: Sequence[str]) -> str:
    whole = hashlib.sha256("\0".join(classes).encode())
    for split_name, images in sets.items():
        for name, label, digest in zip(images.names, images.labels, images.digests(), strict=True):
            whole.update(f"\n{split_name}\0{name}\0{label}\0{digest}".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()
