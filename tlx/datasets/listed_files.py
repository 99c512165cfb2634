"""The files that a table lists: where each is, and what it is called whatever place it lies in."""

import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tlx.core.errors import RequestError, nearest, precomposed, printable
from tlx.datasets.folder_layout import existing, subfolders
from tlx.datasets.table_columns import cell_text


class ListedFiles:
    """Finds files by what a table calls them: relative to a folder, or absolute.

    Paths of Windows are taken with `/`; a name without an ending (an id) stands for the one file that has it with one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = dict[str, dict[str, list[str]]]()  # of each folder: name without its ending → names
        self.completed = 0  # ids for which a file was found

    def find(self, cell: Any) -> tuple[str, str]:
        """(path, name) of the file that a cell means; the name is the path below the folder.

        Raises:
            RequestError: there is none; the message begins with what is in the cell.
        """
        text = cell if isinstance(cell, str) else cell_text(cell)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            raise RequestError(f"{printable(text)}: is a URL; nothing is fetched: download it and give the file's path")
        for form in dict.fromkeys((text, text.strip(), text.strip().replace("\\", "/"))):
            path = existing(os.path.join(self.folder, form))
            if path.is_file():
                return str(path), self._name(form)
        if path.is_dir():
            raise RequestError(f"{printable(text)}: is a folder, not an image")
        same = self._alike(path)
        if len(same) == 1:
            self.completed += 1
            return str(path.with_name(same[0])), self._name(posixpath.join(posixpath.dirname(form), same[0]))
        if same:
            raise RequestError(f"{printable(text)}: stands for several files: {', '.join(map(printable, same))}")
        near = nearest(path.name, [name for names in self._in(path.parent).values() for name in names])
        raise RequestError(f"{printable(text)}: no such file in {printable(str(self.folder))}{near}")

    def _name(self, form: str) -> str:
        if os.path.isabs(form) and PurePosixPath(form).is_relative_to(self.folder):
            form = PurePosixPath(form).relative_to(self.folder).as_posix()
        return precomposed(posixpath.normpath(form))

    def _alike(self, path: Path) -> Sequence[str]:
        """The files that are called as the path, with an ending more."""
        return self._in(path.parent).get(path.name, ())

    def _in(self, folder: Path) -> dict[str, list[str]]:
        known = self._names.get(str(folder))
        if known is None:
            known = self._names[str(folder)] = {}
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
                known.setdefault(os.path.splitext(name)[0], []).append(name)
        return known


def elsewhere(cell: Any, folder: Path, key: str) -> str:
    """A hint at the folder below in which a file lies that was not found; empty for none. `key`: names a folder."""
    below = [Path(entry.path) for entry in subfolders(folder)]
    text = str(cell).strip().replace("\\", "/")
    inside = [place for place in below if not os.path.isabs(text) and os.path.isfile(place / text)]
    return f" (did you mean {key}={inside[0]}?)" if inside else ""
