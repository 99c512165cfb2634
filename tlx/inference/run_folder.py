"""The folder of a run, or its `model/`, as a user names it."""

import os
from pathlib import Path

from tlx.core.errors import RequestError, empty


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
