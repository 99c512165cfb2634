"""A learning curve: nested subsets of any data set, what it leaves, and that nothing is trained again."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import tlx
from tlx.cli.main import main
from tlx.curves.curve_request import CurveSize, requested, sizes
from tlx.datasets.stratified_splits import order
from tlx.runs import run

TINY = ["dataset=shapes", "dataset.train=40", "dataset.test=6", "dataset.audit=off", "backbone=small_cnn"]
TINY += ["backbone.input_size=16", "training.epochs=1", "training.batch_size=16", "tracking=none"]
CURVE = ["curve", *TINY, "strategy=feature_extraction,scratch", "dataset.per_class=2,4", "seed=0"]
ANY = requested(["dataset=shapes"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_subsets_of_an_imbalanced_set_are_nested_and_have_all_classes() -> None:
    labels = np.repeat(np.arange(3), [500, 90, 10])
    found = sizes(ANY, labels, 150, ("a", "b", "c"), seed=3)
    assert found[-1] == CurveSize((), 600)
    assert [size.images for size in found][-3:] == [150, 300, 600]
    assert found[-2].overrides == ("dataset.limit.train=300", "dataset.limit.val=75")
    taken = [set(order(labels, 3)[: size.images].tolist()) for size in found]
    assert all(small < large for small, large in itertools.pairwise(taken))
    assert all(len(np.unique(labels[list(some)])) == 3 for some in taken)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["dataset.per_class=11"], "dataset.per_class=11: class 'c' has 10 training images; at most 10"),
        (["dataset.limit.train=100,700"], "dataset.limit.train=700: there are 600 training images"),
        (["dataset.limit.train=2,600"], "dataset.limit.train=2: leaves a class without a training image"),
        (["dataset.per_class=5,x"], "must be different whole numbers"),
        (["dataset.per_class=5", "dataset.limit.train=9"], "keep one of them"),
        (["sweep.name=a"], "sweep.name=a: has no place in a curve"),
    ],
)
def test_what_cannot_be_is_one_line(typed: list[str], said: str) -> None:
    from tlx.core.errors import RequestError

    with pytest.raises(RequestError, match=said.replace("(", r"\(")):
        sizes(requested(["dataset=shapes", *typed]), np.repeat(np.arange(3), [500, 90, 10]), 150, ("a", "b", "c"), 0)


def test_a_curve_leaves_its_files_and_trains_nothing_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = list[Path]()

    def counted(config: object, folder: Path, **more: object) -> object:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(folder)
        return real(config, folder, **more)  # type: ignore[arg-type]

    real = run.run
    monkeypatch.setattr(run, "run", counted)
    assert main(CURVE) == 130  # interrupted
    assert "1 of 4 jobs finished" in capsys.readouterr().err
    assert not list(Path("outputs/curves").glob("*/summary.json"))
    monkeypatch.setattr(run, "run", lambda *a, **more: trained.append(a[1]) or real(*a, **more))  # type: ignore[func-returns-value]
    assert main(CURVE) == 0
    (folder,) = Path("outputs/curves").iterdir()
    assert len(trained) == len(set(trained)) == 4
    assert main(CURVE) == 0
    series = ["feature_extraction", "scratch"]
    same = tlx.curve(TINY, strategy=series, dataset={"per_class": [2, 4]}, seed=0)
    assert len(trained) == 4
    assert same.folder == folder.resolve()
    table = same.to_frame()
    printed = capsys.readouterr()
    assert "feature_extraction: " in printed.out
    assert "a power law needs 4" in printed.out
    assert f"page: {folder / 'report.html'}" in printed.err
    summary = json.loads((folder / "summary.json").read_text())
    assert [[point["images"] for point in one["points"]] for one in summary["series"]] == [[6, 12], [6, 12]]
    assert {point["val_images"] for one in summary["series"] for point in one["points"]} == {3}  # one of each class
    rows = list(csv.DictReader((folder / "curve.csv").read_text().splitlines()))
    assert [row["kind"] for row in rows] == ["measured"] * 4
    assert [f"{accuracy:.6f}" for accuracy in table.test_accuracy] == [row["test_accuracy"] for row in rows]
    assert [*table.columns] == [*rows[0]]
    assert (folder / "curve.png").stat().st_size < 100_000
    page = (folder / "report.html").read_text()
    assert summary["sentences"][0] in page
    assert "http" not in page.replace("http-equiv", "")
