"""Images of none of the classes: the threshold of a run, what is measured of it, and what is predicted with it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tlx
from tlx.core.errors import RequestError
from tlx.core.int8_rows import quantised
from tlx.inference import predictor
from tlx.inference.unknown_score import FILE, UnknownScore
from tlx.reporting.figures_in_words import unknown as in_words
from tlx.runs import unknowns
from tlx.runs.evaluate_model import evaluate
from tlx.runs.prepare import found
from tlx.runs.run_summary import Summary

WORDS = ["backbone=small_cnn", "backbone.input_size=32", "dataset=new_shapes", "tracking=none", "runtime.device=cpu"]
WORDS += ["dataset.train=40", "dataset.test=30", "dataset.size=32", "training.epochs=2", "runtime.precision=fp32"]
FROZEN = [*WORDS, "strategy.phases.probe.train_from=head"]
OTHERS = [
    "evaluation.unknown.dataset=shapes",
    "evaluation.unknown.dataset.test=10",
    "evaluation.unknown.dataset.train=5",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Its features are as they came, random: all its images set the threshold."""
    return tlx.run([*FROZEN, *OTHERS, f"output={tmp_path_factory.mktemp('frozen')}"])


def figures(summary: Summary) -> dict[str, float]:
    return {f"{one['split']}_{one['name']}": one["value"] for one in summary.metrics}


def test_no_more_than_the_stated_share_of_new_images_is_beyond_the_threshold() -> None:
    random = np.random.default_rng(0)
    for n, rate in ((19, 0.05), (49, 0.05), (100, 0.1), (333, 0.2)):
        shares = []
        for _ in range(2000):
            scores = random.gamma(2.0, 0.1, n + 50)
            edge = unknowns.threshold(scores[:n], rate)
            assert edge is not None
            shares.append((scores[n:] > edge).mean())
        spread = 4 * np.std(shares) / math.sqrt(len(shares))
        assert rate - 1 / (n + 1) - spread < np.mean(shares) < rate + spread, (n, rate)


def test_too_few_images_give_no_threshold() -> None:
    scores = np.linspace(0, 1, 100)
    assert unknowns.threshold(scores[:18], 0.05) is None
    assert unknowns.threshold(scores[:19], 0.05) == scores[18]
    assert unknowns.threshold(scores[:0], 0.05) is None
    assert unknowns.threshold(scores[:1], 0.5) == 0


def test_reference_images_are_of_all_classes_and_bounded() -> None:
    labels = np.repeat([0, 1, 2], [5000, 500, 3])
    chosen = unknowns.evenly(labels, 1000)
    assert len(chosen) <= 1003
    assert len(set(chosen.tolist())) == len(chosen)
    assert np.bincount(labels[chosen]).tolist() == [909, 91, 1]
    assert unknowns.evenly(labels[-503:], 1000).tolist() == list(range(503))


def test_a_reference_image_is_compared_with_those_of_other_groups() -> None:
    features = torch.rand(40, 8, generator=torch.Generator().manual_seed(0))
    score = UnknownScore(quantised(features), 3, None)
    groups = np.arange(40) // 2
    unit = torch.nn.functional.normalize(features)
    cosines = (unit @ unit.T).masked_fill(torch.from_numpy(groups[:, None] == groups), -1)
    expected = 1 - cosines.topk(3).values.mean(1)
    assert np.allclose(unknowns._without_itself(score, features, groups), expected, atol=5e-3)


def test_what_is_measured_is_what_the_saved_model_predicts(run: Summary) -> None:
    known = run.unknown
    assert (known["fitted_on"], known["images"]) == ("val and train", run.images["train"] + run.images["val"])
    assert known["reference"] == run.images["train"]
    model = predictor.load(run.folder, "cpu")
    assert model.unknown_threshold == known["threshold"]
    parts = found(run_config(run))
    assert parts.test is not None
    predictions = model.predict([parts.test.decode(i) for i in range(len(parts.test))])
    unknown = [p.prediction == "unknown" for p in predictions]
    assert figures(run)["test_unknown_false_alarms"] == pytest.approx(np.mean(unknown))
    written = json.loads((run.folder / "analysis.json").read_text(encoding="utf-8"))["unknown"]
    scores = np.array([p.unknown_score for p in predictions])
    assert np.allclose(written["scores"]["test"], scores, atol=1e-4)
    right = [p.top(1)[0][0] == parts.classes[label] for p, label in zip(predictions, parts.test.labels, strict=True)]
    assert run.test_accuracy == pytest.approx(np.mean(right)), "an unknown image keeps its most probable class"


def run_config(run: Summary) -> Any:
    from tlx.config.identity import from_tree
    from tlx.runs.run_files import read

    return from_tree(dict(read(run.folder).config))


def test_the_named_images_are_separated_as_the_figures_say(run: Summary) -> None:
    written = json.loads((run.folder / "analysis.json").read_text(encoding="utf-8"))["unknown"]["scores"]
    inside, outside = (np.array(written[split]) for split in ("test", "unknown"))
    assert len(outside) == 3 * (5 + 10)
    higher = (outside[:, None] > inside).mean() + (outside[:, None] == inside).mean() / 2
    assert figures(run)["unknown_auroc"] == pytest.approx(higher, abs=2e-3)
    assert figures(run)["unknown_fpr95"] == pytest.approx((outside <= np.quantile(inside, 0.95)).mean(), abs=0.05)
    assert figures(run)["unknown_recall"] == pytest.approx((outside > run.unknown["threshold"]).mean(), abs=0.03)
    assert 0 <= figures(run)["unknown_auroc_max_logit"] <= 1
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert 'id="unknown"' in page
    assert "images of no class" in page


def test_evaluate_says_how_many_images_are_unknown(run: Summary) -> None:
    overrides = ["dataset=new_shapes", "dataset.train=40", "dataset.test=30", "dataset.size=32"]
    found = evaluate(str(run.folder), overrides, "test")
    assert found.scores.metric("unknown_false_alarms").value == figures(run)["test_unknown_false_alarms"]


def test_no_rate_leaves_the_run_as_it_was(run: Summary, tmp_path: Path) -> None:
    plain = tlx.run([*FROZEN, "evaluation.unknown.rate=null", f"output={tmp_path}"])
    assert not (plain.folder / "model" / FILE).exists()
    assert plain.unknown == {}
    assert predictor.load(plain.folder, "cpu").unknown_threshold is None
    same = {name: value for name, value in figures(run).items() if "unknown" not in name}
    assert figures(plain) == same
    assert 'id="unknown"' not in (plain.folder / "report.html").read_text(encoding="utf-8")


def test_features_that_have_learned_count_with_validation_images_alone(tmp_path: Path) -> None:
    few = tlx.run([*WORDS, f"output={tmp_path}"])
    assert few.unknown["fitted_on"] == "val"
    assert few.unknown["threshold"] is None
    ((_, line),) = in_words(few.to_dict())
    assert "16 images that nothing was trained on are too few for false alarms of 5.0% (19 are needed)" in line
    model = predictor.load(few.folder, "cpu")
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert all(p.prediction != "unknown" and p.unknown_score is not None for p in model.predict(noise))
    enough = tlx.run([*WORDS, "dataset.val_fraction=0.5", f"output={tmp_path}"])
    assert enough.unknown["images"] == enough.images["val"]
    assert enough.unknown["threshold"] is not None


def test_after_a_refit_the_threshold_is_that_of_the_chosen_model_or_of_images_without_themselves(
    tmp_path: Path,
) -> None:
    refit = ["training.refit=true", "dataset.val_fraction=0.5", f"output={tmp_path}"]
    before = tlx.run([*WORDS, *refit[1:]])
    learned = tlx.run([*WORDS, *refit])
    assert learned.unknown["threshold"] == before.unknown["threshold"]
    assert learned.unknown["reference"] == learned.images["train"] + learned.images["val"]
    frozen = tlx.run([*FROZEN, *refit])
    assert frozen.unknown["fitted_on"] == "train"
    assert frozen.unknown["images"] == frozen.images["train"] + frozen.images["val"]


def folder(tmp_path: Path) -> str:
    place = tmp_path / "strange things"
    place.mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{i}.png")
    return str(place)


def test_a_folder_of_images_is_measured(tmp_path: Path) -> None:
    found = tlx.run([*FROZEN, f"evaluation.unknown.dataset={folder(tmp_path)}", f"output={tmp_path}"])
    assert len(json.loads((found.folder / "analysis.json").read_text())["unknown"]["scores"]["unknown"]) == 4


def broken(tmp_path: Path) -> str:
    place = folder(tmp_path)
    (Path(place) / "2.png").write_bytes((Path(place) / "2.png").read_bytes()[:200])
    return place


@pytest.mark.parametrize(
    ("named", "line"),
    [
        (lambda _: "leavs", "evaluation.unknown.dataset=leavs: no such data set or folder (did you mean 'leaves'?)"),
        (broken, "2.png: cannot be read as an image"),
        (lambda tmp_path: str(tmp_path), "holds no image"),
    ],
)
def test_what_cannot_be_measured_is_said_before_training(
    tmp_path: Path, named: Callable[[Path], str], line: str
) -> None:
    with pytest.raises(RequestError) as raised:
        tlx.run([*FROZEN, f"evaluation.unknown.dataset={named(tmp_path)}", f"output={tmp_path / 'out'}"])
    assert line in str(raised.value)
    assert not list((tmp_path / "out").glob("*/*/model"))
