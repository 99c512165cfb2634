"""Images that are left out of train and val on request: copies, and those of a list. Never one of the test set."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tlx.core.errors import RequestError, precomposed, printable, reason
from tlx.datasets.images import Images

if TYPE_CHECKING:
    from tlx.config.dataset_schema import DatasetConfig

Keys = Callable[[Images], Sequence[Any]]  # of each image; equal for copies
SHOWN = 3  # names in a line


def without_requested(
    sets: Mapping[str, Images], common: "DatasetConfig", keys: Keys
) -> tuple[dict[str, Images], list[str]]:
    """The sets without what `exclude` and `drop_duplicates` leave out, and what is said of that."""
    result, said = dict(sets), list[str]()
    if common.exclude is not None:
        result, said = without_listed(result, common.exclude)
    if common.drop_duplicates:
        result, more = without_copies(result, keys)
        said += more
    return result, said


def without_listed(sets: Mapping[str, Images], file: str) -> tuple[dict[str, Images], list[str]]:
    """The sets without the images of a list, and what is said of it.

    `file`: a path a line, as below the data set's folder or absolute; a line in double quotes is JSON; `#` begins a
    comment. Raises `RequestError` where it cannot be read, names no image, or all of a split.
    """
    key = f"dataset.exclude={file}"
    wanted = dict.fromkeys(_paths(file, key))
    if not wanted:
        raise RequestError(f"{key}: names no image; give a path a line, as `python -m tlx audit … --list FILE` does")
    result, counts, found = dict[str, Images](), dict[str, int](), set[str]()
    for split, images in sets.items():
        rows = [row for row in range(len(images)) if _names(images, row) & wanted.keys()]
        counts[split] = len(rows)
        found.update(name for row in rows for name in _names(images, row))
        listed = set(rows if split != "test" else ())
        result[split] = images.subset(row for row in range(len(images)) if row not in listed) if listed else images
        if len(images) and not len(result[split]):
            raise RequestError(f"{key}: leaves no {split} image")
    out = ", ".join(f"{counts[split]:,} {split}" for split in sets if split != "test")
    line = f"exclude: {out} images are left out, as {printable(os.path.basename(file))} says"
    if counts.get("test"):
        line += f"; {counts['test']:,} of its paths are test images, which stay"
    if unknown := [path for path in wanted if path not in found]:
        more = ", …" if len(unknown) > SHOWN else ""
        line += f"; {len(unknown):,} are not in the data set ({printable(', '.join(unknown[:SHOWN]))}{more})"
    return result, [line]


def without_copies(sets: Mapping[str, Images], keys: Keys) -> tuple[dict[str, Images], list[str]]:
    """The sets without copies in train, and what is said of it.

    Of equal images of train the first by name stays; none does that is also in val or test, nor where the labels of
    equal ones differ, as nobody knows which is right.
    """
    train = sets["train"]
    held_out = {key for split, images in sets.items() if split != "train" for key in keys(images)}
    of, labels = keys(train), dict[Any, set[int]]()
    for key, label in zip(of, train.labels.tolist(), strict=True):
        labels.setdefault(key, set()).add(label)
    first, kept, counts = set[Any](), set[int](), [0, 0, 0]
    for row in sorted(range(len(train)), key=train.names.__getitem__):
        if of[row] in held_out:
            counts[0] += 1
        elif len(labels[of[row]]) > 1:
            counts[1] += 1
        elif of[row] in first:
            counts[2] += 1
        else:
            first.add(of[row])
            kept.add(row)
    words = ("copies of val or test images", "under several labels", "copies of train images")
    said = ", ".join(f"{number:,} {what}" for number, what in zip(counts, words, strict=True) if number)
    if not said:
        return dict(sets), ["drop_duplicates: train has no copies"]
    line = f"drop_duplicates: {sum(counts):,} of {len(train):,} train images are left out: {said}; none of val and test"
    return {**sets, "train": train.subset(row for row in range(len(train)) if row in kept)}, [line]


def _paths(file: str, key: str) -> Iterator[str]:
    try:
        text = Path(os.path.expanduser(file)).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise RequestError(f"{key}: cannot be read: {reason(error).lower()}") from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            path = str(json.loads(line)) if line.startswith('"') else line
        except json.JSONDecodeError as error:
            raise RequestError(f'{key}: line {number}: begins with " and is no JSON ({error.msg})') from error
        path = path.replace("\\", "/") if "/" not in path else path
        yield precomposed(os.path.normpath(os.path.expanduser(path)).replace(os.sep, "/"))


def _names(images: Images, row: int) -> set[str]:
    """What an image may be called in a list: by its path below the data set's folder, or by its whole one."""
    whole = os.path.abspath(images.files[row]) if os.path.isabs(images.files[row]) else images.files[row]
    return {images.names[row], precomposed(PurePosixPath(whole.replace(os.sep, "/")).as_posix())}


def listed_line(path: str) -> str:
    """A path as a line of such a list."""
    plain = path == path.strip() and path.isprintable() and path[:1] not in ('"', "#")
    return path if plain else json.dumps(path)
