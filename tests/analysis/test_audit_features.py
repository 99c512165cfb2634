"""The features of an audit: of each image in its place, from the cache the second time, none without weights."""

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.test_near_duplicates import scene
from tlx.analysis.audit_data import AuditData
from tlx.config.compose import compose, without_hydra
from tlx.config.validation import checked
from tlx.runs.data_audit import audit_of_data


def audited(root: Path, *overrides: str) -> AuditData:
    words = ["dataset=image_folder", f"dataset.root={root}", f"hydra.run.dir={root.parent / 'outputs'}", *overrides]
    return audit_of_data(checked(without_hydra(compose(words))))[0]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(3):
                scene(number).save(folder / f"{number}.png")
    (tmp_path / "photos" / "train" / "a" / "0_damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "photos"


def test_features_belong_to_their_images_and_are_computed_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tlx"):
        first = audited(root)
        caplog.clear()
        again = audited(root)
    assert "from an earlier run" in caplog.text
    assert first.features is not None
    assert again.features is not None
    assert np.array_equal(first.features, again.features)
    assert len(first.features) == len(first) == 12
    number = np.array([int(Path(file).stem) for file in first.files])
    for one in range(3):
        same = first.features[number == one]
        assert np.allclose(same, same[0], atol=1e-4)
        assert np.abs(first.features[number != one] - same[0]).max(1).min() > 0.01
    assert first.finer is not None
    assert again.finer is not None
    larger = first.finer.of(np.arange(12))
    caplog.clear()
    with caplog.at_level(logging.INFO, "tlx"):
        some = again.finer.of(np.array([7, 0, 11]))
    assert caplog.text.count("from an earlier run") == caplog.text.count("features: ") > 0
    assert np.array_equal(some, larger[[7, 0, 11]])
    assert not np.allclose(larger, first.features, atol=0.1)


def test_random_weights_give_no_features(root: Path) -> None:
    assert audited(root, "backbone=small_cnn").features is None
