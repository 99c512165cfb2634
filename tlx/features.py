"""The frozen part of a network, computed once: its output is a pure function of the pixels while it is frozen."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tlx.rows import BATCH, Pixels, Resident, Rows, Through, frozen, in_order
from tlx.runtime import free_memory

_SHARE = 0.5  # of the memory that is free


@dataclass
class Features:
    """Rows for training and evaluation of what lies behind a cut.

    Attributes:
        parts: the evaluation view of each part (train, val, test).
        random: random views of the training part, where there is an augmentation.
        mode: `live` computes the frozen part anew for each batch; `exact` computes it in fp32; `auto` in `precision`.
        budget: bytes that may be kept; None: half of what is free.
        say: takes one line about what happens.
    """

    parts: Mapping[str, Pixels]
    random: Pixels | None
    device: torch.device
    precision: str
    mode: str = "auto"
    budget: int | None = None
    say: Callable[[str], None] = lambda line: None
    seconds: float = 0.0
    _kept: dict[str, tuple[str, Resident]] = field(default_factory=dict)

    def rows(self, net: nn.Sequential, cut: int, part: str, batch_size: int = BATCH, *, training: bool = False) -> Rows:
        """The rows of `part` as `net[cut:]` takes them, on the device.

        Where nothing random precedes the cut they are computed once for each content of `net[:cut]` and kept in memory;
        where they do not fit, or are random, the frozen part runs for each batch. Every forward pass of the frozen part
        has `batch_size` rows, so that both ways give the same bits on a CPU.
        """
        pixels = self.random if training and self.random is not None else self.parts[part]
        prefix, precision = net[:cut].eval(), "fp32" if self.mode == "exact" else self.precision
        live = Through(prefix, pixels, precision, batch_size) if cut else pixels
        if pixels is self.random:
            return live
        key = f"{cut}/{precision}/{batch_size}/{fingerprint(prefix)}"
        if part in self._kept and self._kept[part][0] == key:
            return self._kept[part][1]
        self._kept.pop(part, None)
        x = None if self.mode == "live" else self._compute(net, cut, pixels, precision, batch_size, part)
        if x is None:
            return live
        self._kept[part] = (key, Resident(x, pixels.y))
        return self._kept[part][1]

    def _compute(
        self, net: nn.Sequential, cut: int, pixels: Pixels, precision: str, batch_size: int, part: str
    ) -> Tensor | None:
        began = time.perf_counter()
        kept: Tensor | None = None
        done = 0
        name = next(stage for i, (stage, _) in enumerate(net.named_children()) if i == cut)
        n = len(pixels.y)
        for x, _ in pixels.batches(in_order(n, batch_size), epoch=0):
            batch = frozen(net[:cut], x, precision, batch_size)
            if kept is None:
                size = n * batch[0].numel() * batch.element_size()
                free = self.budget if self.budget is not None else int(free_bytes(self.device) * _SHARE)
                if size > free:
                    self.say(
                        f"features: {name} input, {part}: {mib(size)} do not fit in {mib(free)}, computed as needed"
                    )
                    return None
                layout = torch.channels_last if batch.ndim == 4 and cut else torch.contiguous_format
                kept = torch.empty((n, *batch.shape[1:]), dtype=batch.dtype, device=self.device, memory_format=layout)
            kept[done : done + len(batch)] = batch
            done += len(batch)
        assert kept is not None
        took = time.perf_counter() - began
        self.seconds += took
        size = kept.numel() * kept.element_size()
        self.say(f"features: {name} input, {part}, {n} images, {mib(size)}, {took:.1f} s")
        return kept


def feature_size(net: nn.Sequential, cut: int, input_size: int, precision: str) -> int:
    """Bytes of what one image becomes before stage `cut` (uint8 pixels where nothing is frozen)."""
    prefix, device = net[:cut].eval(), next(net.parameters()).device
    x = frozen(prefix, torch.zeros(1, 3, input_size, input_size, dtype=torch.uint8, device=device), precision, 1)
    return x.numel() * x.element_size()


def fingerprint(module: nn.Module) -> str:
    """A digest of every tensor of `module`, names and buffers (the input's scaling, too) included: 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def free_bytes(device: torch.device) -> int:
    """Memory that is free on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def mib(size: int) -> str:
    """A number of bytes for people."""
    if size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:,.0f} MiB"
