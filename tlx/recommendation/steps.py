"""Steps of a recommendation within its time: what was done is not done again, and what cannot end is not begun."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tlx.core.errors import Diverged, RequestError, said
from tlx.recommendation.budget import OutOfTime, alarm
from tlx.recommendation.journal import Journal, Step

__all__ = ["Found", "Steps"]
Found = tuple[Mapping[str, Any], Mapping[str, Any] | None]
LATE, FAILED = "out of time", "failed"


@dataclass
class Steps:
    """What is done one after the other.

    Whether there is time for a step is decided by what the journal says was spent, and not by the clock: who was killed
    and begins again decides the same. The clock ends a step that takes longer than what is left.

    Attributes:
        journal: what is done.
        seconds: that all may take.
        began: when this process began, by time.monotonic.
        before: seconds that earlier processes have spent.
        left_out: names of steps for which there was no time.
    """

    journal: Journal
    seconds: float
    began: float
    before: float = 0.0
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = self.journal.spent

    def run(
        self,
        name: str,
        cost: float,
        reserve: float,
        make: Callable[[], Found],
        *,
        most: float = math.inf,
        must: bool = False,
    ) -> Step | None:
        """A step's facts; None where there is no time for it, or it has failed.

        Args:
            cost: seconds that it will take, as far as that is known.
            reserve: seconds that are needed after it.
            make: does it: what is kept, and what is kept of each image.
            most: seconds that it may take, whatever time is left.
            must: do it whatever time is left.
        """
        done = self.journal.found(name)
        if done is not None and done.get("status") not in (LATE,):
            return None if done.get("status") == FAILED else done
        if done is not None and self.seconds <= done["budget"]:
            self.left_out.append(name)
            return None
        cost = max(0.0, cost - (0.0 if done is None else done["seconds"]))  # an interrupted run goes on
        if not must and self.journal.spent + cost + reserve > self.seconds:
            self.left_out.append(name)
            return None
        began = time.monotonic()
        left = 1e6 if must else min(self.left(reserve), most)
        try:
            with alarm(left):
                facts, arrays = make()
        except OutOfTime:
            self.journal.add(name, time.monotonic() - began, {"status": LATE, "budget": self.seconds})
            self.left_out.append(name)
            return None
        except (Diverged, RequestError, RuntimeError) as error:
            if must:
                raise
            print(f"{name}: left out: {said(error)}", file=sys.stderr)
            self.journal.add(name, time.monotonic() - began, {"status": FAILED, "error": said(error)})
            return None
        return self.journal.add(name, time.monotonic() - began, facts, arrays)

    def left(self, reserve: float = 0.0) -> float:
        """Seconds that this process has still, by the clock."""
        return self.seconds - self.before - (time.monotonic() - self.began) - reserve
