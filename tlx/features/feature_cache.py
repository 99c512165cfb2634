"""The frozen part of a network, computed once: its output is a pure function of the pixels while it is frozen.

Rows behind a cut are cached on the device, or in memory, or in files that are mapped, or are computed for each batch:
the first of these that they fit into. Rows from stages that no phase has changed yet are also cached across runs, under
a key that covers everything they depend on.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from tlx.core import activity
from tlx.core.device import cpu_capabilities, device_name, free_bytes
from tlx.core.stopwatch import Clock
from tlx.core.version import version_of
from tlx.distributed import process_group
from tlx.features.batches import CachedRows, Pixels, Rows, Through
from tlx.features.disk_cache import RowStore, mib
from tlx.features.feature_plan import FILES, NOWHERE, FeaturePlan, Memory, PlannedRows, decided
from tlx.features.feature_rows import Known, Mapped, Outline, Task, outline
from tlx.features.frozen_forward import Forward, recipe
from tlx.features.sharded_features import made_together
from tlx.features.weight_fingerprint import fingerprint
from tlx.reporting.text_table import duration

FORMAT = 4  # of the rows that are cached across runs: one more for every change of what a forward pass computes


@dataclass
class FeatureCache:
    """Rows for training and evaluation of what lies behind a cut.

    Attributes:
        splits: the evaluation view of each split (train, val, test).
        random: random views of the training split, where there is an augmentation.
        mode: `live` computes the frozen part anew for each batch; `exact` computes it in fp32, nothing folded; `auto`
            in `precision`, in the fastest way.
        views: random views of each training image that are cached; epoch e sees view e mod views. None: drawn anew.
        budget: bytes that may be cached in memory; None: half of what is free.
        cuts: of all phases; rows at one of them are computed from those at the one before it.
        store: keeps rows across runs.
        about: what a list of the store's content says of them.
        architecture: what the network is built from, for keys: its printed form does not say all of it (a transformer's
            number of heads).
        say: takes one line about what happens.
        clock: counts as `features` the time in which rows are made.
        served: how many `rows` were cached, and how many of these were `read` from files of earlier runs.
    """

    splits: Mapping[str, Pixels]
    random: Pixels | None
    device: torch.device
    precision: str
    mode: str = "auto"
    views: int | None = None
    budget: int | None = None
    cuts: Sequence[int] = ()
    store: RowStore | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    say: Callable[[str], None] = lambda line: None
    clock: Clock = field(default_factory=Clock)
    served: Counter[str] = field(default_factory=Counter)
    _cached: dict[tuple[int, int], tuple[str, CachedRows]] = field(default_factory=dict)
    _forwards: dict[tuple[int, int], tuple[str, Forward]] = field(default_factory=dict)
    _untrained: dict[int, str] = field(default_factory=dict)
    _outlines: dict[int, Outline] = field(default_factory=dict)
    _live: set[tuple[int, int]] = field(default_factory=set)

    def rows(self, net: nn.Sequential, cut: int, split: str, *, training: bool = False) -> Rows:
        """The rows of `split` as `net[cut:]` takes them, on the device.

        Where nothing random precedes the cut, or views are cached, they are computed once for each content of
        `net[:cut]`; where they do not fit, or are random, the frozen part runs for each batch.
        """
        net[:cut].eval()
        pixels = self._pixels(split, training)
        for slot, (content, _) in list(self._cached.items()):
            if slot[0] == id(pixels) and slot[1] <= cut and content != fingerprint(net[: slot[1]]):
                del self._cached[slot]  # these stages have learned since
        plan = self.plan(net, cut, split, training=training)
        if cut and not plan.chain[0].views:
            self._say_live(plan.chain[0], pixels)
        return self._rows(net, plan.chain, pixels)

    def cached(self, net: nn.Sequential, cut: int, split: str, *, training: bool = False) -> CachedRows | None:
        """What `rows` would return, where that is computed already; nothing is computed, and no rank waits."""
        return self._found(self._pixels(split, training), cut, fingerprint(net[:cut]))

    def plan(self, net: nn.Sequential, cut: int, split: str, *, training: bool = False) -> FeaturePlan:
        """What `rows` would do now: which rows are cached, where, and what they are computed from.

        Nothing is computed but the shape of a row, from one image.
        """
        for known in {*self.cuts, cut} - self._untrained.keys():
            self._untrained[known] = fingerprint(net[:known])
        chain = [cut, *sorted((c for c in self.cuts if c < cut), reverse=True)]
        pixels = self._pixels(split, training)
        views = 0 if self.mode == "live" else pixels.looks if pixels is not self.random else self.views or 0
        wanted = [self._wanted(net, c, split, pixels, views) for c in chain]
        return decided(wanted, self._memories(), self.budget)

    def train_on(self, pixels: Pixels, random: Pixels | None) -> None:
        """Sets the training images (`random`: their random views); rows of earlier ones are dropped."""
        gone = {id(self.splits["train"]), id(self.random)}
        self.splits, self.random = {**self.splits, "train": pixels}, random
        self._cached = {slot: cached for slot, cached in self._cached.items() if slot[0] not in gone}
        self._live = {slot for slot in self._live if slot[0] not in gone}

    def _pixels(self, split: str, training: bool) -> Pixels:
        return self.splits[split] if self.random is None or not training else self.random

    def _wanted(self, net: nn.Sequential, cut: int, split: str, pixels: Pixels, views: int) -> PlannedRows:
        if cut not in self._outlines:
            precision = "fp32" if self.mode == "exact" else self.precision
            size = pixels.views.preprocessing.input_size
            self._outlines[cut] = outline(net, cut, size, precision, self.device)
        n, row_bytes, content = len(pixels.y), self._outlines[cut].row_bytes, fingerprint(net[:cut])
        # What a phase has changed belongs to this run alone; pixels are as soon made as read.
        fresh = views and cut and self._untrained[cut] == content
        store = self.store if fresh and self.store is not None and self.store.limit else None
        return PlannedRows(
            cut,
            stage=next(name for i, (name, _) in enumerate(net.named_children()) if i == cut),
            content=content,
            split=split,
            images=n,
            views=views,
            row_bytes=row_bytes,
            namespace=self._namespace(net, cut, pixels, content) if store is not None else "",
            fits_disk=store is not None and store.takes(views * n, row_bytes),
            made=self._found(pixels, cut, content) is not None,
        )

    def _found(self, pixels: Pixels, cut: int, content: str) -> CachedRows | None:
        """Rows that are there already."""
        known, cached = self._cached.get((id(pixels), cut), ("", None))
        return cached if known == content else None

    def _memories(self) -> list[Memory]:
        """Of the device, and of the computer that it is in: the same figures on all ranks, which decide alike."""
        tensors = [rows for _, cached in self._cached.values() for rows in cached.views if isinstance(rows, Tensor)]
        found = []
        for device in dict.fromkeys((self.device, torch.device("cpu"))):
            there = sum(rows.nbytes for rows in tensors if rows.device.type == device.type)
            found.append((device.type, free_bytes(device), there, process_group.copies(device)))
        return [Memory(*one) for one in process_group.agreed(found)]

    def _rows(self, net: nn.Sequential, chain: Sequence[PlannedRows], pixels: Pixels) -> Rows:
        """The first of the chain, as planned; what it is computed from, only as far as that is needed."""
        wanted = chain[0]
        if (cached := self._found(pixels, wanted.cut, wanted.content)) is not None:
            return cached
        if wanted.place != NOWHERE:
            cached = self._make(net, chain, pixels)
        elif wanted.views:
            limit = mib(self.store.limit) if self.store is not None and wanted.namespace else ""
            files = f", nor in files of features.store ({limit})" if limit else ""
            self.say(
                f"features: {wanted.title}, {wanted.size}: do not fit in {mib(wanted.free)}{files}, computed as needed"
            )
        if cached is None:
            return self._computed(net, chain, pixels)
        self._cached[id(pixels), wanted.cut] = (wanted.content, cached)
        return cached

    def _computed(self, net: nn.Sequential, chain: Sequence[PlannedRows], pixels: Pixels) -> Rows:
        """The first of the chain, computed for each batch from the one after it."""
        source = self._rows(net, chain[1:], pixels) if chain[1:] else pixels
        cut, below = chain[0].cut, chain[1].cut if chain[1:] else 0
        return Through(self._forward(net, below, cut, chain[0].content), source) if cut else source

    def _say_live(self, wanted: PlannedRows, pixels: Pixels) -> None:
        """Says, once for each stage and split, that the frozen part runs for each batch."""
        if (id(pixels), wanted.cut) not in self._live:
            self._live.add((id(pixels), wanted.cut))
            keeps = "" if self.mode == "live" else " (random views; features.views=K keeps K of each image)"
            self.say(f"features: {wanted.title}, computed anew for each batch{keeps}")

    def _forward(self, net: nn.Sequential, below: int, cut: int, content: str) -> Forward:
        if self._forwards.get((below, cut), ("",))[0] != content:
            forward = Forward(net[below:cut].eval(), self.precision, exact=self.mode == "exact")
            self._forwards[below, cut] = (content, forward)
        return self._forwards[below, cut][1]

    def _make(self, net: nn.Sequential, chain: Sequence[PlannedRows], pixels: Pixels) -> CachedRows | None:
        """The first of the chain, cached; None where what was free is not any more."""
        wanted, shape = chain[0], self._outlines[chain[0].cut]
        began = time.perf_counter()
        what, done = f"features: {wanted.title}, {wanted.size}", 0

        def step(rows: int) -> None:
            nonlocal done
            done += rows

        def now() -> activity.State:
            rate = done / (time.perf_counter() - began)
            left = [f"{duration((wanted.rows - done) / rate)} left", f"{rate:.0f} images/s"] if done else []
            said = f"features: {wanted.title}, {done:,} of {wanted.rows:,} images"
            return activity.State([said, *left], done / wanted.rows)

        where = None if wanted.place == FILES else self._device(wanted.place)
        store = self.store if wanted.namespace else None
        size = "×".join(map(str, shape.size))
        about = {**self.about, "stage": wanted.stage, "format": shape.format, "size": size}
        made, found = list[Tensor | Mapped](), list[Known]()
        try:
            with self.clock.part("features"), activity.doing(now):
                for view in range(wanted.views):
                    task = Task(pixels, view, shape, partial(self._computed, net, chain, pixels), step)
                    rows, known = made_together(task, store, wanted.namespace, about, where)
                    if rows is None:
                        self.say(f"{what}: do not fit in {mib(wanted.free)}, computed as needed")
                        return None
                    made.append(rows)
                    found.append(known)
        except torch.OutOfMemoryError:
            if where is None or process_group.count() > 1:
                raise
            made.clear()  # another process has taken the memory meanwhile
            self.say(f"{what}: the memory that was free is taken, computed as needed")
            return None
        self.served.update(rows=wanted.rows, read=sum(known.earlier for known in found))
        took = time.perf_counter() - began
        reused = _reused(sum(known.earlier for known in found), sum(known.copies for known in found), wanted.rows)
        lies = "" if where is not None else f": more than {mib(wanted.free)} of memory, read from files"
        self.say(f"{what}{reused}, {took:.1f} s{lies}")
        place = pixels.y.device if where == self.device else torch.device("cpu")
        return CachedRows(made, pixels.y, place, pixels.looks)

    def _device(self, kind: str) -> torch.device:
        return self.device if kind == self.device.type else torch.device(kind)

    def _namespace(self, net: nn.Sequential, cut: int, pixels: Pixels, content: str) -> str:
        """A digest of everything that a row depends on but the image and its view."""
        chain = [c for c in self.cuts if 0 < c < cut]
        how = recipe(self.device, self.precision, exact=self.mode == "exact")
        units = sorted(name for name, there in cpu_capabilities().items() if there)
        machine = [device_name(self.device), units]
        versions = [version_of(package) for package in ("torch", "torchvision", "timm", "pillow", "simplejpeg")]
        whole = [FORMAT, versions, machine, how, chain, self.architecture, str(net[:cut]), content, pixels.spec]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:40]


def _reused(earlier: int, copies: int, n: int) -> str:
    """Where those of `n` rows come from that were not computed."""
    words = ", from an earlier run" if earlier == n else f", {earlier:,} of them from earlier runs" if earlier else ""
    of_this = "of them copies of other images of this run"
    return words + (f", {'all' if copies == n else f'{copies:,}'} {of_this}" if copies else "")
