"""Exact copies among the images of a run, by content: on both sides of a split, or under two labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tlx.core.errors import printable
from tlx.datasets.images import Images

LISTED = 1_000  # pairs of a kind, at most
SHOWN = 2  # pairs in a line
# An image of the first split is measured, or chooses; one of the second was learned from, or chose, before.
ACROSS = (("test", "train"), ("test", "val"), ("val", "train"))


def copies(sets: Mapping[str, Images], classes: Sequence[str]) -> dict[str, Any]:
    """The images that are there more than once, as JSON takes it; empty where none is across splits or labels.

    `across`: `"test in train"` → how many images of the first split are also in the second, with `across_pairs`.
    `labels`: how many images are there under another label, too, with `labels_pairs`. A pair is split, name and label
    of an image, and the same of its copy; 1,000 of each kind at most. `lines` says it to a person, a line a kind.
    Nothing is left out of any split.
    """

    def label(member: tuple[str, int]) -> str:
        return classes[int(sets[member[0]].labels[member[1]])]

    def pair(one: tuple[str, int], other: tuple[str, int]) -> list[str]:
        return [word for m in (one, other) for word in (m[0], sets[m[0]].names[m[1]], label(m))]

    across = {f"{split} in {other}": 0 for split, other in ACROSS}
    across_pairs, labels, labels_pairs = list[list[str]](), 0, list[list[str]]()
    for group in _groups(sets):
        first = dict(reversed(group))
        for split, other in ACROSS:
            if other in first:
                members = [member for member in group if member[0] == split]
                across[f"{split} in {other}"] += len(members)
                across_pairs += [pair(member, (other, first[other])) for member in members]
        of_label = dict[str, tuple[str, int]]()
        for member in group:
            of_label.setdefault(label(member), member)
        if len(of_label) > 1:
            labels += len(group)
            one, *others = of_label.values()
            labels_pairs += [pair(one, other) for other in others]
    found = {
        "across": {words: number for words, number in across.items() if number},
        "across_pairs": across_pairs[:LISTED],
        "labels": labels,
        "labels_pairs": labels_pairs[:LISTED],
    }
    if not across_pairs and not labels:
        return {}
    return {**found, "lines": list(_lines(found, {split: len(images) for split, images in sets.items()}))}


def _groups(sets: Mapping[str, Images]) -> list[list[tuple[str, int]]]:
    """The images of equal content, (split, number) of each, where there are several."""
    members: dict[str, list[tuple[str, int]]] = {}
    for split, images in sets.items():
        for number, digest in enumerate(images.digests()):
            members.setdefault(digest, []).append((split, number))
    return [group for group in members.values() if len(group) > 1]


def _lines(found: Mapping[str, Any], images: Mapping[str, int]) -> Iterator[str]:
    """What is said of them before training. `images`: how many each split has."""
    if found["across"]:
        counts = []
        for words, number in found["across"].items():
            split, _, other = words.partition(" in ")
            counts.append(f"{number:,} of {images[split]:,} {split} images are also in {other}")
        yield (
            f"copies: {', '.join(counts)} ({_shown(found['across_pairs'])}): accuracy on copies is too optimistic; "
            "none was removed, summary.json lists them"
        )
    if found["labels"]:
        shown = _shown(found["labels_pairs"])
        yield f"copies: {found['labels']:,} images are also there under another label ({shown}): one label is wrong"


def _shown(pairs: Sequence[Sequence[str]]) -> str:
    some = printable(", ".join(f"{pair[1]} = {pair[4]}" for pair in pairs[:SHOWN]))
    return f"{some}, …" if len(pairs) > SHOWN else some
