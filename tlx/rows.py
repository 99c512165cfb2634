"""Batches of inputs with their labels: resident tensors, images as they are asked for, a frozen part's output."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tlx.data import Images
from tlx.pixels import Preprocessing, random_view
from tlx.runtime import autocast

BATCH = 32  # rows in a forward pass that nothing is learned from


class Rows(Protocol):
    """Rows that can be read in any order."""

    @property
    def y(self) -> Tensor:
        """The labels, int64 `[N]`, on the device."""

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each index tensor of `order`, (x `[B, …]`, y `[B]`) on the device."""


class Resident:
    """Rows in memory as one tensor, on the device that computes."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`; nothing is random."""
        for index in order:
            index = index.to(self.y.device, non_blocking=True)
            yield self.x[index], self.y[index]


class Pixels:
    """Images as uint8 `[B, 3, S, S]`: the evaluation view, or random views drawn from (seed, epoch, index) alone."""

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing,
        device: torch.device,
        *,
        transforms: Sequence[Any] = (),
        on: str = "view",
        seed: int = 0,
        workers: int = 0,
        stay: bool = False,
    ) -> None:
        self.y = torch.as_tensor(images.labels).to(device)
        self.device = device
        self.order: list[list[tuple[int, int]]] = []
        self.loader: DataLoader[Any] = DataLoader(
            Views(images, preprocessing, transforms, on, seed),
            batch_sampler=_Order(self),
            num_workers=workers,
            persistent_workers=stay and workers > 0,  # those of a part that is read once go
            pin_memory=device.type == "cuda",
        )

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`; `epoch` chooses the random views."""
        self.order = [[(int(i), epoch) for i in index] for index in order]
        for index, x in zip(order, self.loader, strict=True):
            yield x.to(self.device, non_blocking=True), self.y[index.to(self.y.device)]


class Views(Dataset[Tensor]):
    """`(index, epoch)` → uint8 `[3, S, S]`."""

    def __init__(
        self, images: Images, preprocessing: Preprocessing, transforms: Sequence[Any], on: str, seed: int
    ) -> None:
        self.images, self.preprocessing, self.transforms, self.on, self.seed = (
            images,
            preprocessing,
            transforms,
            on,
            seed,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        index, epoch = key
        image = torch.from_numpy(self.images.decode(index)).permute(2, 0, 1)
        if self.on == "view" or not self.transforms:
            image = self.preprocessing.view(image)
        if self.transforms:
            image = random_view(image, self.transforms, seed=self.seed, epoch=epoch, index=index)
        return image


class _Order:
    """Batches of keys for the loader, set anew for each pass (so that its processes can stay)."""

    def __init__(self, rows: Pixels) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.rows.order)

    def __len__(self) -> int:
        return len(self.rows.order)


class Through:
    """Rows after a frozen part of the network, computed as they are asked for; `shape` as in `frozen`."""

    def __init__(self, prefix: nn.Sequential, rows: Rows, precision: str, shape: int) -> None:
        self.prefix, self.rows, self.precision, self.shape = prefix, rows, precision, shape

    @property
    def y(self) -> Tensor:
        """The labels, int64 `[N]`."""
        return self.rows.y

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`; x is what the frozen part makes of the rows below."""
        for x, y in self.rows.batches(order, epoch):
            yield frozen(self.prefix, x, self.precision, self.shape), y


def frozen(prefix: nn.Sequential, x: Tensor, precision: str, shape: int) -> Tensor:
    """What a frozen part, in evaluation mode, makes of rows `[B, …]`; the rows themselves where it has no stage.

    Libraries choose their algorithm by the size of a batch, and another algorithm rounds differently: every forward
    pass has `shape` rows, the last one filled up, so that a row's output does not depend on those it comes with.
    """
    if not len(prefix):
        return x
    with torch.no_grad(), autocast(x.device, precision):
        if len(x) == shape:
            return cast(Tensor, prefix(as_input(x, precision)))
        found = []
        for some in torch.split(x, shape):
            full = torch.cat([some, some.new_zeros(shape - len(some), *some.shape[1:])])
            found.append(prefix(as_input(full, precision))[: len(some)])
        return torch.cat(found)


def as_input(x: Tensor, precision: str) -> Tensor:
    """`x` as a forward pass in `precision` takes it: kept 16-bit features widened where it is fp32, images and maps in
    the layout that convolutions are fastest in."""
    if precision == "fp32" and x.is_floating_point():
        x = x.float()
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def in_order(n: int, batch_size: int) -> list[Tensor]:
    """The indices 0…n-1 in batches."""
    return list(torch.split(torch.arange(n), batch_size))


def shuffled(n: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """A permutation of 0…n-1 in batches; a last batch of one joins the one before (BatchNorm needs two values)."""
    order = list(torch.split(torch.randperm(n, generator=generator), batch_size))
    if len(order) > 1 and len(order[-1]) == 1:
        order[-2:] = [torch.cat(order[-2:])]
    return order
