"""Findings of small classifiers: facts that give the label away, splits that differ.

torch is imported where a probe is trained only.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tlx.analysis import distribution_shift as shift
from tlx.analysis.audit_data import AuditData
from tlx.analysis.finding import Finding
from tlx.analysis.known_facts import known_facts
from tlx.analysis.remembered import digest, fingerprint
from tlx.analysis.same_pictures import pictures
from tlx.analysis.shortcuts import Fact, Predictor, predictors
from tlx.core import activity
from tlx.core.errors import printable

EXAMPLES = 12  # files that are named of a shift


def check(data: AuditData) -> Iterator[Finding]:
    """Shortcuts, and how the splits differ."""
    facts = known_facts(data)
    if len(np.unique(data.labels)) >= 2:
        yield from _shortcuts(data, facts)
    if len(train := data.rows("train")):
        for split in ("val", "test"):
            if len(rows := data.rows(split)):
                yield from _shift(data, facts, split, train, rows)
                yield from _class_shares(data, split, train, rows)


def _shortcuts(data: AuditData, facts: Mapping[str, Fact]) -> Iterator[Finding]:
    for one in predictors(facts, data.labels, pictures(data)):
        if one.of_all or one.of_class:
            yield data.finding(
                "shortcut",
                "warning",
                f"{_said(one, data)}: a network may learn it in place of the objects",
                [],
                remedy="take pictures of all classes in the same way, or make them alike (same format, size, border) "
                "before training",
            )


def _said(one: Predictor, data: AuditData) -> str:
    if one.of_all:
        return (
            f"the {one.fact} alone predicts the class with a balanced accuracy of {one.accuracy:.1%} "
            f"(chance: {one.chance:.1%})"
        )
    return (
        f"the {one.fact} alone recognises class '{printable(data.classes[one.label])}' (its share of images so "
        f"recognised is {one.label_effect:.0%} above that of the others)"
    )


def _shift(
    data: AuditData, facts: Mapping[str, Fact], split: str, train: NDArray[np.int64], rows: NDArray[np.int64]
) -> Iterator[Finding]:
    both = np.concatenate([train, rows])
    second = np.arange(len(both)) >= len(train)
    chosen = shift.matched(data.labels[both], second)
    both, second = both[chosen], second[chosen]
    if second.sum() < shift.LEAST:
        return
    side = second.astype(np.int64)
    by_fact = [one for one in predictors({name: fact[both] for name, fact in facts.items()}, side) if one.of_all]
    apart_by = [f"by {one.fact} {one.accuracy:.0%}" for one in sorted(by_fact, key=lambda one: -one.accuracy)]
    strange: list[int] = []
    if data.features is not None:
        scores = _scores_of_split(data, split, both, side)
        apart = shift.separability(scores, second)
        if apart.found:
            interval = f"99.9 % interval {apart.low:.2f}–{apart.high:.2f}"
            apart_by.insert(0, f"by what they show (area under the curve {apart.area:.2f}, {interval})")
            strange = both[second][np.argsort(-scores[second], kind="stable")][:EXAMPLES].tolist()
    if apart_by:
        yield data.finding(
            "distribution_shift",
            "warning",
            f"images of {split} can be separated from training images of the same classes {', '.join(apart_by)}, where "
            f"chance is 50 %: the figures on {split} are of another kind of pictures than those that were trained on",
            strange,
            remedy="find out how the splits were made; split all images at random if they should be of one kind",
        )


def _scores_of_split(
    data: AuditData, split: str, rows: NDArray[np.int64], side: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How much a probe out of fold takes each of the rows for an image of the split (side 1)."""
    features, groups = data.features, pictures(data)[rows]
    assert features is not None

    def logits() -> dict[str, NDArray[np.generic]]:
        from tlx.analysis.out_of_fold import out_of_fold

        with activity.doing(f"comparing train and {split}"):
            return {"logits": out_of_fold(features[rows], side, 2, groups).logits}

    about = (digest(rows), digest(side), digest(groups), fingerprint(features))
    found = data.remembered("split_scores", logits, *about)["logits"].astype(np.float32)
    scores: NDArray[np.float32] = found[:, 1] - found[:, 0]
    return scores


def _class_shares(data: AuditData, split: str, train: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[Finding]:
    found = shift.class_shares(data.labels[train], data.labels[rows], len(data.classes))
    if found.differ:
        first, second = found.shares
        yield Finding(
            "class_shares",
            "note",
            f"class shares differ between train and {split}, most for '{printable(data.classes[found.label])}': "
            f"{first:.1%} of train, {second:.1%} of {split}; accuracy on {split} weighs classes differently",
            count=len(rows),
            remedy="compare balanced accuracy, too",
        )
