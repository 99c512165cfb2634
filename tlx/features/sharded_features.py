"""Feature rows that ranks compute together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tlx.distributed import process_group
from tlx.features.batches import Rows
from tlx.features.disk_cache import RowStore
from tlx.features.feature_rows import Known, Mapped, Outline, Task, made_rows
from tlx.features.feature_sharing import share


def made_together(
    task: Task, store: RowStore | None, namespace: str, about: dict[str, str], where: torch.device | None
) -> tuple[Tensor | Mapped | None, Known]:
    """As `made_rows`: each rank computes some of the passes, and all get every row.

    The first alone looks into the store and writes to it; the others compute what it requests.
    """
    if process_group.count() == 1:
        return _shared(task, store, namespace, about, where)
    n, device = len(task.pixels.y), task.pixels.device
    rows: Tensor | Mapped | None = None
    known = Known()
    if process_group.rank() == 0:
        leads = replace(task, live=lambda: _Led(task.live, task.outline, device))
        rows, known = _shared(leads, store, namespace, about, where)
        process_group.agreed([])  # nothing more is requested
    else:
        while sizes := process_group.agreed(list[int]()):
            index = torch.empty(sum(sizes), dtype=torch.int64)
            process_group.broadcast(index)
            for _ in _in_turns(task.live(), torch.split(index, sizes), task.view, task.outline, device):
                pass
    cached, *counts = process_group.agreed([rows is not None, *known])
    known = Known(*counts)
    if not cached:
        return None, known
    if where is None:  # the others find what the first has stored; where one does not, none goes by it
        assert store is not None
        if rows is None:
            found = store.find(namespace, task.keys(), task.outline.row_bytes)
            rows = None if len(found.missing) else Mapped(found, task.outline)
        lacking = process_group.summed(torch.tensor([float(rows is None)]))
        return None if lacking else rows, known
    whole = rows if isinstance(rows, Tensor) else task.outline.empty(n, where)
    process_group.broadcast(whole)
    return whole, known


def _shared(
    task: Task, store: RowStore | None, namespace: str, about: dict[str, str], where: torch.device | None
) -> tuple[Tensor | Mapped | None, Known]:
    """As `made_rows`; where other machines fill the same store, it has all rows before they are read."""
    computed = share(task, store, namespace, about) if store is not None and store.shared else 0
    rows, known = made_rows(task, store, namespace, about, where)
    return rows, known._replace(copies=max(known.copies - computed, 0))


class _Led:
    """Rows that all ranks compute, for the first, which leads."""

    def __init__(self, live: Callable[[], Rows], outline: Outline, device: torch.device) -> None:
        self.live, self.outline, self.device = live, outline, device

    @property
    def y(self) -> Tensor:
        """The labels, int64 `[N]`."""
        return self.live().y

    def batches(self, order: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Rows.batches`."""
        process_group.agreed([len(index) for index in order])
        process_group.broadcast(torch.cat(list(order)))
        rows = self.live()
        for index, x in zip(order, _in_turns(rows, order, epoch, self.outline, self.device), strict=True):
            yield x, rows.y[index.to(rows.y.device)]


def _in_turns(
    rows: Rows, order: Sequence[Tensor], epoch: int, outline: Outline, device: torch.device
) -> Iterator[Tensor]:
    """The rows of each batch of `order`, on the first rank; batch i is computed by rank i mod R."""
    mine = rows.batches(order[process_group.rank() :: process_group.count()], epoch)
    for number, index in enumerate(order):
        source = number % process_group.count()
        x = outline.empty(len(index), device)
        if source == process_group.rank():
            x.copy_(next(mine)[0])
            if source:
                process_group.send(x)
        elif process_group.rank() == 0:
            process_group.receive(x, source)
        yield x
