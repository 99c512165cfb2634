"""The nearest rows of each row by cosine, in blocks: time and memory are bounded for any number of rows."""

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 1_024  # rows that are compared at once
EVERY = 65_536  # so many rows are compared with all others; of more, with those in cells beside them
CELL = 512  # rows of a cell, in the mean
CELLS = 32  # nearest cells that a row is compared with
MOST = 65_536  # rows in these cells that are compared, at most
DENSITY = 4  # the last of the neighbours: how close unrelated rows are


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


def reduced(rows: Tensor, most: int, power: float) -> Tensor:
    """Rows [N, D] as unit vectors of their principal components, [N, ≤ most].

    power: a component is divided by its standard deviation to this power: 0 leaves it, 1 whitens it. Between them the
    few components that nearly all images share do not outweigh those in which images differ.
    """
    mean = sum((block.sum(0, dtype=torch.float64) for block in torch.split(rows, BLOCK)), torch.zeros(())) / max(
        len(rows), 1
    )
    mean = mean.float()
    square = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in torch.split(rows, 8 * BLOCK):
        centred = block.float() - mean
        square += (centred.T @ centred).double()
    variances, directions = torch.linalg.eigh(square / max(len(rows), 1))
    variances, directions = variances.flip(0)[:most], directions.flip(1)[:, :most]
    kept = variances > 1e-9 * variances[:1].clamp_min(1e-30)
    basis = (directions[:, kept] / variances[kept] ** (power / 2)).float()
    made = [torch.nn.functional.normalize((block.float() - mean) @ basis) for block in torch.split(rows, 8 * BLOCK)]
    return torch.cat(made) if made else rows.new_zeros(0, 1)


def nearest(queries: Tensor, rows: Tensor, k: int, *, every: int = EVERY) -> Neighbours:
    """The `k` nearest of `rows` for each of as many `queries` (unit vectors [N, D]), row i itself left out.

    Up to `every` rows all are compared; of more, those in the cells that are nearest to the query's.
    """
    if len(rows) <= every:
        return _among(queries, torch.arange(len(queries)), rows, torch.arange(len(rows)), k)
    centres = rows[::CELL]
    cell, own = (torch.cat([(block @ centres.T).argmax(1) for block in torch.split(x, BLOCK)]) for x in (rows, queries))
    beside = torch.cat(
        [(block @ centres.T).topk(min(CELLS, len(centres)), 1).indices for block in torch.split(centres, BLOCK)]
    )
    members = [torch.empty(0, dtype=torch.int64)] * len(centres)
    for number, found in zip(*_by_cell(cell), strict=True):
        members[number] = found
    numbers = torch.full((len(queries), k), -1)
    cosines = torch.full((len(queries), k), -1.0)
    for number, asking in zip(*_by_cell(own), strict=True):
        there = torch.cat([members[other] for other in beside[number].tolist()])[:MOST]
        near = _among(queries, asking, rows, there, k)
        numbers[asking], cosines[asking] = near.rows, near.cosines
    return Neighbours(numbers, cosines)


def _by_cell(cell: Tensor) -> tuple[list[int], list[Tensor]]:
    """The cells that have members, and the members of each in order."""
    order = cell.argsort(stable=True)
    cells, counts = torch.unique_consecutive(cell[order], return_counts=True)
    return cells.tolist(), list(torch.split(order, counts.tolist()))


def _among(queries: Tensor, asking: Tensor, rows: Tensor, there: Tensor, k: int) -> Neighbours:
    """The nearest of the rows `there` of each of the queries `asking`."""
    compared = rows[there]
    position = torch.full((len(queries),), -1)
    position[there] = torch.arange(len(there))
    numbers, cosines = list[Tensor](), list[Tensor]()
    for some in torch.split(asking, BLOCK):
        found = queries[some] @ compared.T
        own = position[some]
        found[(own >= 0).nonzero()[:, 0], own[own >= 0]] = -2.0
        best, index = found.topk(min(k, len(there)), 1)
        lacks = k - best.shape[1]
        best, chosen = (torch.nn.functional.pad(x, (0, lacks), value=-1) for x in (best, there[index]))
        itself = best <= -1.5
        numbers.append(chosen.masked_fill(itself, -1))
        cosines.append(best.masked_fill(itself, -1.0))
    if not numbers:
        return Neighbours(torch.zeros(0, k, dtype=torch.int64), torch.zeros(0, k))
    return Neighbours(torch.cat(numbers), torch.cat(cosines))
