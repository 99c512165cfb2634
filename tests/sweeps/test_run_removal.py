"""`runs remove` and `runs gc`: what is gone, what stays, and what is refused."""

import contextlib
import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.comparison import test_comparison
from tests.comparison.test_comparison import Make
from tests.tracking.folders import begun, epochs, says
from tests.tracking.test_tracking import client
from tlx.cli.main import main
from tlx.config.schema import Tracking
from tlx.core import folder_lock
from tlx.sweeps.leftovers import leftovers
from tlx.tracking import tracker as tracking
from tlx.tracking.deleted_rows import deleted

made = test_comparison.made
# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path = Path("outputs")) -> set[str]:
    """Every file and folder there, without locks."""
    return {str(path) for path in folder.rglob("*") if not path.name.endswith(".lock")}


def test_a_run_is_gone_with_its_day_and_all_others_stay(made: Make) -> None:
    made("outputs/2026-01-02/stays", [1])
    before = files()
    made("outputs/2026-01-01/goes", [1])
    made("outputs/2026-01-02/goes", [1])
    assert main(["runs", "remove", "outputs/2026-01-01/goes", "outputs/2026-01-02/goes", "--yes"]) == 0
    assert files() == before


def test_without_a_terminal_nothing_is_removed_unless_yes_is_typed(
    made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made("outputs/day/run", [1])
    made("outputs/day/failed", [1], status="failed")
    before = files()
    assert main(["runs", "remove", "outputs/day/run"]) == 2
    assert "--yes does it without asking" in capsys.readouterr().err
    assert main(["runs", "gc"]) == 0
    assert "outputs/day/failed" in capsys.readouterr().out
    assert files() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("show outputs/day/failed --json", "runs show: takes no --json; its options are --output"),
        ("remove outputs/day/failed --yes --csv", "runs remove: takes no --csv; its options are --output, --yes"),
        ("gc --files-only --yes", "runs gc: takes no --files-only; its options are --output, --yes"),
        ("gc --force --last 0", "runs gc: takes no --last, --force; its options are --output, --yes"),
        ("--yes status=failed --files-only", "runs: takes no --yes, --files-only; its options are --output, --last"),
    ],
)
def test_an_option_of_another_action_is_refused(
    made: Make, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    made("outputs/day/failed", [1], status="failed")
    before = files()
    assert main(["runs", *words.split()]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert files() == before


def test_what_must_not_be_removed_is_refused_as_a_whole(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    free = made("outputs/day/free", [1])
    first = made("outputs/day/first", [1])
    moved = "/elsewhere/outputs/day/first/model"
    made("outputs/day/user", [1], values={"backbone": {"weights": moved}}).joinpath("config.yaml").write_text(
        f"backbone:\n  weights: {moved}\n"
    )
    job = made("outputs/sweeps/heads/job", [1])
    Path("outputs/sweeps/heads/sweep.json").write_text(json.dumps({"version": 1, "mlflow_key": "", "jobs": {}}))
    before = files()

    def refused(word: object) -> str:
        assert main(["runs", "remove", str(free), str(word), "--yes"]) == 2
        assert files() == before
        return capsys.readouterr().err

    assert "outputs/day/user begins with its weights" in refused(first)
    assert "a job of the sweep heads" in refused(job)
    assert "neither a run's folder nor a sweep's" in refused("outputs/day")
    with folder_lock.alone(free):
        assert "a process works on this run" in refused(first)
    assert main(["runs", "remove", str(first), "--yes", "--force"]) == 0
    assert main(["runs", "remove", "heads", str(job), "--yes"]) == 0
    assert not first.exists()
    assert not job.parent.exists()
    assert free.exists()


@pytest.mark.parametrize("damage", ["tracking: [", "", "tracking: server"])
def test_a_run_whose_store_is_unknown_stays(here: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    """Its configuration is damaged; one with tracking=none has nothing in MLflow, though a key of its own."""
    run, untracked = begun(here / "outputs/day/run"), begun(here / "outputs/day/untracked")
    (run / "config.yaml").write_text(damage)
    (untracked / "config.yaml").write_text("tracking: {enabled: false}")
    assert main(["runs", "remove", str(run), str(untracked), "--yes"]) == 1
    assert "config.yaml: cannot be read" in capsys.readouterr().err
    assert [run.exists(), untracked.exists()] == [True, False]
    assert main(["runs", "remove", str(run), "--yes", "--files-only"]) == 0
    assert not run.exists()


def test_leftovers_are_what_came_to_nothing(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made("outputs/day/finished", [1])
    made("outputs/sweeps/heads/job", [1], status="failed")
    Path("outputs/sweeps/heads/sweep.json").write_text("{}")
    new = Path("outputs/day/finished/.new.file.abcdefgh")
    new.mkdir()
    past = time.time() - 1e5
    for own, file in ((".idea.download", "a"), (".my.settings", "my.txt"), (".a.notes_12", "a")):  # not tlx's
        Path("outputs", own).mkdir()
        for name in (file, "b"):
            Path("outputs", own, name).touch()
            os.utime(Path("outputs", own, name), (past, past))
        os.utime(Path("outputs", own), (past, past))
    Path("outputs/.file.abcdefgh").touch()
    os.utime("outputs/.file.abcdefgh", (past, past))
    before = files()
    made("outputs/day/failed", [1], status="failed")
    made("outputs/day/killed", [1], status="running")
    old = Path("outputs/day/finished/.summary.json.a1b2c3d4")
    old.mkdir()
    (old / "summary.json").write_bytes(bytes(5000))
    for path in (old / "summary.json", old):
        os.utime(path, (past, past))
    assert main(["runs", "gc", "temporary", "--yes"]) == 0
    said = capsys.readouterr().out
    assert str(old) in said
    assert "1 temporary, 5.0 kB" in said
    assert Path("outputs/day/failed").exists()
    assert main(["runs", "gc", "--yes"]) == 0
    assert files() == before
    capsys.readouterr()
    assert main(["runs", "gc"]) == 0
    assert "nothing is left over in outputs" in capsys.readouterr().out


def test_what_is_no_leftover_any_more_stays(made: Make) -> None:
    """Between the question and the answer a run has finished, one is going on, one has a user; the last is removed."""
    runs = {name: made(f"outputs/day/{name}", [1], status="failed") for name in ("done", "works", "used", "goes")}
    found = leftovers(Path("outputs"))
    assert len(found.runs["failed"]) == len(runs)
    says(runs["done"], status="finished")
    made("outputs/day/user", [1], source=str(runs["used"] / "model"))
    with folder_lock.alone(runs["works"]):
        attempts = {one.why.partition(": ")[0]: one.why for one in found.removed(["failed"])}
    assert [name for name, run in runs.items() if run.exists()] == ["done", "works", "used"]
    near = {name: f"outputs/day/{name}" for name in runs}
    assert attempts[near["done"]].endswith("not removed: it is finished now")
    assert "another process is working" in attempts[near["works"]]
    assert "outputs/day/user begins with its weights" in attempts[near["used"]]
    assert len(attempts) == len(runs)


def test_what_mlflow_has_goes_too_and_only_that(here: Path) -> None:
    """Two runs in a store: one is removed, the other is deleted in MLflow and removed for good by `gc`."""
    output = here / "outputs"
    ids = []
    for name in ("goes", "deleted", "stays"):
        tracker = tracking.open(Tracking(system_metrics=False), output)
        tracker.start(begun(output / "day" / name))
        epochs(output / "day" / name, [{"epoch": 1, "val_loss": 1.0}])
        says(output / "day" / name, status="finished", mlflow_run_id=tracker.run_id)
        assert tracker.finish() == ""
        ids.append(tracker.run_id)
    store = client(output)
    places = [output / "mlartifacts" / run for run in ids]
    assert all(place.is_dir() for place in places)
    assert main(["runs", "remove", "outputs/day/goes", "--yes"]) == 0
    store.delete_run(ids[1])
    assert deleted(output / "mlflow.db").runs == (ids[1],)
    assert deleted(output / "mlflow.db").bytes > 0
    assert main(["runs", "gc", "mlflow", "--yes"]) == 0
    assert [place.is_dir() for place in places] == [False, False, True]
    assert not deleted(output / "mlflow.db")
    experiment = store.get_experiment_by_name("tlx").experiment_id
    from mlflow.entities import ViewType

    assert [run.info.run_id for run in store.search_runs([experiment], "", ViewType.ALL)] == ids[2:]
    assert store.get_metric_history(ids[2], "val_loss")


@pytest.mark.parametrize("by", ["run", "model", ""])
def test_a_deleted_model_that_a_version_points_to_stays(here: Path, by: str) -> None:
    """`by`: what the version names, the model's run or the model itself; or the version is deleted as well."""
    database, files = here / "mlflow.db", here / "model"
    files.mkdir()
    (files / "weights").write_bytes(bytes(100))
    version = ("one" if by == "run" else None, "models:/m-1" if by == "model" else str(files))
    with contextlib.closing(sqlite3.connect(database)) as store, store:
        store.execute("CREATE TABLE model_versions (run_id, source, current_stage)")
        store.execute("CREATE TABLE logged_models (model_id, artifact_location, lifecycle_stage, source_run_id)")
        store.execute("INSERT INTO logged_models VALUES ('m-1', ?, 'deleted', 'one')", (str(files),))
        store.execute("INSERT INTO logged_models VALUES ('m-2', '', 'deleted', NULL)")
        store.execute("INSERT INTO model_versions VALUES (?, ?, ?)", (*version, "None" if by else "Deleted_Internal"))
    assert deleted(database).models == (("m-2",) if by else ("m-1", "m-2"))
    assert deleted(database).bytes == (0 if by else 100)
