"""Where recommendations lie, and which of them a request goes on with."""

from pathlib import Path

from tlx.config.identity import results
from tlx.config.schema import Config
from tlx.runs.run_reader import RECOMMENDATION
from tlx.sweeps import keyed_folder
from tlx.sweeps.run_folders import recommendations

__all__ = ["opened", "request_key"]


def request_key(config: Config, data: str) -> str:
    """A hash of what all candidates have in common: the settings without network and strategy, and the images."""
    tree = results(config)
    for name in ("backbone", "strategy"):
        tree.pop(name)
    return keyed_folder.hashed(tree, data)


def opened(output: Path, name: str | None, key: str, command: str) -> Path:
    """The folder of the recommendation with this key, made where there is none.

    Raises:
        RequestError: the folder of that name holds another one, or cannot be written.
    """
    return keyed_folder.opened(recommendations(output), RECOMMENDATION, "a recommendation", name, key, command)
