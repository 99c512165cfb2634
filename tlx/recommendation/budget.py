"""The time of a recommendation: what is left of it, and a step that ends when it is over."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Alarm", "OutOfTime", "alarm"]


class OutOfTime(Exception):
    """The time of a step was over before it was through."""


class Alarm:
    """Whether a step was ended by its time; else it was the user who interrupted it."""

    over = False


@contextmanager
def alarm(seconds: float) -> Iterator[Alarm]:
    """After so many seconds the block is interrupted as by Ctrl-C, so that what is done of a run is kept.

    Signals reach the main thread alone: in another one, and on Windows, nothing interrupts it, and the block ends when
    it is through.

    Raises:
        OutOfTime: the time was over.
    """
    found = Alarm()
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield found
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        found.over = True
        raise KeyboardInterrupt("the time is over")

    before = signal.signal(signal.SIGALRM, ring)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield found
    except KeyboardInterrupt as error:
        if found.over:
            raise OutOfTime(f"after {time.monotonic() - began:.0f} s") from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
