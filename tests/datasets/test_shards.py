"""Tar shards: samples by their names, labels and groups where they are said to be, splits by patterns."""

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets.test_archive_index import png, tarred
from tlx.cli.main import main
from tlx.config.dataset_schema import DatasetConfig
from tlx.core.errors import RequestError
from tlx.datasets import webdataset
from tlx.datasets.shards import expanded
from tlx.datasets.splits import split


def shards(folder: Path, names: Mapping[str, int], label: str = "cls") -> Path:
    """Shards of so many samples each, classes alternating, with a JSON beside each image."""
    folder.mkdir(exist_ok=True)
    seed = 0
    for name, count in names.items():
        files = {}
        for _ in range(count):
            about = {"label": ["cat", "dog"][seed % 2], "camera": {"id": seed // 4}}
            files[f"{seed:04}.png"] = png(seed)
            files[f"{seed:04}.json"] = json.dumps(about).encode()
            if label == "cls":
                files[f"{seed:04}.cls"] = str(seed % 2).encode()
            seed += 1
        tarred(folder / name, files)
    return folder


def refused(root: object, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        webdataset(None if root is None else str(root), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_patterns_stand_for_names() -> None:
    assert expanded("a/{08..11}.tar") == ["a/08.tar", "a/09.tar", "a/10.tar", "a/11.tar"]
    assert expanded("{a,b}-{0..1}") == ["a-0", "a-1", "b-0", "b-1"]
    assert expanded("plain.tar") == ["plain.tar"]
    with pytest.raises(RequestError, match="more than"):
        expanded("{0..99999999}.tar")


def test_samples_are_read_in_place_whatever_the_shards_are_named_by(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", {f"{i:02}.tar": 6 for i in range(4)})
    one, other, third = (webdataset(str(folder / name)).train for name in ("{00..03}.tar", "*.tar", "."))
    assert one.names == other.names == third.names
    assert one.names[:2] == ("00.tar/0000.png", "00.tar/0001.png")
    assert one.files[0] == f"{folder}/00.tar/0000.png"
    again = pickle.loads(pickle.dumps(one))
    for i, pixels in enumerate(map(again.decode, range(24))):
        assert pixels.tobytes() == _pixels(png(i)).tobytes()
    assert one.labels.tolist() == [0, 1] * 12


def _pixels(content: bytes) -> "np.ndarray[Any, Any]":
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)))


def test_labels_are_where_they_are_said_to_be(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", {"0.tar": 8})
    assert webdataset(str(folder)).classes == ("0", "1")
    assert webdataset(str(folder), classes=["cat", "dog"]).classes == ("cat", "dog")
    assert webdataset(str(folder), label="json.label").classes == ("cat", "dog")
    assert webdataset(str(shards(tmp_path / "j", {"0.tar": 8}, label="json"))).classes == ("cat", "dog")
    assert "names 1 labels, from 0; sample 0.tar/0001 has label 1" in refused(folder, classes=["cat"])
    assert "0.tar/0000: json.camera: holds several values" in refused(folder, label="json.camera")
    tarred(tmp_path / "t.tar", {"1.png": png(1), "1.txt": b"a cat"})
    assert "where are the labels? Sample t.tar/1 has png, txt" in refused(tmp_path / "t.tar")


def test_a_json_that_is_damaged_or_no_object_is_a_line(tmp_path: Path) -> None:
    damaged = tarred(tmp_path / "d.tar", {"1.png": png(1), "1.json": b'{"label": "ca'})
    for label in (None, "json.label"):
        assert refused(damaged, label=label) == f"{damaged}/1.json: is no JSON"
    number = tarred(tmp_path / "n.tar", {"1.png": png(1), "1.json": b"5"})
    assert "where are the labels? Sample n.tar/1 has png, json; dataset.label=" in refused(number)


def test_splits_are_named_or_found_by_the_names_of_shards(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", {"train-00.tar": 8, "train-01.tar": 4, "val-00.tar": 4, "test-00.tar": 4})
    parts = webdataset(str(folder))
    assert [len(images or ()) for images in (parts.train, parts.val, parts.test)] == [12, 4, 4]
    chosen = webdataset(str(folder), splits={"train": "train-00.tar", "test": "train-{01..01}.tar", "val": None})
    assert [len(images or ()) for images in (chosen.train, chosen.val, chosen.test)] == [8, 4, 4]
    assert "dataset.splits.test=tst-*: no shard is called so" in refused(folder, splits={"test": "tst-*"})
    assert "train-00.tar is train and test" in refused(folder, splits={"train": "train-*", "test": "train-00*"})


def test_a_split_with_a_pattern_has_its_shards_alone_and_those_left_out_are_said(tmp_path: Path) -> None:
    names = [*(f"{one}.tar" for one in "abcdef"), "val-0.tar"]
    folder = shards(tmp_path / "s", dict.fromkeys(names, 4))
    parts = webdataset(str(folder), splits={"train": "a.tar", "test": "{c,d,e}.tar"})
    assert parts.folders == {"train": "a.tar", "test": "3 shards, c.tar … e.tar", "val": "val-0.tar"}
    assert [len(images or ()) for images in (parts.train, parts.val, parts.test)] == [4, 4, 12]
    assert parts.notes[0].startswith("shards: 5; ")
    assert parts.notes[1:] == ("shards not used: b.tar, f.tar; dataset.splits.train=PATTERN takes them",)
    parts = webdataset(str(folder), splits={"test": "c.tar"})
    assert (len(parts.train), len(parts.notes)) == (20, 1)
    shards(tmp_path / "t", {"train-0.tar": 4, "train-1.tar": 8, "test-0.tar": 4, "val-0.tar": 4, "val-1.tar": 8})
    parts = webdataset(str(tmp_path / "t"), splits={"train": "train-0.tar", "val": "val-1.tar"})
    assert parts.folders == {"train": "train-0.tar", "val": "val-1.tar", "test": "test-0.tar"}
    assert parts.notes[1].startswith("shards not used: train-1.tar, val-0.tar;")
    shards(tmp_path / "s" / "test", {"a.tar": 4})
    parts = webdataset(str(folder / "{a,test/a}.tar"))
    assert parts.folders == {"train": "a.tar", "test": "test/a.tar"}


def test_groups_are_on_one_side(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", {"0.tar": 24, "1.tar": 24})
    parts = webdataset(str(folder), group="json.camera.id")
    data = split(parts, DatasetConfig(group="json.camera.id"), seed=0)
    sides = [set(images.groups or ()) for images in (data.train, data.val, data.test)]
    assert all(sides)
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert sum(map(len, sides)) == 12


def test_what_is_wrong_is_a_line(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", {"00.tar": 4, "01.tar": 4})
    assert refused(None) == "dataset.root: which shards? As in dataset.root='shards/{00..99}.tar'"
    assert "no such file" in refused(folder / "{00..02}.tar")
    assert "did you mean '00.tar'?" in refused(folder / "OO.tar") or "no such file" in refused(folder / "OO.tar")
    assert "holds no .tar file" in refused(tmp_path)
    assert "a compressed tar cannot be read in place" in refused(tarred(tmp_path / "a.tar", {}, mode="w:gz"))
    tarred(folder / "02.tar", {"9.png": png(9), "9.cls": b"1", "8.cls": b"0", "7.png": png(7)})
    assert "02.tar/7: has no label (cls); it has png; and 1 more; dataset.on_error=skip" in refused(folder)
    parts = webdataset(str(folder), on_error="skip")
    assert (len(parts.train), len(parts.skipped)) == (9, 2)
    tarred(folder / "03.tar", {"9.png": png(9), "9.jpg": png(8), "9.cls": b"1"})
    assert "sample 03.tar/9 has several images (png, jpg); dataset.image=png says" in refused(folder, on_error="skip")
    assert len(webdataset(str(folder), image="png", on_error="skip").train) == 10


def test_a_run_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shards(tmp_path / "s", {f"{i:02}.tar": 8 for i in range(3)})
    words = ["dataset=webdataset", "dataset.root=s/{00..02}.tar", "dataset.splits.test={02..02}.tar"]
    assert main([*words, "backbone=small_cnn", "backbone.input_size=32", "training.epochs=1", "tracking=none"]) == 0
    (table,) = Path("outputs").glob("2*/*-s-*/predictions.csv")
    assert "s/02.tar/0016.png" in table.read_text()
