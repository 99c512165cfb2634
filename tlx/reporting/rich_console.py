"""What a terminal is shown beyond lines of text, by rich: a line that lives, and tables."""

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tlx.core.output_streams import shows_all, visible

RATE = 5.0  # looks at what is going on a second


class LiveLine:
    """A line at the foot of stderr, renewed while the block lasts, and gone after it.

    `now`: what to say, and which share is done (0..1), None where that is not known; called by another thread.
    """

    def __init__(self, now: Callable[[], tuple[str, float | None]]) -> None:
        self.now, self.console = now, Console(stderr=True, highlight=False)
        self._whole = shows_all(sys.stderr)
        self._spinner = Spinner("dots" if self._whole else "line")
        self._live = Live(
            console=self.console,
            get_renderable=self.render,
            refresh_per_second=RATE,
            transient=True,
            # Only stderr is ours: stdout may be a pipe that must get results and nothing else.
            redirect_stdout=sys.stdout.isatty(),
        )

    @property
    def shown(self) -> bool:
        """Whether stderr is a terminal."""
        return self.console.is_terminal

    def __enter__(self) -> "LiveLine":
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """A line that stays, above the live one."""
        self.console.print(Text(visible(line, sys.stderr)))

    def render(self) -> RenderableType:
        """What the line looks like now."""
        text, done = self.now()
        sign: RenderableType = self._spinner if done is None else ProgressBar(total=1.0, completed=done, width=24)
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis" if self._whole else "crop")
        line.add_row(sign, visible(text, sys.stderr))
        return line


def tables(facts: Sequence[tuple[str, str]], classes: Sequence[Sequence[str]], note: str, file: IO[str]) -> bool:
    """Prints facts, and below them classes (the first row names the columns); False where `file` is no terminal."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        return False
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        table.add_row(Text(name, style="bold" if name == "test accuracy" else "dim"), Text(visible(value, file)))
    parts: list[RenderableType] = [table]
    if len(classes) > 1:
        report = Table(caption=note or None, caption_justify="left")
        for i, name in enumerate(classes[0]):
            report.add_column(name, justify="left" if i == 0 else "right")
        for line in classes[1:]:
            report.add_row(*(Text(visible(cell, file)) for cell in line))
        parts.append(report)
    console.print(Group(*parts))
    return True
