"""A recommendation: what it leaves, that it goes on where it was ended, keeps its limits, and is a RUN."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import tlx
from tlx.cli.main import main
from tlx.recommendation import candidates, recommender
from tlx.recommendation.trials import Trials

DATA = ["dataset=shapes", "dataset.train=15", "dataset.test=6", "backbone.input_size=16", "tracking=none"]
TINY = [*DATA, "backbone=small_cnn", "training.batch_size=16"]
HOURS = ["--minutes", "600"]  # no test waits for the clock


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(candidates, "STEPS", 3)
    return tmp_path


def folder() -> Path:
    (found,) = Path("outputs/recommendations").iterdir()
    return found


def journal() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder() / "journal.jsonl").read_text().splitlines()]


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder() / "summary.json").read_text())
    return found


def test_it_leaves_a_choice_a_ranking_a_model_and_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", *TINY, *HOURS]) == 0
    printed = capsys.readouterr()
    found = summary()
    assert {"choice", "ranking", "test_accuracy", "test_accuracy_interval", "seconds", "budget_seconds"} <= found.keys()
    assert found["budget_seconds"] == 36_000
    names = [row["name"] for row in found["ranking"]]
    assert sorted(names) == ["small_cnn finetune", "small_cnn lp_ft", "small_cnn probe"]
    assert found["choice"] == found["ranking"][0]["overrides"]
    keys = {"overrides", "val_accuracy", "low", "high", "seconds", "parameters", "ms_per_image", "distinguishable"}
    for row in found["ranking"]:
        assert keys <= row.keys()
        assert 0 <= row["low"] <= row["val_accuracy"] <= row["high"] <= 1
        assert row["parameters"] > 1000
        assert row["ms_per_image"] > 0
    assert not found["ranking"][0]["distinguishable"]
    assert (folder() / "report.html").read_text().count("<circle") == 3
    chosen = folder() / found["run"]
    assert json.loads((chosen / "summary.json").read_text())["test_accuracy"] == found["test_accuracy"]
    assert f"test accuracy {found['test_accuracy']:.1%}" in printed.out
    assert " ".join(found["choice"]) in found["command"]
    # The test set was looked at for the chosen one alone.
    runs = {run.parent: json.loads(run.read_text()) for run in folder().glob("*/summary.json")}
    assert len(runs) == (3 if names[0].endswith("probe") else 2)
    assert [run for run, of in runs.items() if of["test_accuracy"] is not None] == [chosen]
    assert [run for run, of in runs.items() if of["accuracy_before_training"] is not None] == [chosen]
    assert not [run for run in runs if run != chosen and list(run.glob("predictions*"))]
    assert {of["status"] for run, of in runs.items() if run != chosen} == {"unmeasured"}


def test_the_folder_and_its_name_are_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    answer = tlx.recommend(TINY, minutes=600, name="mine", strategy=["feature_extraction"])
    assert answer.choice == summary()["choice"]
    pixel = Path("picture.png")
    from PIL import Image

    Image.new("RGB", (16, 16)).save(pixel)
    for word in ("mine", str(folder()), "latest"):
        assert main(["predict", word, str(pixel)]) == 0
        assert "picture.png" in capsys.readouterr().out
    assert len(tlx.load("mine").classes) == 3
    assert len(tlx.load(folder() / "model").classes) == 3
    assert main(["runs", "show", "mine"]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert main(["report", "mine"]) == 0
    assert list(tlx.runs().folder) == [str(answer.run)] or len(tlx.runs()) == 1


def test_typed_again_it_does_nothing_anew_and_with_more_choices_only_adds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", *TINY, "strategy=feature_extraction", *HOURS]) == 0
    before = journal()
    assert main(["recommend", *TINY, "strategy=feature_extraction", *HOURS]) == 0
    assert journal() == before
    assert main(["recommend", *TINY, "strategy=feature_extraction,finetune", *HOURS]) == 0
    after = journal()
    assert after[: len(before)] == before
    new = {step["step"] for step in after[len(before) :]}
    assert {"train small_cnn finetune", "cost small_cnn finetune"} <= new
    assert not {step["step"] for step in before} & new
    capsys.readouterr()


def test_ended_at_any_step_it_goes_on_to_the_same_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Killed(BaseException):
        """As SIGKILL: nothing is written after it."""

    typed = ["recommend", *TINY, "strategy=feature_extraction,finetune", *HOURS]
    assert main([*typed, "--name", "whole"]) == 0
    os.rename("outputs/recommendations/whole", "whole")
    kept = Path("whole/summary.json").read_text()
    for name in ("audit", "measure", "probe", "cost", "train", "final"):
        work, times = getattr(Trials, name), []

        def once(self: Trials, *given: Any, work: Any = work, times: list[int] = times) -> Any:
            times.append(1)
            if len(times) == 1:
                raise Killed
            return work(self, *given)

        monkeypatch.setattr(Trials, name, once)
    for _ in range(6):
        with pytest.raises(Killed):
            main([*typed, "--name", "again"])
    # A line that was being written when the process was killed is none.
    with (folder() / "journal.jsonl").open("a") as lines:
        lines.write('{"step": "final small')
    assert main([*typed, "--name", "again"]) == 0
    again, whole = summary(), json.loads(kept)
    same = ("choice", "run", "test_accuracy", "not_tried")
    assert {key: again[key] for key in same} == {key: whole[key] for key in same}
    rows = ("overrides", "val_accuracy", "low", "high", "score", "distinguishable")
    assert [[row[key] for key in rows] for row in again["ranking"]] == [
        [row[key] for key in rows] for row in whole["ranking"]
    ]
    capsys.readouterr()


def test_without_time_there_is_a_model_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as late:
        late.setattr(recommender, "FIXED", 1e6)
        assert main(["recommend", *TINY, "--minutes", "0.5"]) == 0
    found = summary()
    assert [row["name"] for row in found["ranking"]][:1] == ["small_cnn probe"]
    assert (folder() / "model" / "model.json").is_file()
    assert "more --minutes only adds" in capsys.readouterr().out
    assert main(["recommend", *TINY, *HOURS]) == 0
    assert len(summary()["ranking"]) == 3


def test_with_more_images_than_time_it_trains_and_measures_on_a_part_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recommender, "RUNGS", (30,))
    monkeypatch.setattr(recommender, "TEST", 0.0)
    monkeypatch.setattr(recommender, "FEWEST", 6)
    expected = recommender.Recommender._expected
    late = lambda self, member, images: expected(self, member, images) if images == 30 else 1e9  # noqa: E731
    monkeypatch.setattr(recommender.Recommender, "_expected", late)
    assert main(["recommend", *TINY, *HOURS]) == 0
    found = summary()
    assert "dataset.limit.train=24" in found["choice"]
    assert "dataset.limit.val=6" in found["choice"]
    run = json.loads((folder() / found["run"] / "summary.json").read_text())
    assert run["images"] == {"train": 24, "val": 6, "test": 6}
    assert run["features"]["read"] >= 30  # those that the probe has computed
    assert found["not_tried"] == ["probe small_cnn 45"]
    assert "test: 6 of 18 images, for the time" in capsys.readouterr().err


def test_limits_leave_networks_out_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["recommend", *DATA, "backbone=small_cnn,efficientnet_lite0", "strategy=feature_extraction", *HOURS]
    assert main([*typed, "--max-mb", "5"]) == 0
    assert [*summary()["refused"]] == ["efficientnet_lite0"]
    assert "above --max-mb 5" in capsys.readouterr().out
    assert {row["overrides"][5] for row in summary()["ranking"]} == {"backbone=small_cnn"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "dataset: which data? as in dataset=image_folder dataset.root=~/photos"),
        ([*TINY, "--minutes", "0"], "--minutes 0: must be at least 0.5"),
        ([*TINY, "--max-ms", "-1"], "--max-ms -1: must be above 0"),
        ([*TINY, "seeds=3"], "seeds=3: has no place here"),
        ([*DATA, "backbone=small_cnn,smal_cnn"], "backbone=smal_cnn: no such backbone (did you mean 'small_cnn'?)"),
        ([*DATA, "backbone=small_cnn,small_cnn"], "backbone=small_cnn,small_cnn: give each choice once"),
        ([*TINY, "strategy=finetun"], "strategy=finetun: no such strategy (did you mean 'finetune'?)"),
        ([*TINY, "training.epoch=3"], "training.epoch"),
        ([*TINY, "training.epochs=0"], "training.epochs=0: must be at least 1"),
        (
            [*DATA, "backbone=resnet18"],
            "backbone=resnet18: its weights (resnet18-f37072fd.pth) are not here; --download",
        ),
        ([*TINY, "--weights", "small_cnn"], "--weights small_cnn: must be BACKBONE=FILE"),
        ([*TINY, "--weights", "small_cnn=none.pth"], "--weights small_cnn=none.pth: no such file"),
        ([*TINY, "--name", "../x"], "--name ../x: must be a folder's name"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_made(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(here / "nothing"))
    monkeypatch.setenv("HF_HOME", str(here / "nothing"))
    assert main(["recommend", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"tlx: {line}"), said
    assert not Path("outputs").exists()
