"""Test images that one of two runs, or of two configurations, has right and the other has not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tlx.comparison.crossed_effects import Values
from tlx.runs.run_reader import Run


@dataclass(frozen=True)
class Flip:
    """A test image that two configurations do not have right equally often, in their matched runs.

    `first`, `second`: runs that have it right, of `of` each. `said`: what either's first matched run says;
    `counts`: prediction → runs, of either, the most frequent first.
    """

    file: str
    label: str
    first: int
    second: int
    of: int
    said: tuple[str, str]
    counts: tuple[Mapping[str, int], Mapping[str, int]]


def lead(first: Run, second: Run) -> Values:
    """For each test image: 1 where the first run alone is right, -1 the second alone, 0 neither."""
    return np.subtract(first.predicted.correct, second.predicted.correct, dtype=np.float64)


def flips(matched: Sequence[tuple[Run, Run]]) -> list[Flip]:
    """The images that the two sides of the matched runs do not have right equally often, the clearest first.

    Runs with other test images than the first pair's have no place in it.
    """
    pairs = [pair for pair in matched if pair[0].same_images(matched[0][0])]
    first, second = (np.sum([pair[side].predicted.correct for pair in pairs], axis=0, dtype=int) for side in (0, 1))
    one, other = (run.predicted for run in matched[0])
    found = [
        Flip(
            one.files[i], one.labels[i], int(first[i]), int(second[i]), len(pairs),
            (one.predictions[i], other.predictions[i]), (_counts(pairs, 0, i), _counts(pairs, 1, i)),
        )
        for i in np.flatnonzero(first != second).tolist()
    ]  # fmt: skip
    return sorted(found, key=lambda flip: -abs(flip.first - flip.second))


def _counts(pairs: Sequence[tuple[Run, Run]], side: int, image: int) -> dict[str, int]:
    return dict(Counter(pair[side].predicted.predictions[image] for pair in pairs).most_common())
