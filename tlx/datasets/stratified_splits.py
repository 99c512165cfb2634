"""Splits of labelled images by class: every class is on both sides in the same share, and the seed says which images.

Images that have groups are split by `group_splits` instead: no group is on two sides.
"""

import numpy as np
from numpy.typing import NDArray

from tlx.datasets import group_splits
from tlx.datasets.images import Images, Labels


def ranks(labels: Labels, seed: int, salt: int = 2) -> Labels:
    """Each image's place in its class's own shuffled order, from 0."""
    ranks = np.empty_like(labels)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.random.default_rng([seed, salt, int(label)]).permutation(len(members))
    return ranks


def order(labels: Labels, seed: int) -> Labels:
    """An order of the images of which every beginning is stratified (each class within one of its share)."""
    counts = np.bincount(labels)
    share = (ranks(labels, seed) + 0.5) / counts[labels]
    ties = np.random.default_rng([seed, 3]).permutation(len(counts))
    return np.lexsort((ties[labels], share))


def cut(images: Images, fraction: float, seed: int, salt: int) -> tuple[Images, Images]:
    """(the rest, `fraction` of the images): stratified by largest remainders, at least one of a class on both sides."""
    if images.groups is not None:
        return _sides(images, group_splits.deal(images, (1 - fraction, fraction), seed, salt) == 1)
    counts = np.bincount(images.labels)
    shares = counts * fraction
    taken = np.floor(shares).astype(np.int64)
    missing = round(fraction * len(images)) - int(taken.sum())
    taken[np.argsort(taken - shares, kind="stable")[: max(missing, 0)]] += 1
    taken = np.clip(taken, np.minimum(1, counts), np.maximum(counts - 1, 0))
    chosen = ranks(images.labels, seed, salt) < taken[images.labels]
    return _sides(images, chosen)


def fold(images: Images, folds: int, fold: int, seed: int) -> tuple[Images, Images]:
    """(the rest, the fold): a class's images are dealt in their shuffled order, from where the class before ended.

    So the folds differ by at most one image, of each class and in all.
    """
    if images.groups is not None:
        return _sides(images, group_splits.deal(images, [1 / folds] * folds, seed, salt=4) == fold)
    counts = np.bincount(images.labels)
    place = (np.cumsum(counts) - counts)[images.labels] + ranks(images.labels, seed, salt=4)
    return _sides(images, place % folds == fold)


def _sides(images: Images, chosen: NDArray[np.bool_]) -> tuple[Images, Images]:
    return images.subset(np.flatnonzero(~chosen)), images.subset(np.flatnonzero(chosen))
