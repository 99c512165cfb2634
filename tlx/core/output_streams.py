"""Output in any encoding: what a stream cannot show is replaced, and ends nothing; files are not concerned."""

import codecs
import sys
from typing import IO

from tlx.core.errors import recovered

__all__ = ["shows_all", "use", "visible"]

HANDLER = "tlx.visible"
# Signs of tlx's own, where a screen has ASCII alone; any other letter becomes its escape (`\xf6`).
SIGNS = {
    **dict(zip("…→×·±÷²–", ("...", "->", "x", "-", "+-", "/", "^2", "-"), strict=True)),
    **dict.fromkeys("─━╸╺╴╶", "-"),
    **dict.fromkeys("│┃", "|"),
}
SPINNERS = range(0x2800, 0x2900)  # Braille, of which rich makes them


def use(streams: tuple[IO[str] | None, ...] | None = None) -> None:
    """Lets stdout and stderr (or `streams`) replace what their encoding cannot show, where an error would be raised.

    Another way of replacing, as `PYTHONIOENCODING=ascii:replace` asks for it, is left as it is.
    """
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr) if streams is None else streams:
        # Python's own for stderr and for the C locale are replaced, too: they know no signs, or raise for these.
        if getattr(stream, "errors", None) in ("strict", "backslashreplace", "surrogateescape"):
            stream.reconfigure(errors=HANDLER)  # type: ignore[union-attr]


def shows_all(stream: IO[str]) -> bool:
    """Whether every letter can be written to the stream."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")


def visible(text: str, stream: IO[str]) -> str:
    """The text as it will be seen on the stream: for what must know how wide it is."""
    if shows_all(stream):
        return text
    codecs.register_error(HANDLER, _replaced)
    encoding: str = getattr(stream, "encoding", "")
    return text.encode(encoding, HANDLER).decode(encoding)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_sign, recovered(error.object[error.start : error.end]))), error.end


def _sign(letter: str) -> str:
    if ord(letter) in SPINNERS:
        return "*"
    return SIGNS.get(letter) or letter.encode("ascii", "backslashreplace").decode()
