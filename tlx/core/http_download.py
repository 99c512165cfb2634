"""Files from the network: whether they can be had is known in two seconds; they are there whole or not at all."""

import contextlib
import functools
import http.client
import os
import re
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from tlx.core.errors import reason
from tlx.core.safe_archive import Refused, checksum, copy

__all__ = ["PROBE_SECONDS", "Response", "announce", "download", "intact", "making", "probe", "transfer"]

PROBE_SECONDS = 2.0  # to decide whether a file can be had at all
STALL_SECONDS = 30.0  # without a byte, in a transfer that runs
SAID_EVERY = 10.0  # seconds between two lines about a long transfer
MAX_BYTES = 20_000_000_000  # of a file whose size nobody has said


@dataclass(frozen=True)
class Response:
    """What a host says when a file is requested.

    `status`: of HTTP, None where none came. `size`: bytes, 0 where the host does not say. `refused`: why the
    file cannot be had; empty where it can.
    """

    status: int | None
    size: int = 0
    refused: str = ""


def probe(urls: Sequence[str], seconds: float = PROBE_SECONDS) -> dict[str, Response]:
    """What the host of each of `urls` (or the proxy to it) says; decided after `seconds`.

    Each is requested in a thread of its own that is given up then: where packets are dropped, looking up a name alone
    can take a minute and cannot be interrupted, and a proxy may take the connection and say nothing.
    """
    responses: dict[str, Response] = {}

    def ask(url: str) -> None:
        try:
            with _opened(url, seconds, "HEAD") as response:
                responses[url] = Response(response.status or 200, _length(response))
        except (OSError, ValueError, http.client.HTTPException) as error:
            status = error.code if isinstance(error, urllib.error.HTTPError) else None
            responses[url] = Response(status, refused=_why(error))

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    silent = Response(None, refused=f"no answer within {seconds:g} s")
    return {url: responses.get(url, silent) for url in urls}


def download(url: str, target: Path, response: Response | None = None) -> None:
    """Fetches `url` to `target`, checked against the size and the sha256 digits in its name; jobs fetch it once.

    `response`: what the host said, where it has been tried already.

    Raises:
        Refused: it cannot be reached (within `PROBE_SECONDS`), breaks off, or is another file.
        OSError: it cannot be written.
    """
    response = response or probe([url])[url]
    if response.refused and response.status not in (405, 501):  # hosts that answer no HEAD may answer GET
        raise Refused(response.refused)
    with making(target) as scratch:
        if target.is_file() and intact(target):  # another process was faster
            return
        file = transfer(url, scratch / target.name, expected=response.size)
        if not intact(file):
            found = checksum(file, "sha256").partition(":")[2]
            raise Refused(f"the downloaded file is a different one: sha256 {found[:8]}…, not {_digits(file)}…")
        os.replace(file, target)


@contextlib.contextmanager
def making(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, which is gone afterwards; one process at a time is given it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}."
    with (
        FileLock(target.with_name(f"{prefix}lock")),
        tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as scratch,
    ):
        yield Path(scratch)


def transfer(url: str, target: Path, *, expected: int = 0, limit: int = MAX_BYTES) -> Path:
    """Fetches `url` to the new file `target`, says so in one line, and shows how far it is.

    `expected`: bytes, for what is shown where the host does not say. `limit`: bytes at most.

    Raises:
        Refused: the host refuses it, nothing comes for `STALL_SECONDS`, it breaks off or is larger.
        OSError: it cannot be written.
    """
    from rich.console import Console  # only where something is fetched
    from rich.progress import wrap_file

    try:
        response = _opened(url, STALL_SECONDS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Refused(_why(error)) from error
    with response, target.open("wb") as out:
        length = _length(response)
        announce(target.name, length or expected, url)
        console = Console(stderr=True)
        body: Any = contextlib.nullcontext(_LoggedStream(response, target.name))
        if console.is_terminal:
            total = length or expected
            body = wrap_file(response, total, description=target.name, console=console, transient=True)
        with body as stream:
            size = copy(stream, out, limit)
    if length and size != length:
        raise Refused(f"the connection ended after {size:,} of {length:,} bytes")
    return target


def announce(name: str, size: int, url: str) -> None:
    """The line that says what is fetched, how large it is and from where."""
    print(f"downloading {name} ({f'{size / 1e6:.0f} MB' if size else 'size unknown'}) from {url}", file=sys.stderr)


def intact(path: Path) -> bool:
    """Whether the file's sha256 begins with the digits in its name (`resnet18-f37072fd.pth`); True without any.

    The Hugging Face cache links to files whose whole name is their sha256.
    """
    digits = _digits(path) or _digits(path.resolve())
    found = path.stat()
    return digits is None or _sha256(path, found.st_size, found.st_mtime_ns).startswith(f"sha256:{digits}")


class _LoggedStream:
    """A stream that says every ten seconds how much of it has been read: where there is no terminal for a bar."""

    def __init__(self, source: IO[bytes], name: str) -> None:
        self.source, self.name, self.at, self.said = source, name, 0, time.monotonic()

    def read(self, size: int) -> bytes:
        block = self.source.read(size)
        self.at += len(block)
        if time.monotonic() - self.said > SAID_EVERY:
            self.said = time.monotonic()
            print(f"{self.name}: {self.at / 1e6:.0f} MB so far", file=sys.stderr)
        return block


def _opened(url: str, seconds: float, method: str = "GET") -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "tlx"}, method=method)
    return urllib.request.build_opener().open(request, timeout=seconds)  # urlopen keeps the first call's proxies


def _length(response: Any) -> int:
    said = response.headers.get("Content-Length") or ""
    return int(said) if said.isdecimal() else 0


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        return f"HTTP {error.code} {error.reason}"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return reason(inner) if isinstance(inner, BaseException) else str(inner)


def _digits(path: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8,})\.", path.name) or re.fullmatch(r"([0-9a-f]{64})", path.name)
    return match.group(1) if match else None


@functools.lru_cache(maxsize=16)  # a run asks twice: before torch is imported, and when it loads
def _sha256(path: Path, _size: int, _changed: int) -> str:
    return checksum(path, "sha256")
