"""An extension: the old run is not touched, its images stay where they were, and nothing is computed twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlx
from tlx.cli.main import main
from tlx.datasets.extended_sets import node, of_node
from tlx.runs.run_reader import predicted

TINY = ["backbone=small_cnn", "backbone.input_size=16", "training.epochs=1", "tracking=none", "dataset.audit=off"]


def draw(folder: Path, names: "tuple[str, ...]", n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(n):
            Image.fromarray(rng.integers(0, 256, (18, 18, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on two classes, and a folder with more of one of them, a new one, and a copy."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw(folder / "old", ("ant", "bee"), 12, 0)
        draw(folder / "more", ("bee", "cat"), 6, 1)
        assert main(["dataset=image_folder", "dataset.root=old", *TINY]) == 0
        tested = predicted(next(folder.glob("outputs/*-*/*")) / "predictions.csv").files
        shutil.copy(tested[0], folder / "more" / "bee" / "copy.png")
    return folder


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_class_more(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (old,) = home.glob("outputs/*-*/*")
    before = files(old)
    assert main(["extend", "latest", "dataset.root=more"]) == 0
    printed = capsys.readouterr()
    assert files(old) == before
    (new,) = set(home.glob("outputs/*-*/*")) - {old}
    said = json.loads((new / "extension.json").read_text())
    assert said["parent"] == str(old)
    assert said["new_classes"] == ["cat"]
    was, now = predicted(old / "predictions.csv"), predicted(new / "predictions.csv")
    assert [*map(Path, now.files[: len(was.files)])] == [home / file for file in was.files]
    assert now.labels[: len(was.labels)] == was.labels
    assert "cat" in now.labels[len(was.labels) :]
    assert said["old"]["value"] == was.correct.mean()
    assert said["new"]["value"] == now.correct[: len(was.correct)].mean()
    assert said["difference"]["mean"] == pytest.approx(said["new"]["value"] - said["old"]["value"])
    assert "difference" in printed.out
    assert [Path(one).name for one, _ in said["copies_in_old_test"]] == ["copy.png"]
    assert "1 of the new images are also among the" in printed.err
    summary = json.loads((new / "summary.json").read_text())
    assert summary["classes"] == ["ant", "bee", "cat"]
    images = json.loads((old / "summary.json").read_text())["images"]
    assert summary["features"]["read"] == sum(images.values()) + 1  # old images and the copy
    assert "extend" in summary["command"]
    shutil.rmtree(new)
    again = tlx.extend("latest", dataset={"root": "more"})
    assert again.parent.samefile(old)
    assert again.to_dict() == said
    assert str(again) in printed.out
    shutil.rmtree(again.folder)


def test_what_cannot_be_extended_is_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: str) -> str:
        assert main(["extend", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        return line

    assert "lates: no such folder" in refused("lates", "dataset.root=more")
    assert "nowhere" in refused("latest", "dataset.root=nowhere")
    assert "which new images?" in refused("latest")
    assert "has the seed of its run" in refused("latest", "dataset.root=more", "seed=3")
    (home / "old").rename(home / "moved")
    try:
        assert "the images that it was trained on cannot be read any more" in refused("latest", "dataset.root=more")
    finally:
        (home / "moved").rename(home / "old")
    extra = home / "old" / "ant" / "extra.png"
    shutil.copy(home / "more" / "cat" / "0.png", extra)
    assert "its images are others now" in refused("latest", "dataset.root=more")
    extra.unlink()


def test_a_data_set_is_read_again_as_it_was_written() -> None:
    from tlx.config.dataset_schema import DatasetConfig, Limit

    config = DatasetConfig(per_class=3, limit=Limit(test=5), reader={"_target_": "tlx.datasets.shapes", "name": "a"})
    assert of_node(json.loads(json.dumps(node(config)))) == config
