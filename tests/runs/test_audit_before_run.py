"""The audit of a run's data: said before training in few lines, kept in the run's folder, paid for once."""

import html
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.analysis.test_audit import clean, pixels, save
from tests.config.test_compose import config_of
from tlx.analysis.image_facts import facts_of
from tlx.cli.main import main
from tlx.runs.request import run_overrides
from tlx.runs.run import run

FAST = ["backbone=small_cnn", "strategy=scratch", "backbone.input_size=32", "tracking=none", "training.epochs=1"]


def words(root: Path, output: Path, *more: str) -> list[str]:
    return [*FAST, "dataset=image_folder", f"dataset.root={root}", f"output={output}", *more]


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Of the test images one is in train, saved anew; two images of train are equal, two have one colour."""
    root = clean(tmp_path / "data")
    Image.open(root / "train/cat/train-cat-0.png").save(root / "test/cat/anew.bmp")
    shutil.copy(root / "train/dog/train-dog-1.png", root / "train/dog/twice.png")
    for i in (1, 2):
        save(root / f"train/cat/grey-{i}.png", Image.new("RGB", (96, 96), (90 * i, 90, 90)))
    return root


def test_findings_are_said_in_five_lines_at_most_and_kept(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (faulty / "train/.old").mkdir()
    save(faulty / "train/.old/1.png")
    for i in range(8):
        save(faulty / f"train/dog/tiny-{i}.png", pixels(f"tiny {i}", (8, 8)))
        save(faulty / f"train/cat/dark-{i}.png", pixels(f"dark {i}").point(lambda v: v // 10))
    summary = run_overrides(words(faulty, tmp_path / "out"))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audit: ")]
    assert 1 < len(lines) <= 5
    assert "1 of 7 test images is also in train" in lines[0]
    assert lines[-1].endswith(" more findings are in audit.json, and in report.html when the run has ended")
    page = html.unescape((summary.folder / "report.html").read_text())
    kept = json.loads((summary.folder / "audit.json").read_text())
    assert next(finding["kind"] for finding in kept) == "test_copies"
    assert all(finding["message"] in page for finding in kept)
    assert {"constant", "very_dark", "tiny", "hidden_folder"} <= {finding["kind"] for finding in kept}
    monkeypatch.setattr("tlx.analysis.fact_reading.facts_of", lambda *_: pytest.fail("a picture is looked at again"))
    again = run_overrides(words(faulty, tmp_path / "out", "seed=1"))
    assert (again.folder / "audit.json").is_file()


def test_a_second_run_takes_what_the_first_has_found_but_looks_at_folders_and_at_changed_images(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def findings() -> list[dict[str, Any]]:
        text = (run_overrides(words(faulty, tmp_path / "out", "resume=never")).folder / "audit.json").read_text()
        return [dict(finding) for finding in json.loads(text)]

    first = findings()
    with monkeypatch.context() as patched:
        patched.setattr("tlx.analysis.audit.numbered", lambda *_: pytest.fail("a check is made again"))
        assert findings() == first
        (faulty / "train/.old").mkdir()
        save(faulty / "train/.old/1.png")
        more = findings()
        assert [finding for finding in more if finding["kind"] != "hidden_folder"] == first
        assert len(more) == 1 + len(first)
    save(faulty / "train/cat/grey-3.png", Image.new("RGB", (96, 96), (40, 90, 90)))
    constant = next(finding for finding in findings() if finding["kind"] == "constant")
    assert constant["count"] == 3


@pytest.mark.parametrize("store", [0, 10**9])
def test_each_picture_is_looked_at_once_whether_or_not_anything_is_kept(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: int
) -> None:
    looked = list[str]()

    def counted(content: bytes, digest: str, *more: Any) -> Any:
        looked.append(digest)
        return facts_of(content, digest, *more)

    monkeypatch.setattr("tlx.analysis.fact_reading.facts_of", counted)
    save(faulty / "test/dog/of-this-test.png", pixels(str(tmp_path)))
    run_overrides(words(faulty, tmp_path / "out", "dataset.drop_duplicates=true", f"features.store={store}"))
    files = [path for path in faulty.rglob("*") if path.is_file()]
    assert 0 < len(looked) <= len(files)


@pytest.mark.parametrize("anew", [0, 2])
def test_copies_are_said_again_only_where_some_are_no_equal_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], anew: int
) -> None:
    root = clean(tmp_path / "data")
    for kind, (of, to) in {"test": ("cat", "cat"), "train": ("cat", "dog")}.items():
        number = 0 if kind == "test" else 3
        shutil.copy(root / f"train/{of}/train-{of}-{number}.png", root / f"{kind}/{to}/equal.png")
        for i in range(1, 1 + anew):
            Image.open(root / f"train/{of}/train-{of}-{number + i}.png").save(root / f"{kind}/{to}/anew-{i}.bmp")
    run_overrides(words(root, tmp_path / "out"))
    said = capsys.readouterr().err
    assert "copies: 1 of " in said
    assert "copies: 2 images are also there under another label" in said
    audited = [line for line in said.splitlines() if line.startswith("audit: ")]
    assert len(audited) == (2 if anew else 0)
    assert not anew or any(f"{1 + anew} of {7 + anew} test images are also in train or val" in line for line in audited)


def test_clean_data_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_overrides(words(clean(tmp_path / "data"), tmp_path / "out"))
    assert "audit" not in capsys.readouterr().err
    assert json.loads((summary.folder / "audit.json").read_text()) == []


def test_with_fail_an_error_ends_the_run_before_it_trains(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(faulty, tmp_path / "out", "dataset.audit=fail")) == 1
    said = capsys.readouterr().err
    assert "tlx: dataset.audit=fail: 1 of 7 test images is also in train" in said
    (folder,) = (tmp_path / "out").glob("*-*/*")
    assert (folder / "audit.json").is_file()
    assert not (folder / "metrics.jsonl").exists()
    assert main(words(faulty, tmp_path / "out", "dataset.audit=off")) == 0
    assert "audit:" not in capsys.readouterr().err


def test_a_run_that_goes_on_is_not_audited_again(faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(row: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    typed, folder = words(faulty, tmp_path, "training.epochs=2", "dataset.audit=fail"), tmp_path / "run"
    with monkeypatch.context() as patched:  # as if an earlier version had not found it
        patched.setattr("tlx.analysis.audit.numbered", lambda *_: [])
        with pytest.raises(KeyboardInterrupt):
            run(config_of(*typed), folder, command="", watch=stop)
    assert main(["resume", str(folder)]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads((folder / "audit.json").read_text()) == []


def test_a_check_that_fails_ends_a_run_only_with_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: object) -> None:
        raise ValueError("a picture of 0 pixels")

    monkeypatch.setattr("tlx.analysis.audit.numbered", check)
    root = clean(tmp_path / "data")
    summary = run_overrides(words(root, tmp_path / "out"))
    assert summary.status == "finished"
    assert not (summary.folder / "audit.json").exists()
    said = capsys.readouterr().err
    assert said.count("warning: the audit was not made: ValueError: a picture of 0 pixels") == 1
    with pytest.raises(ValueError, match="0 pixels"):
        run_overrides(words(root, tmp_path / "out", "dataset.audit=fail"))


def test_copies_are_left_out_of_train_alone_and_the_test_set_stays(faulty: Path, tmp_path: Path) -> None:
    plain = run_overrides(words(faulty, tmp_path / "out", "dataset.audit=off"))
    dropped = run_overrides(words(faulty, tmp_path / "out", "dataset.audit=fail", "dataset.drop_duplicates=true"))
    again = run_overrides(words(faulty, tmp_path / "out", "dataset.drop_duplicates=true"))
    assert dropped.images["test"] == plain.images["test"]
    assert dropped.images["val"] == plain.images["val"]
    assert dropped.images["train"] < plain.images["train"]
    assert dropped.identity == again.identity != plain.identity
    assert any(line.startswith("drop_duplicates: ") for line in dropped.notes)


def test_listed_images_are_left_out_and_it_is_said(faulty: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# grey\ntrain/cat/grey-1.png\ntest/cat/anew.bmp\nnone.png\n")
    summary = run_overrides(words(faulty, tmp_path / "out", f"dataset.exclude={tmp_path / 'list'}"))
    assert sum(summary.images.values()) == 22 - 1
    (line,) = (line for line in summary.notes if line.startswith("exclude: "))
    assert "1 of its paths are test images, which stay; 1 are not in the data set (none.png)" in line


def test_pixels_in_memory_are_audited_and_what_is_uncertain_is_not_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run_overrides([*FAST, "dataset.train=5", "dataset.test=2", f"output={tmp_path}"])
    assert all(finding.get("certainty") for finding in json.loads((summary.folder / "audit.json").read_text()))
    assert "audit:" not in capsys.readouterr().err
