"""The model card: metadata as the Hugging Face Hub reads it, and the figures of the run's own files."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import tlx
from tlx.cli.report import report
from tlx.runs import model_card
from tlx.runs.run_summary import Summary


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return tlx.run(
        ["dataset=shapes", "backbone=small_cnn", "backbone.input_size=32", "dataset.train=30",
         "dataset.test=8", "training.epochs=1", "tracking=none", f"output={tmp_path_factory.mktemp('out')}"]
    )  # fmt: skip


def front_of(text: str) -> dict[str, object]:
    _, front, _ = text.split("---\n", 2)
    found: dict[str, object] = yaml.safe_load(front)
    return found


def test_a_run_leaves_a_card_that_the_hub_reads_with_the_figures_of_its_summary(run: Summary) -> None:
    hub = pytest.importorskip("huggingface_hub")
    file = run.folder / "model" / "README.md"
    card = hub.ModelCard.load(file)
    assert (card.data.pipeline_tag, card.data.library_name, card.data.license) == (
        "image-classification", "tlx", "unknown",
    )  # fmt: skip
    values = {(one.metric_type, one.dataset_split): one.metric_value for one in card.data.eval_results}
    assert values["accuracy", "test"] == pytest.approx(run.test_accuracy, abs=1e-4)
    assert ("f1", "test") in values
    front = front_of(file.read_text(encoding="utf-8"))
    assert front["datasets"] == ["shapes"]
    assert "base_model" not in front  # nobody knows of one
    assert yaml.safe_load(yaml.safe_dump(front)) == front


def test_the_text_has_intervals_classes_limits_licences_and_the_command(run: Summary) -> None:
    text = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert run.test_accuracy is not None
    assert run.test_accuracy_interval is not None
    low, high = run.test_accuracy_interval
    assert f"| accuracy | {run.test_accuracy:.1%} | {low:.1%} to {high:.1%} |" in text
    for name, figures in run.per_class.items():
        assert f"| {name} | {figures['images']:.0f} | " in text
    assert f"with {run.images['test']} images, accuracy differences under" in text
    assert "- initial weights: none; licence: none: they were drawn" in text
    assert "- data: unknown" in text
    assert run.command in text
    for heading in ("Intended use", "Figures", "Limits", "Data", "Licences", "How to use it", "How to train it again"):
        assert f"\n## {heading}\n" in text


def test_the_card_and_the_page_of_an_older_run_are_written_by_report(run: Summary, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(run.folder, older)
    card = older / "model" / "README.md"
    expected = card.read_text(encoding="utf-8")
    card.unlink()
    report(str(older), "outputs")
    assert card.read_text(encoding="utf-8") == expected
    assert tlx.load(older).classes == tuple(run.classes)


def test_a_run_without_figures_says_so_and_one_without_a_model_has_no_card(run: Summary, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run.folder, bare)
    summary = json.loads((bare / "summary.json").read_text(encoding="utf-8"))
    summary |= {"metrics": [], "test_accuracy": None, "test_loss": None, "per_class": {}, "classes": ["a|b", "# *c*"]}
    (bare / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (bare / "predictions.csv").unlink()
    for name in ("audit.json", "analysis.json", "config.yaml"):
        (bare / name).unlink()
    assert model_card.write(bare) is not None
    text = (bare / "model" / "README.md").read_text(encoding="utf-8")
    front = front_of(text)
    assert not front.keys() & {"model-index", "metrics", "datasets"}
    assert r"a\|b, \# \*c\*" in text
    assert "not measured" in text
    assert "- audit: not audited" in text
    shutil.rmtree(bare / "model")
    assert model_card.write(bare) is None
