"""The view of an image in a traced graph has the pixels of the view that the network was measured with."""

import numpy as np
import pytest
import torch

from tlx.datasets.preprocessing import Preprocessing
from tlx.datasets.traced_view import TracedView

SIZES = ((50, 37), (64, 64), (375, 500), (301, 100), (7, 9), (1, 1), (2, 31), (72, 300), (1000, 64), (65, 1))
WAYS = {
    "crop": (64, 72, 64, False),
    "odd crop": (33, 40, 33, False),
    "as large as the crop": (64, 64, 64, False),
    "squash": (60, None, None, False),
    "pad": (64, None, None, True),
}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("way", WAYS)
def test_the_traced_view_is_the_view_but_for_single_levels(way: str, interpolation: str) -> None:
    size, resize, crop, pad = WAYS[way]
    seen = Preprocessing(size, resize, crop, (0.485, 0.456, 0.406), (0.5, 0.5, 0.5), interpolation, pad=pad)
    traced, random = TracedView(seen), np.random.default_rng(0)
    for height, width in SIZES:
        pixels = np.clip(random.normal(128, 60, (height, width, 3)), 0, 255).astype(np.uint8)
        (found,) = traced(torch.from_numpy(pixels)[None])
        apart = (found - seen.of(pixels).float()).abs()
        assert found.shape == (3, size, size)
        assert apart.max() <= 2
        assert (apart > 0).float().mean() < 1e-2


def test_a_batch_is_its_images() -> None:
    seen = Preprocessing(32, 40, 32, (0.5,) * 3, (0.5,) * 3, "bicubic")
    images = torch.randint(0, 256, (3, 90, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    traced = TracedView(seen)
    assert torch.equal(traced(images), torch.cat([traced(one[None]) for one in images]))
