"""Clusters of images by their features: k-means on unit vectors, whose centres are found from a part. No torch here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlx.datasets.images import Labels

IMAGES = 40  # of a cluster, about
MOST = 12  # clusters
SAMPLE = 3_000  # images from which the centres are found
STEPS = 25


@dataclass(frozen=True)
class Clusters:
    """`of`: the cluster of each image, int64 [N]. `typical`: of each cluster the images nearest its centre, nearest
    first."""

    of: Labels
    typical: list[list[int]]


def clusters(features: NDArray[np.floating], *, typical: int = 4, seed: int = 0) -> Clusters:
    """Clusters of images with similar features [N, D], by the cosine of the centred features; one, of few images.

    Source: Dhillon, Modha (2001), "Concept decompositions for large sparse text data", for k-means of unit vectors.
    """
    vectors = features.astype(np.float32) - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = max(1, min(MOST, len(vectors) // IMAGES))
    random = np.random.default_rng([seed, 9])
    part = vectors[np.sort(random.permutation(len(vectors))[:SAMPLE])]
    centres = _spread(part, count, random)
    for _ in range(STEPS):
        nearest = (part @ centres.T).argmax(axis=1)
        sums = np.stack([part[nearest == number].sum(axis=0) for number in range(count)])
        sizes = np.linalg.norm(sums, axis=1, keepdims=True)
        moved = np.where(sizes > 1e-6, sums / np.maximum(sizes, 1e-12), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    cosines = vectors @ centres.T
    of = cosines.argmax(axis=1)
    shown = []
    for number in range(count):
        inside = np.flatnonzero(of == number)
        shown.append(inside[np.argsort(-cosines[inside, number], kind="stable")][:typical].tolist())
    return Clusters(of, shown)


def _spread(vectors: NDArray[np.float32], count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Vectors to begin with: each next one is drawn by its distance to those that are there (k-means++)."""
    chosen = [int(random.integers(len(vectors)))]
    far = np.full(len(vectors), np.inf)
    while len(chosen) < count:
        far = np.minimum(far, np.maximum(1 - vectors @ vectors[chosen[-1]], 0.0))
        total = float(far.sum())
        if total <= 0:  # all others are equal to one of them
            break
        chosen.append(int(random.choice(len(vectors), p=far / total)))
    found: NDArray[np.float32] = vectors[[*chosen, *[chosen[0]] * (count - len(chosen))]]
    return found
