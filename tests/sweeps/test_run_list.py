"""`python -m tlx runs`: what is listed, which runs conditions leave, and what is said of one."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.comparison import test_comparison
from tests.comparison.test_comparison import Make
from tlx.cli.main import main
from tlx.core import folder_lock
from tlx.core.errors import RequestError
from tlx.sweeps import run_table
from tlx.sweeps.run_conditions import condition, wanted
from tlx.sweeps.run_list import listed

made = test_comparison.made


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def four(made: Make) -> Path:
    """Two runs as earlier versions left them, a job of a sweep, and a newer run with its choices."""
    made("outputs/2026-01-02/10-00-00-resnet18-shapes-finetune", [1, 1, 1, 0], overrides=["strategy=finetune"])
    made(
        "outputs/2026-01-01/10-00-00-resnet50-my_pets-scratch-2",
        [1, 0, 0, 0],
        seed=3,
        status="failed",
        overrides=["loss=focal"],
    )
    made("outputs/sweeps/heads/resnet18-shapes-finetune-0a1b2c3d", [1, 1, 0, 0], began=1.0)
    Path("outputs/sweeps/heads/sweep.json").write_text("{}")
    choices = {"backbone": "small_cnn", "dataset": "shapes", "strategy": "scratch", "optimizer": "sgd"}
    made("outputs/2025-01-01/10-00-00-x", [1, 1, 1, 1], choices=choices, began=2e9, val_loss=0.5, test_loss=0.3)
    return Path("outputs")


def names(folder: Path, *words: str) -> list[str]:
    """The last parts of the folders' names, by which the tests know the runs of `four`."""
    return [run.folder.name[-5:] for run in wanted(listed(folder), [condition(word) for word in words])]


NEW, TUNED, FAILED, JOB = "-00-x", "etune", "tch-2", "b2c3d"


def test_runs_are_listed_newest_first_whatever_version_wrote_them(four: Path) -> None:
    assert names(four) == [NEW, TUNED, FAILED, JOB]
    assert [run.choices["backbone"] for run in listed(four)] == ["small_cnn", "resnet18", "resnet50", "resnet18"]
    assert [run.sweep for run in listed(four)] == ["", "", "", "heads"]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["dataset=shapes"], [NEW, TUNED, JOB]),
        (["dataset=*pets"], [FAILED]),
        (["dataset!=shapes"], [FAILED]),
        (["test_accuracy>0.5"], [NEW, TUNED]),
        (["test_accuracy>=50%"], [NEW, TUNED, JOB]),
        (["accuracy<0.5"], [FAILED]),
        (["strategy=finetune", "test_accuracy>0.5"], [TUNED]),
        (["status=failed,interrupted"], [FAILED]),
        (["sweep=heads"], [JOB]),
        (["sweep=null"], [NEW, TUNED, FAILED]),
        (["seed=3"], [FAILED]),
        (["training.lr=0.001"], [NEW, TUNED, FAILED, JOB]),
        (["training.lr!=1e-3"], []),
        (["began<2026-01-02"], [FAILED, JOB]),
        (["optimizer=sgd"], [NEW]),
        (["test_loss<0.5"], [NEW]),
        (["loss=focal"], [FAILED]),
        (["loss=cross_entropy"], [NEW, TUNED, JOB]),
    ],
)
def test_a_condition_leaves_the_runs_of_which_it_holds(four: Path, words: list[str], left: list[str]) -> None:
    assert names(four, *words) == left


def test_what_is_and_what_is_not_equal_are_all_runs(four: Path) -> None:
    for key, value in (("dataset", "shapes"), ("seed", "0"), ("optimizer", "sgd"), ("training.lr", "3")):
        both = names(four, f"{key}={value}") + names(four, f"{key}!={value}")
        assert sorted(both) == sorted(names(four))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("datset=shapes", "no run has such a key (did you mean 'dataset'?)"),
        ("training.rl=1", "did you mean 'training.lr'?"),
        ("test_accuracy>good", "'good' is no number"),
        ("test_accuracy>", "has no value"),
        ("status>0.5", "status is no number (finished)"),
        ("loss<0.5", "test_loss is one"),
        ("output<1", "output is no number"),
        ("0.9", "no condition"),
    ],
)
def test_a_wrong_condition_is_one_line(four: Path, word: str, said: str) -> None:
    with pytest.raises(RequestError) as raised:
        names(four, word)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_run_that_says_it_is_running_is_so_while_a_process_works_on_it(made: Make) -> None:
    run = made("outputs/day/run", [1], status="running")
    assert [one.status for one in listed(Path("outputs"))] == ["interrupted"]
    with folder_lock.alone(run):
        assert [one.status for one in listed(Path("outputs"))] == ["running"]
    (run / "summary.json").write_text("{")
    assert [one.status for one in listed(Path("outputs"))] == ["damaged"]


@pytest.mark.parametrize("width", [200, 120, 80, 40])
def test_the_table_fits_the_terminal_and_names_every_run(four: Path, width: int) -> None:
    runs = listed(four)
    lines = run_table.text(runs, width).splitlines()
    folders = [str(run.folder) for run in runs]
    assert all(len(line) <= width or line.strip() in folders for line in lines)
    assert all(any(folder in line for line in lines) for folder in folders)


def test_csv_and_json_have_the_same_rows(four: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "training.lr=0.001", "--csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert main(["runs", "training.lr=0.001", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == table
    assert rows[0]["training.lr"] == 0.001


def test_one_run_is_shown_in_full_also_one_that_failed(four: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "outputs/2026-01-02/10-00-00-resnet18-shapes-finetune"]) == 0
    shown = capsys.readouterr().out
    assert "test accuracy  75.0%  (95 % interval 65.0% to 85.0%, 4 images)" in shown
    assert "predictions.csv" in shown
    assert main(["runs", "show", "latest"]) == 0
    Path("outputs/2025-01-01/10-00-00-x/summary.json").unlink()
    Path("outputs/2025-01-01/10-00-00-x/checkpoint.safetensors").touch()
    assert main(["runs", "show", "outputs/2025-01-01/10-00-00-x"]) == 0
    assert "to resume: python -m tlx resume outputs/2025-01-01/10-00-00-x" in capsys.readouterr().out
