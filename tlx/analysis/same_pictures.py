"""Which images of a data set are one picture: pairs, groups, and numbers that keep them in one fold.

torch is imported where pairs are looked for only.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.audit_data import AuditData, grouped
from tlx.analysis.duplicate_groups import CONFIRMED, Duplicates, Pairs, groups, with_equal
from tlx.analysis.remembered import fingerprint
from tlx.datasets.images import Labels

METHOD = "near-duplicates-1"  # another number where pairs would be others
EARLIER = {"test": ("train", "val"), "val": ("train",)}  # what was trained on, or chosen by, before a split is measured
MOST = 0.5  # share of a class from which its near duplicates are not kept in one fold: the others would not know it


class Partner(NamedTuple):
    """An image, and the one of another split that is most certainly the same picture: rows, and how certain, 0..1."""

    row: int
    other: int
    certainty: float


def equal(data: AuditData) -> list[list[int]]:
    """The rows of each picture that several images have to the last bit."""
    return grouped(record.tobytes() for record in data.facts["pixels"])


def near_pairs(data: AuditData) -> Pairs:
    """The pairs of images that are probably one picture, from the disk where they were found before."""

    def made() -> Mapping[str, NDArray[np.generic]]:
        from tlx.analysis.near_duplicates import near_duplicates

        return near_duplicates(data.thumbnails, data.features, folder=data.memory)._asdict()

    known = data.remembered(METHOD, made, "" if data.features is None else fingerprint(data.features))
    return Pairs(known["first"], known["second"], known["certainty"])


def near_groups(data: AuditData) -> list[Duplicates]:
    """The groups of images that are probably one picture, copies to the last bit among them, the most certain first."""
    return groups(with_equal(near_pairs(data), equal(data)))


def pictures(data: AuditData) -> Labels:
    """A number for each picture, int64 [N]: copies and near duplicates of one have the same, and so are in one fold.

    Near duplicates that are half of a class or more have one each: without them no probe would know the class.
    """
    found: Labels = np.unique(data.facts["pixels"], axis=0, return_inverse=True)[1].reshape(-1)
    of_class = np.bincount(data.labels, minlength=len(data.classes))
    for group in near_groups(data):
        rows = np.array(group.rows)  # with all copies of each
        classes, counts = np.unique(data.labels[rows], return_counts=True)
        if (counts < MOST * of_class[classes]).all():
            found[rows] = found[rows[0]]
    return found


def measured_copies(data: AuditData) -> dict[str, list[Partner]]:
    """Of test and val: the images that are near duplicates of earlier ones, each with the surest of these."""
    pairs, same = near_pairs(data), equal(data)
    return {split: partners(pairs, same, data.splits, split, among) for split, among in EARLIER.items()}


def copies_of_measured(data: AuditData) -> list[Partner]:
    """The images of train and val that are near duplicates of later ones, each with the surest of these."""
    pairs, same = near_pairs(data), equal(data)
    later = {split: [one for one, among in EARLIER.items() if split in among] for split in ("train", "val")}
    return [one for split, among in later.items() for one in partners(pairs, same, data.splits, split, among)]


def partners(
    pairs: Pairs, same: Sequence[Sequence[int]], splits: NDArray[np.str_], of: str, among: Collection[str]
) -> list[Partner]:
    """Of each image of a split that has near duplicates in others: the surest of them, the most certain first.

    An image that has a copy to the last bit there has no partner here.

    Args:
        pairs: as `near_pairs` has them.
        same: as `equal` has them; what is said of one of them holds for the others.
        splits: of all images.
        of: a split.
        among: the others.
    """
    alike = groups(with_equal(pairs.above(1.0), same))  # to the last bit, or in their thumbnails
    copies = {row: group.rows for group in alike for row in group.rows}
    exact = {row for rows in same for row in rows if any(splits[other] in among for other in rows)}
    best = dict[int, Partner]()
    for first, second, certainty in zip(*(part.tolist() for part in pairs.above(CONFIRMED)), strict=True):
        for one, other in ((first, second), (second, first)):
            beside = [row for row in copies.get(other, (other,)) if splits[row] in among]
            for row in copies.get(one, (one,)) if beside else ():
                if splits[row] == of and row not in exact and row not in best:
                    best[row] = Partner(row, beside[0], certainty)
    return sorted(best.values(), key=lambda found: (-found.certainty, found.row))
