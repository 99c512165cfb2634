import numpy as np
import pytest

from tlx.analysis.folds import deal_folds
from tlx.analysis.out_of_fold import out_of_fold, principal_axes


def clusters(n: int, classes: int, width: int = 30, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = random.normal(size=(classes, width)) * apart / np.sqrt(2)
    return (centres[labels] + random.normal(size=(n, width)) * 2).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(20))
def test_a_group_is_in_one_fold_and_folds_have_all_classes(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, groups = random.integers(0, 3, 200), random.integers(0, 120, 200)
    folds = deal_folds(labels, groups, 5, seed)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups.tolist()))
    alone = deal_folds(labels, None, 5, seed)
    counts = np.array([np.bincount(labels[alone == fold], minlength=3) for fold in range(5)])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert (deal_folds(labels, groups, 5, seed) == folds).all()


def test_there_are_as_many_folds_as_groups_and_one_group_is_refused() -> None:
    assert set(deal_folds(np.zeros(9, np.int64), np.arange(9) // 3, 5, 0)) == {0, 1, 2}
    with pytest.raises(ValueError, match="two groups"):
        deal_folds(np.zeros(9, np.int64), np.zeros(9, np.int64), 5, 0)


@pytest.mark.parametrize(("n", "width"), [(40, 100), (100, 40)])
def test_distances_are_kept_up_to_one_scale(n: int, width: int) -> None:
    features = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32) + 5
    rows = principal_axes(features).numpy()
    before = np.linalg.norm(features[:, None] - features, axis=2)
    after = np.linalg.norm(rows[:, None] - rows, axis=2)
    scale = before[0, 1] / after[0, 1]
    assert np.allclose(after * scale, before, atol=1e-2)
    assert np.square(rows).sum(axis=1).mean() == pytest.approx(1, rel=1e-3)


def test_what_is_learnt_is_known_of_images_out_of_fold_and_random_labels_are_not() -> None:
    features, labels = clusters(300, 3)
    assert (out_of_fold(features, labels, 3).logits.argmax(1) == labels).mean() > 0.9
    random = np.random.default_rng(1).integers(0, 3, 300)
    assert (out_of_fold(features, random, 3).logits.argmax(1) == random).mean() < 0.5


def test_copies_in_a_group_say_nothing_of_each_other() -> None:
    random = np.random.default_rng(0)
    features = np.repeat(random.normal(size=(60, 100)), 4, axis=0).astype(np.float32)
    labels, groups = np.repeat(random.integers(0, 2, 60), 4), np.repeat(np.arange(60), 4)
    assert (out_of_fold(features, labels, 2).logits.argmax(1) == labels).mean() > 0.9
    assert (out_of_fold(features, labels, 2, groups).logits.argmax(1) == labels).mean() < 0.75


def test_many_images_are_scored_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strength is then chosen from a sample, and folds are trained one after the other."""
    features, labels = clusters(600, 3)
    whole = out_of_fold(features, labels, 3, strengths=[1.0])
    monkeypatch.setattr("tlx.analysis.out_of_fold.SAMPLE", 200)
    monkeypatch.setattr("tlx.analysis.out_of_fold.LOGITS", 1)
    sampled = out_of_fold(features, labels, 3, strengths=[1.0])
    assert (whole.folds == sampled.folds).all()
    assert np.abs(whole.logits - sampled.logits).max() < 0.05


def test_a_class_in_one_fold_only_and_one_without_images_are_allowed() -> None:
    features, labels = clusters(60, 3)
    labels[0] = 3
    found = out_of_fold(features, labels, 6)
    assert found.logits.shape == (60, 6)
    assert np.isfinite(found.logits).all()
    assert np.allclose(found.probabilities.sum(1), 1, atol=1e-5)
    assert (out_of_fold(np.ones((20, 4), np.float16), np.arange(20) % 2, 2).probabilities > 0.3).all()


def test_the_same_seed_gives_the_same_logits() -> None:
    features, labels = clusters(100, 2)
    assert (out_of_fold(features, labels, 2).logits == out_of_fold(features, labels, 2).logits).all()
