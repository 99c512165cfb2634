"""Weak segments: test images of some brightness, size or shape, or alike, of which fewer are correct than of others.

No torch here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tlx.core.statistics import at_most, holm
from tlx.datasets.images import Labels

PIECES = 4  # segments of each fact, with about as many images each
FEWEST = 10  # images of a segment, and of the others
LEVEL = 0.05
CLUSTER = "cluster"


@dataclass(frozen=True)
class Segment:
    """Test images whose value of a fact lies within `low` and `high`; of the fact `CLUSTER` both are its number.

    Attributes:
        correct: how many of its `images` are.
        rest, rest_correct: the same of all other images.
        p: the probability of as few correct ones by chance, before Holm's correction.
        corrected: after it.
    """

    fact: str
    low: float
    high: float
    images: int
    correct: int
    rest: int
    rest_correct: int
    p: float
    corrected: float


@dataclass(frozen=True)
class Segments:
    """`weak`: those that are significantly below the rest, the clearest first; of so many that were `tested`."""

    weak: list[Segment]
    tested: int


def weak_segments(
    facts: Mapping[str, NDArray[np.floating]], correct: NDArray[np.bool_], clusters: Labels | None = None
) -> Segments:
    """The segments where significantly fewer images are correct: Fisher's exact test, one-sided, after Holm at 5 %.

    Args:
        facts: of each image, [N]: cut at its quartiles; a value that is no number is in no segment.
        correct: bool [N].
        clusters: int64 [N], each image's, below 0 for none; None: there are none.
    """
    tested = [segment for fact, values in facts.items() for segment in _segments(fact, values, correct)]
    if clusters is not None and clusters.max(initial=0) > 0:
        tested += _of_pieces(CLUSTER, clusters.astype(np.float64), clusters, correct)
    corrected = holm([segment.p for segment in tested])
    raised = [replace(one, corrected=p) for one, p in zip(tested, corrected, strict=True)]
    weak = sorted((one for one in raised if one.corrected < LEVEL), key=lambda one: one.p)
    return Segments(weak, len(tested))


def _segments(fact: str, values: NDArray[np.floating], correct: NDArray[np.bool_]) -> list[Segment]:
    known = values[np.isfinite(values)].astype(np.float64)
    if len(known) < 2 * FEWEST or known.min() == known.max():
        return []
    edges = np.unique(np.quantile(known, np.linspace(0, 1, PIECES + 1)[1:-1]))
    pieces = np.where(np.isfinite(values), np.searchsorted(edges, values, side="left"), -1)
    return _of_pieces(fact, values, pieces, correct)


def _of_pieces(fact: str, values: NDArray[np.floating], pieces: Labels, correct: NDArray[np.bool_]) -> list[Segment]:
    """A segment for each piece that has enough images, and leaves enough; `pieces`: of each image, below 0 for none."""
    found = []
    for piece in range(int(pieces.max(initial=-1)) + 1):
        inside = pieces == piece
        images, rest = int(inside.sum()), int((~inside).sum())
        if min(images, rest) < FEWEST:
            continue
        right, others = int(correct[inside].sum()), int(correct[~inside].sum())
        p = at_most(right, images, right + others, images + rest)
        low, high = float(values[inside].min()), float(values[inside].max())
        found.append(Segment(fact, low, high, images, right, rest, others, p, 1.0))
    return found
