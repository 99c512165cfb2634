"""What this process is doing, in words: said where it is done, shown by whoever has a screen (`reporting.screen`)."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tlx.core.own_process import uncollected

__all__ = ["State", "current", "current_whole", "doing", "importing", "last_end", "watched", "whole"]


class State(NamedTuple):
    """What is shown of an activity.

    Attributes:
        facts: in words, the most important one first; what follows may be left out. Nothing: there is nothing to show.
        share: of it that is done, 0..1; None where that is not known.
        left: seconds that a run will train still; NaN where that is not known.
    """

    facts: Sequence[str]
    share: float | None = None
    left: float = math.nan


class _Activity(NamedTuple):
    state: Callable[[], State]
    began: float


_activities: list[_Activity] = []  # the innermost last
_wholes: list[_Activity] = []  # what they are parts of: a sweep
_ended = [0.0]  # when something ended last: what goes on then is shown from that moment
_changed: list[Callable[[], None]] = []  # what to call when something begins


@contextmanager
def doing(what: str | Callable[[], State]) -> Iterator[None]:
    """This is what is being done while the block lasts: in words, or a function that another thread may ask."""
    yield from _within(_activities, what)


@contextmanager
def whole(what: Callable[[], State]) -> Iterator[None]:
    """What is done while the block lasts are parts of this."""
    yield from _within(_wholes, what)


@contextmanager
def importing(*packages: str) -> Iterator[None]:
    """The block imports packages that take seconds; those that are imported already are not named."""
    if new := [package for package in packages if package not in sys.modules]:
        with doing(f"importing {' and '.join(new)}"), uncollected():
            yield
    else:
        yield


@contextmanager
def watched(changed: Callable[[], None]) -> Iterator[None]:
    """`changed` is called whenever something begins while the block lasts."""
    _changed.append(changed)
    try:
        yield
    finally:
        _changed.remove(changed)


def current() -> tuple[State, float]:
    """What is being done and for how many seconds."""
    return _read(_activities)


def last_end() -> float:
    """When something that was done ended last, by time.monotonic."""
    return _ended[0]


def current_whole() -> State:
    """What it is a part of."""
    return _read(_wholes)[0]


def _within(activities: list[_Activity], what: str | Callable[[], State]) -> Iterator[None]:
    said = State((what,)) if isinstance(what, str) else None
    activity = _Activity(what if callable(what) else lambda: said or State(()), time.monotonic())
    activities.append(activity)
    for call in tuple(_changed):
        call()
    try:
        yield
    finally:
        # By identity: threads may end in another order than they began.
        place = next(i for i, each in enumerate(activities) if each is activity)
        del activities[place]
        _ended[0] = time.monotonic()


def _read(activities: list[_Activity]) -> tuple[State, float]:
    for activity in reversed(activities):
        return activity.state(), time.monotonic() - max(activity.began, _ended[0])
    return State(()), 0.0
