"""What an audit says of near duplicates: across splits, under several labels, within a split; and of placeholders."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.audit_data import AuditData
from tlx.analysis.duplicate_groups import STRONG, Duplicates
from tlx.analysis.finding import Finding, number_of
from tlx.analysis.group_proposals import proposals
from tlx.analysis.same_pictures import equal, measured_copies, near_groups
from tlx.core.large_arrays import blocks
from tlx.datasets.image_decoding import Pixels, UnreadableImage

DRAWINGS = "drawings-1"  # another number where other pictures would be drawn
MUCH = 0.01  # share of the test images that are surely in train from which the accuracy is surely wrong
LEVELS, FEW_COLOURS, ONE_COLOUR = 16, 24, 0.6  # of a channel; colours of a thumbnail; share that the first of them has
COLOURS, DRAWN, PIXELS = 4, 0.93, 4_096  # colours that a drawing mostly has, their share of its pixels, and how many
SELDOM = 0.1  # share of drawn pictures above which a data set consists of drawings
OFTEN = 5  # copies under several labels from which a picture means nothing


def check(data: AuditData) -> Iterator[Finding]:
    """Groups of near duplicates; copies to the last bit have findings of their own, and count as members here."""
    same = equal(data)
    yield from _placeholders(data, same)
    pixels = data.facts["pixels"]
    found = [group for group in near_groups(data) if len({pixels[row].tobytes() for row in group.rows}) > 1]
    yield from _across(data)
    yield from _contradictory(data, found)
    within = [group for group in found if len({str(data.splits[row]) for row in group.rows}) == 1]
    if within:
        yield data.finding(
            "near_duplicates",
            "note",
            f"{sum(len(group.rows) for group in within):,} images are near duplicates within a split, in "
            f"{number_of(len(within), 'group')}: folds or a validation part cut from it may separate them",
            [group.rows for group in within],
            certainty=[group.certainty for group in within],
        )
    if proposal := proposals(data.names, found):
        yield data.finding("group_proposal", "note", proposal.message, list(proposal.groups), remedy=proposal.remedy)


def _across(data: AuditData) -> Iterator[Finding]:
    """Each test or validation image beside the earlier one that is most certainly the same picture."""
    found = measured_copies(data)
    measured = "test" if found["test"] else "val"
    if not (pairs := found[measured]):
        return
    sure = sum(pair.certainty >= STRONG for pair in pairs)
    are = "is a near duplicate of an image" if len(pairs) == 1 else "are near duplicates of images"
    everything = len(data.rows(measured))
    more = f"; {len(found['val']):,} validation images are near duplicates of training images"
    every = sorted((pair for of in found.values() for pair in of), key=lambda pair: -pair.certainty)
    yield data.finding(
        "near_duplicates_across_splits",
        "error" if sure >= max(MUCH * everything, 1) and measured == "test" else "warning",
        f"{len(pairs):,} of {number_of(everything, f'{measured} image')} {are} in another split "
        f"({sure:,} of them surely): {'accuracy' if measured == 'test' else 'validation'} is too optimistic"
        f"{more if measured == 'test' and found['val'] else ''}",
        [(pair.row, pair.other) for pair in every],
        certainty=[pair.certainty for pair in every],
        remedy="leave them out of train (--list FILE, then dataset.exclude=FILE), or keep each group on one side "
        "(dataset.group)",
    )


def _contradictory(data: AuditData, found: Sequence[Duplicates]) -> Iterator[Finding]:
    groups = [group for group in found if len({int(data.labels[row]) for row in group.rows}) > 1]
    if groups:
        yield data.finding(
            "contradictory_labels",
            "error" if groups[0].certainty >= STRONG else "warning",
            f"{number_of(len(groups), 'group of near duplicates has', 'groups of near duplicates have')} different "
            "labels: one label of each is probably wrong",
            [group.rows for group in groups],
            certainty=[group.certainty for group in groups],
            remedy="correct the labels, or remove the images",
        )


def _placeholders(data: AuditData, same: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Pictures that stand for a missing one: drawn in few colours, or many times there under several labels."""
    drawn = data.remembered(DRAWINGS, lambda: {"rows": _drawn(data)})["rows"].tolist()
    often = [rows for rows in same if len(rows) >= OFTEN and len({int(data.labels[row]) for row in rows}) > 1]
    together = {row for rows in often for row in rows}
    left = {row for row in drawn if row not in together}
    copies = [rows for rows in same if left.issuperset(rows)]
    alone = left - {row for rows in copies for row in rows}
    all_of_them = [*often, *copies, *([row] for row in sorted(alone))]
    if count := sum(map(len, all_of_them)):
        yield data.finding(
            "placeholder",
            "warning",
            f"{number_of(count, 'image looks like a placeholder', 'images look like placeholders')} "
            '("not available"): a drawing of few colours, or one picture many times under several labels',
            all_of_them,
            remedy="remove them",
        )


def _drawn(data: AuditData) -> NDArray[np.int64]:
    """The rows of drawn pictures; none where the data set consists of them, which no more are looked at to know."""
    most = int(max(SELDOM * len(data), 1))
    large = data.facts["width"].astype(np.int64) * data.facts["height"] >= PIXELS
    found = (
        row
        for place, some in blocks(data.thumbnails)
        for row, thumbnail in enumerate(some, place.start)
        if large[row] and _plain(data, row, thumbnail)
    )
    rows = list(islice(found, most + 1))
    return np.array(rows if len(rows) <= most else [], dtype=np.int64)


def _plain(data: AuditData, row: int, thumbnail: Pixels) -> bool:
    """Whether a picture is drawn in few colours, most of it in one; a photograph's pixels have hundreds."""
    levels = thumbnail.reshape(-1, 3).astype(np.int64) * LEVELS // 256
    _, counts = np.unique(levels @ [LEVELS**2, LEVELS, 1], return_counts=True)
    if not 1 < len(counts) <= FEW_COLOURS or counts.max() < ONE_COLOUR * counts.sum():
        return False
    with contextlib.suppress(UnreadableImage, OSError):
        colours = data.decode(row).reshape(-1, 3).astype(np.int64) @ [256**2, 256, 1]
        counts = np.unique(colours, return_counts=True)[1]
        return len(counts) > 1 and np.sort(counts)[-COLOURS:].sum() >= DRAWN * len(colours)
    return False
