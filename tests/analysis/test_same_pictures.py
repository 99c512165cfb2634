"""Pictures that are there more than once: a number each for folds, and a partner for each image that is measured."""

from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.test_near_duplicates import SCENES, jpeg, thumbnails
from tests.analysis.test_prediction_checks import data
from tlx.analysis.audit_data import AuditData
from tlx.analysis.duplicate_groups import CONFIRMED, Pairs
from tlx.analysis.folds import deal_folds
from tlx.analysis.same_pictures import partners, pictures


def with_copies(copies: int) -> AuditData:
    """60 pictures of two classes in turn, and near copies of the first."""
    made = data(60 + copies, 0)
    small = thumbnails([*SCENES, *(jpeg(picture) for picture in SCENES[:copies])])
    labels = np.concatenate([np.arange(60) % 2, np.arange(copies) % 2])
    return replace(made, thumbnails=small, labels=labels, features=None, results={})


def test_near_duplicates_are_in_one_fold() -> None:
    found = with_copies(12)
    numbers = pictures(found)
    assert np.array_equal(numbers[:12], numbers[60:])
    assert len(np.unique(numbers)) == 60
    folds = deal_folds(found.labels, numbers, 5, seed=0)
    assert np.array_equal(folds[:12], folds[60:])
    assert len(np.unique(folds)) == 5


def test_near_duplicates_that_are_half_of_a_class_are_not_kept_together() -> None:
    found = with_copies(12)
    labels = found.labels.copy()
    labels[[0, 60]] = 2
    numbers = pictures(replace(found, labels=labels, classes=("ant", "bee", "cat"), results={}))
    assert numbers[0] != numbers[60]
    assert np.array_equal(numbers[1:12], numbers[61:])


@pytest.mark.parametrize("seed", range(10))
def test_each_measured_image_has_its_surest_partner_of_an_earlier_split_and_only_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 60
    ends = np.unique(np.sort(random.integers(0, n, (150, 2)), axis=1), axis=0)
    ends = ends[ends[:, 0] < ends[:, 1]]
    certainty = random.random(len(ends)) * 0.99
    order = np.argsort(-certainty, kind="stable")
    pairs = Pairs(ends[order, 0], ends[order, 1], certainty[order])
    splits = random.choice(["train", "val", "test"], n)
    same = [sorted(rows.tolist()) for rows in random.permutation(n)[:15].reshape(5, 3)]
    copies = {row: rows for rows in same for row in rows}
    for split, before in (("test", ("train", "val")), ("val", ("train",)), ("train", ("test",))):
        found = partners(pairs, same, splits, split, before)
        assert len({one.row for one in found}) == len(found)
        assert [one.certainty for one in found] == sorted((one.certainty for one in found), reverse=True)
        best = {one.row: one for one in found}
        for row in range(n):
            mine = copies.get(row, [row])
            near = [
                (sure, other)
                for first, second, sure in zip(*pairs, strict=True)
                if sure >= CONFIRMED
                for one, beside in ((first, second), (second, first))
                if one in mine
                for other in copies.get(beside, [beside])
                if splits[other] in before
            ]
            exact = any(splits[other] in before for other in mine)
            assert (row in best) == (splits[row] == split and bool(near) and not exact)
            if row in best:
                assert best[row].certainty == max(near)[0]
                assert (best[row].certainty, best[row].other) in near


def test_equal_pictures_of_other_files_are_found_through_each_other() -> None:
    pairs = Pairs(np.array([0, 0]), np.array([1, 2]), np.array([1.0, 0.8]))
    found = partners(pairs, [], np.array(["test", "test", "train"]), "test", ["train"])
    assert [(one.row, one.other) for one in found] == [(0, 2), (1, 2)]
