"""Where the time of a run goes: each moment belongs to one part, so that the parts sum to the whole."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

__all__ = ["Clock", "command", "process_age"]

# In the order in which they come. `start`: the process, imports, the configuration; `network`: built, with its weights;
# `saving`: checkpoints and the model, which is opened again; `tracking`: logging to MLflow, and waiting for it.
PARTS = (
    *("start", "data", "network", "source", "features", "training", "evaluation", "saving", "pictures", "tracking"),
    "other",
)
Item = TypeVar("Item")
_began: float | None = None  # when the command began, until a run counts from there


class Clock:
    """Seconds by part. It begins in the part `start`."""

    def __init__(self, *, whole: bool = False) -> None:
        """`whole`: from the beginning of the command, if no other run has counted that."""
        global _began
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = "start", time.perf_counter()
        if whole and _began is not None:
            self._since, _began = _began, None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The block's time is this part's, and no longer that of the part around it."""
        around = self._part
        self._turn(name)
        try:
            yield
        finally:
            self._turn(around)

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time that it takes to make one is this part's."""
        source = iter(items)
        while True:
            with self.part(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def add(self, seconds: Mapping[str, float]) -> None:
        """What a run had spent before it was interrupted, as `total` gave it; what it does not name is `other`."""
        known = {name: spent for name, spent in seconds.items() if name in self._seconds}
        for name, spent in known.items():
            self._seconds[name] += spent
        self._seconds["other"] += max(0.0, seconds.get("total", 0.0) - sum(known.values()))

    def total(self) -> dict[str, float]:
        """The parts until now, without those that a run need not have and has not, and `total`, their sum."""
        self._turn(self._part)
        always = ("data", "features", "training", "evaluation")
        parts = {name: spent for name, spent in self._seconds.items() if spent or name in always}
        return {**parts, "total": sum(parts.values())}

    def _turn(self, part: str) -> None:
        """Closes the running part, and begins another."""
        now = time.perf_counter()
        self._seconds[self._part] += now - self._since
        self._part, self._since = part, now


@contextmanager
def command(began: float) -> Iterator[None]:
    """Runs a command that began then (by time.perf_counter); the first whole run within it counts from there."""
    global _began
    _began = began
    try:
        yield
    finally:
        _began = None


def process_age() -> float:
    """Seconds since this process was started."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return time.process_time()
    return age if 0 <= age < 3600 else time.process_time()
