"""What a terminal is shown beyond lines of text, by rich: what is being done now, and tables."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tlx.core import activity
from tlx.core.output_streams import shows_all, visible
from tlx.reporting.line_width import cells, fitting
from tlx.reporting.screen import WholeLines
from tlx.reporting.text_table import duration

RATE = 5.0  # looks at what is going on a second
BAR = 24  # cells of a bar, half as many where the line has no place for what is said beside it
SOON = 3.0  # seconds after which it is said how long something has taken


class LiveLines:
    """What is being done, at the foot of the terminal; renewed while the block lasts, and gone after it.

    Below it, within a sweep, how much of the sweep is done. What goes to stdout and stderr by `WholeLines` is shown
    above it.
    """

    def __init__(self) -> None:
        self.console = Console(file=getattr(sys.stderr, "stream", sys.stderr), highlight=False)
        self._whole = shows_all(self.console.file)
        self._spinner = Spinner("dots" if self._whole else "line")
        self._live = Live(
            console=self.console,
            get_renderable=self.render,
            refresh_per_second=RATE,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._within = ExitStack()

    def __enter__(self) -> "LiveLines":
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, WholeLines):
                self._within.callback(setattr, stream, "show", stream.show)
                stream.show = self.say
        self._live.start(refresh=True)
        # At once: an import may leave no thread any time for seconds.
        self._within.enter_context(activity.watched(self._live.refresh))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._within.close()

    def say(self, lines: str) -> None:
        """Whole lines that stay, above the live ones."""
        # Line by line: before version 15 `from_ansi` drops the end of the last one.
        shown = visible(lines, self.console.file).removesuffix("\n").split("\n")
        self.console.print(Text("\n").join(map(Text.from_ansi, shown)), soft_wrap=True)

    def render(self) -> RenderableType:
        """What is shown now: nothing, a line, or within a sweep two."""
        (facts, share, _), seconds = activity.current()
        if not facts:
            return Group()
        if share is None and seconds >= SOON:
            facts = [facts[0], duration(seconds) if seconds >= 10 else f"{seconds:.0f} s", *facts[1:]]
        lines = [self._line(facts, share, self._spinner)]
        whole, done, _ = activity.current_whole()
        if whole:
            lines.append(self._line(whole, done, Text(" ")))
        return Group(*lines)

    def _line(self, facts: Sequence[str], share: float | None, sign: RenderableType) -> RenderableType:
        """A sign that it lives, the bar where a share is known, and as many facts as fit."""
        facts = [visible(fact, self.console.file) for fact in facts]
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True, width=1)
        place = self.console.width - 3
        if share is None:
            line.add_column(no_wrap=True, overflow="crop")
            line.add_row(sign, Text(fitting(facts, place)))
            return line
        bar = BAR if cells("  ".join(facts)) + BAR + 1 <= place else BAR // 2
        line.add_column(no_wrap=True, width=bar)
        line.add_column(no_wrap=True, overflow="crop")
        shown = ProgressBar(total=1.0, completed=min(share, 1.0), width=bar)
        line.add_row(sign, shown, Text(fitting(facts, place - bar - 1)))
        return line


def tables(facts: Sequence[tuple[str, str]], classes: Sequence[Sequence[str]], note: str, file: IO[str]) -> bool:
    """Prints facts, and below them classes (the first row names the columns); False where `file` is no terminal.

    A fact whose longest word, as a path, has no place beside its name stands below it.
    """
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        return False
    shown = [(name, visible(value, file)) for name, value in facts]
    names = max((cells(name) for name, _ in shown), default=0)
    parts: list[RenderableType] = []
    table = Table.grid(padding=(0, 2))
    for name, value in shown:
        named = Text(f"{name:<{names}}", style="bold" if name == "test accuracy" else "dim")
        if max(map(cells, value.split(" "))) > console.width - names - 2:
            parts += [*([table] if table.row_count else []), named, Text(f"  {value}", overflow="ignore", no_wrap=True)]
            table = Table.grid(padding=(0, 2))
        else:
            table.add_row(named, Text(value))
    if table.row_count:
        parts.append(table)
    if len(classes) > 1:
        report = Table(caption=note or None, caption_justify="left")
        for i, name in enumerate(classes[0]):
            report.add_column(name, justify="left" if i == 0 else "right")
        for line in classes[1:]:
            report.add_row(*(Text(visible(cell, file)) for cell in line))
        parts.append(report)
    console.print(Group(*parts), soft_wrap=False)
    return True
