"""Groups of images that are one picture, from pairs; a chain of weak pairs does not make one group of all."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIRMED = 0.5  # certainty from which a pair counts
STRONG = 0.9  # certainty from which pairs make a chain


class Pairs(NamedTuple):
    """Pairs of rows, the most certain first; `first` < `second`, int64 [P]; certainty float64 [P], 0..1."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    certainty: NDArray[np.float64]

    def above(self, least: float) -> "Pairs":
        """Those that are at least so certain."""
        kept = self.certainty >= least
        return Pairs(self.first[kept], self.second[kept], self.certainty[kept])


class Duplicates(NamedTuple):
    """Rows that are probably one picture, in order, and how certain that is of its surest pair, 0..1."""

    rows: tuple[int, ...]
    certainty: float


def groups(pairs: Pairs, confirmed: float = CONFIRMED) -> list[Duplicates]:
    """The groups of the pairs, the most certain first.

    Strong pairs join without a limit. What they have joined is joined by weaker pairs once: to one other group, which
    then is not joined to a third. Each member is so at most two weak pairs from any other.
    """
    pairs = pairs.above(confirmed)
    parent = dict[int, int]()

    def root(row: int) -> int:
        parent.setdefault(row, row)
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    links = list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.certainty.tolist(), strict=True))
    for first, second, certainty in links:
        one, other = root(first), root(second)
        if certainty >= STRONG and one != other:
            parent[max(one, other)] = min(one, other)
    core = {row: root(row) for row in list(parent)}
    hub = dict[int, int]()  # of each core that was joined to another one
    hubs = set[int]()
    for first, second, certainty in links:
        one, other = sorted((core[first], core[second]))
        if certainty < STRONG and one != other and one not in hub and other not in hub:
            if other in hubs:
                one, other = other, one
            if other not in hubs:
                hub[other] = one
                hubs.add(one)
    members, best = dict[int, list[int]](), dict[int, float]()
    for row in sorted(core):
        members.setdefault(hub.get(core[row], core[row]), []).append(row)
    for first, second, certainty in links:
        one, other = (hub.get(core[row], core[row]) for row in (first, second))
        if one == other:
            best[one] = max(best.get(one, 0.0), certainty)
    made = [Duplicates(tuple(rows), best[of]) for of, rows in members.items() if len(rows) > 1]
    return sorted(made, key=lambda group: (-group.certainty, group.rows))


def with_equal(pairs: Pairs, same: Sequence[Sequence[int]]) -> Pairs:
    """The pairs, and those of rows that are equal for sure: each with the first of its kind."""
    links = [(rows[0], row) for rows in same for row in rows[1:]]
    first, second = np.array(links, dtype=np.int64).reshape(-1, 2).T
    first = np.concatenate([first, pairs.first])
    second = np.concatenate([second, pairs.second])
    certainty = np.concatenate([np.ones(len(links)), pairs.certainty])
    _, kept = np.unique(np.stack([first, second]), axis=1, return_index=True)  # the first of each: exact
    kept = kept[np.lexsort((second[kept], first[kept], -certainty[kept]))]
    return Pairs(first[kept], second[kept], certainty[kept])
