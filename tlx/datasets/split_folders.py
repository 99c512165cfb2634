"""Which folder of a data set is which split: by their names and by what is in them, or as the user says."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tlx.core.errors import RequestError, nearest
from tlx.datasets.folder_layout import alike, content, has_pictures, is_folder, listed, names_in, subfolders
from tlx.datasets.split_names import BESIDE, PLAIN, FolderName, named, plain

SPLITS = ("train", "val", "test")
NO_SPLIT = "beside the parts' folders: belongs to none"
NO_CLASSES = "named like a split but has no class folders: not used"


def split_folders(
    root: Path, key: str, chosen: Mapping[str, str | None] | None = None, *, measured: bool = False
) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """The folder of each split in `SPLITS`' order (the root itself is the training split where it has no splits), and
    (path, reason) of folders that are in none.

    `chosen`: the folder of a split as the user names it, relative to the root; `.` as the training split's says that
    the root has no splits. What is not chosen is found by the folders' names; a folder of images is a class, even
    where it is called "train". `measured`: a model that exists is measured on the images, which nothing learns from.

    Raises:
        RequestError: two folders for one split, none that trains, a chosen folder that is not there.
    """
    found = {split: _chosen(root, split, name) for split, name in (chosen or {}).items() if name is not None}
    for split, place in found.items():
        first = next(one for one in found if found[one] == place)
        if first != split:
            raise RequestError(f"dataset.splits: {first} and {split} are the same folder, {place.relative_to(root)}/")
    if found.get("train") == root:
        if len(found) > 1:
            raise RequestError(
                "dataset.splits.train=.: says that the folder has no splits; leave out "
                f"{', '.join(f'dataset.splits.{split}' for split in found if split != 'train')}"
            )
        return found, []
    entries = [Path(entry.path) for entry in subfolders(root)]
    entries = [entry for entry in entries if not any(entry in (place, *place.parents) for place in found.values())]
    speaking = {entry: about for entry in entries if (about := named(entry.name))}
    places = {entry: inner for entry in speaking if (inner := _place(entry)) is not None}
    for entry, split in _splits_of({entry: speaking[entry] for entry in places}, places).items():
        if split in found and (chosen or {}).get(split) is not None:
            continue
        if split in found:
            other = next(one for one in places if places[one] == found[split])
            raise RequestError(
                f"{key}: {other.name}/ and {entry.name}/ are both a {split} part; keep one, or say which it is: "
                f"dataset.splits.{split}={other.name}"
            )
        found[split] = places[entry]
    if not found:
        return {"train": root}, []
    if "train" not in found:
        there = listed([f"{place.relative_to(root)}/" for place in sorted(found.values())])
        none = "no folder of the training split" if chosen else "no train/"
        say = "say which it is: dataset.splits.train=…, or . where all folders are classes"
        if measured:
            say = f"name the one to be measured: dataset.root={min(found.values())}"
        raise RequestError(f"{key}: has {there} but {none}{_flat(speaking)}; {say}")
    used = {entry for place in found.values() for entry in (place, *place.parents)}
    others = [entry for entry in entries if entry not in used]
    if found.keys() == {"train"} and not chosen and (like := _like_classes(others, speaking)):
        train = found["train"].relative_to(root).as_posix()
        raise RequestError(
            f"{key}: {train}/ is named like a split, but {listed([f'{entry.name}/' for entry in like])} "
            f"hold{'s' if len(like) == 1 else ''} folders of images, too; dataset.splits.train={train} trains on "
            f"{train}/ alone, dataset.splits.train=. takes all folders for classes, dataset.splits.test="
            f"{like[0].name} makes that one the test set"
        )
    skipped = [(str(entry), NO_CLASSES if entry in speaking and entry not in places else NO_SPLIT) for entry in others]
    return {split: found[split] for split in SPLITS if split in found}, skipped


def top_folder(archive: Path) -> Path:
    """Where the folders of an archive begin: within a single one at the top, unless that is a split or a class."""
    inner = subfolders(archive)
    while len(inner) == 1 and not named(inner[0].name) and not has_pictures(archive):
        place = Path(inner[0].path)
        if not (below := subfolders(place)):
            break
        archive, inner = place, below
    return archive


def _chosen(root: Path, split: str, name: str) -> Path:
    place = root / name
    key = f"dataset.splits.{split}={name}"
    if os.path.isabs(name) or ".." in Path(name).parts:
        raise RequestError(f"{key}: must be the name of a folder within dataset.root, as in {split}")
    if not is_folder(place):
        raise RequestError(f"{key}: no such folder in {root}{nearest(name, [e.name for e in subfolders(root)])}")
    return place if place == root else _place(place) or place


def _place(entry: Path) -> Path | None:
    """Where the class folders of a split are: `seg_train/`, or `seg_train/seg_train/`; None where it has none."""
    inner = subfolders(entry)
    while len(inner) == 1 and not has_pictures(entry):
        name = inner[0].name
        about, within = named(entry.name), named(name)
        same = about is not None and within is not None and about.split == within.split
        if not same and name.lower() != entry.name.lower() and not plain(name, PLAIN):
            break
        entry = Path(inner[0].path)
        inner = subfolders(entry)
    return entry if inner else None


def _like_classes(others: Sequence[Path], speaking: Collection[Path]) -> list[Path]:
    """The folders beside the splits' that hold folders of images, as a class or another split may."""
    unknown = [entry for entry in others if entry not in speaking and not plain(entry.name, PLAIN | BESIDE)]
    return [entry for entry in unknown if any(has_pictures(Path(inner.path)) for inner in subfolders(entry))]


def _splits_of(speaking: Mapping[Path, FolderName], places: Mapping[Path, Path]) -> dict[Path, str]:
    """The split of each folder that is one: its name says no more than that, or it has a fellow of another split that
    is named alike (`seg_train`, `seg_test`) or holds the same classes."""
    splits = {about.split for about in speaking.values()}
    spare = "val" if "test" in splits else "test"

    def fellows(one: Path, other: Path) -> bool:
        mine, its = speaking[one], speaking[other]
        return mine.split != its.split and (
            mine.rest == its.rest or alike(names_in(places[one]), names_in(places[other]))
        )

    return {
        entry: spare if about.split == "eval" else about.split
        for entry, about in speaking.items()
        if not about.rest or any(fellows(entry, other) for other in speaking)
    }


def _flat(speaking: Mapping[Path, FolderName]) -> str:
    """What is known of folders that are named like the training split and have no class folders."""
    flat = [entry for entry, about in speaking.items() if about.split == "train" and _place(entry) is None]
    return "".join(f"; {entry.name}/ holds {content(entry)} but no class folders" for entry in flat)
