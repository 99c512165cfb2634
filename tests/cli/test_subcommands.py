"""Each subcommand is one module with one typed constant; all are listed, and a run imports none of them."""

import dataclasses
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tlx.cli.main import main
from tlx.cli.subcommand import Subcommand
from tlx.cli.subcommands import subcommands


def test_every_module_that_defines_a_subcommand_is_listed_by_its_name() -> None:
    modules = {path.stem: import_module(f"tlx.cli.{path.stem}") for path in (ROOT / "tlx/cli").glob("[a-z]*.py")}
    defined = {name: module.SUBCOMMAND for name, module in modules.items() if hasattr(module, "SUBCOMMAND")}
    assert defined == subcommands()
    for name, subcommand in defined.items():
        assert isinstance(subcommand, Subcommand)
        assert subcommand.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            subcommand.name = "other"  # type: ignore[misc]


def test_help_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, subcommand in subcommands().items():
        assert f"python -m tlx {name} …" in printed
        assert f" {subcommand.summary}\n" in printed


def test_a_run_imports_no_subcommand_and_the_list_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from tlx.cli.main import main
from tlx.cli.subcommands import subcommands
assert main(["--version"]) == 0 and main(["sede=3"]) == 2
assert not [name for name in ("compare", "data", "predict", "search") if f"tlx.cli.{name}" in sys.modules]
subcommands()
assert "tlx.cli.predict" in sys.modules
assert not {"torch", "torchvision", "timm", "mlflow", "matplotlib", "optuna"} & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
