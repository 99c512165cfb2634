"""A small table of facts for a notebook: it has the notebook's own colours, light and dark, and is escaped."""

from collections.abc import Iterable
from html import escape

from tlx.core.errors import printable

__all__ = ["card"]
_TABLE = "border-collapse:collapse;border:1px solid rgba(128,128,128,.4);color:inherit;background:transparent"
_CELL = "padding:2px 12px 2px 8px;text-align:left;vertical-align:top;color:inherit;background:transparent"


def card(title: str, facts: Iterable[tuple[str, str]]) -> str:
    """A table in HTML, a row a fact; texts are escaped, and no style or script of it has an effect elsewhere."""
    rows = [
        f'<tr><th style="{_CELL};font-weight:normal;opacity:.7;white-space:nowrap">{_text(name)}</th>'
        f'<td style="{_CELL}">{_text(value)}</td></tr>'
        for name, value in facts
    ]
    head = f'<tr><th colspan="2" style="{_CELL}">{_text(title)}</th></tr>'
    return f'<table style="{_TABLE}">{head}{"".join(rows)}</table>'


def _text(text: str) -> str:
    return escape(printable(text))
