"""Where recommendations lie, and which of them a request goes on with."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from tlx.config.identity import results
from tlx.config.schema import Config
from tlx.core.atomic_files import atomic, unwritable
from tlx.core.errors import RequestError
from tlx.runs.output_layout import new_folder
from tlx.runs.run_reader import RECOMMENDATION
from tlx.sweeps.run_folders import recommendations

__all__ = ["opened", "request_key"]
ABOUT = RECOMMENDATION
VERSION = 1


def request_key(config: Config, data: str) -> str:
    """A hash of what all candidates have in common: the settings without network and strategy, and the images."""
    tree = results(config)
    for name in ("backbone", "strategy"):
        tree.pop(name)
    return hashlib.sha256(json.dumps([tree, data], sort_keys=True, default=str).encode()).hexdigest()


def opened(output: Path, name: str | None, key: str, command: str) -> Path:
    """The folder of the recommendation with this key, made where there is none.

    Raises:
        RequestError: the folder of that name holds another one, or cannot be written.
    """
    above = recommendations(output)
    if name is None:
        same = [file.parent for file in sorted(above.glob(f"*/{ABOUT}")) if _about(file).get("key") == key]
        folder = same[-1] if same else new_folder(above / time.strftime("%Y-%m-%d-%H-%M-%S"))
    else:
        folder = above / name
    file = folder / ABOUT
    if file.is_file():
        if _about(file).get("key") != key:
            raise RequestError(
                f"--name {folder.name}: holds a recommendation for other images or settings; take another name, or "
                f"remove {folder}"
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
