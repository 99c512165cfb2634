"""The nearest rows of each row by cosine, in blocks: time and memory are bounded for any number of rows."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlx.core.large_arrays import Selected, release, zeros

BLOCK, PAIRS = 1_024, 1 << 24  # rows that are compared at once, and with how many others, at most
EVERY = 65_536  # so many rows are compared with all others; of more, with those in cells beside them
CELL, CENTRES = 512, 4_096  # rows of a cell, in the mean, as far as so many cells are enough
CELLS = 32  # nearest cells that a row is compared with
MOST = 65_536  # rows in these cells that are compared, at most
DENSITY = 4  # the last of the neighbours: how close unrelated rows are

Vectors = NDArray[np.float32]


class Neighbours(NamedTuple):
    """The nearest rows of each row but itself, the nearest first: numbers int64 [N, K], cosines [N, K].

    Where there are fewer, the number is -1 and the cosine -1.
    """

    rows: Tensor
    cosines: Tensor

    @property
    def density(self) -> Tensor:
        """The mean cosine of the last neighbours of each row, [N]: what a row has in common with unrelated ones."""
        last = self.cosines[:, -DENSITY:]
        there = self.rows[:, -DENSITY:] >= 0
        return torch.where(there, last, 0).sum(1) / there.sum(1).clamp_min(1)


def reduced(rows: "Selected[np.floating[Any]]", most: int, power: float, folder: Path | None = None) -> Vectors:
    """Rows [N, D] as unit vectors of their principal components, [N, ≤ most]; a large array lies in `folder`.

    power: a component is divided by its standard deviation to this power: 0 leaves it, 1 whitens it. Between them the
    few components that nearly all images share do not outweigh those in which images differ.
    """
    n = max(len(rows), 1)
    sums = (torch.from_numpy(rows[place]).sum(0, dtype=torch.float64) for place in _places(len(rows), BLOCK))
    mean = (sum(sums, torch.zeros(())) / n).float()
    square = torch.zeros(rows.array.shape[1], rows.array.shape[1], dtype=torch.float64)
    for place in _places(len(rows), 8 * BLOCK):
        centred = torch.from_numpy(rows[place]).float() - mean
        square += (centred.T @ centred).double()
    variances, directions = torch.linalg.eigh(square / n)
    variances, directions = variances.flip(0)[:most], directions.flip(1)[:, :most]
    kept = variances > 1e-9 * variances[:1].clamp_min(1e-30)
    basis = (directions[:, kept] / variances[kept] ** (power / 2)).float()
    made: Vectors = zeros((len(rows), basis.shape[1]), np.float32, folder)
    for place in _places(len(rows), 8 * BLOCK):
        made[place] = torch.nn.functional.normalize((torch.from_numpy(rows[place]).float() - mean) @ basis).numpy()
        release(made)
    return made


def nearest(queries: Vectors, rows: Vectors, k: int, *, every: int = EVERY) -> Neighbours:
    """The `k` nearest of `rows` for each of as many `queries` (unit vectors [N, D]), row i itself left out.

    Up to `every` rows all are compared; of more, those in the cells that are nearest to the query's.
    """
    numbers = torch.full((len(queries), k), -1)
    cosines = torch.full((len(queries), k), -1.0)
    if len(rows) <= every:
        everything = torch.arange(len(rows))
        for asking in torch.split(everything, _at_once(len(rows))):
            numbers[asking], cosines[asking] = _among(queries, asking, torch.from_numpy(rows), everything, asking, k)
        return Neighbours(numbers, cosines)
    centres = torch.from_numpy(rows[:: max(CELL, -(-len(rows) // CENTRES))])
    cell, own = (
        torch.cat([(torch.from_numpy(x[place]) @ centres.T).argmax(1) for place in _places(len(x), BLOCK)])
        for x in (rows, queries)
    )
    beside = torch.cat(
        [(block @ centres.T).topk(min(CELLS, len(centres)), 1).indices for block in torch.split(centres, BLOCK)]
    )
    members = [torch.empty(0, dtype=torch.int64)] * len(centres)
    for number, found in zip(*_by_cell(cell), strict=True):
        members[number] = found
    position = torch.full((len(queries),), -1)  # of a row among those that a cell's queries are compared with
    for number, asking in zip(*_by_cell(own), strict=True):
        there = torch.cat([members[other] for other in beside[number].tolist()])[:MOST]
        position[there] = torch.arange(len(there))
        compared = torch.from_numpy(rows[there.numpy()])
        for some in torch.split(asking, _at_once(len(there))):
            numbers[some], cosines[some] = _among(queries, some, compared, there, position[some], k)
        position[there] = -1
        for read in (rows, queries):
            release(read)
    return Neighbours(numbers, cosines)


def _places(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _at_once(others: int) -> int:
    """How many rows are compared at once with so many others."""
    return max(1, min(BLOCK, PAIRS // max(others, 1)))


def _by_cell(cell: Tensor) -> tuple[list[int], list[Tensor]]:
    """The cells that have members, and the members of each in order."""
    order = cell.argsort(stable=True)
    cells, counts = torch.unique_consecutive(cell[order], return_counts=True)
    return cells.tolist(), list(torch.split(order, counts.tolist()))


def _among(queries: Vectors, asking: Tensor, compared: Tensor, there: Tensor, own: Tensor, k: int) -> Neighbours:
    """The nearest of the rows `there`, which are `compared`, of each of the queries `asking`.

    `own`: where the query's own row is among them; -1: it is not.
    """
    found = torch.from_numpy(queries[asking.numpy()]) @ compared.T
    found[(own >= 0).nonzero()[:, 0], own[own >= 0]] = -2.0
    best, index = found.topk(min(k, len(there)), 1)
    lacks = k - best.shape[1]
    best, chosen = (torch.nn.functional.pad(x, (0, lacks), value=-1) for x in (best, there[index]))
    itself = best <= -1.5
    return Neighbours(chosen.masked_fill(itself, -1), best.masked_fill(itself, -1.0))
