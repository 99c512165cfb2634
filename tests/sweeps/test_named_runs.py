"""A run has the name that a user would say; what a name stands for is said, and a wrong one is one line."""

import json
import os
from pathlib import Path

import pytest

from tests.comparison import test_comparison
from tests.comparison.test_comparison import Make
from tlx.cli.main import main
from tlx.core.errors import RequestError
from tlx.sweeps.named_runs import begun, run_named, runs_named, sweep_named

made = test_comparison.made
ID = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's current folder, whose `outputs` the tests fill."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "sweeps").mkdir(parents=True)
    return tmp_path


def at(run: Path, when: int) -> Path:
    """The run, begun and finished at that time."""
    for name in ("config.yaml", "predictions.csv"):
        if (run / name).exists():
            os.utime(run / name, (when, when))
    return run


def sweep(made: Make, name: str = "heads", when: int = 1000) -> Path:
    """Two heads by two seeds: `mlp` is chosen by the loss, its best seed is 1, and `linear` is better on the test."""
    losses = {("linear", 0): 0.5, ("linear", 1): 0.4, ("mlp", 0): 0.3, ("mlp", 1): 0.2}
    folder = Path("outputs/sweeps") / name
    for (head, seed), loss in losses.items():
        correct = [1, 1, 1, 1] if head == "linear" else [1, 1, 0, 0]
        at(
            made(
                f"{folder}/{head}-{seed}", correct,
                seed=seed, overrides=[f"head={head}"], values={"head": head}, val_loss=loss,
            ),
            when,
        )  # fmt: skip
    jobs = {job.name: {"folder": job.name} for job in folder.iterdir()}
    book = {"version": 1, "mlflow_key": "k", "mlflow_run_id": ID, "command": "python -m tlx -m head=linear,mlp"}
    (folder / "sweep.json").write_text(json.dumps({**book, "jobs": {**jobs, "x": {"folder": "missing"}}}))
    return folder


def refused(word: str, output: str = "outputs") -> str:
    with pytest.raises(RequestError) as raised:
        run_named(word, output)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_is_itself_also_its_saved_model_alone(made: Make) -> None:
    run = made("outputs/day/run", [1, 0])
    assert run_named(str(run)).folder == run
    assert run_named("outputs/day/run").why == ""
    assert run_named("outputs/day/run/model").folder == Path("outputs/day/run/model")


def test_a_sweep_stands_for_the_best_seed_of_the_configuration_that_validation_chooses(made: Make) -> None:
    folder = sweep(made)
    for word in ("heads", str(folder), str(folder.absolute()), ID):
        found = run_named(word)
        assert found.folder.resolve() == (folder / "mlp-1").resolve()
        assert found.why == (
            f"{word}: chosen by validation (val_loss): head=mlp of 2 configurations, seed 1 of 2 runs: "
            "outputs/sweeps/heads/mlp-1"
        )


def test_a_sweep_of_seeds_stands_for_the_best_of_them(made: Make) -> None:
    folder = sweep(made)
    for job in folder.glob("linear-*"):
        (job / "summary.json").unlink()
    assert run_named("heads").why.startswith("heads: chosen by validation (val_loss): seed 1 of 2 runs: ")


def test_the_latest_is_what_was_finished_last_a_sweep_as_a_whole(made: Make) -> None:
    old, new = at(made("outputs/day/a", [1, 0]), 100), at(made("outputs/day/b", [1, 0]), 200)
    failed = at(made("outputs/day/c", [1, 0], status="failed"), 900)
    assert run_named("latest").folder.resolve() == new
    assert run_named("latest").why == "latest: outputs/day/b"
    assert begun("latest").folder.resolve() == failed
    folder = sweep(made, when=300)
    assert run_named("latest").folder == folder / "mlp-1"
    assert run_named("latest").why.startswith("latest: chosen by validation (val_loss): head=mlp of 2 configurations")
    assert sweep_named(["latest"]) == folder
    assert len(runs_named(["latest"])) == 5
    at(old, 400)
    assert run_named("latest").folder.resolve() == old
    (old / "summary.json").write_text("{")  # a broken one costs itself alone
    assert run_named("latest").folder == folder / "mlp-1"


def test_an_id_of_mlflow_is_found_without_mlflow_in_the_folder_that_has_it(made: Make, tmp_path: Path) -> None:
    run = made("elsewhere/day/run", [1, 0], mlflow_run_id=ID)
    assert run_named(ID, "elsewhere").folder.resolve() == run
    assert refused(ID) == (
        f"{ID}: no run in outputs has this id in MLflow; give the run's folder, or --output FOLDER where it lies"
    )
    made("elsewhere/day/copy", [1, 0], mlflow_run_id=ID)
    assert refused(ID, "elsewhere") == (f"{ID}: the id of 2 folders: elsewhere/day/copy, elsewhere/day/run; give one")


def test_a_wrong_name_is_one_line_with_the_nearest_right_one(made: Make) -> None:
    whose = "RUN is a run's folder, latest, a sweep's name or an MLflow run id"
    assert refused("first") == (
        f"first: no such folder, and no such sweep in outputs/sweeps; there is none yet; {whose}"
    )
    nothing = "in outputs; python -m tlx makes one, --output FOLDER names another folder"
    assert refused("latest") == f"latest: no run is finished {nothing}"
    with pytest.raises(RequestError, match=f"^latest: no run has begun {nothing}$"):
        begun("latest")
    folder = sweep(made)
    assert refused("haeds").startswith(
        "haeds: no such folder, and no such sweep in outputs/sweeps (did you mean 'heads'?)"
    )
    assert "(did you mean 'latest'?)" in refused("lates")
    made("outputs/day/one", [1, 0])
    made("outputs/day/two", [1, 0])
    assert refused("outputs/day/tow").startswith("outputs/day/tow: no such folder (did you mean 'two'?)")
    assert refused("outputs/dya/one").startswith("outputs/dya/one: no such folder; there is no outputs/dya either")
    assert refused("outputs/day") == "outputs/day: holds 2 runs; give its folder, as outputs/day/two"
    made("heads", [1, 0])
    assert refused("heads") == "heads: both a sweep and a folder here; give outputs/sweeps/heads or ./heads"
    assert run_named("./heads").folder == Path("heads")
    for job in folder.glob("*-*"):
        (job / "summary.json").unlink()
    assert refused(str(folder)).startswith(
        f"{folder}: no model can be chosen from {folder}: no finished run to compare ({folder}/linear-0: not finished"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "haeds", "photo.jpg"],
        ["evaluate", "haeds", "dataset=shapes"],
        ["export", "haeds", "--format", "onnx"],
        ["resume", "haeds"],
        ["compare", "haeds"],
        ["compare", "--flipped", "haeds", "haeds"],
        ["sync", "haeds"],
    ],
    ids=" ".join,
)
def test_every_subcommand_takes_names_in_the_same_way(
    words: list[str], made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("outputs").rename("mine")
    made("mine/sweeps/heads/a", [1, 0])
    assert main([*words, "--output", "mine"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tlx: haeds: no such folder, and no such sweep in mine/sweeps (did you mean 'heads'?)")
    assert len(said.splitlines()) == 1


def test_a_sweep_is_not_resumed_but_its_command_named(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(made)
    assert main(["resume", "latest"]) == 2
    assert capsys.readouterr().err == (
        "tlx: latest: a sweep (outputs/sweeps/heads); running its command again resumes it: "
        "python -m tlx -m head=linear,mlp\n"
    )
