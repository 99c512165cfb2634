"""Batches of inputs with their labels: cached tensors, images as they are requested, a frozen part's output."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tlx.core.device import paced, pinned, sent
from tlx.core.thread_pool import CHUNK, for_images, for_passes, side_by_side
from tlx.datasets.augmentation import random_view
from tlx.datasets.further_views import FurtherView
from tlx.datasets.images import Images
from tlx.datasets.preprocessing import Preprocessing, as_batch
from tlx.features.frozen_forward import Forward, rows_per_pass

_AHEAD = 2  # threads that put rows together; each has two batches ready


class Rows(Protocol):
    """Rows that can be read in any order."""

    @property
    def y(self) -> Tensor:
        """The labels, int64 `[N]`, on the device."""

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each index tensor of `order`, (x `[B, …]`, y `[B]`) on the device."""


class Indexed(Protocol):
    """N rows of one shape: a tensor, or what reads like one."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """The rows at `index`, int64 `[B]`."""


def looks_of(rows: Rows) -> int:
    """How many views of each image the rows have for evaluation: `batches` takes the number of one for an epoch."""
    return getattr(rows, "looks", 1)


class CachedRows:
    """Rows that are computed already: one tensor (or one that reads its rows from a file) for each view of the images.

    `device`: where `views` lie and are indexed. Batches go to the labels' device. `looks`: see `looks_of`.
    """

    def __init__(self, views: Sequence[Indexed], y: Tensor, device: torch.device | None = None, looks: int = 1) -> None:
        self.views, self.y, self.device, self.looks = views, y, y.device if device is None else device, looks

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`; epoch e sees view e mod K."""
        view, target = self.views[epoch % len(self.views)], self.y.device
        if not order:
            return
        # One transfer for all of an epoch.
        moved = torch.split(sent(torch.cat(list(order)), target), [len(index) for index in order])
        if self.device == target:
            for here in moved:
                yield view[here], self.y[here]
            return
        # Those that lie beside a GPU, or in files, are put together ahead of the step that takes them.
        ahead = side_by_side(lambda index: pinned(view[index], target), order, _AHEAD)
        yield from paced(((sent(x, target), self.y[here]) for here, x in zip(moved, ahead, strict=True)), target)


class Pixels:
    """Images as uint8 `[B, 3, S, S]`: the evaluation view, or random views drawn from (seed, epoch, index) alone.

    They are decoded ahead of the pass that takes them, by threads, or by `workers` processes where those are given;
    images of one array are resized a batch at a time, on the device, and a GPU changes them there.
    """

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
        spec: str = "",
        further: Sequence[FurtherView] = (),
    ) -> None:
        """`spec`: what the pixels depend on but for the images (preprocessing, transforms, seed), for keys.

        `further`: views beside the evaluation view, where there are no transforms; the epoch is the number of one.
        """
        self.images, self.device = images, device
        self.y = torch.as_tensor(images.labels).to(device)
        self.views = Views(images, preprocessing, transforms, on, seed, further)
        self.looks = 1 + len(further)
        self.order = _Order()
        self.loader: DataLoader[Any] | None = None
        # Images of one size that lie in memory need neither decoding nor, one by one, resizing. Random views are drawn
        # one by one: on a CPU by all threads.
        alone = not transforms or device.type == "cuda"
        self.stacked = alone and images.stack(np.zeros(0, dtype=np.int64)) is not None
        # A GPU resizes in floating point, within one level of a CPU's result for the same image.
        self.spec = f"{spec} on {device.type}" if self.stacked else spec
        if workers and not self.stacked:
            self.loader = DataLoader(
                self.views,
                batch_sampler=self.order,
                generator=torch.Generator(),  # a generator of its own: a draw from the global one would change dropout
                num_workers=workers,
                worker_init_fn=_keep_nothing,
                persistent_workers=stay,  # those of a split that is read once end
                pin_memory=device.type == "cuda",
            )

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`; `epoch` chooses the random views."""
        self.order.keys = [[(i, epoch) for i in index.tolist()] for index in order]
        for index, x in zip(order, self._views(), strict=True):
            yield sent(x, self.device), self.y[sent(index, self.y.device)]

    def _views(self) -> Iterator[Tensor]:
        if self.loader is not None:
            return iter(self.loader)
        if self.stacked:
            return map(self._whole, self.order.keys)
        return _decoded(self.views, self.order.keys, for_images(self.device))

    def _whole(self, keys: Sequence[tuple[int, int]]) -> Tensor:
        """A whole batch at once: small images are copied to the device as they are and resized there."""
        pixels = self.images.stack(np.array([index for index, _ in keys], dtype=np.int64))
        assert pixels is not None
        x = self.views.begun(sent(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.device))
        if not self.views.transforms and not self.views.further:
            return x
        return as_batch([self.views.drawn(image, key) for image, key in zip(x, keys, strict=True)])


class Views(Dataset[Tensor]):
    """`(index, epoch)` → uint8 `[3, S, S]`."""

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing,
        transforms: Sequence[Any],
        on: str,
        seed: int,
        further: Sequence[FurtherView] = (),
    ) -> None:
        self.further = further
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
        return self.drawn(self.begun(torch.from_numpy(self.images.decode(key[0])).permute(2, 0, 1)), key)

    def begun(self, images: Tensor) -> Tensor:
        """uint8 `[…, 3, H, W]` as the transforms take them, or as they are seen where there are none."""
        return self.preprocessing.view(images) if self.on == "view" or not self.transforms else images

    def drawn(self, image: Tensor, key: tuple[int, int]) -> Tensor:
        """uint8 `[3, S, S]` of what `begun` gives of one image."""
        if self.further and key[1]:
            return self.further[key[1] - 1].of(image)
        return random_view(image, self.transforms, seed=self.seed, epoch=key[1], index=key[0])


class _Order:
    """Batches of keys for the loader, set anew for each pass (so that its processes can stay).

    It holds no reference to its `Pixels`: in a cycle of references one would wait for the loader's processes in vain.
    """

    def __init__(self) -> None:
        self.keys: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def _keep_nothing(_: int) -> None:
    """A reader process decodes for others: each process would cache the same pixels."""
    info = get_worker_info()
    assert info is not None
    cast(Views, info.dataset).images.store.budget = None


def _decoded(views: Views, order: Sequence[Sequence[tuple[int, int]]], workers: int) -> Iterator[Tensor]:
    """Batches by threads of this process: decoding leaves Python's lock, and nothing is copied between processes."""
    chunks = ([keys[i : i + CHUNK] for i in range(0, len(keys), CHUNK)] for keys in order)
    sizes = [-(-len(keys) // CHUNK) for keys in order]
    made = side_by_side(lambda keys: as_batch([views[key] for key in keys]), itertools.chain(*chunks), workers)
    for size in sizes:
        some = list(itertools.islice(made, size))
        yield some[0] if size == 1 else torch.cat(some)


class Through:
    """Rows after a frozen part of the network, computed as they are requested."""

    def __init__(self, forward: Forward, rows: Rows) -> None:
        self.forward, self.rows, self.looks = forward, rows, looks_of(rows)

    @property
    def y(self) -> Tensor:
        """The labels, int64 `[N]`."""
        return self.rows.y

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`; whatever the batches of `order`, the frozen part runs in batches of its own size."""
        if not order:
            return
        index = torch.cat(list(order))
        made, have = list[Tensor](), 0
        sizes = iter([len(batch) for batch in order])
        size, start = next(sizes), 0
        below = self.rows.batches(torch.split(index, rows_per_pass(self.y.device)), epoch)
        for x in side_by_side(self.forward, (x for x, _ in below), for_passes(self.y.device)):
            made.append(x)
            have += len(x)
            while size and have >= size:
                whole = made[0] if len(made) == 1 else torch.cat(made)
                batch, rest = whole[:size], whole[size:]
                yield batch, self.y[sent(index[start : start + size], self.y.device)]
                made, have, start, size = [rest] if len(rest) else [], have - size, start + size, next(sizes, 0)


def in_order(n: int, batch_size: int) -> list[Tensor]:
    """The indices 0…n-1 in batches."""
    return list(torch.split(torch.arange(n), batch_size))


def shuffled(n: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """A permutation of 0…n-1 in batches; a last batch of one joins the one before (BatchNorm needs two values)."""
    return _in_batches(torch.randperm(n, generator=generator), batch_size)


def balanced(y: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """As many indices as labels in batches as `shuffled` has, each class as often as the others, or once more.

    The images of a class are drawn equally often, or once more: a frequent class leaves some out, a rare one repeats.

    Args:
        y: int64 `[N]`, with every class in it.
    """
    counts = torch.bincount(y).tolist()
    share, more = divmod(len(y), len(counts))
    favoured = set(torch.randperm(len(counts), generator=generator)[:more].tolist())
    drawn = []
    for label, members in enumerate(torch.split(torch.argsort(y, stable=True), counts)):
        wanted = share + (label in favoured)
        rounds = [torch.randperm(len(members), generator=generator) for _ in range(-(-wanted // len(members)))]
        drawn += [members[torch.cat(rounds)[:wanted]]] if rounds else []
    return _in_batches(torch.cat(drawn)[torch.randperm(len(y), generator=generator)], batch_size)


def _in_batches(indices: Tensor, batch_size: int) -> list[Tensor]:
    order = list(torch.split(indices, batch_size))
    if len(order) > 1 and len(order[-1]) == 1:
        order[-2:] = [torch.cat(order[-2:])]
    return order
