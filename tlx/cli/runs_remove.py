"""`python -m tlx runs remove RUN…` and `runs gc`: what is removed is said first, with its size."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tlx.core.activity import State, doing
from tlx.core.disk_size import size
from tlx.core.errors import RequestError, nearest
from tlx.reporting.text_table import aligned, near
from tlx.sweeps.leftovers import KINDS, leftovers
from tlx.sweeps.run_removal import removals
from tlx.sweeps.run_removal import remove as remove_one

__all__ = ["gc", "remove"]
SAID = {
    "interrupted": "interrupted runs, which resume could go on with",
    "failed": "failed runs",
    "temporary": "temporary files of processes that were killed",
    "mlflow": "runs and models that are deleted in MLflow",
}


def remove(words: Sequence[str], output: str, *, yes: bool, forced: bool, files_only: bool) -> int:
    """Removes runs and sweeps with all that MLflow has of them, and returns 0, or 1 where something could not be.

    `yes`: do not ask. `forced`, `files_only`: as `tlx.sweeps.run_removal` has them.

    Raises:
        RequestError: a word names nothing that may be removed, or there is no terminal to ask on.
    """
    if not words:
        raise RequestError("runs remove: give runs' folders, latest, sweeps' names, or runs' ids in MLflow")
    with doing("reading the runs"):
        found = removals(words, output, forced=forced)
        rows = [("run", "size"), *((one.what, size(one.bytes)) for one in found)]
    print("\n".join(aligned(rows, left=1)), file=sys.stderr)
    beside = "" if files_only else ", with what MLflow has of them"
    if not _agreed(f"remove {'it' if len(found) == 1 else f'these {len(found)}'}{beside}", yes=yes, needed=True):
        return 0
    failed = False
    for one in found:
        with doing(f"removing {near(one.place)}"):
            why = remove_one(one, output, forced=forced, files_only=files_only)
        failed = failed or bool(why)
        print(f"{one.what}: not removed: {why}" if why else f"removed: {one.what}", file=sys.stderr if why else None)
    if failed:
        print("--force also removes what is in the registry, --files-only leaves all in MLflow", file=sys.stderr)
    return 1 if failed else 0


def gc(kinds: Sequence[str], output: str, *, yes: bool) -> int:
    """Says what is left over in an output folder, removes it where that is wanted; 0, or 1 where something stays.

    Raises:
        RequestError: no such kind, no such folder.
    """
    for word in kinds:
        if word not in KINDS:
            raise RequestError(f"runs gc {word}: must be {', '.join(KINDS)}{nearest(word, KINDS)}, or nothing for all")
    folder = Path(os.path.expanduser(output))
    with doing("looking for leftovers"):
        found = leftovers(folder)
        some = {kind: counts for kind, counts in found.summed().items() if counts[0] and kind in (kinds or KINDS)}
    if not some:
        print(f"nothing is left over in {near(folder)}")
        return 0
    rows = [(kind, f"{count:,}", size(total), SAID[kind]) for kind, (count, total) in some.items()]
    print("\n".join(aligned([("kind", "count", "size", "what"), *rows], left=1)))
    for run in (run for kind in some for run in found.runs.get(kind, ())):
        print(f"  {run.what}")
    for path in found.temporary if "temporary" in some else ():
        print(f"  {near(path)}")
    if not _agreed(f"remove {'all of it' if len(some) > 1 else 'them'}", yes=yes, needed=False):
        return 0
    with doing("removing leftovers"):
        attempts = list(found.removed(list(some)))
    left, gone = [one for one in attempts if one.why], [one for one in attempts if not one.why]
    for one in left:
        print(one.why, file=sys.stderr)
    if gone:
        counts = {kind: sum(one.count for one in gone if one.kind == kind) for kind in some}
        words = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        print(f"removed: {words}, {size(sum(one.bytes for one in gone))}")
    return 1 if left else 0


def _agreed(what: str, *, yes: bool, needed: bool) -> bool:
    """Whether the user agrees: asks on a terminal; elsewhere nothing is removed without `yes`.

    Raises:
        RequestError: it is `needed`, and there is no terminal.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        if needed:
            raise RequestError(f"{what}? there is no terminal to ask on; --yes does it without asking")
        print(f"to {what}: --yes", file=sys.stderr)
        return False
    with doing(lambda: State(())):  # the question stays on the screen
        print(f"{what}? [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        print("nothing is removed", file=sys.stderr)
        return False
    return True
