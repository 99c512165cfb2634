"""Data sets of Hugging Face on files that the tests make: columns, splits, classes, and what is wrong with them."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.test_archive_index import png
from tlx.cli.main import main
from tlx.config.dataset_schema import DatasetConfig
from tlx.core.errors import RequestError
from tlx.datasets import huggingface
from tlx.datasets.splits import split

library = pytest.importorskip("datasets")
CLASSES = ["dog", "cat"]  # not in the order of the alphabet


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("hf")))


def table(count: int, start: int = 0, **more: Any) -> Any:
    seeds = range(start, start + count)
    features = {"photo": library.Image(), "kind": library.ClassLabel(names=CLASSES), "camera": library.Value("int64")}
    columns: dict[str, Any] = {"photo": [{"bytes": png(i), "path": f"{i}.png"} for i in seeds]}
    columns |= {"kind": [i % 2 for i in seeds], "camera": [i // 4 for i in seeds]}
    for name, value in more.items():
        columns[name], features[name] = [value] * count, library.Value("string")
    return library.Dataset.from_dict(columns, features=library.Features(features))


def saved(folder: Path, kind: str) -> Path:
    """12 training and 8 test images in one of the forms of the library."""
    parts = {"train": table(12), "test": table(8, 12)}
    folder.mkdir()
    if kind == "save_to_disk":
        library.DatasetDict(parts).save_to_disk(str(folder / "set"))
        return folder / "set"
    for name, one in parts.items():
        file = folder / f"{name}-00000-of-00001.{kind}"
        if kind == "parquet":
            one.to_parquet(str(file))
        else:
            one.save_to_disk(str(folder.parent / name))
            next((folder.parent / name).glob("*.arrow")).rename(file)
    return folder


def refused(root: object, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        huggingface(None if root is None else str(root), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["save_to_disk", "parquet", "arrow"])
def test_every_form_is_the_same_data_set(tmp_path: Path, kind: str) -> None:
    parts = huggingface(str(saved(tmp_path / "data", kind)))
    assert parts.classes == tuple(CLASSES)
    assert parts.test is not None
    assert (len(parts.train), len(parts.test)) == (12, 8)
    assert parts.train.labels.tolist() == [0, 1] * 6
    assert parts.notes[0].startswith("table: images from column 'photo', labels from column 'kind'")
    assert parts.train.store.read(3) == png(3)
    assert parts.test.store.read(0) == png(12)
    assert parts.test.files[0] == "test/0"
    again = pickle.loads(pickle.dumps(parts.train))
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(again.store.read, range(12))] == [png(i) for i in range(12)]


def test_a_selection_keeps_its_rows(tmp_path: Path) -> None:
    table(12).select([7, 4, 2, 9]).save_to_disk(str(tmp_path / "some"))
    train = huggingface(str(tmp_path / "some")).train
    assert [train.store.read(i) for i in range(4)] == [png(i) for i in (7, 4, 2, 9)]
    assert train.labels.tolist() == [1, 0, 0, 1]


def test_columns_are_found_or_said(tmp_path: Path) -> None:
    root = tmp_path / "set"
    table(8, species="wolf", label="a").rename_column("camera", "target").save_to_disk(str(root))
    assert huggingface(str(root)).classes == tuple(CLASSES), "a ClassLabel comes first"
    assert "no such column (did you mean 'species'?)" in refused(root, columns={"label": "specie"})
    assert "dataset.columns.lable: no such key (did you mean 'label'?)" in refused(root, columns={"lable": "kind"})
    assert huggingface(str(root), columns={"label": "target"}).classes == ("0", "1")
    plain = library.Dataset.from_dict({"image": [png(0), png(1)], "label": ["a", "b"], "class": ["x", "y"]})
    plain.save_to_disk(str(tmp_path / "plain"))
    assert "which column holds the labels: label or class?" in refused(tmp_path / "plain")
    assert huggingface(str(tmp_path / "plain"), columns={"label": "class"}).classes == ("x", "y")
    several = library.Dataset.from_dict({"image": [png(0), png(1)], "label": [["a", "b"], ["a"]]})
    several.save_to_disk(str(tmp_path / "several"))
    said = refused(tmp_path / "several", columns={"label": "label"})
    assert "train/0: column 'label': holds several values" in said
    plain.remove_columns(["image"]).save_to_disk(str(tmp_path / "none"))
    assert "no column of images (label, class)" in refused(tmp_path / "none")


def test_splits_and_groups(tmp_path: Path) -> None:
    sets = {"train": table(16), "validation": table(8, 16), "extra": table(4, 24)}
    library.DatasetDict(sets).save_to_disk(str(tmp_path / "set"))
    parts = huggingface(str(tmp_path / "set"))
    assert parts.val is not None
    assert parts.test is None
    assert parts.notes[1].startswith("splits not used: extra;")
    assert "no such split (did you mean 'extra'?)" in refused(tmp_path / "set", splits={"test": "extras"})
    assert len(huggingface(str(tmp_path / "set"), splits={"test": "extra"}).test or ()) == 4
    data = split(huggingface(str(tmp_path / "set"), group="camera"), DatasetConfig(group="camera"), seed=0)
    assert not set(data.train.groups or ()) & set(data.val.groups or ())


def test_what_cannot_be_had_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(None).startswith("dataset.name: which data set?")
    assert "no such folder or file; from the hub: dataset.name=" in refused(tmp_path / "nothing")
    assert "no Parquet or Arrow file" in refused(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"no table")
    assert "cannot be read (" in refused(tmp_path)
    said = refused(None, name="some/set", offline=True)
    assert said.startswith(
        "dataset.name=some/set: cannot be had from the Hugging Face hub (runtime.offline=true, and it"
    )
    unlabelled = table(4).cast_column("kind", library.Value("int64")).map(lambda row: {"kind": -1})
    unlabelled.cast_column("kind", library.ClassLabel(names=CLASSES)).save_to_disk(str(tmp_path / "set"))
    assert "train/0: column 'kind': has no label" in refused(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refused(tmp_path) == "dataset=huggingface needs the library datasets: pip install 'tlx-transfer[hf]'"


def test_a_run_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "pets", "parquet")
    words = ["dataset=huggingface", "dataset.root=pets", "backbone=small_cnn", "backbone.input_size=32"]
    assert main([*words, "training.epochs=1", "tracking=none"]) == 0
    (predictions,) = Path("outputs").glob("2*/*-pets-*/predictions.csv")
    assert "test/7" in predictions.read_text()


def test_a_name_that_is_a_folder_here_is_not_read_in_place_of_the_hubs_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(4).save_to_disk(str(tmp_path / "beans"))
    monkeypatch.chdir(tmp_path)
    assert refused(None, name="beans", offline=True) == (
        "dataset.name=beans: is a folder or file here; dataset.root=beans reads it"
    )
