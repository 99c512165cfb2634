"""Which folder is which split, in any usual spelling; folders that look like splits are never trained as classes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

import tlx
from tests.datasets.test_readers import read, refused, some, write
from tests.runs.test_evaluate_model import draw
from tlx.config.compose import compose, without_hydra
from tlx.config.dataset_schema import DatasetConfig, Splits
from tlx.config.identity import from_tree, key, results
from tlx.config.schema import Config
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.datasets.readers import image_folder
from tlx.datasets.split_names import named
from tlx.datasets.splits import Data, Parts, split
from tlx.reporting.run_display import counted, opening
from tlx.runs.run_reader import read as read_run
from tlx.runs.run_summary import Summary

# How people call the folders of one data set: train, validation (or none), test.
SPELLINGS = [
    ("training_set", "", "test_set"),
    ("Training Set", "", "Test Set"),
    ("train-set", "valid-set", "test-set"),
    ("trainset", "valset", "testset"),
    ("seg_train", "", "seg_test"),
    ("train_images", "val_images", "test_images"),
    ("images_train", "images_val", "images_test"),
    ("TrainImages", "ValImages", "TestImages"),
    ("traindata", "", "testdata"),
    ("1_train", "", "2_test"),
    ("01-Train", "02-Validate", "03-Test"),
    ("train (1)", "", "test (1)"),
    ("Training", "", "Testing"),
    ("TRAIN", "VAL", "TEST"),
    ("train2017", "val2017", "test2017"),
    ("flowers_train", "flowers_valid", "flowers_test"),
    ("flowers.train", "", "flowers.test"),
    ("train-flowers", "", "test-flowers"),
    ("train_256x256", "", "test_256x256"),
    ("my-data train", "my-data dev", "my-data holdout"),
    ("trainval", "", "test"),
    ("train_val", "", "test"),
    ("training", "validation", "evaluation"),
    ("train", "", "eval"),
    ("train", "eval", "test"),
    ("train", "", "hold-out"),
    ("train_augmented", "", "test_original"),
    ("trn", "dev", "tst"),
    ("训练集", "验证集", "测试集"),
    ("学習", "検証", "テスト"),
    ("обучение", "", "тест"),
    ("Trainingsdaten", "Validierung", "Testdaten"),
    ("entraînement", "validation", "test"),
    ("treino", "validação", "teste"),
]


@pytest.mark.parametrize(("train", "val", "test"), SPELLINGS)
@pytest.mark.parametrize("nested", [False, True])
def test_splits_are_known_in_all_usual_spellings(train: str, val: str, test: str, nested: bool, tmp_path: Path) -> None:
    folders = [f"{name}/{name}" if nested else name for name in (train, val, test) if name]
    write(
        tmp_path, *some(*(f"{folder}/{c}" for folder in folders for c in ("cats", "dogs"))), "labels.csv", "README.md"
    )
    parts = image_folder(str(tmp_path))
    assert parts.classes == ("cats", "dogs")
    found = {
        part: images.names[0].split("/")[0] for part in ("train", "val", "test") if (images := getattr(parts, part))
    }
    assert found == {part: name for part, name in (("train", train), ("val", val), ("test", test)) if name}
    assert {part: place.split("/")[0] for part, place in parts.folders.items()} == found
    assert not parts.skipped


@pytest.mark.parametrize(
    "name",
    ["freight_station", "trainer", "testament", "contest", "valley", "device", "protest", "greatest", "restrained",
     "train_test", "cats", "0", "2019", "日本", ""],
)  # fmt: skip
def test_other_words_speak_of_no_split(name: str) -> None:
    assert named(name) is None


@pytest.mark.parametrize(
    "classes",
    [("train", "bus"), ("train", "bus", "test"), ("train_station", "airport"), ("test_tube", "flask"),
     ("freight train", "bullet train"), ("full", "empty"), ("original", "copy"), ("photo", "sketch"),
     ("with_mask", "without_mask"), ("0", "1", "2"), ("dev_board", "val_disere")],
)  # fmt: skip
@pytest.mark.parametrize("inside", ["", "/images", "/deep/er"])
def test_class_names_that_only_look_so_stay_classes(classes: tuple[str, ...], inside: str, tmp_path: Path) -> None:
    write(tmp_path, *some(*(f"{name}{'' if name in ('train', 'test') else inside}" for name in classes)), "README.txt")
    assert image_folder(str(tmp_path)).classes == tuple(sorted(classes))


def test_what_has_no_class_folders_is_left_out_and_said(tmp_path: Path) -> None:
    write(tmp_path, *some("train/a", "train/b"), *some("test/test", "val/images"), *some("seg_pred"), "val/list.txt")
    parts = image_folder(str(tmp_path))
    assert (parts.val, parts.test, parts.folders) == (None, None, {"train": "train/"})
    assert {Path(path).name: why for path, why in parts.skipped} == {
        "seg_pred": "beside the parts' folders: belongs to none",
        "test": "named like a split but has no class folders: not used",
        "val": "named like a split but has no class folders: not used",
    }


FLAT = "named like splits but have no class folders"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            [*some("train", "test"), "train.csv"],
            f"test/ (3 images), train/ (3 images) are {FLAT}; beside them: train.csv",
        ),
        ([*some("train", "test1")], FLAT),
        ([*some("train", "test", "bus"), "labels.xlsx"], FLAT),
        ([*some("seg_train", "seg_test", "seg_pred")], FLAT),
        ([*some("trainA", "trainB", "testA", "testB")], FLAT),
        ([*some("flowers-train", "flowers-val")], FLAT),
        ([*some("train", "sample"), "train.csv"], "named like a split but has no class folders; beside it: train.csv"),
        (
            [*some("images"), "labels.csv"],
            "one class only, 'images'; dataset=csv reads labels from a table (labels.csv)",
        ),
        (["1.jpg", "2.jpg", "labels.csv"], "holds 2 images but no sub-folder; dataset=csv reads labels from a table"),
        ([*some("images", "labels")], "are named like images and their labels"),
        ([*some("JPEGImages", "Annotations", "Masks")], "are named like images and their labels"),
        ([*some("train/images", "train/masks")], "are named like images and their labels"),
    ],
)
def test_images_without_class_folders_are_refused_with_what_was_seen(
    names: list[str], said: str, tmp_path: Path
) -> None:
    text = refused(write(tmp_path, *names))
    assert said in text
    assert (
        "<class>/<image>" in text or "one sub-folder of images per class" in text or "two or more sub-folders" in text
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["A/cats", "A/dogs", "B/cats", "B/dogs"], "A/ and B/ hold folders of the same names (cats/, dogs/)"),
        (["entreno/a", "entreno/b", "prueba/a"], "dataset.splits.train=entreno dataset.splits.test=prueba"),
        (["fold1/0", "fold1/1", "fold2/0", "fold2/1", "fold3/0", "fold3/1"], "fold1/ and fold2/ hold folders"),
        (["cats/train", "cats/test", "dogs/train", "dogs/test"], "cats/, dogs/ hold splits (cats/test/, cats/train/)"),
        (["set/train", "set/valid", "other"], "set/ holds splits, train/, valid/ (did you mean dataset.root="),
        (
            ["train/A/cats", "train/A/dogs", "train/B/cats", "train/B/dogs", "test/A/cats"],
            "dataset.splits.train=train/A dataset.splits.test=train/B",
        ),
    ],
)
def test_classes_that_share_their_folders_are_refused_with_what_to_type(
    names: list[str], said: str, tmp_path: Path
) -> None:
    text = refused(write(tmp_path, *some(*names)))
    assert said in text
    choice = text.rpartition("if these are the classes themselves: dataset.splits.train=")[2]
    assert choice == ("train" if names[0].startswith("train") else ".")
    assert len(image_folder(str(tmp_path), splits={"train": choice}).train) > 0  # what was said works


def test_of_two_folders_of_the_same_classes_the_larger_is_proposed_to_train(tmp_path: Path) -> None:
    write(tmp_path, *some("prueba/a", "prueba/b", "uebung/a", "uebung/b"), "uebung/a/more.png")
    assert "dataset.splits.train=uebung dataset.splits.test=prueba; " in refused(tmp_path)


def test_two_folders_for_one_split_are_refused_and_one_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, *some(*(f"{name}/{c}" for name in ("train", "PublicTest", "PrivateTest") for c in "ab")))
    said = "PrivateTest/ and PublicTest/ are both a test part; keep one, or say which it is: "
    assert refused(tmp_path).endswith(f"{said}dataset.splits.test=PrivateTest")
    parts = image_folder(str(tmp_path), splits={"test": "PrivateTest", "val": "PublicTest"})
    assert parts.folders == {"train": "train/", "val": "PublicTest/", "test": "PrivateTest/"}
    write(tmp_path / "aug", *some("train/a", "train/b", "train_aug/a", "train_aug/b", "test/a"))
    assert "train/ and train_aug/ are both a train part" in refused(tmp_path / "aug")


@pytest.mark.parametrize("other", ["bus", "prueba"])
def test_a_train_beside_other_folders_of_folders_may_be_a_class_and_is_refused(other: str, tmp_path: Path) -> None:
    write(tmp_path, *some("train/a", "train/b", f"{other}/a", f"{other}/c"), "masks/a/1.png", "code/src/x.py")
    text = refused(tmp_path)
    assert f"train/ is named like a split, but {other}/ holds folders of images, too" in text
    assert image_folder(str(tmp_path), splits={"train": "train"}).classes == ("a", "b")
    assert other in image_folder(str(tmp_path), splits={"train": "."}).classes
    with pytest.raises(RequestError, match="has classes that train/ lacks: c"):
        image_folder(str(tmp_path), splits={"test": other})
    write(tmp_path, *some("test/a"))  # a second split: they are splits
    assert (str(tmp_path / other), "beside the parts' folders: belongs to none") in image_folder(str(tmp_path)).skipped


# ---------------------------------------------------------------- dataset.splits


def test_a_second_folder_is_the_test_set_unless_it_is_said_to_validate(tmp_path: Path) -> None:
    write(tmp_path, *some("train/a", "train/b", count=10), *some("val/a", "val/b"))
    first = split_of(tmp_path)
    assert sizes(first) == (16, 4, 6)
    assert first.origins == {"train": "train/", "val": "created from train/", "test": "val/"}
    second = split_of(tmp_path, val="val")
    assert sizes(second) == (16, 6, 4)
    assert second.origins == {"train": "train/", "val": "val/", "test": "created from train/"}
    assert {name.split("/")[0] for name in second.val.names} == {"val"}
    assert {name.split("/")[0] for name in second.test.names} == {"train"}
    folded = [split_of(tmp_path, folds=5, fold=fold, val="val") for fold in range(5)]
    assert sorted(name for data in folded for name in data.test.names) == sorted(
        image_folder(str(tmp_path)).train.names
    )
    assert all(data.val.names == second.val.names for data in folded)
    assert folded[0].origins["test"] == "fold 1 of 5 train/"
    both = split_of(tmp_path, folds=3, fold=1)
    assert both.origins == {"train": "train/", "val": "fold 2 of 3 train/", "test": "val/"}


def split_of(root: Path, folds: int | None = None, fold: int | None = None, **splits: str) -> Data:
    common = DatasetConfig(folds=folds, fold=fold, splits=Splits(**splits), on_error="skip")
    return split_unread(image_folder(str(root), splits=splits), common)


def split_unread(parts: Parts, common: DatasetConfig) -> Data:
    """As `split`, of files that are no images: their pixels stand for them."""
    from tlx.datasets.image_sources import Stacked

    for images in filter(None, (parts.train, parts.val, parts.test)):
        images.store.read = Stacked(np.arange(len(images) * 3, dtype=np.uint8).reshape(-1, 1, 1, 3))
    return split(parts, common, 0)


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.val), len(data.test)


def test_any_folder_can_be_any_split(tmp_path: Path) -> None:
    write(tmp_path, *some(*(f"{name}/{c}" for name in ("train", "val", "test", "in/deep") for c in "ab")))

    def folders(**splits: str) -> Any:
        return image_folder(str(tmp_path), splits=splits).folders

    assert folders() == {"train": "train/", "val": "val/", "test": "test/"}
    assert folders(val="test", test="val") == {"train": "train/", "val": "test/", "test": "val/"}
    assert folders(train="in/deep") == {"train": "in/deep/", "val": "val/", "test": "test/"}
    assert folders(train="test", test="train") == {"train": "test/", "val": "val/", "test": "train/"}
    whole = image_folder(str(tmp_path), splits={"train": "."})
    assert (whole.classes, whole.folders) == (("in", "test", "train", "val"), {})


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"val": "vall"}, "dataset.splits.val=vall: no such folder in "),
        ({"val": "../x"}, "dataset.splits.val=../x: must be the name of a folder within dataset.root"),
        ({"val": "/tmp"}, "dataset.splits.val=/tmp: must be the name of a folder within dataset.root"),
        ({"val": "val", "test": "val"}, "dataset.splits: val and test are the same folder, val/"),
        ({"train": ".", "test": "val"}, "says that the folder has no splits; leave out dataset.splits.test"),
        ({"val": "train"}, "has train/ but no folder of the training split; say which it is: dataset.splits.train="),
    ],
)
def test_a_wrong_choice_of_folders_is_named(splits: dict[str, str], said: str, tmp_path: Path) -> None:
    write(tmp_path, *some("train/a", "train/b", "val/a"))
    assert said in refused(tmp_path, splits=splits)


def config_of(*words: str) -> Config:
    return checked(without_hydra(compose(words)))


def test_the_choice_is_typed_as_one_likes_and_is_refused_where_there_are_no_folders() -> None:
    for words in (["dataset.splits={val: val}"], ["dataset.splits.val=val"]):
        assert config_of("dataset=image_folder", *words).dataset.splits == Splits(val="val")
    assert config_of("dataset=image_folder", "dataset.splits.train=2017").dataset.splits.train == "2017"
    with pytest.raises(RequestError, match=r"splits.*valid"):
        config_of("dataset=image_folder", "dataset.splits={valid: val}")
    from tlx.runs.prepare import found

    with pytest.raises(RequestError, match=r"dataset\.splits\.val=test: this data set is not read from folders of spl"):
        found(config_of("dataset.splits.val=test"))


def test_the_choice_is_a_part_of_what_a_run_is_known_by_and_nothing_changes_without() -> None:
    plain = config_of("dataset=image_folder", "source=leaves")
    chosen = config_of("dataset=image_folder", "source=leaves", "dataset.splits.val=val")
    source = config_of("dataset=image_folder", "source=leaves", "source.dataset.splits.val=val")
    assert len({key(config) for config in (plain, chosen, source)}) == 3
    assert "splits" not in results(plain)["dataset"]
    assert "splits" not in results(plain)["source"]["dataset"]
    tree = dataclasses.asdict(plain)
    del tree["dataset"]["splits"], tree["source"]["dataset"]["splits"]  # as before there was such a key
    assert from_tree(tree) == plain
    assert "splits" not in tree["dataset"]


def test_a_run_says_which_folder_is_which_split_and_runs_of_before_compare(tmp_path: Path) -> None:
    for number, part in enumerate(("training_set", "test_set")):
        draw(tmp_path / "data" / part, n=5, start=number)
    fast = ["backbone=small_cnn", "backbone.input_size=32", "tracking=none", "training.epochs=1"]
    words = ["dataset=image_folder", f"dataset.root={tmp_path / 'data'}", f"output={tmp_path / 'out'}", *fast]
    summary = tlx.run(words)
    line = (
        "images: 12 train (training_set/), 3 val (created from training_set/), 15 test (test_set/); 3 classes: dark, "
    )
    assert next(opening(summary)).startswith(line)
    assert line in (summary.folder / "tlx.log").read_text(encoding="utf-8")
    assert summary.to_dict()["splits"]["test"] == "test_set/"
    assert counted({"train": 3}, {}) == "3 train"
    new = read_run(summary.folder)
    tree = OmegaConf.load(summary.folder / "config.yaml")
    del tree["dataset"]["splits"]
    OmegaConf.save(tree, summary.folder / "config.yaml")
    assert read_run(summary.folder).configuration == new.configuration


def test_the_real_data_sets_are_read_as_before(shared: Path) -> None:
    bees = read("ants_bees", root=str(shared / "hymenoptera_data"))
    assert bees.folders == {"train": "train/", "val": "val/"}
    assert read("shoes", root=str(shared / "Shoes")).folders == {"train": "Train/", "test": "Test/"}
    assert isinstance(Summary(Path()).splits, dict)
