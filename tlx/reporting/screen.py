"""The terminal of this process: lines that stay, wrapped at spaces, and below them what is being done now.

The line below is there from the start of a command to its end, by rich (`rich_console`), and in a notebook from that of
a run (`notebook_line`). In a pipe there is neither.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import IO, Any

from tlx.core import activity
from tlx.reporting.line_width import width, wrapped
from tlx.reporting.notebook_line import NotebookLine, in_notebook

__all__ = ["WholeLines", "live", "of_whole_lines"]
_shown: list[bool] = []


class WholeLines:
    """A stream to a terminal that writes whole lines, wrapped at spaces.

    Attributes:
        stream: the terminal's own; what is not defined here is looked up there.
        show: what writes lines.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self._begun = stream, ""
        self.show: Callable[[str], object] = stream.write

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            most = width(self.stream) or 80
            self.show("".join(f"{row}\n" for line in lines for row in wrapped(line.rsplit("\r", 1)[-1], most)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self.stream.flush()

    def close_line(self) -> None:
        """Writes what has begun and has no end."""
        begun, self._begun = self._begun, ""
        if begun:
            self.stream.write(begun)
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def of_whole_lines(*, beside: bool = False) -> Iterator[None]:
    """What is printed while the block lasts is wrapped at spaces where it goes to a terminal. Blocks may be nested.

    `beside`: another process may show on the same terminal what is being done; that line is written over.
    """
    with ExitStack() as within:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty() and not isinstance(stream, WholeLines):
                ours = WholeLines(stream)
                if beside:
                    ours.show = partial(_over, stream)
                within.callback(setattr, sys, name, stream)
                within.callback(ours.close_line)
                setattr(sys, name, ours)
        yield


def _over(stream: IO[str], lines: str) -> None:
    stream.write(f"\r\x1b[K{lines}")
    stream.flush()


@contextmanager
def live(doing: str = "starting") -> Iterator[None]:
    """What is being done is shown while the block lasts, at the foot of stderr where that is a terminal.

    `doing`: in words, until something says more. Blocks may be nested: the outer one shows it.
    """
    with ExitStack() as within:
        began = time.monotonic()
        first, later = activity.State((doing,)), activity.State(("working",))
        within.enter_context(activity.doing(lambda: later if activity.last_end() > began else first))
        if not _shown and (shows := _shows()) is not None:
            _shown.append(True)
            within.callback(_shown.clear)
            within.enter_context(of_whole_lines())
            within.enter_context(shows)
        yield


def _shows() -> AbstractContextManager[object] | None:
    """What shows it, where something can."""
    if in_notebook():
        return NotebookLine()
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        from tlx.reporting.rich_console import LiveLines
    except ModuleNotFoundError:  # rich is not installed: the lines that stay are all there is
        return None
    return LiveLines()
