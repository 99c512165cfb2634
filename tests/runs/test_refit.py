"""`training.refit`: the chosen model, trained again on training and validation images; the choice stays as it was."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.runs import test_resume
from tests.runs.test_resume import cut_off, outcome, words
from tlx.cli.main import main
from tlx.datasets.image_sources import FileBytes, Stacked
from tlx.datasets.images import Images, joined
from tlx.inference import seen_images
from tlx.runs.refit import best_epochs
from tlx.runs.request import run_overrides

here = test_resume.here  # its folder, and what cuts a run off


def rows(folder: Path) -> list[dict[str, Any]]:
    timed = ("images_per_second", "seconds")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]


def described(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    return found


def test_the_best_epoch_of_each_phase_is_the_first_of_equals() -> None:
    losses = {"probe": [0.5, 0.3, 0.3, 0.4], "tune": [0.2, 0.9]}
    epochs = [{"phase": name, "val_loss": loss, "val_accuracy": 1 - loss} for name in losses for loss in losses[name]]
    assert best_epochs(epochs, ["probe", "tune"], "val_loss") == {"probe": 2, "tune": 1}


def test_the_choice_is_that_of_a_run_without_and_the_model_has_seen_both_splits() -> None:
    typed = words("gradual", "training.lr=0.01", "training.epochs=5", "schedule=cosine")
    plain, refit = run_overrides(typed), run_overrides([*typed, "training.refit=true"])
    assert rows(refit.folder) == rows(plain.folder)
    assert (refit.best_epoch, refit.val_loss, refit.epochs) == (plain.best_epoch, plain.val_loss, plain.epochs)
    assert (refit.images, plain.refit) == (plain.images, {})
    assert refit.identity != plain.identity
    epochs = best_epochs(rows(plain.folder), ["head", "last", "all"], "val_loss")
    assert refit.refit["epochs"] == epochs
    assert len(refit.refit["train_loss"]) == sum(epochs.values())
    first, *_, final = (row["train_loss"] for row in rows(plain.folder))
    assert final < refit.refit["train_loss"][0] < 2 * first, "it begins at the start, and not at the chosen epoch"

    both = refit.images["train"] + refit.images["val"]
    assert refit.refit["images"] == both
    seen = {run.folder: seen_images.read(run.folder / "model") for run in (plain, refit)}
    counts = [{split: len(found[split]) for split in found} for found in seen.values() if found is not None]
    of_val = refit.images["val"]
    assert counts == [{"train": both - of_val, "val": of_val}, {"train": both, "val": of_val}]
    assert outcome(refit.folder)["weights"] != outcome(plain.folder)["weights"]
    assert described(refit.folder)["refit"] == {"images": both, "epochs": epochs}
    assert "refit" not in described(plain.folder)
    assert described(refit.folder)["data"] == described(plain.folder)["data"]


def test_it_is_in_the_plan_and_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    typed = words("feature_extraction", "training.refit=true")
    assert main([*typed, "--dry-run"]) == 0
    said = "parameters trainable, and again from the start on train and val images, for as many epochs as validation"
    assert said in capsys.readouterr().out
    assert main(typed) == 0
    out, err = capsys.readouterr()
    assert said in err
    assert re.search(r"^refit: from the start on all 24 train and val images; epochs: probe [123]$", err, re.MULTILINE)
    assert re.search(r"^refit +the model is trained on all 24 train and val images; epochs: probe", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("more", "ends"),
    [([], False), (["augmentation=flip", "features.views=2", "evaluation.after_each_phase=true"], True)],
)
def test_a_refit_that_was_interrupted_becomes_what_it_would_have_been(more: list[str], ends: bool) -> None:
    typed = words("gradual", "training.refit=true", *more)
    whole = run_overrides(typed)
    expected, chosen = outcome(whole.folder), 3 * 3 * -(-whole.images["train"] // 8)
    steps = -(-whole.refit["images"] // 8)
    last = steps * sum(whole.refit["epochs"].values()) - 1
    for step in (0, last) if ends else (steps * whole.refit["epochs"]["head"] + 1,):
        folder = cut_off(typed, chosen + step)
        assert described(folder)["epoch"] == whole.best_epoch
        assert "refit" not in described(folder), "until it is through, the chosen model is there"
        assert main(["resume", str(folder)]) == 0
        assert outcome(folder) == expected, step


def test_rows_that_the_choice_has_cached_are_not_computed_again() -> None:
    done = run_overrides(words("feature_extraction", "training.refit=true", "backbone=efficientnet_lite0"))
    log = (done.folder / "tlx.log").read_text(encoding="utf-8").partition("refit: ")[2]
    made = [line for line in log.splitlines() if " features: " in line]
    assert [line.partition(" features: ")[2].partition(", 24 images")[0] for line in made] == ["head input, train"]
    assert ", all of them copies of other images of this run, " in made[0]


def test_joined_images_keep_what_is_known_of_them(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i}") for i in range(4)]
    for file in files:
        Path(file).write_text(file)
    one, other = (Images(some, [0, 1], FileBytes(tuple(some))) for some in (files[:2], files[2:]))
    digests = one.digests() + other.digests()
    one.store.span = (0.0, 9.0)
    both = joined([one.subset([1, 0]), other])
    for file in files:
        Path(file).unlink()  # nothing is read again
    assert both.digests() == [digests[1], digests[0], *digests[2:]]
    assert (both.files, both.labels.tolist()) == ((files[1], files[0], files[2], files[3]), [1, 0, 0, 1])
    assert both.store.span == (0.0, 9.0)

    import numpy as np

    array = Images(["a", "b", "c"], [0, 1, 2], Stacked(np.zeros((3, 2, 2, 3), np.uint8)))
    again = joined([array.subset([2]), array.subset([0])])
    assert again.store is array.store
    assert again.rows.tolist() == [2, 0]
    assert again.names == ("c", "a")
