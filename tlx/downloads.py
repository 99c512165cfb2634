"""One file of weights from the network: whether it can be had is known in two seconds; it is there whole or not."""

import contextlib
import functools
import hashlib
import http.client
import logging
import os
import re
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from filelock import FileLock

from tlx.errors import RequestError

__all__ = ["PROBE_SECONDS", "download", "intact", "megabytes", "reason", "size_at", "unavailable"]

log = logging.getLogger(__name__)
PROBE_SECONDS = 2.0  # to decide whether the file can be had at all
STALL_SECONDS = 30.0  # without a byte, in a transfer that runs
SAID_EVERY = 10.0  # seconds between two lines about a long transfer


def download(url: str, target: Path) -> Path:
    """Fetches `url` to `target`, checked against the size and the sha256 digits in its name; one line says so.

    Raises:
        RequestError: it cannot be reached (within `PROBE_SECONDS`), breaks off, is another file, or cannot be written.
    """
    try:
        size = size_at(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):  # the jobs of a sweep fetch it once
            if not (target.is_file() and intact(target)):
                log.info("fetching %s (%s) from %s to %s", target.name, megabytes(size), url, target.parent)
                _fetch(url, target)
    except (urllib.error.URLError, TimeoutError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise unavailable(target.name, url, f"put it into {target.parent}", reason(error)) from error
    except OSError as error:
        raise RequestError(f"{target}: cannot be written ({reason(error)}); TORCH_HOME names another folder") from error
    return target


def unavailable(file: str, url: str, remedy: str, why: str) -> RequestError:
    """The error for weights that are not here and cannot be had."""
    return RequestError(
        f"backbone.weights=imagenet: {file} is not here and cannot be fetched ({why}): get {url} and {remedy}, "
        "or give its path as backbone.weights; backbone=efficientnet_lite0 needs no download"
    )


def size_at(url: str) -> int:
    """Bytes of the file at `url`, 0 where the server does not say.

    Asked in a thread that is given up after `PROBE_SECONDS`: where packets are dropped, looking up the host's name
    alone can take a minute, and cannot be interrupted.

    Raises:
        OSError: no answer in time, or an error as the answer.
    """
    outcome: list[int | OSError] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS) as answer:
                outcome.append(int(answer.headers.get("Content-Length") or 0))
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            outcome.append(error)
        except (ValueError, http.client.HTTPException) as error:
            outcome.append(urllib.error.URLError(f"no valid answer: {error}"))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {PROBE_SECONDS:g} s")
    if isinstance(outcome[0], OSError):
        raise outcome[0] if isinstance(outcome[0], urllib.error.URLError) else urllib.error.URLError(outcome[0])
    return outcome[0]


def intact(path: Path) -> bool:
    """Whether the file's sha256 begins with the digits in its name (`resnet18-f37072fd.pth`); True without any."""
    digits = _digits(path)
    found = path.stat()
    return digits is None or _sha256(path, found.st_size, found.st_mtime_ns).startswith(digits)


def reason(error: OSError) -> str:
    """Why, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    words = str(getattr(inner, "strerror", None) or inner).splitlines()
    return words[0] if words else type(inner).__name__


def megabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e6:.0f} MB" if size else "size unknown"


def _digits(path: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return match.group(1) if match else None


@functools.lru_cache(maxsize=16)  # a run asks twice: before torch is imported, and when it loads
def _sha256(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(url: str, target: Path) -> None:
    """Writes under a temporary name, which neither a failure nor Ctrl-C leaves behind, and checks before renaming."""
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=STALL_SECONDS) as answer:
            said, at = time.monotonic(), 0
            while chunk := _chunk(answer):
                file.write(chunk)
                digest.update(chunk)
                at += len(chunk)
                if time.monotonic() - said > SAID_EVERY:
                    said = time.monotonic()
                    log.info("%s: %s so far", target.name, megabytes(at))
            whole = int(answer.headers.get("Content-Length") or at)
        if at != whole:
            raise urllib.error.URLError(f"the connection ended after {at:,} of {whole:,} bytes")
        digits = _digits(target)
        if digits and not digest.hexdigest().startswith(digits):
            raise urllib.error.URLError(f"what came is another file: sha256 {digest.hexdigest()[:8]}…, not {digits}…")
        partial.chmod(0o644)  # mkstemp's 0600 would hide it from those who share the cache
        os.replace(partial, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _chunk(answer: Any) -> bytes:
    try:
        return bytes(answer.read(1 << 20))
    except (OSError, http.client.HTTPException) as error:  # told apart from a disk that is full
        raise urllib.error.URLError(f"the connection broke: {error}") from error
