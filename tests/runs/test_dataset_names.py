"""A folder's data set is called as the folder: on the screen, in a run's folder's name, in the cache, in MLflow."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlx
from tests.datasets.test_readers import some, write
from tlx.cli.cache import cache
from tlx.config.compose import compose
from tlx.config.dataset_schema import data_name
from tlx.datasets.readers import image_folder
from tlx.features.disk_cache import RowStore


@pytest.mark.parametrize(
    ("root", "called"),
    [
        ("photos", "photos"), ("photos/", "photos"), ("./photos/.", "photos"), ("my photos (2)", "my photos (2)"),
        ("Vögel 鳥", "Vögel 鳥"), ("new\nline", "new\\nline"), (os.fsdecode(b"bees\xff"), "bees\\udcff"),
    ],
)  # fmt: skip
def test_a_data_set_without_a_name_of_its_own_is_called_as_its_folder(
    root: str, called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(tmp_path, *some(f"{root}/a", f"{root}/b")))
    assert image_folder(root).name == called
    assert image_folder(root, name="ants_bees").name == "ants_bees"
    monkeypatch.chdir(tmp_path / root)
    assert image_folder(".").name == called


def test_names_that_say_nothing_are_the_readers_own() -> None:
    assert data_name("image_folder", "tlx.datasets.image_folder", None) == "image_folder"
    assert data_name("image_folder", "tlx.datasets.image_folder", "/") == "image_folder"
    assert data_name("shoes", "tlx.datasets.image_folder", "/data/x") == "shoes"
    assert data_name("cifar10", "tlx.datasets.cifar10", "/data/x", published=True) == "cifar10"


@pytest.mark.parametrize(
    ("root", "part"),
    [
        ("~/photos", "photos"), ("/data/my photos (2)", "my_photos_2"), ("/data/Vögel=#,", "Vögel"),
        ("/data/...", "image_folder"), ("/data/日本", "日本"), ("/data/" + "x" * 300, "x" * 40), ("/", "image_folder"),
    ],
)  # fmt: skip
def test_a_runs_folder_has_the_data_sets_name_in_a_form_that_any_disk_takes(root: str, part: str) -> None:
    node = compose(["dataset=image_folder", f"dataset.root={root}"])
    time = r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d"
    assert re.fullmatch(rf"{time}-efficientnet_lite0-{part}-feature_extraction", node.hydra.run.dir)
    # A sweep's jobs keep their folders, so that one of before is found.
    assert node.hydra.sweep.subdir == "efficientnet_lite0-image_folder-feature_extraction"


def test_other_data_sets_keep_their_names() -> None:
    known = (["dataset=shoes", "dataset.root=/data/x"], ["dataset=cifar10", "dataset.root=/data/x"], ["dataset=shapes"])
    for words in known:
        choice = words[0].partition("=")[2]
        assert f"-{choice}-feature_extraction" in compose(words).hydra.run.dir


def test_a_run_its_model_and_the_cache_have_the_name_and_the_identity_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptions: list[str] = []
    summaries = []
    for name in ("birds", "other birds"):
        rng = np.random.default_rng(len(name))
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / label / f"{i}.png")
        words = ["dataset=image_folder", f"dataset.root={tmp_path / name}", f"output={tmp_path / 'out'}"]
        fast = ["backbone=small_cnn", "backbone.input_size=32", "training.epochs=1", "tracking=none"]
        summaries.append(tlx.run([*words, *fast]))
        descriptions.append((summaries[-1].folder / "model" / "model.json").read_text(encoding="utf-8"))
    assert ['"name": "birds"' in descriptions[0], '"name": "other birds"' in descriptions[1]] == [True, True]
    assert [summary.folder.name.split("-", 3)[3] for summary in summaries] == [
        "small_cnn-birds-feature_extraction", "small_cnn-other_birds-feature_extraction"
    ]  # fmt: skip
    (entry,) = RowStore(tmp_path / "out" / "features", 0, print).entries()
    assert entry.each[0]["data"] == entry.about["data"] == "other birds"
    assert cache(None, [], str(tmp_path / "out")) == 0
    assert "small_cnn other birds, birds" in capsys.readouterr().out
    moved = (tmp_path / "birds").rename(tmp_path / "finches")
    again = tlx.run(["dataset=image_folder", f"dataset.root={moved}", f"output={tmp_path / 'out'}", *fast])
    assert again.identity == summaries[0].identity
