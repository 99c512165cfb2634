"""Rows behind a cut as one vector an image: maps and tokens are averaged."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlx.features.batches import Rows

BATCH = 256


def pooled(rows: Rows, images: Tensor) -> NDArray[np.float32]:
    """The rows of some images, float32 [N, D]: `[N, D, H, W]` averaged over places, `[N, T, D]` over tokens.

    `images`: int64 [N], their places.
    """
    return np.concatenate(list(pooled_batches(rows, images)))


def pooled_batches(rows: Rows, images: Tensor) -> Iterator[NDArray[np.float32]]:
    """The same, some images after the other."""
    for x, _ in rows.batches(list(torch.split(images, BATCH)), 0):
        yield vectors(x.float()).cpu().numpy()


def vectors(x: Tensor) -> Tensor:
    """One vector a row, [N, D]: maps `[N, D, H, W]` averaged over places, tokens `[N, T, D]` over tokens."""
    return x.flatten(2).mean(2) if x.ndim > 3 else x.mean(1) if x.ndim == 3 else x
