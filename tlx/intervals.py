"""Intervals of an accuracy: how far the share of all such images may be from that of the test images."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson(correct: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a proportion after Wilson (1927), within [0, 1]; never empty, also for 0 or n of n."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = correct / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def pooled(files: Sequence[Sequence[str]], correct: Sequence[Sequence[int]]) -> tuple[tuple[float, float], int]:
    """Wilson's interval over the test images of several runs together, and how many different images these are.

    An image that several runs were tested on is no new image for the second of them: the share counts each answer, but
    the number of images is the effective one, (sum of times tested)² ÷ sum of squared times (Kish 1965). It is that of
    the different images where all were tested equally often, as in a cross-validation.

    Args:
        files: the images' names, of each run.
        correct: 1 or 0 for each of them.
    """
    times = Counter(file for some in files for file in some)
    answers = sum(times.values())
    effective = answers**2 / sum(count**2 for count in times.values())
    share = sum(int(sum(some)) for some in correct) / answers
    return wilson(share * effective, effective), len(times)
