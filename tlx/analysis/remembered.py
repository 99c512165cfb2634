"""Results of slow checks, kept on disk by the content that they are of: the next audit of it pays nothing."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError

Arrays = Mapping[str, NDArray[Any]]


def remembered(folder: Path | None, name: str, of: "tuple[bytes | str, ...]", make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, from a file where it was made before.

    Args:
        folder: None keeps nothing. A file that is damaged or cannot be written costs time, nothing else.
        name: of the check, with a number that changes where its result would be another.
        of: all that the result depends on.
    """
    if folder is None:
        return make()
    digest = hashlib.sha256()
    for part in of:
        content = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        digest.update(f"{len(content)}:".encode() + content)
    path = folder / f"{name}-{digest.hexdigest()[:32]}.npz"
    # Whatever a damaged file leads to: it is made anew.
    with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as known:
        return dict(known)
    made = make()
    with contextlib.suppress(RequestError, OSError), atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **made)  # type: ignore[arg-type]
    return made


def digest(numbers: NDArray[Any]) -> str:
    """Of all that is in an array, such as rows or groups that a result depends on."""
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def fingerprint(features: NDArray[np.floating]) -> str:
    """Of another network's features it is another one; a sample of the rows says so."""
    sample = np.ascontiguousarray(features[:: max(1, len(features) // 100)])
    return hashlib.sha256(f"{features.shape}".encode() + sample.tobytes()).hexdigest()
