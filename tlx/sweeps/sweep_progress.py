"""How far a sweep or a search is, and how long it will take still: for a screen, whose thread asks."""

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from tlx.core import activity
from tlx.reporting.text_table import duration
from tlx.sweeps.sweep_plan import Planned

__all__ = ["JobsBeside", "SweepProgress", "kind"]
LOOK = 1.0  # seconds between two looks at what other processes have finished


class SweepProgress:
    """Jobs that run one after the other.

    A job is expected to take as long as those of its kind have taken in this launch, or else as long as any has; the
    first one, as long as its training says.
    """

    def __init__(self, what: str, total: int) -> None:
        """`what`: a job in words; `total`: so many of them."""
        self.what, self.total = what, total
        self._spent = list[tuple[str, float]]()
        self._done, self._kind = 0, ""
        self._later: Sequence[str] = ()
        self._began, self._guess = time.monotonic(), math.nan

    @contextmanager
    def job(self, done: int, kind: str, later: Sequence[str] = ()) -> Iterator[None]:
        """A job runs while the block lasts.

        `done`: so many are through. `kind`: jobs of one kind take equally long. `later`: the kinds of those that come
        after it.
        """
        self._done, self._kind, self._later, self._began = done, kind, later, time.monotonic()
        try:
            yield
        finally:
            self._spent.append((kind, time.monotonic() - self._began))

    def now(self) -> activity.State:
        """Which job runs, how long all of them will take still, and the share that is done."""
        elapsed = time.monotonic() - self._began
        if not math.isnan(left := activity.current()[0].left):
            self._guess = elapsed + left
        running, later = self._expected(self._kind), sum(map(self._expected, self._later))
        share = self._done + (min(elapsed / running, 0.99) if running > 0 else 0.0)  # NaN is not above anything
        facts = [f"{self.what} {min(self._done + 1, self.total)} of {self.total}"]
        if not math.isnan(seconds := max(running - elapsed, 0.0) + later):
            facts.append(f"{duration(seconds)} left")
        return activity.State(facts, share / self.total)

    def _expected(self, kind: str) -> float:
        alike = [seconds for each, seconds in self._spent if each == kind] or [seconds for _, seconds in self._spent]
        return fmean(alike) if alike else self._guess


class JobsBeside:
    """Jobs of one launcher that other processes run, in one line: what these print is written over it."""

    def __init__(self, jobs: Sequence[Planned], folder: Path) -> None:
        """`folder`: the sweep's."""
        self.jobs, self.folder = jobs, folder
        self._began = self._looked = time.monotonic()
        self._through = set[str]()

    def now(self) -> activity.State:
        """How many are finished, how long the others will take still, and the share that is done."""
        now, done = time.monotonic(), len(self._through)
        if now - self._looked > LOOK:
            from tlx.runs.run_state import finished

            self._looked = now
            left = [job.folder for job in self.jobs if job.folder not in self._through]
            self._through |= {name for name in left if finished(self.folder / name) is not None}
            done = len(self._through)
        facts = [f"{done} of {len(self.jobs)} jobs finished"]
        facts += (
            [f"{duration((now - self._began) / done * (len(self.jobs) - done))} left"]
            if 0 < done < len(self.jobs)
            else []
        )
        return activity.State([*facts, f"launch={self.jobs[0].launcher}"], done / len(self.jobs))


def kind(job: Planned) -> str:
    """What a job's time depends on: not the seed, nor which fold is held out."""
    return " ".join(word for word in job.overrides if not re.match(r"(seed|dataset\.fold)=", word))
