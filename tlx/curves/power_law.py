"""A power law through errors: a + b · n^-c, by weighted least squares within bounds.

Source: Hestness et al. (2017), "Deep learning scaling is predictable, empirically"; Rosenfeld et al. (2020), "A
constructive prediction of the generalization error across scales". For one exponent the best a and b are a linear
problem of two unknowns; the exponent is the best of a fine grid, so that no fit depends on where a search begins.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "PowerLaw", "fit"]
Values = NDArray[np.float64]
FEWEST = 3  # numbers of images that three unknowns need
EXPONENTS = np.geomspace(0.05, 3.0, 160)


@dataclass(frozen=True)
class PowerLaw:
    """error = a + b · (n / unit)^-c; arrays where several were fitted.

    Attributes:
        a: the error that is left with any number of images, 0..1.
        b: the error that images take away, of `unit` images: 0 or above.
        c: how fast, 0.05..3.
        unit: the largest number of images of the fit.
    """

    a: Any
    b: Any
    c: Any
    unit: float

    def error(self, images: float) -> Any:
        """The error with so many images, 0..1."""
        return np.clip(self.a + self.b * (images / self.unit) ** -self.c, 0.0, 1.0)


def fit(images: Values, errors: Values, weights: Values) -> PowerLaw:
    """The law of each row.

    Args:
        images: `[S]`, `FEWEST` different numbers at least.
        errors: `[..., S]`, 0..1.
        weights: `[S]`, of their squared residuals: 1 / variance.
    """
    unit = float(images.max())
    x = (images / unit) ** -EXPONENTS[:, None]  # [C, S]
    w = weights / weights.sum()
    y = errors[..., None, :]
    mean_x, mean_y = (w * x).sum(-1), (w * y).sum(-1)
    spread = (w * (x - mean_x[:, None]) ** 2).sum(-1)
    b = np.maximum((w * (x - mean_x[:, None]) * (y - mean_y[..., None])).sum(-1) / spread, 0.0)
    a = mean_y - b * mean_x
    through_0 = np.maximum((w * x * y).sum(-1) / (w * x**2).sum(-1), 0.0)  # where nothing would be left but less
    a, b = np.where(a < 0, 0.0, a), np.where(a < 0, through_0, b)
    loss = (w * (y - a[..., None] - b[..., None] * x) ** 2).sum(-1)
    best = loss.argmin(-1)[..., None]
    a, b = (np.take_along_axis(part, best, -1)[..., 0] for part in (a, b))
    return PowerLaw(a, b, EXPONENTS[best[..., 0]], unit)
