"""Splits by groups: all images of a group (a patient, a plant, a video) are on one side, and classes keep their shares.

Exact shares are a partition problem (NP-hard). Here the groups are dealt one after the other, large ones first, to the
side whose class counts come nearest to its share, as in scikit-learn's `StratifiedGroupKFold` and, for labels, Sechidis
et al. 2011 ("On the Stratification of Multi-Label Data"); then single groups are moved while that brings them nearer.
Small problems are dealt several times, and the best is taken.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlx.core.errors import RequestError, printable, reason
from tlx.datasets.images import Images, Labels

NONE = "none"  # of dataset.group: no groups, whatever columns there are
TRIES, WORK = 20, 800  # how often groups are dealt at most, and how many groups in all these
PASSES = 10  # over all groups, in which single ones are moved
SHOWN = 3  # names in a message


def pattern_of(group: str) -> "re.Pattern[str]":
    """`dataset.group` as a regular expression. Raises `RequestError` where it is none."""
    try:
        return re.compile(group)
    except re.error as error:
        raise RequestError(f"dataset.group={group}: is no regular expression ({reason(error)})") from error


def grouped(parts: Mapping[str, Images | None], group: str) -> dict[str, Images | None]:
    """The parts with the group of each image: what the expression finds in its path, or its parentheses in that.

    The path is the one below the data set's folder. An image in which it finds nothing is a group of its own.

    Raises:
        RequestError: it is no regular expression, or finds something in no path.
    """
    pattern = pattern_of(group)
    found = {
        name: images and images.in_groups([_group(pattern, path) for path in images.names])
        for name, images in parts.items()
    }
    if not any(any(images.groups or ()) for images in found.values() if images):
        first = next(iter(parts.values()))
        path = printable(first.names[0]) if first else ""
        raise RequestError(
            f"dataset.group={group}: this regular expression finds nothing in any path, as {path}; what it finds is "
            r"the group, as in dataset.group=patient\d+"
        )
    return found


def _group(pattern: "re.Pattern[str]", path: str) -> str:
    match = pattern.search(path)
    return "" if match is None else "/".join(part or "" for part in match.groups()) or match[0]


def deal(images: Images, shares: Sequence[float], seed: int, salt: int) -> Labels:
    """The side of each image, int64 [N]: a group is on one side, and each side has at least one.

    `shares`: of each side, which sum to 1. Raises `RequestError` for fewer groups than sides.
    """
    of_image = codes(images.groups or ())
    groups = _Groups(of_image, images.labels, np.asarray(shares))
    if groups.number < len(shares):
        raise RequestError(
            f"dataset.group: the number of groups is {groups.number} ({_some(images)}); a split into {len(shares)} "
            f"needs at least {len(shares)}"
        )
    tries = int(np.clip(WORK // groups.number, 1, TRIES))
    dealt = [groups.dealt(np.random.default_rng([seed, salt, number])) for number in range(tries)]
    return min(dealt, key=groups.badness)[of_image]


class _Groups:
    """How many images of each class each group has, and what a side should have."""

    def __init__(self, of_image: Labels, labels: Labels, shares: NDArray[np.float64]) -> None:
        present, classes = np.unique(labels, return_inverse=True)
        self.size = np.bincount(of_image)
        self.number = len(self.size)
        pairs, counts = np.unique(of_image * len(present) + classes, return_counts=True)
        starts = np.searchsorted(pairs, np.arange(1, self.number) * len(present))
        # Of each group: the classes that it has, with the number of all images as one class more, and the counts.
        kinds, counted = np.split(pairs % len(present), starts), np.split(counts, starts)
        self.kinds = [np.append(one, len(present)) for one in kinds]
        self.counts = [np.append(one, one.sum()).astype(np.float64) for one in counted]
        self.wanted = np.outer(shares, np.append(np.bincount(classes), len(labels)).astype(np.float64))
        # What it costs that a side has no image of a class; most for the first side, which learns.
        self.lacking = len(labels) * np.where(np.arange(len(shares)) == 0, len(present) + 1.0, 1.0)[:, None]

    def dealt(self, random: np.random.Generator) -> Labels:
        """The side of each group, dealt in a random order in which groups of twice the size come first."""
        order = random.permutation(self.number)
        order = order[np.argsort(-np.floor(np.log2(self.size[order])), kind="stable")]
        sides, members = np.empty(self.number, np.int64), np.zeros(len(self.wanted), np.int64)
        excess = -self.wanted.copy()  # what each side has more of each class than it should

        def place(group: int, side: int) -> None:
            sides[group] = side
            members[side] += 1
            excess[side, self.kinds[group]] += self.counts[group]

        def take(group: int) -> None:
            members[sides[group]] -= 1
            excess[sides[group], self.kinds[group]] -= self.counts[group]

        for group in order.tolist():
            place(group, int(self._worse(group, excess).argmin()))
        while not members.all():  # a side that would get none gets the group that harms least
            empty = int(members.argmin())
            spare = [group for group in order.tolist() if members[sides[group]] > 1]
            group = min(spare, key=lambda group: float(self._worse(group, excess)[empty]))
            take(group)
            place(group, empty)
        for _ in range(PASSES):
            moved = False
            for group in order.tolist():
                before = int(sides[group])
                if members[before] == 1:
                    continue
                take(group)
                worse = self._worse(group, excess) - self._covers(group, excess)
                after = int(worse.argmin())
                better = worse[after] < worse[before] - 1e-9
                place(group, after if better else before)
                moved = moved or bool(better)
            if not moved:
                break
        return sides

    def _worse(self, group: int, excess: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much chi-square over classes and number grows with a group on each side."""
        kinds, counts = self.kinds[group], self.counts[group]
        growth: NDArray[np.float64] = ((2 * excess[:, kinds] + counts) * counts / self.wanted[:, kinds]).sum(axis=1)
        return growth

    def _covers(self, group: int, excess: NDArray[np.float64]) -> NDArray[np.float64]:
        """What it is worth on each side that the group has classes of which the side has no image."""
        kinds = self.kinds[group]
        covers: NDArray[np.float64] = (self.lacking * (excess[:, kinds] + self.wanted[:, kinds] < 0.5)).sum(axis=1)
        return covers

    def badness(self, sides: Labels) -> tuple[int, int, float]:
        """How far a deal is from the shares: classes that the first side lacks, that any lacks, then chi-square."""
        has = np.zeros_like(self.wanted)
        for side, kinds, counts in zip(sides.tolist(), self.kinds, self.counts, strict=True):
            has[side, kinds] += counts
        lacks = has == 0
        return int(lacks[0].sum()), int(lacks.sum()), float(((has - self.wanted) ** 2 / self.wanted).sum())


def codes(groups: Sequence[str]) -> Labels:
    """A number from 0 for each group, int64 [N]; an image without a group is one of its own."""
    known = dict[str | int, int]()
    found = [known.setdefault(group or number, len(known)) for number, group in enumerate(groups)]
    return np.array(found, dtype=np.int64)


def check(sets: Mapping[str, Images]) -> None:
    """Raises `RequestError` where a group is on two sides, as the data's own splits may have it."""
    side = dict[str, str]()
    both = dict[str, str]()
    for name, images in sets.items():
        for group in filter(None, images.groups or ()):
            if side.setdefault(group, name) != name:
                both.setdefault(group, f"{side[group]} and {name}")
    if both:
        first, where = next(iter(both.items()))
        more = f", and {len(both) - 1} more of {len(side)} groups are in two splits" if len(both) > 1 else ""
        raise RequestError(
            f"dataset.group: group '{printable(first)}' is in both {where}{more}; the splits are the data set's own: "
            "correct them, have new ones made (dataset.splits.train=. where all rows or folders are one), or leave "
            "the groups out (dataset.group=none)"
        )


@dataclass(frozen=True)
class _Far:
    """How far a class's share in a split is from its share in all images."""

    split: str
    label: int
    share: float
    whole: float

    @property
    def points(self) -> float:
        return 100 * abs(self.share - self.whole)


def described(sets: Mapping[str, Images], classes: Sequence[str]) -> Iterator[str]:
    """How many groups each split has, what the split keeps of the classes' shares, and which classes a split lacks."""
    if not all(images.groups is not None for images in sets.values()):
        return
    numbers = {name: len(set(codes(images.groups or ()).tolist())) for name, images in sets.items()}
    own = [
        path for images in sets.values() for path, of in zip(images.names, images.groups or (), strict=True) if not of
    ]
    counts = {name: np.bincount(images.labels, minlength=len(classes)) for name, images in sets.items()}
    total = np.sum(list(counts.values()), axis=0)
    whole = total / total.sum()
    far = max(
        (
            _Far(name, label, count[label] / count.sum(), whole[label])
            for name, count in counts.items()
            for label in range(len(classes))
            if count.sum()
        ),
        key=lambda one: one.points,
    )
    share = f"{100 * far.share:.1f} % of {far.split}, {100 * far.whole:.1f} % of all"
    yield (
        f"groups: {', '.join(f'{number} {name}' for name, number in numbers.items())}, none in two splits "
        f"({_some(sets['train'])}); images: "
        f"{', '.join(f'{100 * count.sum() / total.sum():.1f} % {name}' for name, count in counts.items())}; "
        f"class shares: at most {far.points:.1f} points off ('{printable(classes[far.label])}': {share})"
    )
    if own:
        some = printable(", ".join(own[:SHOWN])) + (", …" if len(own) > SHOWN else "")
        yield f"groups: {len(own):,} images have no group, and are a group each ({some})"
    for name, count in counts.items():
        if lacking := [classes[label] for label in np.flatnonzero(count == 0).tolist()]:
            some = printable(", ".join(lacking[:SHOWN])) + (", …" if len(lacking) > SHOWN else "")
            yield f"groups: no group of {name} has an image of {some}"


def _some(images: Images) -> str:
    """The largest groups by name, with the number of their images."""
    names, counts = np.unique([group for group in images.groups or () if group], return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:SHOWN]
    some = [f"'{printable(str(names[i]))}' of {counts[i]} image{'' if counts[i] == 1 else 's'}" for i in largest]
    return ", ".join(some) + (", …" if len(names) > SHOWN else "")
