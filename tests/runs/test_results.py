"""What comes out is as good as it must be, on real photographs and on drawn shapes; far below means a bug."""

from pathlib import Path
from statistics import mean

import pytest

import tlx

SEEDS = range(3)


def accuracies(tmp_path: Path, *overrides: str, seeds: range = SEEDS) -> list[float]:
    found = [tlx.run([*overrides, f"seed={seed}", f"output={tmp_path}", "tracking=none"]) for seed in seeds]
    return [run.test_accuracy or 0.0 for run in found]


def test_the_default_backbone_tells_ants_from_bees(shared: Path, tmp_path: Path) -> None:
    data = ["dataset=ants_bees", f"dataset.root={shared / 'hymenoptera_data'}"]
    found = accuracies(tmp_path, *data)
    assert mean(found) >= 0.935
    assert min(found) >= 0.92


def test_mobilenet_tells_ants_from_bees(shared: Path, tmp_path: Path) -> None:
    data = ["dataset=ants_bees", f"dataset.root={shared / 'hymenoptera_data'}"]
    weights = shared / "weights" / "mobilenet_v2-imagenet-backbone.pth"
    found = accuracies(tmp_path, *data, "backbone=mobilenet_v2", f"backbone.weights={weights}")
    assert mean(found) >= 0.945


def test_the_placeholder_among_the_ants_is_left_out_and_named(shared: Path, tmp_path: Path) -> None:
    data = ["dataset=ants_bees", f"dataset.root={shared / 'hymenoptera_data'}", "dataset.limit.test=4"]
    run = tlx.run([*data, "backbone=small_cnn", "training.epochs=1", f"output={tmp_path}", "tracking=none"])
    assert run.images == {"train": 195, "val": 49, "test": 4}
    assert [Path(path).name for path, _ in run.skipped] == ["imageNotFound.gif"]


def test_a_source_task_helps_where_images_are_few(tmp_path: Path) -> None:
    transfer = accuracies(tmp_path, "experiment=shapes_transfer", seeds=range(1))
    scratch = accuracies(tmp_path, "experiment=shapes_transfer", "strategy=scratch", seeds=range(1))
    assert mean(transfer) > mean(scratch) + 0.05


@pytest.mark.parametrize("train_from", ["all", "head"])
def test_leaves_to_shoes_runs_on_the_real_leaves_and_shoes(shared: Path, tmp_path: Path, train_from: str) -> None:
    roots = [f"source.dataset.root={shared / 'Leaves'}", f"dataset.root={shared / 'Shoes'}"]
    short = ["source.training.epochs=2", "training.epochs=2", f"strategy.phases.probe.train_from={train_from}"]
    run = tlx.run(["experiment=leaves_to_shoes", *roots, *short, f"output={tmp_path}", "tracking=none"])
    assert run.images == {"train": 64, "val": 16, "test": 18}
    assert set(run.after) == {"probe", "tune"}
    tables = {path.name for path in run.folder.glob("predictions*.csv")}
    assert tables == {"predictions.csv", "predictions-before.csv", "predictions-probe.csv", "predictions-tune.csv"}
    assert all(len((run.folder / name).read_text().splitlines()) == 19 for name in tables)
