"""The line that lives, in a notebook: one output of the cell, renewed while a run goes on, and gone after it."""

import html
import sys
import threading
from types import TracebackType
from typing import Any

from tlx.core import activity

EVERY = 0.5  # seconds between two looks


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, whose front end renews what was displayed."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class NotebookLine:
    """What `rich_console.LiveLines` is on a terminal, as an HTML progress bar; it needs no widgets."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._handle: Any = None

    def __enter__(self) -> "NotebookLine":
        from IPython.display import display

        self._handle = display(self._rendered(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._handle.update({"text/html": "", "text/plain": ""}, raw=True)

    def _renew(self) -> None:
        while not self._done.wait(EVERY):
            self._handle.update(self._rendered(), raw=True)

    def _rendered(self) -> dict[str, str]:
        (facts, done, _), _ = activity.current()
        text = "  ".join((*activity.current_whole().facts, *facts))
        value = "" if done is None else f' value="{done:.4f}"'
        bar = f'<progress max="1"{value} style="width: 12em; vertical-align: middle"></progress>'
        return {"text/plain": text, "text/html": f"{bar} <code>{html.escape(text)}</code>"}
