"""`python -m tlx cache`: the features that runs have cached, listed or removed."""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tlx.cli.run_argument import output_option
from tlx.cli.subcommand import Subcommand
from tlx.core.errors import RequestError, nearest, printable
from tlx.features.disk_cache import Entry, RowStore, mib
from tlx.reporting.fitted_table import Column, fitted
from tlx.reporting.line_width import width
from tlx.reporting.text_table import aligned

_DIGITS = 12  # of an id, as it is shown
WRAPPED = 24  # cells that what is cached is wrapped to


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "action", metavar="clear", nargs="?", help="remove cached features; without this word they are listed"
    )
    parser.add_argument(
        "ids", metavar="ID", nargs="*", help="remove only these: ids from the list, or their first digits"
    )
    output_option(parser)


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    return cache(given.action, given.ids, given.output)


SUBCOMMAND = Subcommand("cache", "list or remove the features that runs have cached", _options, _main)


def cache(action: str | None, ids: Sequence[str], output: str) -> int:
    """Prints what is cached under `<output>/features`, or removes it: all, or the entries named.

    Returns:
        0, or 1 where something could not be removed.

    Raises:
        RequestError: no such action, an id that is none or not only one, a file where the folder should be.
    """
    if action not in (None, "clear"):
        raise RequestError(
            f"{action}: not something that cache does{nearest(str(action), ['clear'])}; "
            "`cache` lists, `cache clear` removes all, `cache clear ID…` some"
        )
    folder = Path(os.path.expanduser(output)) / "features"
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder}: a file, not the folder of cached features; name the runs' folder with --output")
    if action == "clear" and not ids:
        for file in folder.glob("decoded-*.txt"):  # which images are known to decode
            with contextlib.suppress(OSError):
                file.unlink()
    store = RowStore(folder, 0, lambda line: print(line, file=sys.stderr))
    entries = store.entries()
    namespaces = (
        {_entry(word, entries, folder).namespace for word in ids} if ids else {entry.namespace for entry in entries}
    )
    if not entries:
        print(f"no features are cached in {folder}")
        return 0
    if action is None:
        print("\n".join(_table(entries)))
        print(f"{_count(len(entries))}, {mib(sum(entry.bytes for entry in entries))}, in {folder}")
        return 0
    removed, freed = store.clear(sorted(namespaces))
    print(f"removed {_count(removed)}, {mib(freed)}, from {folder}")
    left = [entry.namespace[:_DIGITS] for entry in store.entries() if entry.namespace in namespaces]
    if left:
        print(f"still there, in use or not yours to remove: {', '.join(left)}", file=sys.stderr)
    return 1 if left else 0


def _entry(word: str, entries: Sequence[Entry], folder: Path) -> Entry:
    found = [entry for entry in entries if entry.namespace.startswith(word.lower())]
    if len(found) > 1:
        raise RequestError(
            f"{word}: could be {', '.join(entry.namespace[:_DIGITS] for entry in found)}; give more digits"
        )
    if not found:
        near = nearest(word.lower()[:_DIGITS], [entry.namespace[:_DIGITS] for entry in entries])
        raise RequestError(f"{word}: no such id in {folder}{near}; `cache` without clear lists them")
    return found[0]


def _table(entries: Sequence[Entry]) -> list[str]:
    rows = list[tuple[str, ...]]()
    for entry in entries:
        what = printable(_said(entry)) if entry.blocks else "being written, or left unfinished"
        used = f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}" if entry.blocks else "-"
        rows.append((what, f"{entry.images:,}", mib(entry.bytes), used, entry.namespace[:_DIGITS]))
    names = ("what", "images", "size", "last used", "id")
    if (most := width(sys.stdout)) is not None:
        texts = dict(zip(names, zip(*rows, strict=True), strict=True))
        columns = [Column("what", texts["what"], wraps=WRAPPED, flush_left=True)]
        columns += [Column(name, texts[name], left_out=int(name == "last used")) for name in names[1:]]
        if (found := fitted(columns, most)) is not None:
            return found[0]
    return aligned([names, *rows], 1)


def _said(entry: Entry) -> str:
    """What its blocks say, each value once: rows of one network may be of the images of several data sets."""
    return " ".join(
        ", ".join(dict.fromkeys(str(about[key]) for about in entry.each if key in about)) for key in entry.about
    )


def _count(entries: int) -> str:
    return f"{entries} entry" if entries == 1 else f"{entries} entries"
