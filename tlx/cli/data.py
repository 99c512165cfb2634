"""`python -m tlx data`: which data sets there are and which are here; `fetch` gets one, `verify` checks one."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tlx.cli import catalog
from tlx.config.instantiate import component
from tlx.core.disk_size import size
from tlx.core.errors import RequestError
from tlx.core.safe_archive import content_digest
from tlx.datasets.archives import home, obtain
from tlx.datasets.content_digests import Decoded
from tlx.datasets.images import Images
from tlx.datasets.readers import archive_of, folder_of
from tlx.datasets.splits import Parts

ACTIONS = ("fetch", "verify")
CHUNK = 1_024  # images that wait for the reading threads at once


def data(request: catalog.Request, to: str | None = None, config_dir: str | None = None) -> int:
    """Prints the list of data sets, or fetches or verifies those that are requested.

    `to`: a folder to put them in, to carry them to another machine; `config_dir`: a folder with YAML of the user's own.

    Returns:
        0, or 1 where an image cannot be read or the files are not the official ones.

    Raises:
        RequestError: no such data set, one that cannot be had or written.
    """
    if not request.action:
        return _list(config_dir)
    configs = [catalog.config_of([f"dataset={name}", *request.overrides], config_dir) for name in request.names]
    readers = dict(zip(request.names, (config.dataset.reader for config in configs), strict=True))
    if request.action == "verify":
        return max(_verify(name, reader) for name, reader in readers.items())
    for (name, reader), config in zip(readers.items(), configs, strict=True):
        _fetch(name, reader, to, offline=config.runtime.offline)
    return 0


def _list(config_dir: str | None) -> int:
    catalog.show_all("dataset", config_dir, _row)
    print(f"\nfetched to {home() / 'data'} (TLX_HOME)")
    return 0


def _row(choice: str, reader: Mapping[str, Any]) -> list[str]:
    folder = folder_of(reader)
    if folder is None:
        return ["drawn in memory: needs no file"]
    archive = archive_of(reader["archive"]) if reader.get("archive") else None
    rights = [f"licence: {archive.licence}; from {archive.urls[0]}" if archive else "licence: that of your own files"]
    if folder.is_dir():
        files = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
        return [f"here: {folder}, {len(files):,} files, {size(sum(files))}", *rights]
    if archive:
        return [f"not here; up to {size(archive.size)}: python -m tlx data fetch {choice}", *rights]
    if {"columns", "label"} & reader.keys():
        more = ", or dataset.name=<its name on the hub>" if "revision" in reader else ""
        return [f"not here: give dataset.root=<its file or files>{more}", *rights]
    return [f"not here: give dataset.root=<folder>, or put the images in {folder}", *rights]


def _fetch(choice: str, reader: Mapping[str, Any], to: str | None, *, offline: bool) -> None:
    folder = folder_of(reader)
    if folder is None:
        print(f"{choice}: drawn in memory, nothing to fetch")
        return
    if not reader.get("archive"):
        raise RequestError(
            f"{choice}: a folder of your own, which nobody can fetch; give dataset.root=<folder>, or put the images in "
            f"{home() / 'data' / reader['name']}"
        )
    archive = archive_of(reader["archive"])
    if to is None:
        obtain(archive, folder, offline=offline)
        print(f"{choice}: {folder}")
        return
    root = Path(os.path.expanduser(to)) / reader["name"]
    target = root / archive.to
    if folder.is_dir() and not target.is_dir():
        catalog.put(folder, target, to)
    else:
        obtain(archive, target, offline=offline)
    command = shlex.join(["python", "-m", "tlx", f"dataset={choice}", f"dataset.root={root.name}"])
    print(f"{choice}: {root}\n  on the other machine: {command}")


def _verify(choice: str, reader: dict[str, Any]) -> int:
    """Prints what is there, split by split and class by class, and every file that cannot be read; 1 for any."""
    folder = folder_of(reader)
    if folder is not None and not folder.is_dir() and reader["root"] is None:
        how = f"python -m tlx data fetch {choice}, or " if reader.get("archive") else ""
        raise RequestError(f"{choice}: is not here ({folder}): {how}give dataset.root=<folder>")
    parts: Parts = component(reader, "dataset", offline=True)()  # checks what it has checksums for
    print(f"{choice}: {parts.source}")
    for line in parts.notes:
        print(line)
    for path, why in parts.skipped:
        print(f"left out: {path}: {why}")
    sets = {name: images for name in ("train", "val", "test") if (images := getattr(parts, name)) is not None}
    unread = [bad for images in sets.values() for bad in _unreadable(images)]
    _table(parts.classes, sets)
    for path, why in unread:
        print(f"unreadable: {path}: {why}")
    total = sum(map(len, sets.values()))
    print(f"{total:,} images, {f'{len(unread):,} of them cannot be read' if unread else 'each can be read'}")
    same = _same(reader, folder)
    return 1 if unread or not same else 0


def _table(classes: Sequence[str], sets: Mapping[str, Images]) -> None:
    counts = {name: np.bincount(images.labels, minlength=len(classes)) for name, images in sets.items()}
    width = max(map(len, [*classes, "class"]))
    print(f"{'class':<{width}}" + "".join(f"{name:>9}" for name in sets))
    for label, name in enumerate(classes):
        print(f"{name:<{width}}" + "".join(f"{count[label]:>9,}" for count in counts.values()))


def _unreadable(images: Images) -> list[tuple[str, str]]:
    """(path, reason) of what cannot be decoded; decoded pixels are not cached."""

    def why(index: int) -> str | None:
        return images.store.check(int(images.rows[index]), Decoded(None))

    bad = []
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(images), CHUNK):
            if start and start % (10 * CHUNK) == 0:
                print(f"{start:,} of {len(images):,} images read", file=sys.stderr)
            rows = range(start, min(start + CHUNK, len(images)))
            bad += [(images.files[row], text) for row, text in zip(rows, threads.map(why, rows), strict=True) if text]
    return bad


def _same(reader: Mapping[str, Any], folder: Path | None) -> bool:
    """Whether the folder holds what its archive does, where the YAML has a digest of that; says so."""
    known = archive_of(reader["archive"]).content if reader.get("archive") else None
    if known is None or folder is None or not folder.is_dir():
        return True
    same = content_digest(folder) == known
    print(
        "checksum: the official files" if same else f"checksum: not the official files (sha256 over all: not {known})"
    )
    return same


SUBCOMMAND = catalog.subcommand("data", "list data sets, fetch and verify them", "data sets", ACTIONS, data)
