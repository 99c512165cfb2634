"""Near duplicates among images: the same picture rescaled, recompressed, cropped, mirrored, shifted, recoloured, or
the next one of a burst.

Candidates are the nearest neighbours by pooled features, where there are some, and by small thumbnails with and without
mirroring. Each is aligned (`alignment`), and judged by what still differs then, and by how much closer the pair is by
features than each of them is to unrelated images: two cars of one model have a close third.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tlx.analysis.alignment import agreement, rough
from tlx.analysis.duplicate_groups import Pairs
from tlx.analysis.neighbours import EVERY, Neighbours, Vectors, nearest, reduced
from tlx.core.large_arrays import Selected, release, zeros

__all__ = ["Pairs", "near_duplicates"]

NEIGHBOURS, TAKEN = 8, 5  # that are found, and of which the first are candidates
COMPONENTS, POWER = 256, 0.5  # of the features
ROUGH, FINE, FEW = 1.0, 0.5, 1_024  # pairs of each source and pairs that are aligned, an image; never fewer than these
ALIKE = 0.6  # correlation of the rough search below which a pair is not aligned
PLACES, CLOSER, COLOUR = 0.4, 0.8, 0.008  # weights beside that of the structure, which is 1
UNKNOWN = 0.15  # how much closer a pair is taken to be without features
MANY = 200  # images from which their neighbours say more than nothing of how close unrelated ones are
CENTRE, WIDTH = 1.12, 0.12  # the score at which half of the pairs are duplicates; how fast that changes
TEXTURE = 3.0  # grey levels of fine structure below which agreement says little
LEAST = 0.05  # certainty of what is returned
BLOCK, WORD = 2_048, 8  # rows, and bytes of each, that are looked at together


class _Candidates(NamedTuple):
    """Pairs [P], and how much closer each is than unrelated images are."""

    first: Tensor
    second: Tensor
    closer: Tensor

    def best(self, most: int, scores: Tensor) -> "_Candidates":
        kept = scores.argsort(descending=True, stable=True)[:most].sort().values
        return _Candidates(*(part[kept] for part in self))


def near_duplicates(
    thumbnails: NDArray[np.uint8],
    features: NDArray[np.floating[Any]] | None = None,
    *,
    every: int = EVERY,
    folder: Path | None = None,
) -> Pairs:
    """The pairs of images that are probably one picture.

    The order of the images does not matter, and equal input gives equal output. 60,000 images take minutes.

    Args:
        thumbnails: the whole pictures, squashed: [N, 32, 32, 3].
        features: [N, D] pooled features of the same images; without them pairs that are altered much are missed.
        every: as `neighbours.nearest` has it.
        folder: for large arrays while this lasts; None: the system's.
    """
    distinct, same = _distinct(thumbnails)
    if len(distinct) > 1:
        pictures = Selected(thumbnails, distinct)
        with torch.no_grad():
            known = None if features is None else Selected(features, distinct)
            candidates = _candidates(pictures, known, every, folder)
            certainty = _certainty(pictures, candidates, known is not None)
        first, second = (distinct[rows.numpy()] for rows in candidates[:2])
    else:
        first, second, certainty = distinct[:0], distinct[:0], np.ones(0)
    return _sorted(
        np.concatenate([first, same[0]]), np.concatenate([second, same[1]]), np.concatenate([certainty, same[2]])
    )


def _distinct(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.int64], Pairs]:
    """The first row of each thumbnail, ordered by content, and (row, later row, certainty) of equal ones."""
    if not len(thumbnails):
        return np.zeros(0, np.int64), Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    order, new = by_content(thumbnails.reshape(len(thumbnails), -1))
    first = order[new][np.cumsum(new) - 1]
    later = order[~new]
    texture = [thumbnails[some].std((1, 2)).max(1) for some in np.array_split(later, len(later) // BLOCK + 1)]
    flat = np.concatenate(texture) < TEXTURE  # blank pictures are alike, and not one picture
    return order[new], Pairs(first[~new], later, np.where(flat, 0.0, 1.0))


def by_content(rows: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The rows [N, D] in the order of their bytes, equal ones in their own, int64 [N], and which differ from the one
    before, bool [N]. A few bytes are looked at of all rows, and further ones of those that are equal so far."""
    order, new = np.arange(len(rows)), np.arange(len(rows)) == 0
    for start in range(0, rows.shape[1], WORD):
        alone = new & np.append(new[1:], True)
        places = np.flatnonzero(~alone)  # of runs that are equal so far
        if not len(places):
            break
        words = np.zeros((len(places), WORD), np.uint8)
        for block in np.array_split(np.arange(len(places)), len(places) // BLOCK + 1):
            words[block, : rows.shape[1] - start] = rows[order[places[block]], start : start + WORD]
            release(rows)
        word, run = words.view(">u8")[:, 0], np.cumsum(new[places])
        inner = np.lexsort((order[places], word, run))
        word = word[inner]
        order[places] = order[places[inner]]
        new[places[1:]] |= word[1:] != word[:-1]
    return order, new


def _candidates(
    pictures: "Selected[np.uint8]", features: "Selected[np.floating[Any]] | None", every: int, folder: Path | None
) -> _Candidates:
    """Pairs that may be one picture, at most two an image of each source, as far as their features tell."""
    most = max(FEW, int(ROUGH * len(pictures)))
    small, mirrored = _small(pictures, folder)
    found = [_of(nearest(query, small, NEIGHBOURS, every=every), most) for query in (small, mirrored)]
    del small, mirrored
    if features is None:
        pairs = _merged(found, len(pictures))
        return pairs._replace(closer=torch.full_like(pairs.closer, UNKNOWN))
    units = reduced(features, COMPONENTS, POWER, folder)
    neighbours = nearest(units, units, NEIGHBOURS, every=every)
    pairs = _merged([*found, _of(neighbours, most)], len(pictures))
    density = neighbours.density
    cosines = torch.empty(len(pairs.first))
    for place in torch.split(torch.arange(len(cosines)), BLOCK):
        one, other = (torch.from_numpy(units[rows[place].numpy()]) for rows in pairs[:2])
        cosines[place] = (one * other).sum(1)
        release(units)
    closer = cosines - (density[pairs.first] + density[pairs.second]) / 2
    trusted = len(pictures) / (len(pictures) + MANY)
    return pairs._replace(closer=UNKNOWN + trusted * (closer - UNKNOWN))


def _small(pictures: "Selected[np.uint8]", folder: Path | None) -> tuple[Vectors, Vectors]:
    """Pictures at 8x8, without the mean one and their own brightness, as unit vectors [N, 192]; and mirrored ones."""
    shape = (len(pictures), 3 * 8 * 8)
    small, mirrored = (zeros(shape, np.float32, folder) for _ in range(2))
    places = [slice(start, start + BLOCK) for start in range(0, len(pictures), BLOCK)]
    total = torch.zeros(shape[1], dtype=torch.float64)
    for place in places:
        block = torch.from_numpy(pictures[place]).permute(0, 3, 1, 2).float()
        block = F.avg_pool2d(block, 4).flatten(1)
        small[place] = block.numpy()
        release(small)
        total += block.sum(0, dtype=torch.float64)
    mean = (total / len(small)).float()
    for place in places:
        made = (torch.from_numpy(small[place]) - mean).view(-1, 3, 8, 8)
        made = made - made.mean((1, 2, 3), keepdim=True)
        small[place] = F.normalize(made.flatten(1)).numpy()
        mirrored[place] = F.normalize(made.flip(3).flatten(1)).numpy()
        for written in (small, mirrored):
            release(written)
    return small, mirrored


def _of(neighbours: Neighbours, most: int) -> _Candidates:
    """The pairs of neighbours that stand out most from other neighbours."""
    rows = neighbours.rows[:, :TAKEN]
    first = torch.arange(len(rows))[:, None].expand_as(rows)
    closer = neighbours.cosines[:, :TAKEN] - neighbours.density[:, None] / 2
    there = rows >= 0
    first, second, closer = first[there], rows[there], closer[there]
    pairs = _Candidates(torch.minimum(first, second), torch.maximum(first, second), closer)
    return pairs.best(most, closer)


def _merged(sources: list[_Candidates], images: int) -> _Candidates:
    """Each pair once."""
    every = torch.cat([pairs.first * images + pairs.second for pairs in sources])
    keys = torch.from_numpy(np.unique(every.numpy()))
    return _Candidates(keys // images, keys % images, torch.zeros(len(keys)))


def _certainty(pictures: "Selected[np.uint8]", candidates: _Candidates, known: bool) -> NDArray[np.float64]:
    """Of each pair; 0 for those that the rough search leaves out."""
    closer = candidates.closer
    blocks = list(torch.split(torch.arange(len(closer)), BLOCK))

    def both(at: Tensor) -> tuple[Tensor, Tensor]:
        one, other = (torch.from_numpy(pictures[rows[at].numpy()]) for rows in candidates[:2])
        return one, other

    searched = [rough(*both(at)) for at in blocks]
    scores = torch.cat([score for score, _ in searched]) + (CLOSER * closer if known else 0)
    starts = torch.cat([start for _, start in searched])
    kept = scores.argsort(descending=True, stable=True)[: max(FEW, int(FINE * len(pictures)))]
    kept = kept[scores[kept] >= ALIKE]
    certainty = torch.zeros(len(closer), dtype=torch.float64)
    for at in torch.split(kept.sort().values, BLOCK) if len(kept) else ():
        found = agreement(*both(at), starts[at])
        score = found.structure + PLACES * found.places + CLOSER * closer[at] - COLOUR * found.difference
        textured = 1 - torch.exp(-((found.texture / TEXTURE) ** 2))
        certainty[at] = (torch.sigmoid((score - CENTRE) / WIDTH) * textured).double()
    return certainty.numpy()


def _sorted(first: NDArray[np.int64], second: NDArray[np.int64], certainty: NDArray[np.float64]) -> Pairs:
    first, second = np.minimum(first, second), np.maximum(first, second)
    kept = certainty >= LEAST
    order = np.lexsort((second[kept], first[kept], -certainty[kept]))
    return Pairs(first[kept][order], second[kept][order], certainty[kept][order])
