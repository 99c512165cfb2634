"""Groups: none is on two sides of a split or a fold; classes keep their shares as well as can be, which is said."""

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.datasets.test_splits import common, counts
from tlx.config.dataset_schema import DatasetConfig
from tlx.core.errors import RequestError
from tlx.datasets import group_splits
from tlx.datasets.image_sources import Stacked
from tlx.datasets.images import Images, Labels
from tlx.datasets.splits import Data, Parts, split


def images(labels: Labels, groups: Labels, prefix: str = "train") -> Images:
    """Images of one pixel whose path has their group in it."""
    numbers = np.arange(len(labels))
    pixels = np.stack([numbers % 256, numbers // 256, numbers * 0], axis=-1).astype(np.uint8).reshape(-1, 1, 1, 3)
    names = [f"{prefix}/patient{group}_{i}.png" for i, group in enumerate(groups.tolist())]
    return Images(names, labels.tolist(), Stacked(pixels))


def random_groups(seed: int, classes: int = 3, fewest: int = 8) -> tuple[Labels, Labels]:
    """Labels and groups of random sizes; every class is in several groups, and a group often has one class only."""
    random = np.random.default_rng(seed)
    number = int(random.integers(fewest, 40))
    sizes = np.ceil(random.pareto(1.5, number) * 3 + 1).astype(int).clip(max=60)
    groups = np.repeat(np.arange(number), sizes)
    own = np.arange(number) % classes
    mixed = random.random(len(groups)) < random.choice([0.0, 0.3, 1.0])
    return np.where(mixed, random.integers(0, classes, len(groups)), own[groups]), groups


def parts(labels: Labels, groups: Labels) -> Parts:
    return Parts("numbers", ("a", "b", "c"), images(labels, groups))


def group_of(name: str) -> str:
    found = re.search(r"patient\d+", name)
    assert found
    return found[0]


def sides(data: Data) -> list[set[str]]:
    return [{group_of(name) for name in one.names} for one in (data.train, data.val, data.test)]


GROUPED: dict[str, Any] = {"group": r"patient\d+"}


@pytest.mark.parametrize("seed", range(15))
def test_no_group_is_on_two_sides_of_a_split_and_no_image_is_lost(seed: int) -> None:
    labels, groups = random_groups(seed)
    data = split(parts(labels, groups), common(**GROUPED), seed)
    for one, other in itertools.combinations(sides(data), 2):
        assert one
        assert other
        assert not one & other
    assert sorted([*data.train.names, *data.val.names, *data.test.names]) == sorted(images(labels, groups).names)
    assert all(counts(data.train))
    again = split(parts(labels, groups), common(**GROUPED), seed)
    assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tested", [False, True])
def test_no_group_is_on_two_sides_of_a_fold_and_each_is_held_out_once(seed: int, tested: bool) -> None:
    labels, groups = random_groups(seed, fewest=15)
    whole = parts(labels, groups)
    if tested:
        whole = Parts(whole.name, whole.classes, whole.train, test=images(np.arange(3), np.arange(3) + 1000, "test"))
    held_out = list[str]()
    for fold in range(5):
        data = split(whole, common(folds=5, fold=fold, **GROUPED), seed)
        for one, other in itertools.combinations(sides(data), 2):
            assert not one & other
        held_out += (data.val if tested else data.test).names
    assert sorted(held_out) == sorted(whole.train.names)


@pytest.mark.parametrize("seed", range(18))
def test_a_deal_is_as_good_as_the_best_of_all_or_nearly(seed: int) -> None:
    """Against all ways in which up to eight groups can be dealt: as many classes on each side, and chi-square."""
    random = np.random.default_rng(seed)
    number, total = int(random.integers(3, 9)), int(random.integers(12, 100))
    groups = np.concatenate([np.arange(number), random.integers(0, number, total)])
    labels = random.integers(0, 3, len(groups)) if seed % 2 else groups % 3
    shares = np.array([(0.8, 0.2), (0.5, 0.5), (1 / 3, 1 / 3, 1 / 3)][seed % 3])
    grouped = images(labels, groups).in_groups([str(group) for group in groups])
    problem = group_splits._Groups(group_splits.codes(grouped.groups or ()), labels, shares)
    dealt = group_splits.deal(grouped, shares.tolist(), seed, 0)
    mine = problem.badness(dealt[[grouped.groups.index(str(group)) for group in range(number)]])  # type: ignore[union-attr]
    every = (np.array(one) for one in itertools.product(range(len(shares)), repeat=number))
    best = min(problem.badness(one) for one in every if len(np.unique(one)) == len(shares))
    assert mine[0] == best[0]  # what learns has every class, where that can be
    assert mine[1] <= best[1] + 1
    assert mine[1] != best[1] or mine[2] <= 2.5 * best[2] + 1e-6


def test_many_small_groups_keep_the_shares_of_classes_and_of_sets() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), 4)
    labels = random.choice(3, len(groups), p=[0.6, 0.3, 0.1])
    data = split(parts(labels, groups), common(**GROUPED), 0)
    for images_, share in ((data.test, 0.2), (data.val, 0.16), (data.train, 0.64)):
        assert abs(len(images_) / len(labels) - share) < 0.01
        assert np.abs(np.array(counts(images_)) / len(images_) - np.bincount(labels) / len(labels)).max() < 0.01
    line = next(note for note in data.notes if "class shares" in note)
    assert re.search(r"^groups: \d+ train, \d+ val, \d+ test, none in two splits", line)
    off = re.search(r"at most ([\d.]+) points off", line)
    assert off
    assert float(off[1]) < 1


def test_the_seed_chooses_among_groups() -> None:
    labels, groups = random_groups(3, fewest=20)
    assert len({tuple(split(parts(labels, groups), common(**GROUPED), seed).test.names) for seed in range(6)}) > 1


def test_parentheses_say_what_the_group_is_and_others_are_groups_of_their_own() -> None:
    labels, groups = random_groups(1)
    whole, paren = (split(parts(labels, groups), common(group=one), 0) for one in (r"patient\d+", r"patient(\d+)_"))
    assert set(whole.train.groups or ()) == {f"patient{number}" for number in paren.train.groups or ()}
    some = split(parts(labels, groups), common(group="patient1_"), 0)
    assert any(re.search(r"^groups: \d+ images have no group, and are a group each", note) for note in some.notes)


def test_what_the_data_itself_has_on_two_sides_is_refused() -> None:
    labels, groups = random_groups(2)
    given = Parts("numbers", ("a", "b", "c"), images(labels, groups), test=images(np.arange(3), np.array([0, 1, 900])))
    with pytest.raises(
        RequestError, match=r"group 'patient0' is in both (train|val) and test, and 1 more of \d+ groups"
    ):
        split(given, common(**GROUPED), 0)
    assert split(given, common(group="none"), 0).train.groups is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"group": "["}, r"dataset\.group=\[: is no regular expression"),
        (
            {"group": "person"},
            r"dataset\.group=person: this regular expression finds nothing in any path, as train/pat",
        ),
        ({"group": "train"}, r"dataset\.group: the number of groups is 1 \('train' of \d+ images\); .* at least 2"),
        ({"group": "patient[01]", "folds": 40, "fold": 0}, "at least 40"),
    ],
)
def test_groups_that_cannot_be_are_one_line(values: dict[str, Any], message: str) -> None:
    random = np.random.default_rng(0)
    groups = np.arange(240) % 2
    with pytest.raises(RequestError, match=message) as caught:
        split(parts(random.integers(0, 3, 240), groups), DatasetConfig(**values), 0)
    assert "\n" not in str(caught.value)
