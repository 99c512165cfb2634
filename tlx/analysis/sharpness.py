"""How sharp a picture is, by its sharpest parts: a smooth background takes nothing from it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SHORT = 256  # pixels of the short side that a picture has less of when its sharpness is measured
LEAST = 64  # pixels of the short side below which nothing is said
TILE = 16  # side of a part
REACH = 2  # pixels to either side of the mean that a picture is compared with
CONTRAST = 0.3  # of the part with the highest contrast, below which a part says nothing
_ONES = np.ones(TILE, np.float32)


def reduced(picture: Image.Image) -> Image.Image:
    """The picture with a short side of less than 256 pixels, and of 128 or more where it has as many."""
    scale = min(picture.size) // SHORT + 1
    return picture.reduce(scale) if scale > 1 else picture


def sharpness(grey: Image.Image) -> float:
    """The sharpness of the sharpest parts of a picture of mode L, 0..1; NaN for a small one or one without contrast.

    Crete et al. 2007 ("The Blur Effect"), in parts: the share of the differences between neighbours that a mean over a
    few pixels takes away. From a picture that is blurred already it takes little.
    """
    if min(grey.size) < LEAST:
        return float("nan")
    totals, takens = [], []
    values = np.asarray(grey).astype(np.int16)
    for axis, radius in ((0, (0, REACH)), (1, (REACH, 0))):
        mean = np.asarray(grey.filter(ImageFilter.BoxBlur(radius))).astype(np.int16)
        changed, smooth = (_changes(each, axis) for each in (values, mean))
        totals.append(_tiles(changed))
        takens.append(_tiles(np.maximum(changed - smooth, 0)))
    total, taken = totals[0] + totals[1], takens[0] + takens[1]
    most = float(total.max(initial=0.0))
    if most <= 0:
        return float("nan")
    seen = total >= CONTRAST * most
    return float(np.max(taken[seen] / total[seen]))


def _changes(values: NDArray[np.int16], axis: int) -> NDArray[np.int16]:
    """The differences between neighbours along an axis, `[H - 1, W - 1]`."""
    first = values[:-1, :-1]
    other = values[1:, :-1] if axis == 0 else values[:-1, 1:]
    changed: NDArray[np.int16] = np.abs(other - first)
    return changed


def _tiles(values: NDArray[np.int16]) -> NDArray[np.float32]:
    """The sum of each part, `[H / TILE, W / TILE]`; the parts lie side by side, without the picture's edges."""
    inner = values[REACH:-REACH, REACH:-REACH]
    height, width = (length // TILE for length in inner.shape)
    whole = inner[: height * TILE, : width * TILE].astype(np.float32)
    rows = whole.reshape(height * TILE, width, TILE) @ _ONES
    sums: NDArray[np.float32] = rows.reshape(height, TILE, width).sum(axis=1)
    return sums
