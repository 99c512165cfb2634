"""tlx from Python: runs, sweeps and comparisons as values, tables and in a notebook."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

import tlx
from tests.conftest import ROOT
from tlx.core.errors import RequestError
from tlx.runs.run_summary import Summary

TINY: dict[str, Any] = {
    "backbone": "small_cnn",
    "backbone.input_size": 16,
    "dataset": {"train": 12, "test": 9},
    "tracking": "none",
    "training": {"epochs": 2},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    output = tmp_path_factory.mktemp("out")
    results = tlx.sweep({**TINY, "output": output, "sweep.name": "rates"}, seeds=2, training={"lr": [1e-3, 1e-2]})
    return output, results


def test_a_run_from_values_is_the_one_from_words(tmp_path: Path) -> None:
    words = ["backbone=small_cnn", "backbone.input_size=16", "dataset.train=12", "dataset.test=9", "tracking=none"]
    typed = tlx.run([*words, "training.epochs=2", f"output={tmp_path / 'a'}"])
    values = tlx.run(TINY, output=tmp_path / "b")
    assert typed.identity == values.identity
    assert typed.test_loss == values.test_loss
    table = values.to_frame().set_index(["split", "name"])
    assert table.loc[("test", "accuracy"), "value"] == values.test_accuracy
    assert [*table.loc[("test", "accuracy"), ["low", "high"]]] == values.test_accuracy_interval
    lines = repr(tlx.load(values.folder)).splitlines()
    assert len(lines) == 5
    assert lines[0] == "tlx model: small_cnn with a linear head"
    assert lines[1].endswith("3: circle, square, triangle")
    assert f"test accuracy {values.test_accuracy:.1%}" in lines[3]


def test_runs_are_a_table_also_after_the_package_of_that_name_is_imported(swept: tuple[Path, Any]) -> None:
    output, _ = swept
    import tlx.runs.run_summary

    table = tlx.runs("training.lr=0.01", "dataset=shapes", output=output)
    assert [*table["training.lr"]] == [0.01, 0.01]
    assert {*table.status} == {"finished"}
    assert table.test_accuracy.between(table.test_accuracy_low, table.test_accuracy_high).all()
    assert (table.began.diff().dropna() <= pd.Timedelta(0)).all()
    assert list(tlx.runs(output=output).folder[:0]) == []
    with pytest.raises(RequestError, match="did you mean 'dataset'"):
        tlx.runs("datset=shapes", output=output)
    compared = tlx.compare(table.folder)
    assert [*compared.to_frame().runs] == [2]
    assert repr(compared) == str(compared)


def test_predictions_are_a_table_with_errors_in_it(swept: tuple[Path, Any], tmp_path: Path) -> None:
    model = tlx.load(swept[1].chosen)
    picture = np.zeros((16, 16, 3), np.uint8)
    table = model.predict([picture, tmp_path / "missing.png"], as_frame=True)
    (first, second) = model.predict([picture, tmp_path / "missing.png"])
    assert [*table.columns] == ["file", "prediction", "probability", "p(circle)", "p(square)", "p(triangle)", "error"]
    assert (table.prediction[0], table.probability[0]) == (first.prediction, first.probability)
    assert table.filter(like="p(").loc[0].sum() == pytest.approx(1)
    assert table.error[1] == second.error
    assert table.isna().sum(axis=1).tolist() == [1, 5]


def test_what_a_notebook_shows_is_escaped_and_small(swept: tuple[Path, Any]) -> None:
    summary = Summary.of(swept[1].chosen, json.loads((swept[1].chosen / "summary.json").read_text()))
    assert "test accuracy" in repr(summary)
    assert len(repr(summary)) < 300
    bad = dataclasses.replace(summary, command="<script>alert(1)</script>", error="<b>", status="failed")
    model = tlx.load(swept[1].chosen)
    model = dataclasses.replace(model, description={**model.description, "classes": ["<i>a", "b", "c"]})
    for shown in (bad._repr_html_(), model._repr_html_()):
        assert not re.search("<(script|b|i)>", shown)
        assert "&lt;" in shown
        assert len(shown) < 6000


def test_a_sweep_is_a_table_with_a_row_a_configuration(swept: tuple[Path, Any]) -> None:
    output, results = swept
    table = results.to_frame()
    assert {*table.configuration} == {"training.lr=0.001", "training.lr=0.01"}
    assert [*table.runs] == [2, 2]
    assert [*table.chosen] == [1, 0]
    assert results.chosen == output / "sweeps" / "rates" / results.chosen.name
    assert len(tlx.load(results.chosen).classes) == 3
    written = (output / "sweeps" / "rates" / "comparison.csv").read_text()
    assert written.splitlines()[0] == ",".join(table.columns)
    assert "<table" in results._repr_html_()
    assert "chosen by validation" in str(results)


def test_what_is_compared_by_name_is_what_the_sweep_gave(swept: tuple[Path, Any]) -> None:
    output, results = swept
    named = tlx.compare("rates", output=str(output))
    assert named.to_frame().equals(results.to_frame())
    assert tlx.compare(results.folders[:1]).to_frame().runs.item() == 1
    assert repr(tlx.load("rates", output=str(output))) == repr(tlx.load(results.chosen))
    with pytest.raises(RequestError, match="did you mean 'rates'"):
        tlx.compare("ratse", output=str(output))


def test_a_job_that_fails_is_a_row_less_and_a_reason_more(tmp_path: Path) -> None:
    results = tlx.sweep({**TINY, "output": tmp_path}, training={"lr": [1e-3, 1e30]}, optimizer="sgd")
    ((command, why),) = results.failed
    assert "training.lr=1e+30" in command
    assert "lower learning rate" in why
    assert [*results.to_frame().runs] == [1]


def test_in_a_notebook_a_run_shows_where_it_stands(tmp_path: Path) -> None:
    code = f"import tlx\nsummary = tlx.run({TINY!r}, output={str(tmp_path)!r})"
    cells = [nbformat.v4.new_code_cell(text) for text in (code, "summary.to_frame()", "tlx.load(summary.folder)")]
    for cell in cells:
        cell.pop("id", None)
    book = nbformat.v4.new_notebook(cells=cells, nbformat_minor=4)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    NotebookClient(book, kernel_name="python3", timeout=None).execute(env=environment, cwd=str(tmp_path))
    (shown,) = [one for one in cells[0].outputs if one.output_type == "display_data"]
    assert shown.data == {"text/html": "", "text/plain": ""}  # gone once the run is through
    lines = "".join(one.text for one in cells[0].outputs if one.output_type == "stream")
    assert lines == ""  # the bar stands for them
    (log,) = tmp_path.glob("2*/*/tlx.log")
    assert "epoch 2/2" in log.read_text()
    assert "<table" in cells[1].outputs[0].data["text/html"]
    assert "tlx model: small_cnn" in cells[2].outputs[0].data["text/plain"]
