"""Further views of an image that a model averages over: parts of its evaluation view, mirrored or not."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tlx.config.evaluation_schema import view_problem
from tlx.core.errors import RequestError

__all__ = ["FurtherView", "mean_logits"]


@dataclass(frozen=True)
class FurtherView:
    """A square part of the evaluation view, brought to its size (bilinear) and mirrored or not.

    `side`, `top`, `left`: of the part, as shares of the view's side, 0..1. Raises `RequestError` where it is not within
    the view.
    """

    flip: bool = False
    side: float = 1.0
    top: float = 0.0
    left: float = 0.0

    def __post_init__(self) -> None:
        if problem := view_problem(vars(self)):
            raise RequestError(problem)

    def of(self, view: Tensor) -> Tensor:
        """uint8, or float of whole numbers in 0..255, `[…, 3, S, S]` → the same type and shape."""
        size = view.shape[-1]
        side = max(1, round(self.side * size))
        top, left = (min(round(share * size), size - side) for share in (self.top, self.left))
        part = view[..., top : top + side, left : left + side]
        if side != size:
            several = part.reshape(-1, 3, side, side).float()
            wide = functional.interpolate(several, (size, size), mode="bilinear", align_corners=False)
            part = wide.round().clamp(0, 255).to(view.dtype).reshape(view.shape)
        return part.flip(-1) if self.flip else part


def mean_logits(found: Sequence[Tensor]) -> Tensor:
    """The logits of several views of the same images, each `[N, classes]`, as those of the images."""
    return found[0] if len(found) == 1 else torch.stack(list(found)).mean(0)
