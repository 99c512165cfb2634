"""Folders of a data set that mislead: hidden ones, links in a circle, closed ones, odd names. No image is read."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.analysis.finding import Finding, number_of
from tlx.datasets.folder_layout import circle, has_pictures

if TYPE_CHECKING:
    from tlx.analysis.audit_data import AuditData


def check(data: "AuditData") -> Iterator[Finding]:
    """What `of_folders` finds below the data set's folder, where it is one."""
    if data.root is not None:
        yield from of_folders(data.root, [path for kind, path, _ in data.faults if kind == "closed"])


def of_folders(root: Path, closed: list[str]) -> Iterator[Finding]:
    """Folders of the data set that no reader looks into, or that lead in a circle; `closed` are known already."""
    hidden, loops, odd = list[str](), list[str](), list[str]()
    for place, folders, files in os.walk(root, onerror=lambda error: closed.append(str(error.filename))):
        for name in sorted(folders):
            path = os.path.join(place, name)
            if circle(place, name):
                loops.append(path)
            elif name.startswith(".") and _pictures_below(path):
                hidden.append(path)
        folders[:] = [name for name in folders if not name.startswith(".")]
        odd += [os.path.join(place, name) for name in (*folders, *files) if any(map(_breaks, name))]
        if os.name == "posix" and place != str(root) and not os.stat(place).st_mode & stat.S_IRUSR:
            closed.append(place)
    for kind, severity, paths, of, says, remedy in (
        ("hidden_folder", "warning", hidden, ("hidden folder", ""), "with images, not read", "rename or remove them"),
        ("link_loop", "warning", loops, ("link", ""), "back to a folder that holds it, not followed", "remove them"),
        ("closed_folder", "error", closed, ("folder", ""), "that may not be read", "chmod u+rx"),
        ("odd_name", "note", odd, ("file or folder", "files or folders"), "with a line break or a control character in "
         "the name; lists of files break there", "rename them"),
    ):  # fmt: skip
        if paths:
            files_of = tuple((path,) for path in sorted(set(paths)))
            said = f"{number_of(len(files_of), *of)} {says}"
            yield Finding(kind, severity, said, files_of, len(files_of), remedy=remedy)  # type: ignore[arg-type]


def _pictures_below(folder: str) -> bool:
    return any(has_pictures(Path(place)) for place, _, _ in os.walk(folder))


def _breaks(character: str) -> bool:
    return ord(character) < 32 or ord(character) == 127
