"""Image folders: one sub-folder a class, perhaps below folders for the parts."""

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tlx.errors import RequestError, reason
from tlx.images import FileBytes, Images
from tlx.unpack import litter

# The usual spellings of the parts, in any case.
PARTS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")


def local(given: str) -> Path:
    """A path as it was typed, with the home for `~`.

    Raises:
        RequestError: it is a URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", given):
        raise RequestError(f"{given}: a URL; nothing is fetched here: download it and give the file's path")
    return Path(os.path.expanduser(given))


def run_folder(given: str) -> Path:
    """The folder of a run, or its `model/`, as it was typed.

    Raises:
        RequestError: there is no such folder.
    """
    folder = Path(os.path.expanduser(given))
    if not folder.is_dir():
        raise RequestError(f"{given}: no such folder; give a run's folder, as in outputs/<date>/<run>")
    return folder


def subfolders(folder: Path) -> list[os.DirEntry[str]]:
    """The sub-folders that are the person's, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if e.is_dir() and not litter(e.name)), key=lambda e: e.name)
    except OSError as error:
        raise _unreadable(error) from error


def parts_of(folder: Path, key: str) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """The folder of each part (the folder itself is the training part where it has no parts), and what is in none."""
    found: dict[str, Path] = {}
    others = []
    for entry in subfolders(folder):
        part = next((part for part, spellings in PARTS.items() if entry.name.lower() in spellings), None)
        # A part holds the classes' folders; a folder of images is a class, even where it is called "train".
        if part is None or not subfolders(Path(entry.path)):
            others.append(entry)
        elif part in found:
            raise RequestError(f"{key}: {found[part].name}/ and {entry.name}/ are both a {part} part; keep one")
        else:
            found[part] = Path(entry.path)
    if not found:
        return {"train": folder}, []
    if "train" not in found:
        raise RequestError(f"{key}: has {'/, '.join(p.name for p in found.values())}/ but no train/")
    skipped = [(entry.path, "beside the parts' folders: belongs to none") for entry in others]
    return {part: found[part] for part in PARTS if part in found}, skipped


def images_of(
    root: Path, place: Path, classes: Sequence[str], ignore: Sequence[str]
) -> tuple[Images, list[tuple[str, str]]]:
    """One part's images, and the files in it that are none of them."""
    skipped = [
        (str(file), "beside the classes' folders: belongs to none")
        for file in sorted(place.iterdir())
        if file.suffix.lower() in PICTURES and file.is_file() and not litter(file.name)
    ]
    files, labels = [], []
    for entry in subfolders(place):  # a part may lack a class
        label = classes.index(entry.name)
        for file in sorted(walk(entry.path)):
            if any(fnmatch.fnmatch(os.path.basename(file), pattern) for pattern in ignore):
                skipped.append((file, "known not to be an image of its class (dataset.ignore)"))
            else:
                files.append(file)
                labels.append(label)
    names = [Path(file).relative_to(root).as_posix() for file in files]
    return Images(files, labels, FileBytes(tuple(files)), names), skipped


def walk(folder: str) -> Iterator[str]:
    """The paths of all files below a folder but the system's own, through links too, each folder once.

    Raises:
        RequestError: a folder cannot be read.
    """
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not litter(name)]
        if real not in seen:
            yield from (os.path.join(place, name) for name in files if not litter(name))
        seen.add(real)


def _unreadable(error: OSError) -> RequestError:
    return RequestError(f"{error.filename}: cannot be read: {reason(error).lower()}")


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def no_classes(folder: Path, names: Sequence[str]) -> str:
    """Why a folder is not one of classes."""
    if names:
        inner = folder / names[0]
        hint = f" (did you mean dataset.root={inner}?)" if len(subfolders(inner)) > 1 else ""
        return f"{folder.name}/ has one class only, '{names[0]}'; two or more sub-folders are needed{hint}"
    pictures = sum(entry.suffix.lower() in PICTURES for entry in folder.iterdir())
    content = f"holds {pictures} images but no sub-folder" if pictures else "is empty: no sub-folder in it"
    return f"{content}; give a folder with one sub-folder of images a class, two or more"
