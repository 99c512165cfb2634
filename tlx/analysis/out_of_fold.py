"""Class scores of a linear probe for images that it was not trained on: each fold is scored by the rest.

The probe is a multinomial logistic regression with an L2 penalty on the pooled features, trained to convergence. Its
features are rotated to their principal axes, which changes nothing for the penalty, and only the largest axes are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tlx.analysis.folds import deal_folds
from tlx.core.large_arrays import blocks, release, zeros
from tlx.datasets.images import Labels
from tlx.training import logistic_regression
from tlx.training.logistic_regression import scores

Floats = NDArray[np.float32]

AXES = 512  # principal axes that are used, at most
STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # of the penalty, against the summed loss of all images
SAMPLE = 5_000  # images from which the strength is chosen, at most
TOLERANCE = 1e-6  # of the mean loss: how near its lowest value a probe comes
LOGITS = 50_000_000  # that are in memory together, about
ROWS = 8192  # images at a time, where all features in float32 would be too many
BIAS = 0.01  # the penalty on an intercept, as a share of the one on a weight: a class may be in one fold only


@dataclass(frozen=True)
class OutOfFold:
    """What a probe says of images that it was not trained on.

    Attributes:
        logits: float32 [N, classes].
        folds: of each image, int64 [N], from 0.
        strength: of the penalty: the one with the lowest log loss out of fold.
    """

    logits: Floats
    folds: Labels
    strength: float

    @property
    def probabilities(self) -> Floats:
        """The softmax of the logits, float32 [N, classes]."""
        found: Floats = torch.from_numpy(self.logits).softmax(1).numpy()
        return found


def out_of_fold(
    features: NDArray[np.floating],
    labels: Labels,
    classes: int,
    groups: Labels | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
    folder: Path | None = None,
) -> OutOfFold:
    """A probe's logits of each image, from the folds that the image and its group are not in.

    Args:
        features: [N, D], any float format.
        labels: int64 [N], in 0 … classes - 1; a class may have no image.
        classes: their number.
        groups: int64 [N]: images of one number are in one fold; None: each image stands for itself.
        folds: their number, fewer where there are fewer groups.
        seed: of the folds, and of the sample from which the strength is chosen.
        strengths: of the penalty, the strongest first. Weaker ones are tried while the log loss out of fold falls.
        folder: for large arrays while this lasts; None: the system's.

    Raises:
        ValueError: there are fewer than two groups, or no features.
    """
    dealt = deal_folds(labels, groups, folds, seed)
    rows, fold = principal_axes(features, folder), torch.from_numpy(dealt)
    y = torch.from_numpy(np.asarray(labels, np.int64))
    sample = torch.from_numpy(np.sort(np.random.default_rng([seed, 7]).permutation(len(labels))[:SAMPLE]))
    chosen, logits = _strength(rows[sample], y[sample], fold[sample], classes, strengths)
    if len(sample) < len(labels):
        numbers = torch.arange(int(dealt.max()) + 1)
        logits = torch.empty(len(labels), classes)
        for some in torch.split(numbers, max(1, LOGITS // (len(labels) * classes))):
            weights = fit(rows, y, (fold[:, None] != some).float(), classes, chosen)
            for number, weight in zip(some, weights, strict=True):
                for place in torch.split(torch.nonzero(fold == number)[:, 0], ROWS):
                    logits[place] = scores(rows[place], weight)
    return OutOfFold(logits.numpy(), dealt, chosen)


def _strength(rows: Tensor, y: Tensor, fold: Tensor, classes: int, strengths: Sequence[float]) -> tuple[float, Tensor]:
    """The strength with the lowest log loss out of fold, and its logits. Each fit starts from the one before."""
    uses = (fold[:, None] != torch.arange(int(fold.max()) + 1)).float()
    weights: Tensor | None = None
    chosen, lowest, kept, rises = strengths[0], float("inf"), torch.empty(0), 0
    for strength in strengths:
        weights = fit(rows, y, uses, classes, strength, weights)
        logits = torch.empty(len(y), classes)
        for number, weight in enumerate(weights):
            logits[fold == number] = scores(rows[fold == number], weight)
        loss = float(functional.cross_entropy(logits, y))
        if loss < lowest:
            chosen, lowest, kept, rises = strength, loss, logits, 0
        else:
            rises += 1
        if rises == 2:
            break
    return chosen, kept


def principal_axes(features: NDArray[np.floating], folder: Path | None = None) -> Tensor:
    """Float32 [N, at most `AXES`]: the centred features along their principal axes, with a mean squared norm of 1."""
    n, width = features.shape
    if not features.size:
        raise ValueError("a probe needs features")
    total = sum((some.sum(axis=0, dtype=np.float64) for _, some in blocks(features)), np.zeros(width))
    mean = torch.from_numpy((total / n).astype(np.float32))

    def centred(some: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(some.astype(np.float32)) - mean

    if n < width:
        values, vectors = torch.linalg.eigh(_gram(centred(features)))
        found = (vectors * values.clamp(min=0).sqrt())[:, -AXES:]
        kept = _kept(values[-AXES:])
        rows: Floats = found[:, kept].numpy()
    else:
        square = sum((_gram(centred(some).T) for _, some in blocks(features, ROWS)), torch.zeros(()))
        values, vectors = torch.linalg.eigh(square)
        kept, vectors = _kept(values[-AXES:]), vectors[:, -AXES:]
        rows = zeros((n, int(kept.sum())), np.float32, folder)
        for place, some in blocks(features, ROWS):
            rows[place] = (centred(some) @ vectors)[:, kept].numpy()
            release(rows)
    norms = torch.cat([torch.from_numpy(some).square().sum(1) for _, some in blocks(rows, ROWS)])
    size = float(norms.mean().sqrt().clamp(min=1e-30))
    for _, some in blocks(rows, ROWS):
        some /= np.float32(size)
    release(rows)
    return torch.from_numpy(np.ascontiguousarray(rows))


def _kept(values: Tensor) -> Tensor:
    """Which axes matter, by their variances in ascending order; bool."""
    if float(values[-1]) > 0:
        return values > 1e-6 * values[-1]
    return torch.arange(len(values)) == len(values) - 1


def _gram(rows: Tensor) -> Tensor:
    return rows @ rows.T


def fit(rows: Tensor, y: Tensor, uses: Tensor, classes: int, strength: float, start: Tensor | None = None) -> Tensor:
    """Weights [F, 1 + D, classes] of F probes on rows along principal axes, as `logistic_regression.fit` has them."""
    return logistic_regression.fit(rows, y, uses, classes, strength, start, on_bias=BIAS, tolerance=TOLERANCE)
