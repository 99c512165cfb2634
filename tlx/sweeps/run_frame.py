"""A list of runs as a table for Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.core.data_frames import frame
from tlx.sweeps.run_conditions import condition, wanted
from tlx.sweeps.run_list import listed
from tlx.sweeps.run_table import columns, values

if TYPE_CHECKING:
    from pandas import DataFrame


def run_frame(conditions: Sequence[str], output: Path) -> "DataFrame":
    """A row a run of which all conditions hold, newest first, with the columns of `runs --csv`; `began` is a time.

    Raises:
        RequestError: no such folder, a word is no condition, no run has its key, or pandas is not installed.
    """
    required = [condition(word) for word in conditions]
    found = wanted(listed(output), required)
    keys = [one.key for one in required]
    table = frame(values(found, keys), columns(found, keys))
    table["began"] = table["began"].astype("datetime64[s]")
    return table
