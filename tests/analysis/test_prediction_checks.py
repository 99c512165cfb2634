from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.analysis.test_out_of_fold import clusters
from tlx.analysis.audit_data import AuditData
from tlx.analysis.finding import Finding
from tlx.analysis.image_facts import RECORD
from tlx.analysis.label_checks import check as labels_check
from tlx.analysis.prediction_checks import check


def data(n: int = 240, test: int = 120, seed: int = 0, **changes: object) -> AuditData:
    """An audit's data in which nothing is to be found: random facts, features in clusters of the classes."""
    features, labels = clusters(n + test, 2, apart=5.0, seed=seed)
    random = np.random.default_rng(seed)
    facts = np.zeros(n + test, RECORD)
    facts["pixels"] = random.integers(0, 256, facts["pixels"].shape)
    facts["width"], facts["height"] = random.integers(50, 90, (2, n + test))
    facts["format"], facts["mode"], facts["mean"] = b"JPEG", b"RGB", random.random(n + test) * 255
    thumbnails = random.integers(0, 256, facts["thumbnail"].shape, np.uint8)
    files = tuple(f"{row:03}.jpg" for row in range(n + test))
    splits = np.array(["train"] * n + ["test"] * test)
    made = AuditData(("ant", "bee"), files, files, labels, splits, facts, thumbnails, features)
    return replace(made, **changes)  # type: ignore[arg-type]


def kinds(found: AuditData) -> dict[str, Finding]:
    return {finding.kind: finding for finding in (*labels_check(found), *check(found))}


@pytest.mark.parametrize("seed", range(10))
def test_clean_data_has_no_finding(seed: int) -> None:
    assert not kinds(data(seed=seed))


def test_wrong_labels_are_named_with_their_certainty_and_a_class() -> None:
    clean = data()
    labels = clean.labels.copy()
    planted = [5, 6, 90, 150, 250, 300, 301, 350]
    labels[planted] = 1 - labels[planted]
    found = kinds(replace(clean, labels=labels))["label_errors"]
    assert sorted(found.files) == [(f"{row:03}.jpg",) for row in planted]
    assert found.count == len(found.certainty) == 8
    assert found.message.startswith("8 images are probably labelled wrongly")
    assert not kinds(replace(clean, labels=labels, features=None))


def test_a_second_audit_trains_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = data(memory=tmp_path)
    labels = clean.labels.copy()
    labels[5:13] = 1 - labels[5:13]
    first = kinds(replace(clean, labels=labels))
    monkeypatch.setattr("tlx.analysis.out_of_fold.fit", None)
    assert kinds(replace(clean, labels=labels, results={})) == first
    assert "label_errors" in first


def test_a_format_that_gives_the_class_away_is_a_shortcut() -> None:
    clean = data()
    facts = clean.facts.copy()
    facts["format"] = np.where(clean.labels == 1, b"PNG", b"JPEG")
    found = kinds(replace(clean, facts=facts))
    assert list(found) == ["shortcut"]
    assert "the file format alone predicts the class with a balanced accuracy of 100.0%" in found["shortcut"].message


@pytest.mark.parametrize("by", ["features", "brightness"])
def test_a_test_set_of_another_kind_is_a_shift(by: str) -> None:
    clean = data()
    assert clean.features is not None
    if by == "features":
        shifted = clean.features + np.float32(1.5) * (clean.splits == "test")[:, None]
        found = kinds(replace(clean, features=shifted))["distribution_shift"]
        assert found.files
        assert set(found.splits) == {("test",)}
    else:
        facts = clean.facts.copy()
        facts["mean"][clean.splits == "test"] /= 4
        found = kinds(replace(clean, facts=facts))["distribution_shift"]
        assert "by brightness" in found.message


def test_other_class_shares_are_noted_and_are_no_shift() -> None:
    clean = data(200, 200)
    keep = np.flatnonzero((clean.splits == "train") | (clean.labels == 1) | (np.arange(400) % 8 == 0))
    some = replace(
        clean,
        files=tuple(np.array(clean.files)[keep]),
        labels=clean.labels[keep],
        splits=clean.splits[keep],
        facts=clean.facts[keep],
        thumbnails=clean.thumbnails[keep],
        features=clean.features[keep] if clean.features is not None else None,
    )
    assert list(kinds(some)) == ["class_shares"]


def test_photographs_of_ants_and_bees_have_no_shortcut(shared: Path) -> None:
    """Of their sizes and brightness; a small sample, as whole decodes take long."""
    rows = list[tuple[int, int, float]]()
    labels = list[int]()
    for label, name in enumerate(("ants", "bees")):
        for path in sorted((shared / "hymenoptera_data" / "val" / name).glob("*.jpg")):
            with Image.open(path) as image:
                image.draft("L", (64, 64))
                rows.append((*image.size, float(np.asarray(image.convert("L")).mean())))
                labels.append(label)
    clean = data(len(rows), 0)
    facts = clean.facts.copy()
    facts["width"], facts["height"], facts["mean"] = np.array(rows).T
    real = replace(clean, facts=facts, labels=np.array(labels), features=None)
    assert not kinds(real)
