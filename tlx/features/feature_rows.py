"""Rows behind a cut, computed once: what a row is, and rows as one tensor in memory or in files of the store."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlx.core.device import autocast, sent
from tlx.core.large_arrays import SMALL, release
from tlx.features.batches import Pixels, Rows
from tlx.features.disk_cache import FoundRows, RowStore
from tlx.features.frozen_forward import rows_per_pass

PIECE, PASSES = 1 << 27, 256  # bytes of rows that are stored together, and of how many rows they are a multiple


@dataclass(frozen=True)
class Outline:
    """What a row is: its shape (channels first), its format, and whether its bytes lie with the channels last."""

    size: tuple[int, ...]
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.size)) * self.dtype.itemsize

    @property
    def format(self) -> str:
        """The number format, in words."""
        return {"float32": "fp32", "bfloat16": "bf16"}.get(name := str(self.dtype).removeprefix("torch."), name)

    def empty(self, n: int, device: torch.device) -> Tensor:
        """`[n, …]`, maps with the channels last."""
        maps = torch.channels_last if len(self.size) == 3 else torch.contiguous_format
        return torch.empty((n, *self.size), dtype=self.dtype, device=device, memory_format=maps)

    def to_bytes(self, x: Tensor) -> NDArray[np.uint8]:
        """`[n, …]` → uint8 `[n, row_bytes]`."""
        x = (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous().cpu()
        raw: NDArray[np.uint8] = x.view(len(x), -1).view(torch.uint8).numpy()
        return raw

    def from_bytes(self, raw: NDArray[np.uint8]) -> Tensor:
        """The inverse of `to_bytes`."""
        x = torch.from_numpy(raw).view(self.dtype)
        if len(self.size) != 3:
            return x.view(len(raw), *self.size)
        channels, height, width = self.size
        return x.view(len(raw), height, width, channels).permute(0, 3, 1, 2)


def outline(net: nn.Sequential, cut: int, input_size: int, precision: str, device: torch.device) -> Outline:
    """What a row before stage `cut` is (uint8 pixels where nothing is frozen), found by running one image."""
    x = torch.zeros(1, 3, input_size, input_size, dtype=torch.uint8, device=device)
    if cut:
        with torch.no_grad(), autocast(device, precision):
            x = net[:cut].eval()(x)
    return Outline(tuple(x.shape[1:]), x.dtype)


@dataclass(frozen=True)
class Mapped:
    """Rows in files of the store, read as they are requested; what was read does not stay in this process's memory."""

    found: FoundRows
    outline: Outline
    _unreleased: list[int] = field(default_factory=lambda: [0])  # bytes that were read since files were released

    def __getitem__(self, index: Tensor) -> Tensor:
        """The rows at `index`, int64 `[B]` on the CPU."""
        chosen = index.numpy()
        raw = np.empty((len(chosen), self.outline.row_bytes), dtype=np.uint8)
        block, row = self.found.block[chosen], self.found.row[chosen]
        for number in np.unique(block):
            raw[block == number] = self.found.blocks[number][row[block == number]]
        self._unreleased[0] += raw.nbytes
        if self._unreleased[0] >= SMALL:
            self._unreleased[0] = 0
            for mapped in self.found.blocks:
                release(mapped)
        return self.outline.from_bytes(raw)


@dataclass(frozen=True)
class Task:
    """One view of a split's images, to be brought behind a cut; `live` computes it, `step` is called with rows done."""

    pixels: Pixels
    view: int
    outline: Outline
    live: Callable[[], Rows]
    step: Callable[[int], None]

    def keys(self) -> list[str]:
        """What each row is stored under: the image's content, and for a random view also where its draws come from."""
        digests = self.pixels.images.digests()
        views = self.pixels.views
        if not views.transforms and not self.view:
            return digests
        of_view = str(views.further[self.view - 1]) if views.further else ""
        named = (f"{digest}/{of_view or f'{self.view}/{index}'}" for index, digest in enumerate(digests))
        return [hashlib.blake2b(name.encode(), digest_size=20).hexdigest() for name in named]

    def compute(self, indices: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        """(positions, rows) of the images at `indices`."""
        if len(indices):
            order = torch.split(torch.from_numpy(indices), rows_per_pass(self.pixels.device))
            for index, (x, _) in zip(order, self.live().batches(order, self.view), strict=True):
                yield index, x
                self.step(len(index))


class Known(NamedTuple):
    """How many rows need not be computed: those that earlier runs have left, and those of images that this run has
    computed already, for copies of them."""

    earlier: int = 0
    copies: int = 0


def made_rows(
    task: Task, store: RowStore | None, namespace: str, about: Mapping[str, str], where: torch.device | None
) -> tuple[Tensor | Mapped | None, Known]:
    """The rows in the memory of `where`, or as files of the store; and how many of them were known.

    None where no memory is given and the store cannot take them.
    """
    if where is not None:
        return _in_memory(task, store, namespace, about, where)
    assert store is not None
    return _in_files(task, store, namespace, about)


def _in_memory(
    task: Task, store: RowStore | None, namespace: str, about: Mapping[str, str], device: torch.device
) -> tuple[Tensor, Known]:
    """The rows as one tensor on `device`, and how many of them were known; what was not is stored."""
    n, outline = len(task.pixels.y), task.outline
    x = outline.empty(n, device)
    if store is None:
        for index, some in task.compute(np.arange(n)):
            x[sent(index, device)] = sent(some, device)
        return x, Known()
    keys, chunk = task.keys(), max(1, SMALL // outline.row_bytes)
    with store.lock(namespace):
        found = store.find(namespace, keys, outline.row_bytes)
        known = np.flatnonzero(found.block >= 0)
        for start in range(0, len(known), chunk):
            some = torch.from_numpy(known[start : start + chunk])
            x[sent(some, device)] = sent(Mapped(found, outline)[some], device)
        for missing in _pieces(found.missing, outline, store):
            for index, rows in task.compute(missing):
                x[sent(index, device)] = sent(rows, device)
            with store.write(namespace, [keys[i] for i in missing], outline.row_bytes, about) as block:
                if block is not None:
                    block[:] = outline.to_bytes(x[sent(torch.from_numpy(missing), device)])
    return x, Known(len(known) - found.owned, found.owned)


def _in_files(task: Task, store: RowStore, namespace: str, about: Mapping[str, str]) -> tuple[Mapped | None, Known]:
    """The rows as files, and how many of them were known; None where the store cannot take them."""
    keys, outline = task.keys(), task.outline
    with store.lock(namespace):
        found = store.find(namespace, keys, outline.row_bytes)
        known = Known(len(keys) - len(found.missing) - found.owned, found.owned)
        for missing in _pieces(found.missing, outline, store):
            with store.write(namespace, [keys[i] for i in missing], outline.row_bytes, about) as block:
                if block is None:
                    return None, Known()
                done = 0
                for index, rows in task.compute(missing):
                    block[done : done + len(index)] = outline.to_bytes(rows)
                    done += len(index)
        if len(found.missing):
            found = store.find(namespace, keys, outline.row_bytes)
    # Another process may have freed space for its own meanwhile.
    return (None if len(found.missing) else Mapped(found, outline)), known


def _pieces(missing: NDArray[np.int64], outline: Outline, store: RowStore) -> list[NDArray[np.int64]]:
    """The rows that are computed before they are stored: what is interrupted goes on behind the last of them.

    All at once where the store does not take all: pieces would push each other out.
    """
    size = max(1, PIECE // outline.row_bytes // PASSES) * PASSES
    if not store.takes(len(missing), outline.row_bytes):
        size = max(1, len(missing))
    return [missing[start : start + size] for start in range(0, len(missing), size)]
