"""Data sets from the network: checked against a checksum, unpacked safely, and there whole or not at all."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tlx.core.errors import RequestError, reason
from tlx.core.http_download import making, probe, transfer
from tlx.core.safe_archive import Refused, checksum, content_digest, unpack

__all__ = ["Archive", "home", "obtain", "pending"]


def home() -> Path:
    """Where tlx keeps what it fetches: `TLX_HOME`, or `tlx` in the user's cache directory."""
    if given := os.environ.get("TLX_HOME"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "tlx"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tlx"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlx"


@dataclass(frozen=True)
class Archive:
    """A data set's official archive.

    `urls`: the same file at one or more hosts, tried in order. `checksum`: `md5:…` or `sha256:…` of the file.
    `size`, `unpacked`: bytes at most. `folder`: the folder inside that is taken. `to`: where it goes below the data
    set's folder. `content`: `content_digest` of it; an archive that was packed anew is accepted by that. `licence`:
    under which its files may be used, or who says so.
    """

    urls: Sequence[str]
    checksum: str
    size: int
    unpacked: int
    folder: str
    to: str = ""
    content: str | None = None
    licence: str = "see its page"

    @property
    def file(self) -> str:
        """The archive's file name."""
        return PurePosixPath(urlsplit(self.urls[0]).path).name


def obtain(archive: Archive, target: Path, *, offline: bool) -> None:
    """Makes the folder `target` from the archive, which may already lie beside it; else it is downloaded.

    Raises `RequestError` within 3 seconds where no host can be reached; nothing is left behind then.
    """
    if os.path.isdir(target):
        return
    by_hand = target.parent / archive.file
    advice = (
        f"put the file at {by_hand}, or give the unpacked folder as dataset.root=… "
        "(dataset=shapes and dataset=image_folder need no download)"
    )
    sources: list[str | Path] = [by_hand]
    if not os.path.isfile(by_hand):
        if offline:
            raise RequestError(f"{archive.file} is not here and runtime.offline=true; from {archive.urls[0]}: {advice}")
        responses = probe(archive.urls)
        sources = [url for url, response in responses.items() if response.status is not None]
        if not sources:
            hosts = ", ".join(f"{url}: {response.refused}" for url, response in responses.items())
            raise RequestError(f"{archive.file} cannot be downloaded, no host answers ({hosts}): {advice}")
    reasons = []
    try:
        with making(target) as scratch:
            if target.is_dir():  # another process was faster
                return
            for source in sources:
                try:
                    os.replace(_unpacked(archive, _file(source, archive, scratch), scratch), target)
                    return
                except Refused as refused:
                    reasons.append(f"{source}: {refused}")
    except OSError as error:
        why = reason(error).lower()
        raise RequestError(f"{target}: cannot be written: {why}; set TLX_HOME to another folder") from error
    raise RequestError(f"{archive.file} cannot be had: {'; '.join(reasons)}: {advice}")


def _file(source: str | Path, archive: Archive, scratch: Path) -> Path:
    if isinstance(source, Path):
        return source
    return transfer(source, scratch / archive.file, expected=archive.size, limit=archive.size)


def _unpacked(archive: Archive, file: Path, scratch: Path) -> Path:
    target = scratch / "unpacked"
    shutil.rmtree(target, ignore_errors=True)  # of the source before
    try:
        expected, found = archive.checksum, checksum(file, archive.checksum.partition(":")[0])
    except OSError as error:  # one that lies there and may not be read
        raise Refused(f"it cannot be read: {reason(error).lower()}") from error
    if found != expected and archive.content is None:
        raise Refused(f"its checksum is {found}, not {expected}")
    unpack(file, target, folder=archive.folder, limit=archive.unpacked)
    if found != expected and content_digest(target) != archive.content:
        raise Refused(f"its checksum is {found}, not {expected}, and its content is another")
    return target


def pending(archive: Archive, target: Path) -> str | None:
    """What `obtain` would download, in a line, or None where nothing is missing. Asks no network."""
    if os.path.isdir(target) or os.path.isfile(target.parent / archive.file):
        return None
    return f"{archive.file} (up to {archive.size / 1e6:.0f} MB) from {archive.urls[0]} to {target}"
