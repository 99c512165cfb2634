"""Readers and transforms of one's own: found beside the command, however it is started, and in worker processes."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.inference.test_predictor import write_images
from tlx.config.hydra_launchers import Elsewhere

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SCRIPT = "import sys\nfrom tlx.cli.main import main\nsys.exit(main())\n"  # as an installed `tlx` is
TRANSFORM = """
import os


class Blank:
    def __call__(self, image):
        with open(f"blank-{os.getpid()}", "w"):
            return image * 0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the page's reader, its YAML, images, a table of labels, and a transform."""
    folder = tmp_path / "project"
    write_images(folder / "images", ("dark", "light"), 8)
    for kind in ("python", "yaml"):
        found = re.search(rf"```{kind}\n# (my_data.py|my_conf/dataset/table.yaml)[^\n]*\n(.*?)```", PAGE, re.DOTALL)
        assert found
        (folder / found[1]).parent.mkdir(parents=True, exist_ok=True)
        (folder / found[1]).write_text(found[2])
    (folder / "my_transforms.py").write_text(TRANSFORM)
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "label"])
        table.writerows([f"images/{name}/{i}.png", name] for name in ("dark", "light") for i in range(8))
    return folder


def test_the_readmes_reader_and_a_transform_are_found_beside_an_installed_script(project: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tlx").write_text(SCRIPT)
    command = re.search(r"# my_conf/dataset/table.yaml: python -m tlx (.*)", PAGE)
    assert command
    typed = [*command[1].split(), "backbone=small_cnn", "backbone.input_size=16", "strategy=scratch", "tracking=none"]
    typed += ["training.epochs=1", "augmentation.transforms=[{_target_: my_transforms.Blank}]", "runtime.workers=1"]
    start = [sys.executable, str(tmp_path / "bin" / "tlx")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*start, *typed], cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 classes: dark, light" in done.stderr
    assert list(project.glob("blank-*"))
    environment["PYTHONSAFEPATH"] = "1"
    done = subprocess.run([*start, *typed], cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "dataset._target_=my_data.table: cannot be found" in done.stderr


def test_a_launchers_process_finds_them_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    task = Elsewhere(named)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(project)])
    assert torch.equal(task("my_transforms.Blank")()(torch.ones(1)), torch.zeros(1))
    sys.modules.pop("my_transforms")


def named(target: str) -> Any:
    from tlx.config.instantiate import component

    return component({"_target_": target}, "augmentation")
