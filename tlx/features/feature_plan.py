"""Which feature rows are cached, where, and what they are computed from: decided before any of them is computed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tlx.features.disk_cache import mib

SHARE = 0.5  # of the memory that is free
MOST = 0.9  # of it, whatever the budget
MADE, FILES, NOWHERE = "made", "files", ""  # places of rows that are not the type of a device


@dataclass(frozen=True)
class PlannedRows:
    """The rows of one split before one stage, and where they are cached.

    Attributes:
        cut: how many stages are frozen before them; 0: they are the pixels.
        stage: the name of the stage that takes them.
        content: a digest of the weights of the stages before them.
        views: how many rows are cached of each of the `images`; 0: none, random views are new in each epoch.
        row_bytes: bytes of one row.
        namespace: under which the disk cache has them across runs; empty: it has none of them.
        fits_disk: the disk cache can have all of them at once.
        made: they are in memory, or in open files, from before.
        place: `cpu`, `cuda` or `mps`: in this device's memory; `files`: in files of the disk cache alone; `made`;
            empty: not cached, computed for each batch.
        free: bytes that the memory had for them.
    """

    cut: int
    stage: str
    content: str
    split: str
    images: int
    views: int
    row_bytes: int
    namespace: str = ""
    fits_disk: bool = False
    made: bool = False
    place: str = NOWHERE
    free: int = 0

    @property
    def rows(self) -> int:
        """How many are cached, if any are."""
        return self.images * self.views

    @property
    def bytes(self) -> int:
        """Of all that are cached."""
        return self.rows * self.row_bytes

    @property
    def title(self) -> str:
        """As messages name them."""
        return f"{self.stage} input, {self.split}"

    @property
    def size(self) -> str:
        """How many there are and how large, as messages say it."""
        return f"{self.images:,} images{f' × {self.views} views' if self.views > 1 else ''}, {mib(self.bytes)}"


@dataclass(frozen=True)
class Memory:
    """What one device's memory has for rows.

    Attributes:
        device: its type.
        free: bytes that nothing has taken.
        cached: bytes of rows that each rank has there already.
        copies: how many ranks of the run share it, each with rows of its own.
    """

    device: str
    free: int
    cached: int = 0
    copies: int = 1

    def left(self, promised: int, cached: int, budget: int | None) -> int:
        """Bytes of each rank that further rows may take.

        Args:
            promised: bytes of each rank that rows of the same plan will take, here or elsewhere.
            cached: bytes of each rank's rows on all devices.
            budget: bytes that all rows of the machine may take; None: half of what was free before there were any.
        """
        free, there = self.free - promised * self.copies, self.cached * self.copies
        if budget is None:
            most = int((free + there) * SHARE) - there
        else:
            most = min(budget - (cached + promised) * self.copies, int(MOST * free))
        return max(most, 0) // self.copies


@dataclass(frozen=True)
class FeaturePlan:
    """How the rows of a split before a stage are made: each of `chain` is computed from the one after it, the last from
    the images. The first are the rows that were requested; the others are made only if some of these are missing."""

    chain: tuple[PlannedRows, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """One line for each of the chain."""
        for rows, below in zip(self.chain, (*self.chain[1:], None), strict=True):
            yield f"{rows.title}: {_how(rows, 'the images' if below is None else f'the {below.stage} input')}"


def decided(wanted: Sequence[PlannedRows], memories: Sequence[Memory], budget: int | None) -> FeaturePlan:
    """Gives each of `wanted` (the requested rows first, then what they are computed from) its place.

    That is the first that has enough bytes: the memory of the devices in their order, files of the disk cache, nowhere.

    `budget`: see `Memory.left`.
    """
    chain, promised = list[PlannedRows](), 0
    cached = sum(memory.cached for memory in memories)
    for rows in wanted:
        if rows.made:
            chain.append(replace(rows, place=MADE))
            break  # whatever it was computed from
        found = {memory.device: memory.left(promised, cached, budget) for memory in memories}
        place = _place(rows, found)
        chain.append(replace(rows, place=place, free=found.get(place, max(found.values()))))
        promised += rows.bytes if place in found else 0
    return FeaturePlan(tuple(chain))


def _place(rows: PlannedRows, left: Mapping[str, int]) -> str:
    if not rows.views:
        return NOWHERE
    for device, free in left.items():
        if rows.bytes <= free:
            return device
    return FILES if rows.namespace and rows.fits_disk else NOWHERE


def _how(rows: PlannedRows, source: str) -> str:
    if rows.place == MADE:
        return f"{rows.size}, cached before"
    if not rows.views:
        return f"computed for each batch from {source}"
    lacking = f"more than {mib(rows.free)} of memory"
    if rows.place == NOWHERE:
        return f"{rows.size}, {lacking}: computed for each batch from {source}"
    if rows.place == FILES:
        return f"{rows.size}, {lacking}: computed once from {source} and cached in files"
    memory = "memory" if rows.place == "cpu" else f"memory of the {rows.place} device"
    files = ", and in files for later runs" if rows.namespace else ""
    return f"{rows.size}, computed once from {source} and cached in {memory}{files}"
