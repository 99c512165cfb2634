"""Data sets from the network: checked against a checksum, unpacked safely, and there whole or not at all."""

import contextlib
import http.client
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from tlx.errors import RequestError
from tlx.unpack import Refused, checksum, content_digest, copy, unpack

PROBE_SECONDS = 2.0  # to decide whether a host can be reached at all
STALL_SECONDS = 30.0  # without a byte, in a transfer that runs


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
    set's folder. `content`: `content_digest` of it; an archive that was packed anew is accepted by that.
    """

    urls: Sequence[str]
    checksum: str
    size: int
    unpacked: int
    folder: str
    to: str = ""
    content: str | None = None

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
    reachable: list[str] = []
    if not os.path.isfile(by_hand):
        if offline:
            raise RequestError(f"{archive.file} is not here and runtime.offline=true; from {archive.urls[0]}: {advice}")
        reachable = reached(archive.urls)
        if not reachable:
            hosts = ", ".join(archive.urls)
            raise RequestError(f"{archive.file} cannot be downloaded, no host answers ({hosts}): {advice}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(target.parent / f".{target.name}.lock"),
            tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch,
        ):
            if target.is_dir():  # another process was faster
                return
            reasons = []
            sources: list[str | Path] = [*reachable] or [by_hand]
            for source in sources:
                try:
                    file = source if isinstance(source, Path) else _download(source, archive, Path(scratch))
                    os.replace(_unpacked(archive, file, Path(scratch)), target)
                    return
                except Refused as refused:
                    reasons.append(f"{source}: {refused}")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RequestError(f"{target}: cannot be written: {reason}; set TLX_HOME to another folder") from error
    raise RequestError(f"{archive.file} cannot be had: {'; '.join(reasons)}: {advice}")


def _unpacked(archive: Archive, file: Path, scratch: Path) -> Path:
    target = scratch / "unpacked"
    shutil.rmtree(target, ignore_errors=True)  # of the source before
    expected, found = archive.checksum, checksum(file, archive.checksum.partition(":")[0])
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


def reached(urls: Sequence[str], seconds: float = PROBE_SECONDS) -> list[str]:
    """Those of `urls` whose host (or the proxy to it) takes a connection; decided after `seconds` at most.

    Each is asked in a thread of its own that nobody waits for: where packets are dropped, looking up a name alone
    can take a minute and cannot be interrupted.
    """
    answered: set[str] = set()

    def ask(url: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            socket.create_connection(_endpoint(url), timeout=seconds).close()
            answered.add(url)

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return [url for url in urls if url in answered]


def _endpoint(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _download(url: str, archive: Archive, folder: Path) -> Path:
    from rich.console import Console  # only where something is fetched
    from rich.progress import wrap_file

    target = folder / archive.file
    request = urllib.request.Request(url, headers={"User-Agent": "tlx"})
    try:
        response = urllib.request.urlopen(request, timeout=STALL_SECONDS)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise Refused(str(getattr(error, "reason", None) or error)) from error
    with response, target.open("wb") as out:
        length = int(response.headers.get("Content-Length") or 0)
        print(f"downloading {archive.file} ({(length or archive.size) / 1e6:.0f} MB) from {url}", file=sys.stderr)
        console = Console(stderr=True)
        body: Any = contextlib.nullcontext(response)
        if console.is_terminal:
            total = length or archive.size
            body = wrap_file(response, total, description=archive.file, console=console, transient=True)
        with body as stream:
            size = copy(stream, out, archive.size)
    if length and size != length:
        raise Refused(f"the connection ended after {size:,} of {length:,} bytes")
    return target
