"""The frozen part of a network, computed once: its output is a pure function of the pixels while it is frozen.

Rows behind a cut are kept on the device, or in memory, or in files that are mapped, or are computed for each batch:
the first of these that they fit into. Those of a part that no phase has changed yet are also kept across runs, under a
key that covers everything they depend on.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from tlx.core.device import device_name, free_bytes
from tlx.distributed import process_group
from tlx.features.batches import Kept, Pixels, Rows, Through
from tlx.features.disk_cache import Store, mib
from tlx.features.feature_rows import Known, Mapped, Outline, Task, outline
from tlx.features.frozen_forward import Forward, recipe
from tlx.features.sharded_features import made_together
from tlx.features.weight_fingerprint import fingerprint

FORMAT = 4  # of the rows that are kept across runs: one more for every change of what a forward pass computes
_SHARE = 0.5  # of the memory that is free
_MOST = 0.9  # of it, whatever the budget


@dataclass
class Features:
    """Rows for training and evaluation of what lies behind a cut.

    Attributes:
        parts: the evaluation view of each part (train, val, test).
        random: random views of the training part, where there is an augmentation.
        mode: `live` computes the frozen part anew for each batch; `exact` computes it in fp32, nothing folded; `auto`
            in `precision`, in the fastest way.
        views: random views of each training image that are kept; epoch e sees view e mod views. None: drawn anew.
        budget: bytes that may be kept in memory; None: half of what is free.
        cuts: of all phases; rows at one of them are computed from those at the one before it.
        store: keeps rows across runs.
        about: what a list of the store's content says of them.
        architecture: what the network is built from, for keys: its printed form does not say all of it (a transformer's
            number of heads).
        say: takes one line about what happens.
        doing: takes a line about what is being computed, again and again while it is.
        served: how many `rows` were cached, and how many of these were `read` from files of earlier runs.
    """

    parts: Mapping[str, Pixels]
    random: Pixels | None
    device: torch.device
    precision: str
    mode: str = "auto"
    views: int | None = None
    budget: int | None = None
    cuts: Sequence[int] = ()
    store: Store | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    say: Callable[[str], None] = lambda line: None
    doing: Callable[[str], None] = lambda line: None
    seconds: float = 0.0
    served: Counter[str] = field(default_factory=Counter)
    _kept: dict[tuple[int, int], tuple[str, Kept]] = field(default_factory=dict)
    _forwards: dict[tuple[int, int], tuple[str, Forward]] = field(default_factory=dict)
    _untrained: dict[int, str] = field(default_factory=dict)
    _outlines: dict[int, Outline] = field(default_factory=dict)
    _live: set[tuple[int, int]] = field(default_factory=set)
    _promised: int = 0  # bytes of rows that are being made: memory is taken only as they are written

    def rows(self, net: nn.Sequential, cut: int, part: str, *, training: bool = False) -> Rows:
        """The rows of `part` as `net[cut:]` takes them, on the device.

        Where nothing random precedes the cut, or views are kept, they are computed once for each content of
        `net[:cut]`; where they do not fit, or are random, the frozen part runs for each batch.
        """
        for known in {*self.cuts, cut} - self._untrained.keys():
            self._untrained[known] = fingerprint(net[:known])
        pixels = self.random if training and self.random is not None else self.parts[part]
        views = 0 if self.mode == "live" else 1 if pixels is not self.random else self.views or 0
        if cut and not views:
            self._say_live(net, cut, part, pixels)
        return self._rows(net, cut, part, pixels, views)

    def train_on(self, pixels: Pixels, random: Pixels | None) -> None:
        """From now on these are the training images (`random`: their random views); rows of those before are let go."""
        gone = {id(self.parts["train"]), id(self.random)}
        self.parts, self.random = {**self.parts, "train": pixels}, random
        self._kept = {slot: kept for slot, kept in self._kept.items() if slot[0] not in gone}
        self._live = {slot for slot in self._live if slot[0] not in gone}

    def _rows(self, net: nn.Sequential, cut: int, part: str, pixels: Pixels, views: int) -> Rows:
        prefix = net[:cut].eval()
        content, slot = fingerprint(prefix), (id(pixels), cut)
        if views and slot in self._kept and self._kept[slot][0] == content:
            return self._kept[slot][1]
        self._kept.pop(slot, None)

        def live() -> Rows:
            below = max((c for c in self.cuts if c < cut), default=0)
            # Pixels that are not kept for a phase of their own are decoded as the frozen part takes them.
            source = self._rows(net, below, part, pixels, views) if below in self.cuts and below < cut else pixels
            return Through(self._forward(net, below, cut, content), source) if cut else source

        kept = self._keep(net, cut, part, pixels, views, content, live) if views else None
        if kept is None:
            return live()
        self._kept[slot] = (content, kept)
        return kept

    def _say_live(self, net: nn.Sequential, cut: int, part: str, pixels: Pixels) -> None:
        """Once for each stage and part: the frozen part will run again and again."""
        if (id(pixels), cut) not in self._live:
            self._live.add((id(pixels), cut))
            keeps = "" if self.mode == "live" else " (random views; features.views=K keeps K of each image)"
            self.say(f"features: {_stage(net, cut)} input, {part}, computed anew for each batch{keeps}")

    def _forward(self, net: nn.Sequential, below: int, cut: int, content: str) -> Forward:
        if self._forwards.get((below, cut), ("",))[0] != content:
            forward = Forward(net[below:cut].eval(), self.precision, exact=self.mode == "exact")
            self._forwards[below, cut] = (content, forward)
        return self._forwards[below, cut][1]

    def _keep(
        self,
        net: nn.Sequential,
        cut: int,
        part: str,
        pixels: Pixels,
        views: int,
        content: str,
        live: Callable[[], Rows],
    ) -> Kept | None:
        began, before = time.perf_counter(), self.seconds
        if cut not in self._outlines:
            precision = "fp32" if self.mode == "exact" else self.precision
            size = pixels.views.preprocessing.input_size
            self._outlines[cut] = outline(net, cut, size, precision, self.device)
        shape = self._outlines[cut]
        n = len(pixels.y)
        needed = views * n * shape.row_bytes
        # What a phase has changed belongs to this run alone; pixels are as soon made as read.
        fresh = self._untrained[cut] == content
        store = self.store if self.store is not None and self.store.limit and cut and fresh else None
        where, free = self._where(needed)
        kind = process_group.agreed(None if where is None else where.type)
        where = None if kind is None else self.device if kind == self.device.type else torch.device(kind)
        stage = _stage(net, cut)
        what = f"features: {stage} input, {part}, {n:,} images{f' × {views} views' if views > 1 else ''}, {mib(needed)}"
        if where is None and (store is None or not store.takes(views * n, shape.row_bytes)):
            files = "" if store is None else f", nor in files of features.store ({mib(store.limit)})"
            self.say(f"{what}: do not fit in {mib(free)}{files}, computed as needed")
            return None
        done = 0

        def step(rows: int) -> None:
            nonlocal done
            done += rows
            rate = done / (time.perf_counter() - began)
            self.doing(f"features: {stage} input, {part}, {done:,} of {views * n:,} images, {rate:.0f} images/s")

        space = self._space(net, cut, pixels, content) if store else ""
        about = {**self.about, "stage": stage, "format": shape.format, "size": "×".join(map(str, shape.size))}
        made, found = list[Tensor | Mapped](), list[Known]()
        promised = 0 if where is None else needed
        self._promised += promised
        try:
            for view in range(views):
                task = Task(pixels, view, shape, live, step)
                rows, known = made_together(task, store, space, about, where)
                if rows is None:
                    self.say(f"{what}: do not fit in {mib(free)}, computed as needed")
                    return None
                made.append(rows)
                found.append(known)
        except torch.OutOfMemoryError:
            if where is None or process_group.count() > 1:
                raise
            made.clear()  # somebody else has taken it meanwhile
            self.say(f"{what}: the memory that was free is taken, computed as needed")
            return None
        finally:
            self._promised -= promised
            self.doing("")
        self.served.update(rows=views * n, read=sum(known.earlier for known in found))
        took = time.perf_counter() - began
        self.seconds = before + took  # those of the cuts below are within
        reused = _reused(sum(known.earlier for known in found), sum(known.copies for known in found), views * n)
        place = "" if where is not None else f": more than {mib(free)} of memory, read from files"
        self.say(f"{what}{reused}, {took:.1f} s{place}")
        return Kept(made, pixels.y, pixels.y.device if where == self.device else torch.device("cpu"))

    def _where(self, needed: int) -> tuple[torch.device | None, int]:
        """The device whose memory takes so many bytes (of each rank), or None; and what the largest has to give."""
        kept = [rows for _, each in self._kept.values() for rows in each.views if isinstance(rows, Tensor)]
        spent, most = sum(rows.nbytes for rows in kept) + self._promised, 0
        for device in dict.fromkeys((self.device, torch.device("cpu"))):
            copies = process_group.copies(device)
            there = sum(rows.nbytes for rows in kept if rows.device.type == device.type) * copies
            left = free_bytes(device) - self._promised * copies
            free = int((left + there) * _SHARE) - there  # half of what was free before anything was kept
            if self.budget is not None:
                free = min(self.budget - spent * copies, int(_MOST * left))
            free = max(free, 0) // copies
            if needed <= free:
                return device, free
            most = max(most, free)
        return None, most

    def _space(self, net: nn.Sequential, cut: int, pixels: Pixels, content: str) -> str:
        """A digest of everything that a row depends on but the image and its view."""
        chain = [c for c in self.cuts if 0 < c < cut]
        how = recipe(self.device, self.precision, exact=self.mode == "exact")
        units = sorted(name for name, there in torch.cpu.get_capabilities().items() if there is True)
        machine = [device_name(self.device), units]
        versions = [_version(package) for package in ("torch", "torchvision", "timm", "pillow", "simplejpeg")]
        whole = [FORMAT, versions, machine, how, chain, self.architecture, str(net[:cut]), content, pixels.spec]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:40]


def _reused(earlier: int, copies: int, n: int) -> str:
    """Where those of `n` rows come from that were not computed."""
    words = ", from an earlier run" if earlier == n else f", {earlier:,} of them from earlier runs" if earlier else ""
    of_this = "of them copies of other images of this run"
    return words + (f", {'all' if copies == n else f'{copies:,}'} {of_this}" if copies else "")


def _stage(net: nn.Sequential, cut: int) -> str:
    return next(name for i, (name, _) in enumerate(net.named_children()) if i == cut)


def _version(package: str) -> str:
    """Empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
