"""A map of images by their features: by UMAP where it is installed, else along the two directions in which they differ
most (PCA). No torch here."""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

AXES = 8  # that are followed; the two largest are kept
STEPS = 12  # of subspace iteration
NEIGHBOURS = 15  # of each image, that UMAP keeps near it


@dataclass(frozen=True)
class FeatureMap:
    """Places of images.

    Attributes:
        places: float64 [N, 2], each column within 0..1.
        explained: the share of the variance along each of the two directions; None of UMAP, which has no directions.
    """

    places: Reals
    explained: tuple[float, float] | None


def feature_map(features: NDArray[np.floating]) -> FeatureMap:
    """The places of images by features [N, D]: by UMAP where it is installed and there are images enough, else PCA."""
    if find_spec("umap") is None or len(features) <= 2 * NEIGHBOURS:
        return principal(features)
    return FeatureMap(_within(_umap(features)), None)


def _umap(features: NDArray[np.floating]) -> Reals:
    """Float64 [N, 2], in which near images are alike (McInnes et al. 2018); the same at each call."""
    with warnings.catch_warnings():  # it warns that TensorFlow is not installed, which one of its classes takes
        warnings.simplefilter("ignore")
        from umap.umap_ import UMAP

        found = UMAP(n_neighbors=NEIGHBOURS, metric="cosine", random_state=0, n_jobs=1).fit_transform(features)
    return np.asarray(found, np.float64)


def _within(places: Reals) -> Reals:
    """Each column from 0 to 1."""
    low, high = places.min(axis=0), places.max(axis=0)
    found: Reals = (places - low) / np.maximum(high - low, 1e-30)
    return found


def principal(features: NDArray[np.floating]) -> FeatureMap:
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
    shares = [*(np.square(sizes[:2]) / whole).tolist(), 0.0]
    return FeatureMap(_within(places), (shares[0], shares[1]))
