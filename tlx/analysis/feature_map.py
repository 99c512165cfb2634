"""A map of images: their features along the two directions in which they differ most (PCA). No torch here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

AXES = 8  # that are followed; the two largest are kept
STEPS = 12  # of subspace iteration


@dataclass(frozen=True)
class FeatureMap:
    """Places of images.

    Attributes:
        places: float64 [N, 2], each column within 0..1.
        explained: the share of the variance along each of the two directions.
    """

    places: Reals
    explained: tuple[float, float]


def feature_map(features: NDArray[np.floating]) -> FeatureMap:
    """The two principal components of features [N, D], by subspace iteration; without any variance all at one place.

    The sign of each is such that the image that is farthest from the middle lies on the positive side.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    whole = float(np.square(centred).sum())
    if len(centred) < 2 or whole <= 0:
        return FeatureMap(np.full((len(centred), 2), 0.5), (0.0, 0.0))
    products = centred @ centred.T  # there are few images: less work than with the directions themselves
    width = min(AXES, len(centred))
    basis = np.random.default_rng(0).standard_normal((len(centred), width))
    for _ in range(STEPS):
        basis = np.linalg.qr(products @ basis)[0]
    values, turned = np.linalg.eigh(basis.T @ products @ basis)
    sizes = np.sqrt(np.maximum(values[::-1], 0.0))
    rows = (basis @ turned[:, ::-1]) * sizes
    places = np.zeros((len(rows), 2))
    places[:, : min(2, width)] = rows[:, :2]
    places *= np.sign(places[np.abs(places).argmax(axis=0), [0, 1]] + 1e-300)
    low, high = places.min(axis=0), places.max(axis=0)
    shares = [*(np.square(sizes[:2]) / whole).tolist(), 0.0]
    return FeatureMap((places - low) / np.maximum(high - low, 1e-30), (shares[0], shares[1]))
