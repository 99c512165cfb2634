"""What a user did wrong, in one line: every module may raise it; `cli.main` prints it and exits with 2."""

import contextlib
import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator


class RequestError(Exception):
    """The request cannot be run as it was given: a value, a file, a name (exit code 2).

    The message is one line that says what, where, which value, and what would be right.
    """


class Pruned(Exception):
    """Ends a run that is not worth going on with; the message says why."""


class LeftUnmeasured(KeyboardInterrupt):
    """Leaves a run whose training has chosen its model, before the test set is looked at; it can be resumed."""


class Diverged(Exception):
    """Ends a run whose loss is no number any more; the message says when, and what to change."""


class FaultyData(Exception):
    """Ends a run before it trains, where the audit of its data has found an error and that is to end it."""


@contextlib.contextmanager
def without_causes() -> Iterator[None]:
    """A `RequestError` leaves the block without the exceptions that led to it; `HYDRA_FULL_ERROR=1` keeps them."""
    try:
        yield
    except RequestError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        raise error from None


def empty(name: str) -> RequestError:
    """What to say where `name` (a key, an option, an argument) was given no text, or nothing but spaces."""
    return RequestError(f"{name}: is empty (a variable that is not set?); give a value, or leave it out")


def nearest(word: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the valid name nearest to `word`, or nothing where none is near."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean '{found[0]}'?)" if found else ""


def lookalikes(names: Iterable[str]) -> list[list[str]]:
    """The names that a person hardly tells apart, as groups: they differ in case, spaces or unseen characters only."""
    groups = dict[str, list[str]]()
    for name in names:
        seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) not in ("Cf", "Cc"))
        groups.setdefault(" ".join(seen.replace("_", " ").split()).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def reason(error: BaseException) -> str:
    """Why something failed, in a line of 200 characters at most: the system's words, or the exception's first line."""
    text = str(getattr(error, "strerror", None) or error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]


def said(error: BaseException) -> str:
    """An error as the one line that a person sees: what is no message of tlx's own has its kind before it."""
    ours = type(error).__module__.startswith("tlx.")  # its message says all there is to say
    line = " ".join(str(error).split()) or type(error).__name__
    return line if ours else f"{type(error).__name__}: {line}"


def shown(text: str) -> str:
    """The text without a password in a URL."""
    return re.sub(r"(://[^/@:\s]*):(?!\d+[/?#'\"\s])[^\s'\"]*@", r"\1:***@", text)


def recovered(text: str) -> str:
    """`text` with names that the C locale cannot decode as what they are in UTF-8; what is no UTF-8 stays as it was."""
    return _UNDECODED.sub(_utf8, text)


_UNDECODED = re.compile("[\udc80-\udcff]+")  # what Python makes of bytes that it cannot decode


def _utf8(undecoded: re.Match[str]) -> str:
    try:
        return undecoded[0].encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError:
        return undecoded[0]


def precomposed(text: str) -> str:
    """`text` with each accented letter as one character (NFC): macOS may write a name's accents apart (NFD)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def unicode(text: str) -> str:
    """`text` as a file in UTF-8 can have it: what is no Unicode in a name is written as an escape."""
    return recovered(text).encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """`text` in one line that changes nothing about a screen: what cannot be printed is written as an escape."""
    text = recovered(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
