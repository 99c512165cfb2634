"""A key, an option or an argument without text, as an unset variable leaves it: refused by name, never a folder."""

import argparse
import os
from pathlib import Path

import pytest

import tlx
from tlx.cli.main import main
from tlx.cli.subcommands import subcommands
from tlx.config.compose import compose, without_hydra
from tlx.config.instantiate import component
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.datasets.folder_layout import local
from tlx.datasets.readers import image_folder
from tlx.inference.run_folder import run_folder

KEYS = [
    ["dataset=image_folder", "dataset.root="],
    ["dataset=image_folder", "dataset.root=''"],
    ["dataset=image_folder", "dataset.root=  "],
    ["dataset=image_folder", "dataset.name="],
    ["dataset=image_folder", "dataset.splits.val="],
    ["dataset=cifar10", "dataset.root="],
    ["source=leaves", "source.dataset.root="],
    ["backbone.weights="],
    ["backbone.name="],
    ["backbone.url="],
    ["output="],
    ["tracking.uri="],
    ["tracking.experiment="],
    ["tracking.register="],
    ["sweep.name="],
    ["hydra.run.dir="],
    ["hydra.sweep.dir="],
    ["hydra.sweep.subdir="],
    ["runtime.device="],
    ["strategy.phases.probe.train_from="],
    ["evaluation.samples={_target_: tlx.datasets.image_folder, root: ''}"],
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that would do as a data set and as a run's folder."""
    for name in ("a", "b", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
    (tmp_path / "summary.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", KEYS, ids=" ".join)
def test_an_empty_key_is_refused_by_name_before_anything_is_made(words: list[str], here: Path) -> None:
    before = sorted(here.rglob("*"))
    with pytest.raises(RequestError) as caught:
        tlx.run(words)
    key = words[-1].partition("=")[0]
    assert str(caught.value).startswith(key)
    assert "is empty" in str(caught.value) or "must be" in str(caught.value)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.foo="], ["+backbone.arguments.act=", "backbone=timm", "backbone.name=resnet10t"],
    ],
)  # fmt: skip
def test_what_is_no_path_and_is_only_passed_on_may_be_empty(words: list[str]) -> None:
    words = [word if word.startswith("+") or "foo" not in word else f"+{word}" for word in words]
    checked(without_hydra(compose(words)))


ARGUMENTS = [
    (["predict", "", "a/1.jpg"], "RUN"),
    (["predict", ".", ""], "PATH"),
    (["predict", ".", "a", "--csv", ""], "--csv"),
    (["predict", ".", "a", "--html", " "], "--html"),
    (["evaluate", "", "dataset=shapes"], "RUN"),
    (["evaluate", ".", "dataset=image_folder", "dataset.root="], "dataset.root="),
    (["evaluate", ".", "dataset=shapes", "--json", ""], "--json"),
    (["export", "", "--format", "onnx"], "RUN"),
    (["export", ".", "--format", "onnx", "--to", ""], "--to"),
    (["resume", ""], "RUN"),
    (["compare", ""], "X"),
    (["compare", "x", "--output", ""], "--output"),
    (["compare", "--flipped", "x", ""], "--flipped"),
    (["search", "training.lr=1e-3,1e-2", "output="], "output="),
    (["cache", "--output", ""], "--output"),
    (["weights", "fetch", "resnet18", "--to", ""], "--to"),
    (["data", "--config-dir", ""], "--config-dir"),
    (["data", "verify", "shoes", "dataset.root="], "dataset.root="),
    (["dataset=shapes", ""], "key=value"),
    (["--config-dir", "", "--dry-run"], "--config-dir"),
    (["-m", "dataset=image_folder", "dataset.root=", "seed=0,1"], "dataset.root="),
    (["seeds=2", "hydra.sweep.dir="], "hydra.sweep.dir="),
]


@pytest.mark.parametrize(("words", "name"), ARGUMENTS, ids=[" ".join(words) for words, _ in ARGUMENTS])
def test_an_empty_argument_is_refused_by_name(
    words: list[str], name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said
    assert "is empty" in said
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", subcommands())
def test_every_subcommand_refuses_each_of_its_arguments_without_text(name: str) -> None:
    parser = subcommands()[name].parser()
    parser.no_empty(argparse.Namespace())
    texts = [action for action in parser._actions if action.nargs != 0 and action.type is None]
    assert texts
    for action in texts:
        word = "  " if action.option_strings else ["given", ""]
        with pytest.raises(RequestError, match="is empty"):
            parser.no_empty(argparse.Namespace(**{action.dest: word}))


def test_functions_refuse_it_too() -> None:
    for call in (
        lambda: image_folder(""), lambda: local(""), lambda: run_folder(""),
        lambda: tlx.load(""), component({"_target_": "tlx.datasets.image_folder", "root": ""}, "dataset"),
    ):  # fmt: skip
        with pytest.raises(RequestError, match="is empty"):
            call()
    assert os.listdir()
