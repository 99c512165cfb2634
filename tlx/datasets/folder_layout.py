"""Image folders: one sub-folder per class, perhaps below folders for the parts."""

import fnmatch
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tlx.core.errors import RequestError, empty, precomposed, reason, recovered
from tlx.core.safe_archive import Refused, litter
from tlx.datasets.archive_index import ArchiveIndex, inside
from tlx.datasets.file_kinds import is_image
from tlx.datasets.image_sources import files_bytes
from tlx.datasets.images import Images

# Files in which people keep labels.
TABLES = re.compile(r".*\.(csv|tsv|xlsx?|parquet|jsonl?)|.*(label|annot|class|train|test|val).*\.txt", re.IGNORECASE)
SHARED = 0.5  # of the sub-folders' names of one folder that another one has, too: they hold the same classes
MOST = 4  # names in a message
Faults = list[tuple[str, str, str]]  # kind, path, message of what an audit lists, and all else refuses


def local(given: str) -> Path:
    """A path as it was typed, with the home for `~`.

    Raises:
        RequestError: it is empty, or a URL.
    """
    if not given.strip():
        raise empty("path")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", given):
        raise RequestError(f"{given}: a URL; nothing is fetched here: download it and give the file's path")
    return existing(os.path.expanduser(given))


def existing(path: str) -> Path:
    """A path, or the one that is there and differs only in how its accents are written (NFC, NFD)."""
    forms = (path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD") if not path.isascii()))
    return Path(next(filter(os.path.lexists, forms), path))


def class_name(folder: str) -> str:
    """What the class in a folder of that name is called, whatever the system and its way of writing accents."""
    return precomposed(recovered(folder))


class SubFolder(NamedTuple):
    """A folder within another one."""

    name: str
    path: str


def within_archive(folder: str | Path) -> tuple[ArchiveIndex, str] | None:
    """The archive in which a folder lies, and its path there; None for a folder of the system's.

    Raises:
        RequestError: the archive cannot be read in place.
    """
    if os.path.isdir(folder):
        return None
    try:
        found = inside(folder)
    except Refused as refused:
        raise RequestError(f"{folder}: {refused}") from refused
    except OSError as error:
        raise _unreadable(error) from error
    return found if found is not None and found[1] in found[0].folders else None


def is_folder(path: Path) -> bool:
    """Whether it is a folder, of the system's or in an archive."""
    return path.is_dir() or within_archive(path) is not None


def subfolders(folder: Path) -> list[SubFolder]:
    """The sub-folders that are the person's, by name."""
    if archived := within_archive(folder):
        names = sorted(archived[0].folders[archived[1]][0])
        return [SubFolder(name, os.path.join(folder, name)) for name in names]
    try:
        with os.scandir(folder) as entries:
            found = [SubFolder(e.name, e.path) for e in entries if _is_folder(e) and not litter(e.name)]
        return sorted(found)
    except OSError as error:
        raise _unreadable(error) from error


def files_in(folder: Path) -> list[str]:
    """The names of the files of a folder that are the person's, sorted."""
    if archived := within_archive(folder):
        return sorted(archived[0].folders[archived[1]][1])
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not _is_folder(entry) and not litter(entry.name))
    except OSError as error:
        raise _unreadable(error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def tables(folder: Path) -> list[str]:
    """The names of the files of a folder that may hold labels."""
    return [name for name in files_in(folder) if TABLES.fullmatch(name)]


def names_in(folder: Path) -> set[str]:
    """The names of the sub-folders that are the person's."""
    return {entry.name for entry in subfolders(folder)}


def pictures(folder: Path) -> int:
    """How many images lie in a folder itself."""
    return sum(is_image(folder / name) for name in files_in(folder))


def has_pictures(folder: Path) -> bool:
    """Whether any image lies in a folder itself; it is looked for no further than that."""
    return any(is_image(folder / name) for name in files_in(folder))


def content(folder: Path) -> str:
    """How many images lie in a folder itself, in words."""
    number = pictures(folder)
    return f"{number} image{'' if number == 1 else 's'}"


def alike(one: set[str], other: set[str]) -> bool:
    """Whether two sets of names are those of the same classes: two or more in all, and half of the fewer shared."""
    fewer = min(len(one), len(other))
    return bool(fewer) and len(one | other) > 1 and len(one & other) >= max(1, SHARED * fewer)


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")


def images_of(
    root: Path, place: Path, classes: Sequence[str], ignore: Sequence[str], faults: Faults | None = None
) -> tuple[Images, list[tuple[str, str]]]:
    """One part's images, and the files in it that are none of them. `faults`: takes the folders that cannot be read,
    which are an error without."""
    closed = _refuse if faults is None else lambda error: faults.append(("closed", error.filename, reason(error)))
    skipped = [
        (str(place / name), "beside the classes' folders: belongs to none")
        for name in files_in(place)
        if is_image(place / name)
    ]
    files, labels = [], []
    for entry in sorted(subfolders(place), key=lambda entry: class_name(entry.name)):  # a part may lack a class
        label = classes.index(class_name(entry.name))
        for file in sorted(walk(entry.path, closed), key=precomposed):
            if any(fnmatch.fnmatch(os.path.basename(file), pattern) for pattern in ignore):
                skipped.append((file, "known not to be an image of its class (dataset.ignore)"))
            else:
                files.append(file)
                labels.append(label)
    names = [precomposed(Path(file).relative_to(root).as_posix()) for file in files]
    return Images(files, labels, files_bytes(root, files), names), skipped


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def walk(folder: str, closed: Callable[[OSError], None] = _refuse) -> Iterator[str]:
    """The paths of all files below a folder but the system's own, through links too, each folder once.

    A link back to a folder that holds it is not followed: other classes' images would be this one's.

    `closed`: takes the error of a folder that cannot be read; by default it raises a `RequestError`.
    """
    if archived := within_archive(folder):
        index, above = archived
        yield from (os.path.join(folder, name) for name in sorted(index.folders[above][1]))
        for name in sorted(index.folders[above][0]):
            yield from walk(os.path.join(folder, name))
        return
    seen = set()
    for place, folders, files in os.walk(folder, onerror=closed, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not litter(name) and not circle(place, name)]
        if real not in seen:
            yield from (os.path.join(place, name) for name in files if not litter(name))
        seen.add(real)


def circle(place: str, name: str) -> bool:
    """Whether what is called so in a folder is a link back to a folder that holds it."""
    path = os.path.join(place, name)
    return os.path.islink(path) and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(path))


def _unreadable(error: OSError) -> RequestError:
    return RequestError(f"{error.filename}: cannot be read: {reason(error).lower()}")


def refuse(faults: Faults | None, key: str, kind: str, path: Path, message: str) -> None:
    """Lists a fault of a data set for an audit, or raises it as a `RequestError` where there is none."""
    if faults is None:
        raise RequestError(f"{key}: {message}")
    faults.append((kind, str(path), message))


def no_classes(folder: Path, names: Sequence[str]) -> str:
    """Why a folder is not one of classes."""
    lists = ", ".join(tables(folder)[:3])
    unread = f"; dataset=csv reads labels from a table ({lists})" if lists else ""
    if names:
        inner = folder / names[0]
        while len(below := subfolders(inner)) == 1:
            inner = inner / below[0].name
        hint = f" (did you mean dataset.root={inner}?)" if len(subfolders(inner)) > 1 else ""
        return f"{folder.name}/ has one class only, '{names[0]}'{unread}; two or more sub-folders are needed{hint}"
    found = pictures(folder)
    seen = f"holds {found} images but no sub-folder" if found else "is empty: no sub-folder in it"
    return f"{seen}{unread}; give a folder with one sub-folder of images per class, two or more"
