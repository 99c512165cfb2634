"""Labels that small features make suspicious, judged again on features at the network's full input size.

These are dear, so that of a large data set the most suspicious images of each split get them, and a sample of the
others on which the probe that judges them is trained. No torch before a probe is trained.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.label_errors import Reals, other
from tlx.datasets.images import Labels

SHARE, MOST = 0.1, 1_000  # of each split: the part that is suspicious, and how many images at most
SAMPLE = 6_000  # of the others
FEWEST = 10  # images of a class in the sample, on average, or the probe of the small features knows more


@dataclass(frozen=True)
class Chosen:
    """The images that are looked at again.

    Attributes:
        suspects: int64 [K], the most suspicious of each split.
        sample: int64 [S], others, no copies of suspects, as far as possible as many of each class.
        counts: int64 [classes], how many images that are no suspects each class has.
    """

    suspects: Labels
    sample: Labels
    counts: Labels

    @property
    def rows(self) -> Labels:
        """Suspects first, int64 [K + S]."""
        return np.concatenate([self.suspects, self.sample])

    def weights(self, labels: Labels) -> Reals:
        """How many images each of `rows` stands for, float64 [K + S]; `labels`: of all images."""
        of_sample = labels[self.sample]
        shares = self.counts / np.maximum(np.bincount(of_sample, minlength=len(self.counts)), 1)
        return np.concatenate([np.ones(len(self.suspects)), shares[of_sample]])


def chosen(
    logits: NDArray[np.floating], labels: Labels, splits: NDArray[np.str_], groups: Labels, seed: int = 0
) -> Chosen | None:
    """Whose labels to judge again, and by whom; None where a class has too few images for that.

    Args:
        logits: [N, classes], out of fold.
        labels, groups: int64 [N]; images of one group are copies of one picture.
        splits: [N].
        seed: of the sample.
    """
    n, classes = logits.shape
    rows = np.arange(n)
    margin = logits[rows, other(logits, labels)] - logits[rows, labels]
    suspects = np.concatenate(
        [
            of[np.argsort(-margin[of], kind="stable")][: min(MOST, int(np.ceil(SHARE * len(of))))]
            for of in (np.flatnonzero(splits == split) for split in np.unique(splits))
        ]
    )
    rest = np.setdiff1d(rows, suspects)
    free = np.random.default_rng([seed, 11]).permutation(rest[~np.isin(groups[rest], groups[suspects])])
    order = np.argsort(labels[free], kind="stable")
    numbers = np.bincount(labels[free], minlength=classes)
    rank = np.empty(len(free), np.int64)  # of each image within its class
    rank[order] = np.arange(len(free)) - (np.cumsum(numbers) - numbers)[labels[free][order]]
    sample = np.sort(free[np.argsort(rank, kind="stable")][:SAMPLE])
    if len(sample) < FEWEST * classes or len(np.unique(groups[sample])) < 2:
        return None
    return Chosen(suspects, sample, np.bincount(labels[rest], minlength=classes))


def judged(
    features: NDArray[np.floating], labels: Labels, suspects: int, classes: int, groups: Labels
) -> NDArray[np.float32]:
    """Logits of suspects from a probe of the sample, and of the sample out of fold, float32 [N, classes].

    Args:
        features: [N, D], of the suspects first.
        labels, groups: int64 [N].
        suspects: how many there are.
        classes: their number.
    """
    import torch

    from tlx.analysis.out_of_fold import fit, out_of_fold, principal_axes
    from tlx.training.logistic_regression import scores

    known = out_of_fold(features[suspects:], labels[suspects:], classes, groups[suspects:])
    rows, y = principal_axes(features), torch.from_numpy(labels[suspects:])
    (weights,) = fit(rows[suspects:], y, torch.ones(len(y), 1), classes, known.strength)
    found: NDArray[np.float32] = np.concatenate([scores(rows[:suspects], weights).numpy(), known.logits])
    return found
