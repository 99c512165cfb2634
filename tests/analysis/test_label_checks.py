"""Suspicious labels: judged again by larger features, of few images, by a probe that did not see them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.test_out_of_fold import clusters
from tests.analysis.test_prediction_checks import data
from tlx.analysis.audit_data import AuditData, Finer
from tlx.analysis.finding import Finding
from tlx.analysis.label_checks import LISTED, check
from tlx.analysis.second_look import FEWEST, MOST, SAMPLE, chosen, judged


def kinds(found: AuditData) -> dict[str, Finding]:
    return {finding.kind: finding for finding in check(found)}


class Counted:
    """Larger features, and how many rows of them were requested."""

    def __init__(self, features: np.ndarray) -> None:
        self.features, self.rows = features, list[int]()

    def of(self, rows: np.ndarray) -> np.ndarray:
        self.rows += rows.tolist()
        return self.features[rows]


def large(tmp_path: Path | None = None) -> tuple[AuditData, Counted, np.ndarray]:
    """12,000 images with 60 wrong labels that small features hardly show; the larger ones; which labels are wrong."""
    made = data(10_000, 2_000, memory=tmp_path)
    made.facts["thumbnail"] = 0  # no near duplicates to look for
    clear, right = clusters(12_000, 2, apart=5.0)
    planted = np.random.default_rng(1).choice(12_000, 60, replace=False)
    labels = right.copy()
    labels[planted] = 1 - labels[planted]
    small = clear + np.random.default_rng(2).normal(size=clear.shape).astype(np.float32) * 12
    larger = Counted(clear)
    return replace(made, features=small, labels=labels, finer=Finer("224", larger.of)), larger, planted


def test_a_second_look_finds_more_of_large_data_and_is_remembered(tmp_path: Path) -> None:
    made, larger, planted = large(tmp_path)
    looked = kinds(made)
    assert len(set(larger.rows)) == len(larger.rows) <= 2 * MOST + SAMPLE
    before = len(larger.rows)
    assert kinds(replace(made, results={})) == looked
    assert len(larger.rows) == before
    listed = looked["suspicious_labels"]

    def hits(finding: Finding) -> int:
        return len({int(Path(file).stem) for (file,) in finding.files} & set(planted.tolist()))

    assert hits(listed) > hits(kinds(replace(made, finer=None))["suspicious_labels"])
    assert listed.severity == "note"
    assert max(np.unique(np.array(listed.splits), return_counts=True)[1]) <= LISTED
    assert (np.diff(listed.certainty) <= 0).all()
    assert all(like != given for like, (given,) in zip(listed.suggested, listed.labels, strict=True))
    assert listed.to_dict()["suggested"] == list(listed.suggested)
    errors = looked["label_errors"]
    assert [file for file in listed.files if file in errors.files] == list(errors.files)[: len(errors.files)]
    assert "no share of wrong labels" not in listed.message


def test_where_nothing_can_be_shown_that_is_said() -> None:
    random = np.random.default_rng(0).normal(size=(2400, 8)).astype(np.float32)
    found = kinds(replace(data(2000, 400), features=random))
    assert list(found) == ["suspicious_labels"]
    assert "no share of wrong labels could be shown" in found["suspicious_labels"].message


def test_all_of_a_small_data_set_is_judged_by_larger_features() -> None:
    made, larger = data(), Counted(clusters(360, 2, apart=5.0)[0])
    assert made.features is not None
    noise = np.zeros_like(made.features)
    assert not kinds(replace(made, features=noise, finer=Finer("224", larger.of)))
    assert larger.rows == list(range(360))


@pytest.mark.parametrize("seed", range(5))
def test_suspects_and_their_copies_are_not_in_the_sample_which_has_all_classes_alike(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, classes = 9000, 5
    labels, groups = random.choice(classes, n, p=[0.5, 0.3, 0.1, 0.09, 0.01]), random.integers(0, 6000, n)
    splits = np.where(random.random(n) < 0.8, "train", "test")
    found = chosen(random.normal(size=(n, classes)), labels, splits, groups, seed)
    assert found is not None
    assert not set(groups[found.suspects].tolist()) & set(groups[found.sample].tolist())
    assert len(found.sample) <= SAMPLE
    counts, there = np.bincount(labels[found.sample], minlength=classes), found.counts
    assert ((counts >= counts.max() - 1) | (counts >= 0.7 * there)).all()
    assert found.weights(labels)[len(found.suspects) :].sum() == pytest.approx(found.counts.sum())
    assert chosen(random.normal(size=(n, classes)), labels, splits, np.zeros(n, np.int64), seed) is None
    many = np.arange(n) % (n // FEWEST + 1)
    assert chosen(random.normal(size=(n, many.max() + 1)).astype(np.float32), many, splits, np.arange(n)) is None


def test_the_labels_of_suspects_do_not_change_how_they_are_judged() -> None:
    features, labels = clusters(700, 3)
    other = labels.copy()
    other[:100] = (other[:100] + 1) % 3
    one, two = (judged(features, of, 100, 3, np.arange(700)) for of in (labels, other))
    assert np.array_equal(one, two)
    assert (one.argmax(1) == labels).mean() > 0.9
