"""Augmentations that torchvision lacks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tlx.core.errors import RequestError


class ShearZoom(nn.Module):
    """Shears along x and zooms each axis by its own factor about the centre; edges are replicated, not filled.

    `degrees`: the shear is drawn from ±degrees. `scale`: (low, high) of the factor by which each axis is stretched.
    uint8 or float [..., C, H, W] in and out, same shape. torchvision has neither a zoom per axis nor replicated edges.
    """

    def __init__(self, degrees: float, scale: Sequence[float]) -> None:
        super().__init__()
        if degrees < 0 or degrees >= 90:
            raise RequestError(f"augmentation: ShearZoom degrees={degrees} must be in 0..90 (90 excluded)")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise RequestError(f"augmentation: ShearZoom scale={list(scale)} must be [low, high] with 0 < low <= high")
        self.degrees, self.scale = float(degrees), (float(scale[0]), float(scale[1]))

    def forward(self, image: Tensor) -> Tensor:
        """uint8 or float [..., C, H, W] to the same dtype and shape."""
        low, high = self.scale
        zoom_x, zoom_y = (low + (high - low) * torch.rand(2)).tolist()
        angle = torch.deg2rad(self.degrees * (2 * torch.rand(()) - 1))
        height, width = image.shape[-2:]
        # From output to input coordinates, both -1..1 over the image: the inverse of the stretch, in pixels' aspect.
        shear = float(torch.sin(angle)) * height / width
        theta = torch.tensor([[1 / zoom_x, -shear / zoom_y, 0.0], [0.0, float(torch.cos(angle)) / zoom_y, 0.0]])
        batch = image.reshape(-1, *image.shape[-3:])
        grid = nn.functional.affine_grid(theta.expand(len(batch), 2, 3), list(batch.shape), align_corners=False)
        moved = nn.functional.grid_sample(
            batch.float(), grid.to(image.device), mode="bilinear", padding_mode="border", align_corners=False
        )
        if not image.is_floating_point():
            moved = moved.round().clamp(0, 255)
        return moved.to(image.dtype).reshape(image.shape)
