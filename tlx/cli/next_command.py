"""The command that a user types next: printed on stderr when a run or a sweep has ended well."""

import shlex
import sys
from pathlib import Path

from tlx.reporting.text_table import near
from tlx.sweeps.named_runs import OUTPUT
from tlx.sweeps.run_folders import recommendations, sweeps

__all__ = ["show_use"]


def show_use(folder: Path, what: str = "model") -> None:
    """Prints how a model is used: a run's, or the one that validation chooses of a sweep.

    `folder`: of the run or the sweep; `what`: the model in words.
    """
    places = [above(Path(OUTPUT)) / folder.name for above in (sweeps, recommendations)]
    by_name = folder.absolute() in [place.absolute() for place in places]
    word = folder.name if by_name else near(folder)
    print(f"to use the {what}: {shlex.join(['python', '-m', 'tlx', 'predict', word])} photo.jpg", file=sys.stderr)
