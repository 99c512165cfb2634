"""A folder for what a request finds, known by a hash of the request: the same request goes on with it."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic, unwritable
from tlx.core.errors import RequestError
from tlx.runs.output_layout import new_folder

__all__ = ["check_name", "hashed", "opened"]
VERSION = 1


def check_name(name: str | None) -> None:
    """Raises `RequestError` where `--name` is no folder's name."""
    if name is not None and not re.fullmatch(r"[\w+-][\w .+-]*", name):
        raise RequestError(f"--name {name}: must be a folder's name: letters, digits, spaces, dots, +, - and _")


def hashed(*parts: Any) -> str:
    """A hash of what a request is known by."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def opened(above: Path, about: str, what: str, name: str | None, key: str, command: str) -> Path:
    """The folder below `above` with this key, made where there is none.

    Args:
        about: the file in it that holds the key.
        what: it holds, in words: `a recommendation`.
        name: of the folder; None: the newest one with the key, or date and time.

    Raises:
        RequestError: the folder of that name holds another one, or cannot be written.
    """
    if name is None:
        same = [file.parent for file in sorted(above.glob(f"*/{about}")) if _about(file).get("key") == key]
        folder = same[-1] if same else new_folder(above / time.strftime("%Y-%m-%d-%H-%M-%S"))
    else:
        folder = above / name
    file = folder / about
    if file.is_file():
        if _about(file).get("key") != key:
            raise RequestError(
                f"--name {folder.name}: holds {what} for other images or settings; take another name, or remove "
                f"{folder}"
            )
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if name is not None and any(folder.iterdir()):
            raise RequestError(f"--name {name}: {folder} holds something else; take another name")
    except OSError as error:
        raise unwritable(folder, error, "--name") from error
    with atomic(file) as path:
        path.write_text(json.dumps({"version": VERSION, "key": key, "command": command}, indent=1), encoding="utf-8")
    return folder


def _about(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
