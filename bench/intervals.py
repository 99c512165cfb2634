"""How often the intervals of a run's figures hold the true value, and what a temperature from few images is worth.

`python -m bench.intervals [--logits FILE.npz] [--repeats 1000] [--seed 0]` draws test sets from a population of images
whose figures are known: the arrays `logits` [N, classes] and `labels` [N] of FILE, or made ones. Each test set has the
classes in the shares of the population, as tlx splits. Then a temperature is fitted, many times, on 50 of the images
and measured on all others.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.machine import processor
from tlx.training.evaluation import temperature
from tlx.training.metrics import scores

IMAGES = (153, 500, 2000)
FEW, DRAWS = 50, 200
NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier")


def made(n: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits of a model that is right in about nine of ten images, for classes of different size, and labels."""
    random, shares = np.random.default_rng(seed), np.linspace(1, 3, classes)
    labels = random.choice(classes, n, p=shares / shares.sum())
    logits = 1.5 * random.normal(size=(n, classes))
    logits[np.arange(n), labels] += 3.5 + random.normal(size=n)
    return torch.from_numpy(1.5 * logits).float(), torch.from_numpy(labels)


def drawn(labels: NDArray[np.int64], n: int, random: np.random.Generator) -> NDArray[np.int64]:
    """About n of the images, with replacement: each class in its share."""
    classes, counts = np.unique(labels, return_counts=True)
    sizes = np.maximum(1, np.rint(n * counts / len(labels))).astype(int)
    return np.concatenate(
        [random.choice(np.flatnonzero(labels == one), size) for one, size in zip(classes, sizes, strict=True)]
    )


def coverage(logits: Tensor, labels: Tensor, n: int, repeats: int, seed: int) -> dict[str, float]:
    """Name of a figure → the share of test sets of n images whose interval holds the population's value."""
    names = [str(one) for one in range(logits.shape[1])]
    random, held = np.random.default_rng(seed), dict.fromkeys(NAMES, 0)
    # The truth is of test sets with the classes in these shares, to the image.
    whole = scores(logits, labels, names)
    for _ in range(repeats):
        chosen = torch.from_numpy(drawn(labels.numpy(), n, random))
        found = scores(logits[chosen], labels[chosen], names)
        for name in NAMES:
            one = found.metric(name)
            assert one.low is not None
            assert one.high is not None
            held[name] += one.low <= whole.metric(name).value <= one.high
    return {name: count / repeats for name, count in held.items()}


def few_images(logits: Tensor, labels: Tensor, draws: int, seed: int) -> tuple[float, float, float]:
    """Log loss (nats) without a temperature and with one from few images, in the mean, and the worst ratio of both."""
    random = np.random.default_rng(seed)
    before, after = [], []
    for _ in range(draws):
        order = torch.from_numpy(random.permutation(len(labels)))
        some, others = order[:FEW], order[FEW:]
        z, y = logits[others], labels[others]
        for losses, by in ((before, 1.0), (after, temperature(logits[some], labels[some]))):
            losses.append(float(torch.nn.functional.cross_entropy(z / by, y)))
    return float(np.mean(before)), float(np.mean(after)), float(np.max(np.divide(after, before)))


def lines(populations: dict[str, tuple[Tensor, Tensor]], repeats: int, seed: int) -> Iterator[str]:
    """The report."""
    yield f"{processor()}; {repeats} test sets each, seed {seed}"
    yield f"{'population':24}{'images':>7}" + "".join(f"{name:>19}" for name in NAMES)
    for name, (logits, labels) in populations.items():
        for n in IMAGES:
            found = coverage(logits, labels, n, repeats, seed)
            yield f"{name:24}{n:>7}" + "".join(f"{found[one]:>19.1%}" for one in NAMES)
    yield f"temperature from {FEW} images, {DRAWS} draws: log loss without, with, worst ratio"
    for name, (logits, labels) in populations.items():
        before, after, worst = few_images(logits, labels, DRAWS, seed)
        yield f"{name:24} {before:.4f}  {after:.4f}  {worst:.3f}"


def main(argv: Any = None) -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.intervals", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--logits", metavar="FILE", help="an .npz file with logits and labels of a whole test set")
    parser.add_argument("--repeats", type=int, default=1000, help="test sets of each kind (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    populations = {f"made, {classes} classes": made(20_000, classes, classes) for classes in (2, 10)}
    if given.logits:
        read = np.load(given.logits)
        populations = {
            given.logits[-24:]: (torch.from_numpy(read["logits"]).float(), torch.from_numpy(read["labels"]).long())
        }
    for line in lines(populations, given.repeats, given.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
