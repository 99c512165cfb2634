"""On a terminal a run is shown live, elsewhere as plain lines; results are on stdout and nothing else is."""

import io
import json
import logging
import math
import os
import pty
import re
import select
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tlx.core.errors import lookalikes
from tlx.reporting.run_display import Display, closing, epoch_line, opening, plan_lines
from tlx.reporting.text_table import aligned, duration


@dataclass
class Progress:
    phase: str = "probe"
    epoch: int = 0
    epochs: int = 3
    batch: int = 2
    batches: int = 5
    loss: Any = math.nan
    val_accuracy: float = math.nan
    images_per_second: float = math.nan
    best_epoch: int = 0
    eta: float = math.nan


@dataclass
class Summary:
    folder: Path = field(default_factory=lambda: Path.cwd() / "outputs" / "run")
    test_accuracy: float | None = 0.947712
    test_accuracy_interval: list[float] | None = field(default_factory=lambda: [0.9, 0.97])
    accuracy_before_training: float | None = 0.366
    test_loss: float | None = 0.2
    val_accuracy: float | None = 0.95
    best_epoch: int | None = 2
    choose_by: str = "val_loss"
    epochs: int = 3
    seconds: dict[str, float] = field(default_factory=lambda: {"data": 1.0, "training": 61.0, "total": 62.0})
    images_per_second: float | None = 1234.5
    images: dict[str, int] = field(default_factory=lambda: {"train": 195, "val": 49, "test": 153})
    splits: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    copies: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=lambda: ["ants", "bees"])
    skipped: list[list[str]] = field(default_factory=lambda: [["train/ants/x.gif", "a placeholder"]])
    precision: str = "fp32"
    device: str = "cpu"
    mlflow_run_id: str = "abc"
    refit: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    per_class: dict[str, dict[str, float]] = field(
        default_factory=lambda: {
            "ants": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "images": 70},
            "bees": {"precision": 0.7, "recall": 0.6, "f1": 0.65, "images": 83},
        }
    )


def row(epoch: int) -> dict[str, Any]:
    figures = {"train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.9, "lr": 1e-3}
    return {"phase": "probe", "epoch": epoch, **figures, "images_per_second": 100.0, "seconds": 2.0}


def stage(name: str, parameters: int, learns: int = 0, lr: float | None = None) -> dict[str, Any]:
    return {"stage": name, "parameters": parameters, "learns": learns, "frozen": lr is None, "lr": lr}


PLAN = {"phase": "probe", "cut": "head", "stages": [stage("stem", 1000), stage("head", 10, 10, 1e-3)]}


def test_elsewhere_than_on_a_terminal_there_is_a_plain_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with Display(progress, Summary(), [PLAN]) as display:
        for epoch in (1, 2, 3):
            progress.epoch, progress.best_epoch = epoch, min(epoch, 2)
            display.row(row(epoch))
        logging.getLogger("tlx").info("a fact")
        logging.getLogger("tlx").warning("a doubt")
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[0] == "images: 195 train, 49 val, 153 test; 2 classes: ants, bees"
    assert lines[1] == "skipped: 1 file: train/ants/x.gif (a placeholder)"
    assert lines[2] == "device: cpu, fp32; folder: outputs/run"
    assert "phase probe: 10 of 1,010 parameters trainable" in lines
    epochs = [line for line in lines if line.startswith("epoch")]
    assert epochs[0] == (
        "epoch 1/3  probe  train_loss 0.5000  val_loss 0.4000  val_accuracy  90.0%  lr 0.001  100 images/s  2.0 s  best"
    )
    assert [line.endswith("best") for line in epochs] == [True, True, False]
    assert lines[-2:] == ["a fact", "warning: a doubt"]


def test_a_class_without_a_test_image_has_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    closing(Summary(per_class={"ants": {**figures, "images": 7}, "wasps": {**figures, "images": 0}}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-2:]] == [
        ["ants", "7", "0.000", "0.000", "0.000"],
        ["wasps", "0", "-", "-", "-"],
    ]
    assert "no test image of  wasps (1 of 2 classes)" in lines


def test_classes_that_look_the_same_are_named_and_no_name_changes_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [["a", "a ", "A"], ["hot dog", "hot_dog"], ["é", "e\u0301"], ["b", "b\u200b"]]
    assert lookalikes([name for names in same for name in [*names, names[0] + "2"]]) == same
    assert lookalikes(["c", "c++", "1", "-1", "ab", "a b"]) == []
    figures = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "images": 7}
    names = ["a", "a ", "\x1b[31mred", "two\nlines"]
    summary = Summary(classes=names, per_class=dict.fromkeys(names, figures), skipped=[[str(tmp_path), "of no split"]])
    lines = list(opening(summary))
    assert lines[0].endswith(r"4 classes: a, a , \x1b[31mred, two\nlines")
    assert lines[1].startswith("classes: 'a' and 'a ' differ only in case, spaces or invisible characters; if ")
    letters = list(opening(Summary(classes=list("ABCDabcd"))))
    assert letters[1].startswith("classes: 'A' and 'a', 'B' and 'b', 'C' and 'c', … (1 more) differ only")
    assert lines[2] == f"skipped: 1 folder: {tmp_path} (of no split)"
    closing(summary)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"two\nlines" in out


LIVE = """
import sys, time, dataclasses
import torch
from tests.reporting.test_display import PLAN, Progress, Summary, row
from tlx.reporting.run_display import Display, closing
progress = Progress(loss=torch.tensor(0.25), val_accuracy=0.5, images_per_second=321.0, eta=65.0)
with Display(progress, Summary(), [PLAN]) as display:
    time.sleep(0.7)
    display.row(row(1))
    progress.epoch = 3
    time.sleep(0.7)
    print("warned", file=sys.stderr)
closing(Summary())
"""


def on_a_terminal(code: str) -> str:
    """What a process writes on a terminal of 150 columns, all of it."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "150", "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, stdin=theirs, env=env)
    os.close(theirs)
    written = b""
    while True:
        select.select([ours], [], [])
        try:
            some = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not some:
            break
        written += some
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def test_on_a_terminal_the_line_lives_and_epochs_and_results_stay() -> None:
    written = on_a_terminal(LIVE)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert "probe: epoch 1 of 3  1 min 05 s left  val_accuracy 50.0%  batch 2 of 5  loss 0.2500  321 images/s" in plain
    assert "epoch 1/3  probe  train_loss 0.5000" in plain
    assert "measuring" in plain
    assert "warned" in plain
    assert written.rfind("\x1b[?25h") > written.find("\x1b[?25l") > -1  # the cursor is back
    assert re.search(r"test accuracy +94\.8%  \(95 % interval 90\.0% to 97\.0%, 153 images\)", plain)


def test_the_display_is_away_when_the_run_fails(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("tlx")
    before = (list(logger.handlers), logger.level, threading.active_count())
    with pytest.raises(ZeroDivisionError), Display(Progress(), Summary(), [PLAN]):
        raise ZeroDivisionError
    assert (list(logger.handlers), logger.level, threading.active_count()) == before


def test_the_live_line_takes_numbers_tensors_and_the_unknown() -> None:
    for progress in (
        Progress(),
        Progress(batches=0),
        Progress(loss=torch.tensor(1.5)),
        Progress(epoch=3),
        Progress(epochs=0),
        Progress(epoch=2, batch=5, loss=0.5, eta=1e6),
    ):
        state = Display(progress, Summary(), []).now()
        assert all(state.facts)
        assert state.share is None or 0 <= state.share <= 1


def test_a_plan_of_many_frozen_stages_is_short_and_its_sums_are_right() -> None:
    stages = [stage(f"blocks.{i}", 1_000_000) for i in range(12)] + [
        stage("norm", 10, 10, 1e-4),
        stage("head", 5, 5, 1e-3),
    ]
    lines = plan_lines({"phase": "tune", "stages": stages})
    assert [line.split() for line in lines] == [
        ["phase", "tune:", "15", "of", "12,000,015", "parameters", "trainable"],
        ["stage", "parameters", "trainable", "lr"],
        ["blocks.0", "…", "blocks.11", "(12", "stages)", "12,000,000", "frozen"],
        ["norm", "10", "10", "0.0001"],
        ["head", "5", "5", "0.001"],
    ]
    assert len({len(line) for line in lines[1:] if "frozen" not in line}) == 1  # flush right


def test_the_closing_table_is_plain_where_it_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    closing(Summary())
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "test accuracy   94.8%  (95 % interval 90.0% to 97.0%, 153 images)" in out
    assert "untrained head  36.6%" in out
    assert "validation      95.0%  (best epoch 2 of 3, by val_loss)" in out
    assert "time            1 min 02 s  (data 1.0 s, training 1 min 01 s)" in out
    assert re.search(r"^ants +70 +0\.900 +0\.800 +0\.850$", out, re.MULTILINE)
    assert "folder          outputs/run" in out


def test_of_many_classes_the_worst_are_shown() -> None:
    many = {f"class {i:02}": {"precision": i / 50, "recall": i / 50, "f1": i / 50, "images": 5} for i in range(50)}
    text = io.StringIO()
    closing(Summary(per_class=many), text)
    said = text.getvalue()
    assert "the 20 classes of 50 with the lowest F1" in said
    assert "class 00" in said
    assert "class 20" not in said


def test_a_run_without_figures_closes_with_its_folder() -> None:
    text = io.StringIO()
    nothing: Any = dict.fromkeys(("test_accuracy", "test_loss", "val_accuracy", "accuracy_before_training"))
    closing(Summary(**nothing, seconds={}, images_per_second=None, per_class={}, skipped=[], mlflow_run_id=""), text)
    assert text.getvalue() == "folder  outputs/run\n"


def test_an_epoch_line_is_one_line_of_numbers() -> None:
    line = epoch_line(json.loads(json.dumps(row(7))), 120)
    assert line.startswith("epoch   7/120  probe  train_loss 0.5000")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.7, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_columns_are_aligned() -> None:
    assert aligned([("a", "1"), ("long", "100")], left=1) == ["a       1", "long  100"]
