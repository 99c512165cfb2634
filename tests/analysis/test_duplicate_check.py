"""What an audit says of near duplicates and placeholders in folders, and which groups names suggest."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.analysis.test_near_duplicates import jpeg, scene
from tlx.analysis.audit_data import AuditData
from tlx.analysis.duplicate_check import check
from tlx.analysis.duplicate_groups import Duplicates
from tlx.analysis.finding import Finding
from tlx.analysis.group_proposals import proposals
from tlx.config.compose import compose, without_hydra
from tlx.config.validation import checked
from tlx.runs.data_audit import audit_of_data


def save(file: Path, picture: Image.Image) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    """What is found in a data set with one fault of each kind."""
    root = tmp_path_factory.mktemp("photos")
    number = 0
    for split, images in (("train", 12), ("test", 5)):
        for label in ("ants", "bees"):
            for index in range(images):
                save(root / split / label / f"{index}.png", scene(number))
                number += 1
    save(root / "test" / "ants" / "again.png", jpeg(scene(3)))  # of train/ants
    save(root / "train" / "ants" / "third.png", jpeg(scene(3)).resize((90, 90)))
    save(root / "train" / "bees" / "twice.png", jpeg(scene(4)))  # of train/ants
    save(root / "train" / "ants" / "twin.png", jpeg(scene(5)))  # of train/ants
    nothing = Image.new("RGB", (120, 120), "white")
    ImageDraw.Draw(nothing).text((20, 50), "not available", fill="black")
    save(root / "train" / "ants" / "missing.png", nothing)
    outputs = tmp_path_factory.mktemp("outputs")
    config = checked(
        without_hydra(compose(["dataset=image_folder", f"dataset.root={root}", f"hydra.run.dir={outputs}"]))
    )
    data, _ = audit_of_data(config)
    return {finding.kind: finding for finding in check(data)}


def names(finding: Finding) -> list[set[str]]:
    return [{"/".join(Path(file).parts[-3:]) for file in group} for group in finding.files]


def test_each_kind_is_found_with_its_files_and_no_other(found: dict[str, Finding]) -> None:
    across = found["near_duplicates_across_splits"]
    (pair,) = names(across)  # one of the two in train is enough to show it
    assert len(pair) == 2
    assert pair < {"test/ants/again.png", "train/ants/3.png", "train/ants/third.png"}
    assert across.splits == (("test", "train"),)
    assert names(found["contradictory_labels"]) == [{"train/ants/4.png", "train/bees/twice.png"}]
    assert {frozenset(group) for group in names(found["near_duplicates"])} == {
        frozenset({"train/ants/5.png", "train/ants/twin.png"}),
        frozenset({"train/ants/4.png", "train/bees/twice.png"}),
    }
    assert names(found["placeholder"]) == [{"train/ants/missing.png"}]
    assert "group_proposal" not in found


def test_certainty_is_a_share_and_ranks(found: dict[str, Finding]) -> None:
    for finding in found.values():
        assert all(0 <= value <= 1 for value in finding.certainty)
        assert list(finding.certainty) == sorted(finding.certainty, reverse=True)


@pytest.mark.parametrize(
    "pattern",
    [
        "ants/patient{group:02}_{image:02}.jpg",
        "bees/img_{group:04}_{image}.png",
        "cats/video{group}_frame{image:05}.jpg",
    ],
)
def test_names_that_go_with_near_duplicates_suggest_a_group(pattern: str) -> None:
    files = [pattern.format(group=group, image=image) for group in range(12) for image in range(5)]
    duplicates = [Duplicates((5 * group, 5 * group + 1), 0.9) for group in range(8)]
    found = proposals(files, duplicates)
    assert found is not None
    expression = found.remedy.removeprefix("dataset.group='").removesuffix("'")
    matches = [re.search(expression, file) for file in files]
    groups = [match and match[1] for match in matches]
    assert None not in groups
    assert len(set(groups)) == 12
    assert all(len(set(groups[5 * group : 5 * group + 5])) == 1 for group in range(12))
    assert expression in found.message


def test_names_that_do_not_go_with_near_duplicates_suggest_none() -> None:
    files = [f"ants/img_{group:04}_{image}.png" for group in range(12) for image in range(5)]
    rng = np.random.default_rng(0)
    duplicates = [Duplicates((int(a), int(b)), 0.9) for a, b in rng.permutation(60)[:40].reshape(20, 2)]
    assert proposals(files, duplicates) is None
    assert proposals(files, []) is None


def test_drawings_are_decoded_once_and_no_more_of_them_than_tell_that_all_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(40):
        drawing = Image.new("RGB", (80, 80), "white")
        ImageDraw.Draw(drawing).rectangle((10, 10, 12 + index, 30), fill="black")
        save(tmp_path / "photos" / "train" / "ab"[index % 2] / f"{index}.png", drawing)
    words = [
        "dataset=image_folder",
        f"dataset.root={tmp_path / 'photos'}",
        f"output={tmp_path / 'out'}",
        "backbone=small_cnn",
    ]
    data, _ = audit_of_data(checked(without_hydra(compose(words))))
    decoded, decode = list[int](), AuditData.decode
    monkeypatch.setattr(AuditData, "decode", lambda self, row: decoded.append(row) or decode(self, row))
    forgetful = replace(data, memory=tmp_path / "other", results={})
    assert "placeholder" not in {finding.kind for finding in check(forgetful)}
    assert len(decoded) == 5  # a tenth of 40, and one
    assert "placeholder" not in {finding.kind for finding in check(forgetful)}
    assert len(decoded) == 5
