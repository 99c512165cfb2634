"""`analysis.json` of a run: what was not looked for, or has failed, is not in it, and all else is."""

import json
from pathlib import Path
from typing import Any

import pytest

import tlx

TINY = {
    "backbone": "small_cnn", "backbone.input_size": 16, "dataset": {"train": 12, "test": 9}, "tracking": "none",
    "training": {"epochs": 1},
}  # fmt: skip


def analysis(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(("each", "looked"), [(12, False), (18, True)])  # images of each of three classes
def test_that_there_are_no_label_errors_is_said_only_where_they_were_looked_for(
    tmp_path: Path, each: int, looked: bool
) -> None:
    folder = tlx.run(TINY | {"dataset": {"train": each, "test": 9}}, output=tmp_path).folder
    found, page = analysis(folder), (folder / "report.html").read_text(encoding="utf-8")
    images = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["images"]["train"]
    assert found.get("label_errors_among") == (images if looked else None)
    assert ("label_errors" in found) == ('id="labels"' in page) == looked
    assert (f"{images:,} training images" in page) == looked


@pytest.mark.parametrize(
    ("fails", "lost"),
    [
        ("attention", {"attention"}),
        ("label_errors", {"label_errors", "label_errors_among"}),
    ],
)
def test_a_part_that_fails_is_one_warning_and_no_other_part_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str, lost: set[str]
) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError("no memory is left")

    monkeypatch.setattr(f"tlx.runs.page_analysis.{fails}", without_memory)
    folder = tlx.run(TINY | {"dataset": {"train": 18, "test": 9}}, output=tmp_path).folder
    every = {"map", "neighbours", "label_errors", "label_errors_among", "attention", "segments", "unknown"}
    assert analysis(folder).keys() == every - lost
    assert (folder / "report.html").is_file()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"analysis.json: {min(lost)} was not written: MemoryError: no memory is left"]
