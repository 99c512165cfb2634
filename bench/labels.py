"""How many planted label errors are found, by the mixture of `label_errors` and by confident learning.

`python -m bench.labels FILE.npz [SEEDS]` reads `features` [N, D] and `labels` [N], gives a share of the images another
class by chance, and prints for each share and method how many labels are called wrong, how many of these are so
(precision) and how many of the planted are among them (recall); "first" is the share of planted ones among as many most
suspicious. The data's own errors count as none.
"""

import sys
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.label_errors import label_errors, softmax
from tlx.analysis.out_of_fold import out_of_fold
from tlx.datasets.images import Labels

SHARES = (0.0, 0.02, 0.05, 0.1)


def confidently_wrong(probabilities: NDArray[np.float64], labels: Labels) -> NDArray[np.bool_]:
    """Off the diagonal of confident learning's joint: the most probable of the classes that reach their threshold is
    not the given one. A class's threshold is the mean probability that the images labelled so give it. Bool [N].
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, probabilities[np.arange(len(labels)), labels], classes) / np.maximum(counts, 1)
    reached = np.where(probabilities >= np.where(counts > 0, thresholds, np.inf), probabilities, 0.0)
    found: NDArray[np.bool_] = (reached.max(axis=1) > 0) & (reached.argmax(axis=1) != labels)
    return found


def main(path: str, seeds: int = 3) -> None:
    """Prints a line for each share and method, summed over the seeds."""
    with np.load(path) as file:
        features, right = file["features"], np.unique(file["labels"], return_inverse=True)[1].astype(np.int64)
    n, classes = len(right), int(right.max()) + 1
    print(f"{n:,} images, {classes} classes, {seeds} seeds")
    for share in SHARES:
        planted_in_all, first = 0, 0
        found, hits = defaultdict[str, int](int), defaultdict[str, int](int)
        for seed in range(seeds):
            random = np.random.default_rng([seed, 99])
            planted = random.choice(n, round(share * n), replace=False)
            labels = right.copy()
            labels[planted] = (labels[planted] + random.integers(1, classes, len(planted))) % classes
            logits = out_of_fold(features, labels, classes, seed=seed).logits
            ranked = label_errors(logits, labels, 0.0).rows
            first += int(np.isin(ranked[: len(planted)], planted).sum())
            planted_in_all += len(planted)
            for method, rows in (
                ("mixture", label_errors(logits, labels).rows),
                ("confident learning", np.flatnonzero(confidently_wrong(softmax(logits), labels))),
            ):
                found[method] += len(rows)
                hits[method] += int(np.isin(rows, planted).sum())
        for method, number in found.items():
            precision = f"{hits[method] / number:.2f}" if number else "–"
            recall = f"{hits[method] / planted_in_all:.2f}" if planted_in_all else "–"
            print(f"{share:.0%} wrong, {method}: {number} found, precision {precision}, recall {recall}")
        if planted_in_all:
            print(f"{share:.0%} wrong, first: {first / planted_in_all:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
