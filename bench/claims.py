"""How often the paired tests claim a difference that is none, and how often the intervals hold the true value.

`python -m bench.claims [REPEATS] [SEED]` draws two configurations whose accuracies are known, many times: 2 to 10 runs,
20 to 1,000 test images, seven kinds of noise, three levels of accuracy, with a difference and without. What is true is
the accuracy that is expected over runs and images; for one run, that of its model over images. Each cell of the table
is the share of draws whose interval holds it; a difference that is none is claimed in the rest of its cells.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import sqrt
from statistics import NormalDist

import numpy as np

from tlx.comparison.crossed_effects import (
    Spread,
    Values,
    difference_interval,
    of_one_run,
    of_other_images,
    of_the_same_images,
    share_interval,
)

RUNS = (2, 3, 5, 10)
IMAGES = (20, 60, 150, 300, 1000)
LEVELS = (0.7, 1.3, 1.8)  # in standard deviations: 76, 90 and 96 % right
LEAD = 0.4  # of the first configuration where there is one, in the same
LEAST, MOST, CLAIMS = 0.93, 0.98, 0.06  # a cell should be between the first two, claims at most the third
AT_ONCE = 100_000  # predictions
CDF = np.vectorize(NormalDist().cdf)


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
        return sqrt(self.of_images**2 + self.luck**2 + self.shared**2)

    @property
    def of_images(self) -> float:
        """That of what differs from image to image in one run."""
        return sqrt(self.own**2 + self.hard**2 + self.rest**2)


KINDS = {
    "images": Noise(own=0.8, luck=0.05, rest=0.3),
    "runs": Noise(own=0.05, hard=0.5, luck=0.4, rest=0.5),
    "both": Noise(own=0.4, hard=0.4, luck=0.3, rest=0.7),
    "rest": Noise(rest=1.0),
    "hard images": Noise(own=0.1, hard=1.0, luck=0.05, rest=0.2),
    "failing runs": Noise(own=0.2, hard=0.8, luck=0.05, rest=0.5, fails=0.2),
    "seeds": Noise(own=0.3, hard=0.5, luck=0.05, shared=0.2, rest=0.5),
}


@dataclass(frozen=True)
class Draw:
    """Two configurations, many times; what decides, without their level.

    Attributes:
        of_runs: of each configuration, `[repeats, runs, 1]`.
        of_answers: the same, `[repeats, runs, images]`.
    """

    noise: Noise
    of_runs: tuple[Values, Values]
    of_answers: tuple[Values, Values]

    def right(self, which: int, level: float) -> Values:
        """1 where a run of the first (0) or second (1) configuration has an image right, else 0."""
        return (self.of_runs[which] + self.of_answers[which] > -self.noise.whole * level).astype(np.float64)

    def lead(self, level: float, lead: float) -> Values:
        """The differences, -1, 0 or 1."""
        return self.right(0, level + lead) - self.right(1, level)

    def expected(self, level: float) -> float:
        """The accuracy over runs and images."""
        fails = self.noise.fails
        return float((1 - fails) * CDF(level) + fails * CDF(level - 1))

    def of_first_run(self, which: int, level: float) -> Values:
        """The accuracy of a configuration's first run over images, `[repeats]`."""
        of_run = self.of_runs[which][:, 0, 0] + self.noise.whole * level
        return np.asarray(CDF(of_run / self.noise.of_images), dtype=np.float64)


def drawn(rng: np.random.Generator, repeats: int, runs: int, images: int, noise: Noise, overlap: float = 0) -> Draw:
    """Draws; `overlap` is the correlation of the runs' luck, where they share training images."""

    def normal(*of: int) -> Values:
        return rng.standard_normal((repeats, *of), dtype=np.float32)

    def of_runs() -> Values:
        return sqrt(1 - overlap) * normal(runs, 1) + sqrt(overlap) * normal(1, 1)

    hard, shared = noise.hard * normal(1, images), noise.shared * of_runs()
    each = []
    for _ in range(2):
        failed = rng.random((repeats, runs, 1)) < noise.fails
        of_answers = hard + noise.own * normal(1, images) + noise.rest * normal(runs, images)
        each.append((shared + noise.luck * of_runs() - noise.whole * failed, of_answers))
    return Draw(noise, (each[0][0], each[1][0]), (each[0][1], each[1][1]))


Found = tuple[Values, Values, Values | float]  # low and high ends, what is true
Measure = Callable[[Draw, float, float], Found]


def dealt(values: Values) -> Spread:
    """The images dealt into folds, one for each run."""
    runs = values.shape[1]
    return of_other_images([values[:, fold, fold::runs] for fold in range(runs)], ratio=1 / (runs - 1))


def first_run(values: Values) -> Spread:
    """One run on its images."""
    return of_one_run(values[:, 0])


def difference(method: Callable[[Values], Spread]) -> Measure:
    """The difference of two configurations, or of two models where the method is that of one run."""

    def measure(draw: Draw, level: float, lead: float) -> Found:
        found = method(draw.lead(level, lead))
        true: Values | float = draw.expected(level + lead) - draw.expected(level)
        if method is first_run:
            true = draw.of_first_run(0, level + lead) - draw.of_first_run(1, level)
        return *difference_interval(found.mean, found.square, found.wide), true

    return measure


def accuracy(method: Callable[[Values], Spread]) -> Measure:
    """The accuracy of one configuration, or of one model where the method is that of one run."""

    def measure(draw: Draw, level: float, lead: float) -> Found:
        found = method(draw.right(0, level + lead))
        one = method is first_run
        return *share_interval(found), draw.of_first_run(0, level + lead) if one else draw.expected(level + lead)

    return measure


MEASURES = {
    "difference, several runs on the same images": difference(of_the_same_images),
    "difference, several runs, each on a fold": difference(dealt),
    "difference, one run each (of these two models)": difference(first_run),
    "accuracy, several runs on the same images": accuracy(of_the_same_images),
    "accuracy, several runs, each on a fold": accuracy(dealt),
    "accuracy, one run (Wilson's, of this model)": accuracy(first_run),
}
CONDITIONS = [*product(LEVELS, (0.0, LEAD))]


def covered(rng: np.random.Generator, name: str, kind: str, runs: int, images: int, repeats: int) -> list[float]:
    """For each of `CONDITIONS` the share of draws whose interval holds what is true."""
    overlap = 1 / runs if "fold" in name else 0.0
    inside = np.zeros(len(CONDITIONS))
    for begin in range(0, repeats, size := max(AT_ONCE // (runs * images), 1)):
        draw = drawn(rng, min(size, repeats - begin), runs, images, KINDS[kind], overlap)
        for place, condition in enumerate(CONDITIONS):
            low, high, true = MEASURES[name](draw, *condition)
            inside[place] += ((low <= true) & (true <= high)).sum()
    return (inside / repeats).tolist()


def mark(share: float, repeats: int, claims: bool) -> str:
    """What is beside a cell that is outside by more than two standard errors."""

    def beyond(limit: float) -> float:
        return (share - limit) / sqrt(limit * (1 - limit) / repeats)

    if claims and beyond(1 - CLAIMS) < -2:
        return "!"
    return "<" if beyond(LEAST) < -2 else ">" if beyond(MOST) > 2 else ""


def table(rng: np.random.Generator, name: str, repeats: int) -> Iterator[str]:
    """A line for each kind of noise, number of runs and condition, with a cell for each number of images."""
    outside: dict[str, list[str]] = {"!": [], "<": [], ">": []}
    every: list[float] = []
    none: list[float] = []
    yield f"{name}: covered, in percent; standard error {100 * sqrt(0.95 * 0.05 / repeats):.1f} at 95"
    yield f"{'noise':<14}runs  accuracy   lead" + "".join(f"{images:>8}" for images in IMAGES) + "  images"
    for kind, runs in product(KINDS, (1,) if "one run" in name else RUNS):
        cells = [covered(rng, name, kind, runs, images, repeats) for images in IMAGES]
        for place, (level, lead) in enumerate(CONDITIONS):
            draw = Draw(KINDS[kind], *(((np.zeros(0),) * 2,) * 2))
            right, more = draw.expected(level + lead), draw.expected(level + lead) - draw.expected(level)
            line = f"{kind:<14}{runs:>4}{100 * right:>9.1f}%{100 * more:>+7.1f}"
            marks = [mark(each[place], repeats, not lead and "difference" in name) for each in cells]
            every += [each[place] for each in cells]
            none += [1 - each[place] for each in cells] if not lead and "difference" in name else []
            yield line + "".join(f"{100 * each[place]:>7.1f}{m or ' '}" for each, m in zip(cells, marks, strict=True))
            for images, each, m in zip(IMAGES, cells, marks, strict=True):
                if m:
                    outside[m].append(f"{line} {images:>5} images: {100 * each[place]:.1f}")
    yield f"in the mean {100 * np.mean(every):.1f}, least {100 * min(every):.1f}, most {100 * max(every):.1f}"
    if none:
        yield f"a difference that is none is claimed in {100 * np.mean(none):.1f}, at most {100 * max(none):.1f}"
    words = {"!": f"claimed in more than {100 * CLAIMS:.0f}", "<": f"covered in less than {100 * LEAST:.0f}"}
    for sign, text in words.items():
        yield f"{sign} {text}, by more than two standard errors: {len(outside[sign])} of {len(every)} cells"
        yield from (f"    {line}" for line in outside[sign])
    few = sum("   20 images" in line or "   60 images" in line for line in outside[">"])
    yield f"> covered in more than {100 * MOST:.0f}: {len(outside['>'])} cells, {few} of them with 20 or 60 images"


def main(repeats: int, seed: int) -> None:
    """Prints a table for each kind of interval."""
    rng = np.random.default_rng(seed)
    for name in MEASURES:
        for line in table(rng, name, repeats):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], "1000", "0"][:2]))
