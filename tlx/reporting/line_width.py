"""Text as wide as a screen is: wrapped at spaces, shortened at spaces, never in the middle of a word."""

import os
import re
import unicodedata
from collections.abc import Sequence
from typing import IO

__all__ = ["cells", "fitting", "shortened", "width", "wrapped"]
NARROW = 30  # cells below which a last column goes to lines of its own
_COMMAND = re.compile(r"(?:^|: | {2})((?:python -m tlx|printf) .*)$")
_QUOTED = re.compile("'[^']*'|\"[^\"]*\"")
_SHELL_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def width(stream: IO[str] | None) -> int | None:
    """The cells in a line of the terminal that a stream writes to; None where it is no terminal."""
    if stream is None or not stream.isatty():
        return None
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def cells(text: str) -> int:
    """How wide a text is on a terminal, without the signs that only change its colour."""
    plain = _ESCAPES.sub("", text)
    if plain.isascii():
        return len(plain)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in plain)


def wrapped(line: str, most: int) -> list[str]:
    """A line as lines of at most `most` cells, broken at spaces; the further ones begin below its second column.

    A command at the line's end can be copied all the same. A word that has no place there, as a long path, begins
    further to the left.
    """
    if cells(line) <= most or "\x1b" in line:
        return [line]
    if (found := _COMMAND.search(line)) and not re.search("[,;] ", _QUOTED.sub("", found[1])):  # nothing follows it
        return _command(line[: found.start(1)], found[1], most)
    indent = len(line) - len(line.lstrip(" "))
    hang, lines, begun = indent + 2, list[str](), " " * indent
    if (gap := re.match(r" *\S+(?: \S+)* {2,}(?=\S)", line)) and not re.search(r"\S {2,}\S", line[gap.end() :]):
        place, last = most - cells(gap[0]), line[gap.end() :]
        if max(NARROW, *map(cells, last.split(" "))) <= place:
            hang = cells(gap[0])
        elif cells(last) > place:
            lines, hang = [gap[0].rstrip()], hang + 2
            begun, line = " " * hang, " " * hang + last
    for word in re.findall(r"\S+ *", line.strip(" ")):
        if cells(begun) + cells(word.rstrip()) > most:
            if begun.strip(" "):
                lines.append(begun.rstrip())
            begun = " " * max(0, min(hang, most - cells(word.rstrip())))
        begun += word
    return [*lines, begun.rstrip()]


def shortened(text: str, most: int) -> str:
    """The text, or as many of its words as fit into so many cells, and three dots."""
    if cells(text) <= most:
        return text
    words = text.split(" ")
    while words and cells(" ".join(words)) > most - 2:
        words.pop()
    return f"{' '.join(words).rstrip(',;: ')} …" if words else ""


def fitting(facts: Sequence[str], most: int, between: str = "  ") -> str:
    """The facts beside each other, as far as they fit, the last ones left out first; the first one is there always."""
    kept = list(facts)
    while len(kept) > 1 and cells(between.join(kept)) > most:
        kept.pop()
    return shortened(between.join(kept), most)


def _command(before: str, command: str, most: int) -> list[str]:
    """A command that can be copied from the screen: its lines end in a backslash."""
    lines, begun = list[str](), before.rstrip(" ")
    for word in _SHELL_WORD.findall(command):
        if begun and cells(begun) + cells(word) + 3 > most:
            lines.append(f"{begun} \\" if lines or begun != before.rstrip(" ") else begun)
            begun = f"  {word}"
        else:
            begun = f"{begun} {word}" if begun else word
    return [*lines, begun]
