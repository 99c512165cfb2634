"""Images that are there more than once: said before training, by content; and no other run is blamed for them."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tlx
from tlx.cli.main import main
from tlx.config.dataset_schema import DatasetConfig
from tlx.datasets.exact_copies import LISTED, copies
from tlx.datasets.image_sources import Stacked
from tlx.datasets.images import Images
from tlx.datasets.readers import image_folder
from tlx.datasets.splits import Data, split
from tlx.reporting.run_display import opening

FAST = ["backbone=small_cnn", "backbone.input_size=32", "tracking=none", "training.epochs=1"]


def noise(root: Path, *names: str) -> Path:
    """Images of noise, each another one."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def copy(root: Path, source: str, *targets: str) -> None:
    for target in targets:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)


def found(data: Data) -> dict[str, Any]:
    return copies({"train": data.train, "val": data.val, "test": data.test}, data.classes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of six test images two are in train and one in validation; of four that validate, one is in train."""
    names = [
        f"{part}/{c}/{i}.png" for part, n in (("train", 5), ("val", 2), ("test", 2)) for c in "ab" for i in range(n)
    ]
    root = noise(tmp_path / "data", *names)
    for source, target in {
        "train/a/0.png": "test/a/other name.png", "val/b/1.png": "test/b/again.png", "train/b/2.png": "val/b/0.png",
    }.items():  # fmt: skip
        copy(root, source, target)
    copy(root, "train/a/4.png", "test/b/1.png")  # under another label
    return root


def test_copies_across_splits_are_counted_and_named_by_content(folder: Path) -> None:
    of = found(split(image_folder(str(folder)), DatasetConfig(), 0))
    assert of["across"] == {"test in train": 2, "test in val": 1, "val in train": 1}
    assert [(pair[1], pair[4]) for pair in of["across_pairs"]] == [
        ("test/a/other name.png", "train/a/0.png"), ("test/b/1.png", "train/a/4.png"),
        ("val/b/0.png", "train/b/2.png"), ("test/b/again.png", "val/b/1.png"),
    ]  # fmt: skip
    assert (of["labels"], of["labels_pairs"]) == (2, [["train", "train/a/4.png", "a", "test", "test/b/1.png", "b"]])
    assert of["lines"] == [
        "copies: 2 of 6 test images are also in train, 1 of 6 test images are also in val, 1 of 4 val images are also "
        "in train (test/a/other name.png = train/a/0.png, test/b/1.png = train/a/4.png, …): accuracy on copies is too "
        "optimistic; none was removed, summary.json lists them",
        "copies: 2 images are also there under another label (train/a/4.png = test/b/1.png): one label is wrong",
    ]


def test_a_dry_run_names_copies_and_classes_that_look_alike(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split_folder in folder.iterdir():
        (split_folder / "a").rename(split_folder / "B")
    assert main(["--dry-run", "dataset=image_folder", f"dataset.root={folder}", *FAST]) == 0
    said = capsys.readouterr().out
    assert "copies: 2 of 6 test images are also in train" in said
    assert "classes: 'B' and 'b' differ only in case" in said


def test_a_run_says_so_before_it_trains_and_blames_no_other_run(folder: Path, tmp_path: Path) -> None:
    words = ["dataset=image_folder", f"dataset.root={folder}", f"output={tmp_path / 'out'}", *FAST]
    first, second = tlx.run(words), tlx.run(words)
    for summary in (first, second):
        log = (summary.folder / "tlx.log").read_text(encoding="utf-8")
        assert log.index("copies: 2 of 6 test images are also in train") < log.index("phase probe")
        assert summary.copies["across"]["test in val"] == 1
        assert summary.images == {"train": 10, "val": 4, "test": 6}  # nothing was removed
    features = [
        [line.partition("features: ")[2] for line in text.splitlines() if " features: " in line]
        for text in ((summary.folder / "tlx.log").read_text(encoding="utf-8") for summary in (first, second))
    ]
    assert not [line for line in features[0] if "earlier run" in line]
    copied = [
        found[1] for line in features[0] if (found := re.search(r", (\d) of them copies of other images of", line))
    ]
    assert copied == ["2", "2"]  # train and val; the test images were computed before
    assert all(", from an earlier run, " in line for line in features[1])


def test_where_the_split_is_made_copies_of_one_image_are_found_on_both_sides(tmp_path: Path) -> None:
    root = noise(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(6)))
    for c in "ab":
        for i in range(6):
            copy(root, f"{c}/{i}.png", *(f"{c}/{i}-{number}.png" for number in range(4)))
    of = found(split(image_folder(str(root)), DatasetConfig(), 0))
    assert of["across"]["test in train"] > 6
    assert of["labels"] == 0


def test_nothing_is_said_where_there_is_no_copy_or_only_one_that_trains(tmp_path: Path) -> None:
    root = noise(tmp_path, *(f"{p}/{c}/{i}.png" for p in ("train", "val", "test") for c in "ab" for i in range(4)))
    assert found(split(image_folder(str(root)), DatasetConfig(), 0)) == {}
    copy(root, "train/a/0.png", "train/a/1.png")
    data = split(image_folder(str(root)), DatasetConfig(), 0)
    assert found(data) == {}
    assert not any("copies" in line for line in opening(_summary(data)))


def _summary(data: Data) -> Any:
    from tlx.runs.run_summary import Summary

    return Summary(Path(), images={"train": len(data.train)}, copies=found(data))


def test_what_is_listed_of_many_copies_is_bounded() -> None:
    pixels = np.zeros((2 * LISTED, 1, 1, 3), dtype=np.uint8)
    part = {
        name: Images([f"{name}/{i}" for i in range(len(pixels))], [0] * len(pixels), Stacked(pixels))
        for name in ("train", "val", "test")
    }
    of = copies(part, ["a"])
    assert of["across"]["test in train"] == 2 * LISTED
    assert len(of["across_pairs"]) == LISTED


def test_the_case_that_was_reported(shared: Path) -> None:
    case = shared.parent / "cases" / "data" / "dup_split"
    if not case.is_dir():
        pytest.skip("the reported case is not here")
    of = found(split(image_folder(str(case)), DatasetConfig(), 0))
    assert sum(of["across"].get(f"test in {split}", 0) for split in ("train", "val")) == 2
