"""Runs side by side, as Python has them: what `tlx.sweep` and `tlx.compare` give."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.comparison import text_table
from tlx.comparison.comparison import Comparison, compared
from tlx.core.data_frames import frame
from tlx.core.errors import RequestError

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Results:
    """Finished runs, compared.

    Attributes:
        folders: of all runs that were requested, finished or not.
        failed: the command of each job that failed, and why.
    """

    folders: Sequence[Path]
    failed: Sequence[tuple[str, str]] = ()

    @cached_property
    def comparison(self) -> Comparison:
        """The paired tests and their intervals; the configuration that validation chooses is the first."""
        return compared(self.folders)

    @property
    def chosen(self) -> Path:
        """The folder of the run whose model validation chooses: of the best configuration the best run."""
        return self.comparison.configurations[0].run(self.comparison.rule).folder

    def to_frame(self) -> "DataFrame":
        """A row a configuration, with the columns of `comparison.csv`.

        Raises:
            RequestError: pandas is not installed.
        """
        columns, *rows = text_table.rows(self.comparison)
        return frame(rows, columns)

    def __repr__(self) -> str:
        try:
            return str(self)
        except RequestError as error:  # nothing of it is finished, or a file is damaged
            return f"<{len(self.folders)} runs: {error}>"

    def __str__(self) -> str:
        return text_table.text(self.comparison)

    def _repr_html_(self) -> str:
        shown = ["configuration", "runs", "test_accuracy", "low", "high", "val_accuracy", "trainable", "p_corrected"]
        table = self.to_frame()[shown]
        shares = dict.fromkeys(("test_accuracy", "low", "high", "val_accuracy"), "{:.1%}".format)
        formats = shares | {"trainable": "{:,}".format, "p_corrected": "{:.2g}".format}
        return str(table.to_html(index=False, na_rep="", formatters=formats))
