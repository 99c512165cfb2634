"""Config-driven transfer learning: `tlx.run([...])` carries out one run, `tlx.load(folder)` opens its model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.core.version import __version__

if TYPE_CHECKING:
    from tlx.inference.predictor import Model
    from tlx.runs.run_summary import Summary

__all__ = ["__version__", "load", "run"]


def run(overrides: Sequence[str] = (), config_dir: str | None = None) -> "Summary":
    """One run, as `python -m tlx key=value …` does it.

    Args:
        overrides: `key=value` as typed on the command line.
        config_dir: a folder with YAML of one's own.

    Raises:
        RequestError: the request is wrong; the message says how.
    """
    from tlx.runs.request import run_overrides

    return run_overrides(list(overrides), config_dir)


def load(folder: str | Path, device: str = "auto") -> "Model":
    """A saved model, ready to predict: `tlx.load("outputs/…").predict(["photo.jpg"])`.

    Raises:
        RequestError: there is no whole model in the folder.
    """
    from tlx.inference.predictor import load as open_model

    return open_model(folder, device)
