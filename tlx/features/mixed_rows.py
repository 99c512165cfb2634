"""Rows whose batches are mixed: each image with another one of its batch, and their labels with them."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tlx.core.seeding import seed_from
from tlx.core.thread_pool import for_passes, side_by_side
from tlx.datasets.augmentation import draws_from
from tlx.distributed import process_group
from tlx.features.batches import Rows
from tlx.features.frozen_forward import Forward

# (float images [B, C, H, W], shares of the classes [B, classes]) → the same, mixed; as torchvision's MixUp and CutMix.
Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Mixed:
    """Batches of `rows`, each mixed by draws that come from (seed, epoch, number of the batch) alone.

    What is mixed is what `rows` are: pixels, 0..255, or features, of which all numbers of a row are mixed alike where
    they are no map. With labels y float32 `[B, classes]`, the shares of each class, which sum to 1.
    """

    def __init__(self, rows: Rows, mixing: Mixing, seed: int, frozen: Forward | None = None) -> None:
        """`rows`: with every class. `frozen`: stages through which what is mixed goes before it is given."""
        self.rows, self.mixing, self.seed, self.frozen = rows, mixing, seed, frozen
        self.classes = int(rows.y.max()) + 1

    @property
    def y(self) -> Tensor:
        """The labels before they are mixed, int64 `[N]`."""
        return self.rows.y

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`, but with shares of the classes for labels."""
        mixed = (self._mixed(x, y, epoch, step) for step, (x, y) in enumerate(self.rows.batches(order, epoch)))
        if self.frozen is None:
            yield from mixed
            return
        frozen = self.frozen
        yield from side_by_side(lambda pair: (frozen(pair[0]), pair[1]), mixed, for_passes(self.y.device))

    def _mixed(self, x: Tensor, y: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        shares, images = functional.one_hot(y, self.classes).float(), x.float()
        images = images if images.ndim == 4 else images.flatten(1)[:, :, None, None]
        with draws_from(seed_from(self.seed, "mixing", epoch, step, process_group.rank())):
            images, shares = self.mixing(images, shares)
        return images.view(x.shape) if x.ndim != 4 else images, shares


def tried(mixing: Mixing) -> None:
    """Mixes a small batch. Raises `ValueError` where images change shape, or labels are no shares of two classes."""
    with draws_from(0):
        for _ in range(4):
            x, y = mixing(torch.full((4, 3, 8, 8), 9.0), torch.eye(4))
            if x.shape != (4, 3, 8, 8) or y.shape != (4, 4):
                raise ValueError(f"makes images {list(x.shape)} and labels {list(y.shape)} of 4 images and classes")
            if not torch.allclose(y.topk(2).values.sum(1), torch.ones(4)) or y.min() < 0:
                found = ", ".join(f"{share:.3g}" for share in y[0].tolist())
                raise ValueError(f"makes labels [{found}], which are not shares of two classes at most")
