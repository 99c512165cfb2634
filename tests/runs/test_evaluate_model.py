"""A saved model measured on data that is named later: the run's own figures on its own data, honest ones on other."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlx
from tlx.cli import evaluate
from tlx.core.errors import RequestError
from tlx.core.statistics import wilson
from tlx.inference import saved_model
from tlx.runs import evaluate_model
from tlx.runs.run_summary import Summary

CLASSES = ("dark", "grey", "light")


def draw(root: Path, classes: tuple[str, ...] = CLASSES, n: int = 15, start: int = 0) -> Path:
    rng = np.random.default_rng(start)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 140, (30 + i, 40, 3)) + 55 * CLASSES.index(name)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


RESNET = ("backbone=timm", "backbone.name=resnet10t", "backbone.weights=none", "backbone.input_size=32")


def learned(folder: Path, *words: str, odd: bool = False) -> Summary:
    """A run whose test set is 9 of 45 images, split by its seed; `odd`: the dark ones' names are no Unicode."""
    draw(folder / "data")
    for file in list((folder / "data" / "dark").iterdir()) if odd else []:
        file.rename(file.with_name(os.fsdecode(b"\xff") + file.name))
    common = ["tracking=none", "training.epochs=1", "seed=3"]
    data = ["dataset=image_folder", f"dataset.root={folder / 'data'}", f"output={folder / 'out'}"]
    return tlx.run([*data, *common, *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return learned(tmp_path_factory.mktemp("measured é"), "backbone=small_cnn", "backbone.input_size=32", odd=True)


def own(run: Summary) -> list[str]:
    root = run.folder.parents[2] / "data"
    return ["dataset=image_folder", f"dataset.root={root}", f"output={run.folder.parents[1]}", "seed=3"]


def run_evaluate(run: Summary, *words: str) -> int:
    """Runs the subcommand `python -m tlx evaluate`; its exit code."""
    return evaluate.SUBCOMMAND.main([str(run.folder), *words])


@pytest.mark.parametrize(("precision", "strategy"), [("fp32", "feature_extraction"), ("bf16", "full")])
def test_on_its_own_data_a_model_has_the_figures_of_its_run_to_the_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str, strategy: str
) -> None:
    run = learned(tmp_path, *RESNET, f"runtime.precision={precision}", f"strategy={strategy}")
    capsys.readouterr()
    words = ["--part", "test", "--csv", str(tmp_path / "t.csv"), "--json", str(tmp_path / "t.json")]
    assert run_evaluate(run, *own(run), *words) == 0
    assert (tmp_path / "t.csv").read_bytes() == (run.folder / "predictions.csv").read_bytes()
    with (run.folder / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    predicted = tlx.load(run.folder, "cpu").predict([row["file"] for row in rows], unknown=False)
    assert [f"{p.probability:.6f}" for p in predicted] == [row["probability"] for row in rows]
    found = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    figures = [found[name] for name in ("accuracy", "accuracy_interval", "loss", "per_class", "confusion")]
    assert figures == [
        run.test_accuracy, run.test_accuracy_interval, run.test_loss, run.per_class, run.confusion
    ]  # fmt: skip
    assert found["data"]["part"] == "test"
    assert found["images"] == run.images["test"] == 9
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"accuracy     {run.test_accuracy:.1%}  (95 % interval ")
    assert "data         data, part test: 9 images of 45 (--part all takes them all)" in said
    assert f"computed     on cpu, {run.precision}" in said
    assert "seen before  none of these images, in training or validation" in said
    assert [line.split()[:2] for line in said[-3:]] == [[name, "3"] for name in CLASSES]


def test_the_parts_are_those_of_the_run_and_images_it_learned_from_are_called_so(
    run: Summary, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {split: evaluate_model.evaluate(str(run.folder), own(run), split) for split in ("train", "test", "all")}
    files = {part: set(of.files) for part, of in found.items()}
    assert {part: len(names) for part, names in files.items()} == {"train": 29, "test": 9, "all": 45}
    assert files["train"] | files["test"] < files["all"]
    assert not files["train"] & files["test"]
    assert {part: (of.seen or ()).count("train") for part, of in found.items()} == {"train": 29, "test": 0, "all": 29}
    assert {part: (of.seen or ()).count("val") for part, of in found.items()} == {"train": 0, "test": 0, "all": 7}
    whole = found["all"].scores
    assert whole.interval == wilson(round(whole.accuracy * 45), 45)
    assert found["all"].others == (found["test"].scores.accuracy, found["test"].scores.interval, 9)
    run_evaluate(run, *own(run), "--part", "val")
    said = capsys.readouterr().out
    assert "note         all of these images were used to train or choose the model" in said
    assert "seen before  0 of these 7 images in training, 7 in validation" in said


def test_a_name_that_is_no_unicode_is_an_escape_in_what_is_written(
    run: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, figures = tmp_path / "t.csv", tmp_path / "t.json"
    assert run_evaluate(run, *own(run), "--part", "test", "--csv", str(table), "--json", str(figures)) == 0
    assert table.read_bytes() == (run.folder / "predictions.csv").read_bytes()
    with table.open(encoding="utf-8") as file:
        assert sum("/dark/\\udcff" in row["file"] for row in csv.DictReader(file)) == 3
    bad = run.folder.parents[2] / "data" / os.fsdecode(b"dark/\xfe.png")
    bad.write_text("no image")
    try:
        assert run_evaluate(run, *own(run), "dataset.on_error=skip", "--json", str(figures)) == 0
    finally:
        bad.unlink()
    ((path, why),) = json.loads(figures.read_text(encoding="utf-8"))["skipped"]
    assert os.fsencode(path).endswith(b"dark/\xfe.png")
    assert why == "not an image, or of an unknown format"
    assert "dark/\\udcfe.png (not an image" in capsys.readouterr().out


SEEN = ("seed=4", "++seed=4", "dataset.test_fraction=0.5", "dataset.limit.test=5")


@pytest.mark.parametrize("word", SEEN)
def test_another_split_of_its_own_data_is_no_test_of_a_model_and_that_is_said(
    run: Summary, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [other for other in own(run) if not other.startswith("seed=") or "seed" not in word]
    trained = {
        file for split in ("train", "val") for file in evaluate_model.evaluate(str(run.folder), own(run), split).files
    }
    found = evaluate_model.evaluate(str(run.folder), [*words, word], "test")
    seen = [file for file, split in zip(found.files, found.seen or (), strict=True) if split]
    assert set(seen) == trained & set(found.files)
    assert seen or word == "dataset.limit.test=5"
    assert run_evaluate(run, *words, word, "--part", "test") == 0
    number = sum(split == "train" for split in found.seen or ())
    line = f"seen before  {number} of these {len(found.files)} images in training, {len(seen) - number} in validation"
    assert (line if seen else "seen before  none of these images, in training or validation") in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["++seed=3"], ["dataset.limit.train=6"], ["dataset.per_class=2"]])
def test_its_own_test_set_is_recognized_whatever_else_was_chosen(run: Summary, words: list[str]) -> None:
    found = evaluate_model.evaluate(str(run.folder), [*own(run)[:-1], *words], "test")
    assert len(found.files) == 9
    assert found.seen == ("",) * 9


def test_few_images_of_a_class_are_measured_as_they_are(
    run: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(tmp_path / "few", ("dark", "light"), n=2, start=9)
    words = ["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}"]
    assert run_evaluate(run, *words, "--csv", str(tmp_path / "t.csv")) == 0
    assert "few, part all: 4 images" in capsys.readouterr().out
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(Path(row["file"]).parent.name, row["label"]) for row in rows} == {("dark", "dark"), ("light", "light")}
    assert len(rows) == 4
    predicted = tlx.load(run.folder, "cpu").predict([row["file"] for row in rows])
    assert [f"{p.probability:.6f}" for p in predicted] == [row["probability"] for row in rows]
    with pytest.raises(RequestError) as raised:
        run_evaluate(run, *words, "--part", "test")
    assert str(raised.value) == (
        "--part test: class 'dark' has 2 of the 3 images that a split needs; --part all measures all images"
    )
    (root / "dark" / "0.png").write_text("no image")
    with pytest.raises(RequestError, match=r"0\.png: cannot be read as an image \(not an image, .*on_error=skip"):
        run_evaluate(run, *words, "--part", "all")
    assert run_evaluate(run, *words, "--part", "all", "dataset.on_error=skip") == 0
    said = capsys.readouterr().out
    assert "part all: 3 images" in said
    assert f"skipped      {root / 'dark' / '0.png'} (not an image, or of an unknown format)" in said


def test_classes_are_matched_by_name_and_fewer_of_them_are_said(
    run: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(tmp_path / "two", ("dark", "light"), n=4, start=9)
    words = ["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}"]
    assert run_evaluate(run, *words, "--part", "all", "--csv", str(tmp_path / "t.csv")) == 0
    said = capsys.readouterr().out
    assert "no image of  grey (1 of 3 classes)" in said
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["file"]).parent.name: row["label"] for row in rows} == {"dark": "dark", "light": "light"}
    predicted = tlx.load(run.folder, "cpu").predict([row["file"] for row in rows])
    assert [p.prediction for p in predicted] == [row["prediction"] for row in rows]
    draw(tmp_path / "three", ("grey", "light"), n=4)
    (tmp_path / "three/grey").rename(tmp_path / "three/gray")
    with pytest.raises(RequestError) as raised:
        run_evaluate(run, "dataset=image_folder", f"dataset.root={tmp_path / 'three'}")
    assert str(raised.value) == (
        "dataset: the model does not know gray (did you mean 'grey'?); classes of the data: gray, light; "
        "of the model: dark, grey, light"
    )


def test_of_one_class_is_said_how_many_are_right_and_nothing_that_does_not_exist(
    run: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(tmp_path / "one", ("light",), n=7, start=9)
    words = ["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}", "--part", "all"]
    assert run_evaluate(run, *words, "--json", str(tmp_path / "t.json")) == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    predicted = tlx.load(run.folder, "cpu").predict(sorted(root.rglob("*.png")), unknown=False)
    right = [p.prediction for p in predicted].count("light")
    assert found["accuracy"] == pytest.approx(right / 7)
    assert found["accuracy_interval"] == list(wilson(right, 7))
    assert found["absent"] == ["dark", "grey"]
    nothing = {"precision": None, "recall": None, "f1": None, "images": 0}
    light = {"precision": None, "recall": pytest.approx(right / 7), "f1": None, "images": 7}
    assert found["per_class"] == {"dark": nothing, "grey": nothing, "light": light}
    assert "note         all images are of one class: the accuracy is its recall; precision and F1 do not exist" in said
    assert "no image of  dark, grey (2 of 3 classes)" in said
    assert [line.split() for line in said[-2:]] == [
        ["class", "images", "precision", "recall", "F1"],
        ["light", "7", "-", f"{right / 7:.3f}", "-"],
    ]


def test_only_what_is_measured_is_decoded(run: Summary, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, part in enumerate(("train", "test")):
        draw(root / part, ("dark", "light"), n=4, start=number)
    (root / "train/dark/0.png").write_text("no image")
    words = ["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}"]
    found = evaluate_model.evaluate(str(run.folder), words, "test")
    assert len(found.files) == 8
    assert found.of == 16
    skipping = evaluate_model.evaluate(str(run.folder), [*words, "dataset.on_error=skip"], "test")
    assert (skipping.of, [path for path, _ in skipping.skipped]) == (15, [str(root / "train/dark/0.png")])
    assert skipping.scores == found.scores
    with pytest.raises(RequestError, match=r"train/dark/0\.png: cannot be read as an image"):
        evaluate_model.evaluate(str(run.folder), words, "all")


def test_a_calibrated_model_is_measured_calibrated_on_the_split_of_its_run(run: Summary, tmp_path: Path) -> None:
    plain = evaluate_model.evaluate(str(run.folder), own(run), "test")
    for file in (run.folder / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    known = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    saved_model.describe(tmp_path, {"temperature": 0.01, "data": {**known["data"], "seed": 3}})
    sharp = evaluate_model.evaluate(str(tmp_path), own(run)[:-1], "test")
    assert sharp.files == plain.files  # the seed is the run's own where none is given
    assert sharp.scores.predictions == plain.scores.predictions
    assert min(np.subtract(sharp.scores.probabilities, plain.scores.probabilities)) >= 0
    assert sharp.scores.loss == plain.scores.loss  # before the temperature
    assert sharp.scores.metric("log_loss") != plain.scores.metric("log_loss")
    said = tlx.load(tmp_path, "cpu").predict(sharp.files)
    assert [p.probability for p in said] == pytest.approx(sharp.scores.probabilities, abs=1e-6)


WRONG = {
    "training.lr=1": "training.lr=1: the model brings its own; beside it may be said dataset",
    "backbone=resnet18": "backbone=resnet18: the model brings its own",
    "datset.root=x": "and output (did you mean 'dataset'?)",
    "runtime.precision=fp32": "a model is measured in the number format it was saved with",
    "runtime.devise=cpu": "runtime.devise=cpu: no such key (did you mean 'runtime.device'?)",
    "dataset.limit.test=0": "dataset.limit.test=0: must be at least 1",
    "photos": "photos: not of the form key=value",
    "--part=tset": "--part tset: one of train, val, test, all (did you mean 'test'?)",
    "--csv=table.txt": "--csv table.txt: must be a file whose name ends in .csv",
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_option_is_named(run: Summary, word: str) -> None:
    with pytest.raises(RequestError) as raised:
        run_evaluate(run, *own(run), word)
    assert WRONG[word] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_missing_is_said(run: Summary, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"dataset: measured on which data\? as in dataset=image_folder"):
        evaluate_model.evaluate(str(run.folder), ["seed=1"])
    with pytest.raises(RequestError, match="nowhere: no such folder; give a run's folder"):
        evaluate_model.evaluate(str(tmp_path / "nowhere"), own(run))
    with pytest.raises(RequestError, match="no saved model here"):
        evaluate_model.evaluate(str(tmp_path), own(run))


def test_all_that_is_given_is_measured_and_images_are_known_by_their_content(
    run: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = evaluate_model.evaluate(str(run.folder), own(run), "train")
    root = draw(tmp_path / "photos (2)", ("dark", "light"), n=3, start=7)
    for file, label in zip(trained.files[:2], trained.labels, strict=False):
        (root / CLASSES[label]).mkdir(exist_ok=True)
        (root / CLASSES[label] / "under another name.png").write_bytes(Path(file).read_bytes())
        (root / CLASSES[label] / "again").mkdir(exist_ok=True)
    words = ["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}", "--json", str(tmp_path / "t.json")]
    assert run_evaluate(run, *words) == 0
    number = sum(1 for _ in root.rglob("*.png"))
    found = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    copied = len(list(root.rglob("under*.png")))
    assert (found["images"], found["in_training"], found["in_validation"]) == (number, copied, 0)
    assert (found["seen_in_training"], found["others"]["images"]) == ("yes", number - copied)
    said = capsys.readouterr().out
    assert f"data         photos (2), part all: {number} images" in said
    assert f"seen before  {copied} of these {number} images in training, 0 in validation" in said
    assert f"the others   {found['others']['accuracy']:.1%}  (95 % interval " in said


@pytest.mark.parametrize("damage", ["absent", "cut", "other"])
def test_of_a_model_without_digests_it_cannot_be_known(run: Summary, tmp_path: Path, damage: str) -> None:
    for file in (run.folder / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kept = tmp_path / "images.safetensors"
    content = kept.read_bytes()
    assert len(content) < 400 + 8 * 36  # bounded: eight bytes an image
    if damage == "absent":
        kept.unlink()
    else:
        kept.write_bytes(content[:40] if damage == "cut" else (tmp_path / "model.safetensors").read_bytes())
    found = evaluate_model.evaluate(str(tmp_path), own(run))
    assert (found.seen, found.others, found.to_dict()["seen_in_training"]) == (None, None, "unknown")
    assert "seen before  unknown: the model was saved without the digests of its" in "\n".join(evaluate._lines(found))
    # Its own test set is known all the same, by the split's fingerprint.
    assert evaluate_model.evaluate(str(tmp_path), own(run), "test").seen == ("",) * 9
    assert evaluate_model.evaluate(str(tmp_path), own(run), "train").seen == ("train",) * 29
