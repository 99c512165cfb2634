"""Files that are whole or absent, and what is said where one cannot be written."""

import contextlib
import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.core.errors import RequestError

if TYPE_CHECKING:
    pass


# What the system says of a full disk.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # the names of the folders that `atomic` makes, with the file's own

PLACE = "output=…"  # what says where a run's files are


@contextlib.contextmanager
def atomic(path: Path, place: str = PLACE) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and vanishes when it does not.

    For a file or a folder. A full disk is a RequestError that names the path. `place`: what is typed for another path.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)) / path.name
    except OSError as error:
        raise unwritable(path, error, place) from error
    try:
        yield temporary
        if path.is_dir() and temporary.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    except BrokenPipeError:  # of what is written beside it
        raise
    except OSError as error:
        raise unwritable(path, error, place) from error
    finally:
        shutil.rmtree(temporary.parent, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Removes what `atomic` has left in `folder` for processes that were killed; nobody may be writing there."""
    for temporary in folder.glob(".*.????????"):
        if is_temporary(temporary):
            shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(folder: Path) -> bool:
    """Whether `atomic` has made a folder: by its name, and by its content, which is nothing or what it is to write."""
    named = TEMPORARY.fullmatch(folder.name)
    if named is None or folder.is_symlink() or not folder.is_dir():
        return False
    with contextlib.suppress(OSError):  # it cannot be read, or has vanished
        return {entry.name for entry in folder.iterdir()} <= {named[1]}
    return False


def unwritable(path: Path, error: OSError, place: str = PLACE) -> RequestError:
    """What to say when `path` cannot be written: disk full, no permission, a file in the way."""
    full = error.errno in (None, *FULL)
    advice = "free some space, or take another place" if full else f"take another place ({place})"
    return RequestError(f"cannot write {path}: {error.strerror or error}; {advice}")
