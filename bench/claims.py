"""How often the paired tests claim a difference that is none, and how often their intervals hold the true one.

`python -m bench.claims [REPEATS] [SEED]` draws two configurations whose accuracies are known, many times: 2 to 10 runs,
20 to 1,000 test images, seven kinds of noise, three levels of accuracy, with a difference and without.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean

import numpy as np

from tlx.comparison.paired_tests import Difference, Differences, apart, crossed

RUNS = (2, 3, 5, 10)
IMAGES = (20, 60, 150, 300, 1000)
LEVELS = (0.7, 1.3, 1.8)  # in standard deviations: 76, 90 and 96 % right
LEAD = 0.4  # of the first configuration where there is one, in the same


@dataclass(frozen=True)
class Noise:
    """What decides, by its sign, whether a run has an image right: standard deviations of normal variables.

    `own`: a configuration's taste for an image; `hard`: of an image for both; `luck`: of a run; `shared`: of a seed for
    both; `rest`: of a run and an image. `fails`: the share of runs that lose one standard deviation of it all.
    """

    own: float = 0.0
    hard: float = 0.0
    luck: float = 0.0
    shared: float = 0.0
    rest: float = 0.0
    fails: float = 0.0

    @property
    def whole(self) -> float:
        """The standard deviation of it all."""
        return sqrt(self.own**2 + self.hard**2 + self.luck**2 + self.shared**2 + self.rest**2)


KINDS = {
    "images": Noise(own=0.8, luck=0.05, rest=0.3),
    "runs": Noise(own=0.05, hard=0.5, luck=0.4, rest=0.5),
    "both": Noise(own=0.4, hard=0.4, luck=0.3, rest=0.7),
    "rest": Noise(rest=1.0),
    "hard images": Noise(own=0.1, hard=1.0, luck=0.05, rest=0.2),
    "failing runs": Noise(own=0.2, hard=0.8, luck=0.05, rest=0.5, fails=0.2),
    "seeds": Noise(own=0.3, hard=0.5, luck=0.05, shared=0.2, rest=0.5),
}


def drawn(
    rng: np.random.Generator, runs: int, images: int, noise: Noise, level: float, lead: float
) -> tuple[Differences, float]:
    """The differences `[runs, images]` of two configurations, and their true mean."""
    hard, shared = noise.hard * rng.normal(size=images), noise.shared * rng.normal(size=(runs, 1))
    right, true = [], []
    for better in (lead, 0.0):
        own, luck = noise.own * rng.normal(size=images), noise.luck * rng.normal(size=(runs, 1))
        failed = rng.random((runs, 1)) < noise.fails
        pull = noise.whole * (level + better - failed)
        right.append(pull + hard + shared + own + luck + noise.rest * rng.normal(size=(runs, images)) > 0)
        cdf = NormalDist().cdf
        true.append((1 - noise.fails) * cdf(level + better) + noise.fails * cdf(level + better - 1))
    return np.subtract(right[0], right[1], dtype=np.float64), true[0] - true[1]


def on_the_same_images(
    rng: np.random.Generator, runs: int, images: int, noise: Noise, level: float, lead: float
) -> tuple[Difference, float]:
    """What `crossed` says of one draw, and the truth."""
    d, true = drawn(rng, runs, images, noise, level, lead)
    return crossed(d), true


def on_folds(
    rng: np.random.Generator, runs: int, images: int, noise: Noise, level: float, lead: float
) -> tuple[Difference, float]:
    """What `apart` says where the images are dealt into folds, and the truth; the runs' luck is their own."""
    d, true = drawn(rng, runs, images, noise, level, lead)
    dealt = [d[fold, fold::runs] for fold in range(runs)]
    return apart(dealt, ratio=1 / (runs - 1)), true


def rates(found: Iterator[tuple[Difference, float]], repeats: int) -> tuple[float, float]:
    """Shares of draws: a difference claimed at 5 %, and the truth within the interval."""
    some = [*itertools.islice(found, repeats)]
    return fmean(each.p < 0.05 for each, _ in some), fmean(each.low <= true <= each.high for each, true in some)


def main(repeats: int, seed: int) -> None:
    """Prints a line for each kind of noise and number of runs: over all images and levels, the mean and the worst."""
    rng = np.random.default_rng(seed)
    for name, method in (("crossed", on_the_same_images), ("apart", on_folds)):
        print(f"{name}: shares in percent, over {len(IMAGES)} numbers of images and {len(LEVELS)} levels")
        print(f"{'noise':<14}runs   claims: mean most   holds: mean least   with a difference: mean least")
        for (kind, noise), runs in itertools.product(KINDS.items(), RUNS):
            same, other = (
                [
                    rates((method(rng, runs, n, noise, level, lead) for _ in itertools.count()), repeats)
                    for n, level in itertools.product(IMAGES, LEVELS)
                ]
                for lead in (0.0, LEAD)
            )
            claims, holds, differ = [c for c, _ in same], [h for _, h in same], [h for _, h in other]
            figures = (fmean(claims), max(claims), fmean(holds), min(holds), fmean(differ), min(differ))
            print(f"{kind:<14}{runs:>4}" + "".join(f"{100 * value:>11.1f}" for value in figures), flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], "400", "0"][:2]))
