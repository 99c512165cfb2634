"""Which regular expression on file names keeps together what belongs together: a proposal for `dataset.group`.

Each is tried out on the names: it must make groups of few images of one folder's kind, and the near duplicates must
agree with it far more often than by chance.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tlx.analysis.duplicate_groups import Duplicates
from tlx.analysis.finding import number_of

# What the names of a group have in common, the most specific first. The group is the expression's first parentheses.
EXPRESSIONS = (
    r"((?:patient|subject|person|case|pat|subj|sub|id|video|vid|clip|seq|scene|plant|burst)[-_ ]?\d+)(?!\d)",
    r"([^/]*?)[-_ ]?(?:frame|f|img|image|shot|crop|view|v)[-_ ]?\d+\.[^./]+$",
    r"([^/]*?[A-Za-z0-9])[-_ (.]+\d{1,5}\)?\.[^./]+$",
    r"([^/]*?\d)[-_ ]?[a-h]\.[^./]+$",
    r"([^/]+)/[^/]+$",
)
LEAST_GROUPS = 3  # more than one group, each far smaller than the data set
MOST_SHARE = 0.2  # of the images, that the largest group may have
COVERED = 0.5  # share of the names that the expression must match
EXPLAINED = 0.5  # share of the near duplicates' groups that it must keep together
SHOWN = 3


class Proposal(NamedTuple):
    """What is proposed: one line, what to type, and the rows of the largest groups."""

    message: str
    remedy: str
    groups: tuple[tuple[int, ...], ...]


def proposals(names: Sequence[str], found: Sequence[Duplicates]) -> Proposal | None:
    """The expression that keeps most near duplicates together; None where none keeps enough.

    names: of all images, `/` between folders. found: groups of near duplicates among them.
    """
    if len(found) < LEAST_GROUPS:
        return None
    best = None
    for expression in EXPRESSIONS:
        members = _members(re.compile(expression), names)
        group_of = {row: key for key, rows in members.items() for row in rows}
        matched, several = len(group_of), [rows for rows in members.values() if len(rows) > 1]
        if matched < COVERED * len(names) or len(several) < LEAST_GROUPS:
            continue
        if max(map(len, several)) > max(MOST_SHARE * len(names), 2):
            continue
        kept = sum(len({group_of.get(row, row) for row in group.rows}) == 1 for group in found)
        if kept >= EXPLAINED * len(found) and (best is None or kept > best[0]):
            best = kept, expression, several, matched
    if best is None:
        return None
    kept, expression, several, matched = best
    largest = sorted(several, key=len, reverse=True)[:SHOWN]
    example = re.search(expression, names[largest[0][0]])
    return Proposal(
        f"names suggest groups: {expression} makes {len(several):,} groups of several of {matched:,} images (as "
        f"{example[1] if example else ''}), and keeps {kept:,} of {number_of(len(found), 'group')} of near duplicates "
        "together",
        f"dataset.group='{expression}'",
        tuple(largest),
    )


def _members(pattern: "re.Pattern[str]", names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    made = dict[str, list[int]]()
    for row, name in enumerate(names):
        if match := pattern.search(name):
            made.setdefault(match[1], []).append(row)
    return {key: tuple(rows) for key, rows in made.items()}
