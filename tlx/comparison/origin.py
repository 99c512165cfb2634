"""What a comparison is of: its data set, its sweep, when and by which command it was made."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from typing import Any

from tlx.comparison.comparison import Comparison
from tlx.core.errors import shown
from tlx.runs.run_reader import Run


@dataclass(frozen=True)
class Origin:
    """Where a comparison comes from.

    Attributes:
        command: that made the runs, or that compared them.
        sweep: its name; "" for runs as such.
        date: when the comparison was made.
    """

    command: str = ""
    sweep: str = ""
    date: datetime = field(default_factory=datetime.now)


def title(comparison: Comparison, origin: Origin) -> str:
    """What the page is called: the data sets, the sweep, the date."""
    names = ", ".join(dict.fromkeys(_data_set(run) for run in _runs(comparison)))
    return ", ".join(filter(None, [names, origin.sweep and f"sweep {origin.sweep}", f"{origin.date:%Y-%m-%d}"]))


def facts(comparison: Comparison, origin: Origin) -> list[tuple[str, str]]:
    """Name and value of what is known; a command never with a password."""
    runs = _runs(comparison)
    sets = dict.fromkeys(f"{_data_set(run)}{_place(run)}" for run in runs)
    images = {_images(run) for run in runs}
    several = "" if len(comparison.configurations) == 1 else "s"
    found = [
        ("data set", "; ".join(sets)),
        ("images", images.pop() if len(images) == 1 else ""),  # a fold has numbers of its own
        ("sweep", origin.sweep),
        ("runs", f"{len(runs)} in {len(comparison.configurations)} configuration{several}"),
        ("date", f"{origin.date:%Y-%m-%d %H:%M}"),
        ("command", shown(origin.command)),
    ]
    return [(name, value) for name, value in found if value]


def _runs(comparison: Comparison) -> list[Run]:
    return [run for one in comparison.configurations for run in one.runs]


def _data_set(run: Run) -> str:
    """The name that the data set is known by: that of its folder where any folder can be it."""
    name, root = str(run.values.get("dataset.reader.name", "")), run.values.get("dataset.reader.root")
    return (PurePath(str(root)).name if root else "") or name or "unknown data"


def _place(run: Run) -> str:
    name, root = run.values.get("dataset.reader.name"), run.values.get("dataset.reader.root")
    return f" ({name}, {root})" if root else ""


def _images(run: Run) -> str:
    images: dict[str, Any] = run.summary["images"]
    return ", ".join(f"{number} {part}" for part, number in images.items())
