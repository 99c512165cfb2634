"""The folder of a run, or its `model/`, as a user names it."""

import contextlib
import json
import os
from pathlib import Path

from tlx.core.errors import RequestError, empty

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"  # a saved model's files


def run_folder(given: str) -> Path:
    """The folder of a run, or its `model/`, as it was typed.

    Raises:
        RequestError: it is empty, or there is no such folder.
    """
    if not given.strip():
        raise empty("RUN")
    folder = Path(os.path.expanduser(given))
    if not folder.is_dir():
        raise RequestError(f"{given}: no such folder; give a run's folder, as in outputs/<date>/<run>")
    return folder


def model_folder(folder: str | Path) -> Path:
    """The folder of the saved model, where `folder` is that or a run's.

    Raises:
        RequestError: `folder` is empty, or there is no whole model in it.
    """
    if not str(folder).strip():
        raise empty("the model's folder")
    path = Path(os.path.expanduser(folder))
    path = path / "model" if (path / "model").is_dir() else path
    for name in (WEIGHTS, DESCRIPTION):
        if not (path / name).is_file():
            if (path / "config.yaml").is_file():  # a run's, which is written first; its model is saved at the end
                raise RequestError(_unfinished(folder, path))
            raise RequestError(f"{folder}: no saved model here ({path / name} is missing); give a run's folder")
    return path


def _unfinished(folder: str | Path, path: Path) -> str:
    """Why a run has no model, and what to do."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        if summary.get("status") == "diverged":
            return f"{folder}: this run has no model, for it diverged in its first epoch: {summary['error']}"
    return f"{folder}: this run has no saved model yet; `resume {folder}` continues it"
