"""Where runs lie in the output folder."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.analysis.fact_store import FactStore
from tlx.config.schema import Config
from tlx.core.atomic_files import unwritable

if TYPE_CHECKING:
    pass


def new_folder(folder: Path, *, reuse: bool = False) -> Path:
    """Makes `folder`, or `folder-2`, … where another run has taken it. `reuse`: Hydra has made it for this run.

    Raises:
        RequestError: it cannot be made.
    """
    number = 1
    while True:
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            path.mkdir(parents=True, exist_ok=reuse)
            return path
        except FileExistsError:
            number += 1
        except OSError as error:
            raise unwritable(path, error) from error


def output(config: Config) -> Path:
    """Where all runs lie, absolute."""
    return Path(os.path.expanduser(config.output)).absolute()


def fact_store(config: Config) -> FactStore:
    """What is known of images that were read before, below the output folder."""
    return FactStore.below(output(config)) if config.features.store else _of_this_process()


@functools.cache
def _of_this_process() -> FactStore:
    """One for all runs that keep nothing: what is read to leave copies out is not read again for the audit."""
    return FactStore(None)
