"""A figure is in all places where figures are, from its one function alone; older runs keep theirs."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from tests.tracking.test_tracking import client
from tlx.cli.main import main
from tlx.comparison import text_table
from tlx.comparison.comparison import compared
from tlx.core.errors import RequestError
from tlx.core.metric import MetricValue, of_summary
from tlx.training import metrics

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
RUN = ["backbone=small_cnn", "strategy=scratch", "dataset=shapes", "dataset.train=5", "dataset.test=2"]
OLD = Path(__file__).parents[1] / "assets" / "0.1.0"


def images_wrong(of: metrics.Classified) -> MetricValue:
    wrong = int(of.confusion.counts.sum() - of.confusion.correct.sum())
    return MetricValue("images_wrong", of.split, float(wrong), 0.0, 6.0, higher_is_better=False)


def test_one_function_more_is_a_figure_more_in_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, images_wrong))
    words = [*RUN, "training.epochs=1", "tracking.system_metrics=false", "tracking.model=false", f"output={tmp_path}"]
    folder = tmp_path / "day" / "run"
    assert main([*words, f"hydra.run.dir={folder}"]) == 0
    printed = capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    found = {(one["name"], one["split"]): one for one in summary["metrics"]}
    assert len(found) == len(summary["metrics"])
    assert all(set(one) == {"name", "split", "value", "low", "high", "higher_is_better"} for one in found.values())
    wrong = found["images_wrong", "test"]
    assert wrong["value"] == sum(map(sum, summary["confusion"])) * (1 - summary["test_accuracy"])
    assert "test images wrong" in printed
    assert f"{wrong['value']:.4f}  (95 % interval 0.0000 to 6.0000, 6 images)" in printed

    # The names that were there before say the same.
    accuracy = found["accuracy", "test"]
    assert [accuracy["low"], accuracy["high"]] == summary["test_accuracy_interval"]
    assert (accuracy["value"], accuracy["higher_is_better"]) == (summary["test_accuracy"], True)
    loss = found["loss", "test"]
    assert loss == {**loss, "value": summary["test_loss"], "low": None, "high": None, "higher_is_better": False}
    assert found["accuracy", "val"]["value"] == summary["val_accuracy"]
    assert found["loss", "val"]["value"] == summary["val_loss"]
    assert not found["loss", "val"]["higher_is_better"]

    store = client(tmp_path)
    logged = store.get_run(summary["mlflow_run_id"]).data.metrics
    for one in of_summary(summary):
        if one.split == "test":
            assert {name: logged[name] for name in one.flat()} == one.flat()
    assert {"test_images_wrong", "test_images_wrong_low", "test_accuracy_low", "test_loss"} <= logged.keys()
    assert "test_loss_low" not in logged

    row, *rest = csv.DictReader(io.StringIO(text_table.table(compared([folder]))))
    assert not rest
    assert list(row)[: len(text_table.COLUMNS)] == text_table.COLUMNS
    assert float(row["test_images_wrong"]) == wrong["value"]
    assert float(row["test_loss"]) == pytest.approx(summary["test_loss"], rel=1e-5)


def test_figures_of_a_run_that_did_not_list_them_are_read_from_their_own_names(tmp_path: Path) -> None:
    summary = json.loads((OLD / "finished" / "summary.json").read_text())
    assert "metrics" not in summary
    accuracy, loss = of_summary(summary)
    assert accuracy.flat() == {
        "test_accuracy": summary["test_accuracy"],
        "test_accuracy_low": summary["test_accuracy_interval"][0],
        "test_accuracy_high": summary["test_accuracy_interval"][1],
    }
    assert loss.flat() == {"test_loss": summary["test_loss"]}
    assert (accuracy.higher_is_better, loss.higher_is_better) == (True, False)
    assert of_summary({}) == []

    # Beside a run that has one figure more, its cell of that figure is empty.
    for number in range(2):
        shutil.copytree(OLD / "finished", tmp_path / str(number))
    more = [one.to_dict() for one in (accuracy, loss, MetricValue("kappa", "test", 0.5))]
    (tmp_path / "1" / "summary.json").write_text(json.dumps({**summary, "metrics": more}))
    config = (tmp_path / "1" / "config.yaml").read_text()
    assert "batch_size: 32" in config
    (tmp_path / "1" / "config.yaml").write_text(config.replace("batch_size: 32", "batch_size: 16"))
    rows = list(csv.DictReader(io.StringIO(text_table.table(compared([tmp_path / "0", tmp_path / "1"])))))
    assert sorted(row["test_kappa"] for row in rows) == ["", "0.5"]
    assert [float(row["test_loss"]) for row in rows] == pytest.approx([summary["test_loss"]] * 2, rel=1e-5)


@pytest.mark.parametrize("broken", [[1], ["accuracy"], {"accuracy": 1}, [{"name": "x"}],
                                    [{"name": "x", "split": "test", "value": "high"}],
                                    [{"name": 1, "split": "test", "value": 1}],
                                    [{"name": "x", "split": "test", "value": 1, "low": []}]])  # fmt: skip
def test_a_list_that_holds_no_figures_is_said_with_its_file(broken: object, tmp_path: Path) -> None:
    shutil.copytree(OLD / "finished", tmp_path / "run")
    file = tmp_path / "run" / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "metrics": broken}))
    with pytest.raises(RequestError, match=r"summary\.json: metrics: .* is not a figure with name, split and value"):
        compared([tmp_path / "run"])
