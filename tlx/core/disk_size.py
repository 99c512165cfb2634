"""How many bytes files take, and a number of bytes in words."""

import os
from pathlib import Path

__all__ = ["bytes_of", "size"]


def bytes_of(path: Path) -> int:
    """Of a file, or of all files below a folder; links are not followed, and what vanishes meanwhile counts nothing."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            return sum(bytes_of(Path(entry)) for entry in entries)
    except OSError:
        return 0


def size(count: int) -> str:
    """A number of bytes in words."""
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"
