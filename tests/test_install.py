"""What `pip install .` puts on a machine: all of conf/, the `tlx` script, and the package from any directory."""

import configparser
import email
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed; it is in the extra 'dev'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder that the wheel was unpacked into."""
    folder = wheel.parent / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def in_it(installed: Path, *command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_the_wheel_has_every_module_and_all_of_conf(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {f"tlx/{path.name}" for path in (ROOT / "tlx").glob("*.py")}
    conf = {f"tlx/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(conf) > 40
    assert names == modules | conf


def test_the_distribution_is_not_called_tlx_but_the_script_is(installed: Path) -> None:
    metadata = email.message_from_string(next(installed.glob("*.dist-info/METADATA")).read_text(encoding="utf-8"))
    assert metadata["Name"] == "tlx-transfer"
    entries = configparser.ConfigParser()
    entries.read(next(installed.glob("*.dist-info/entry_points.txt")))
    assert dict(entries["console_scripts"]) == {"tlx": "tlx.__main__:main"}


def test_it_works_from_any_directory(installed: Path, tmp_path: Path) -> None:
    where = in_it(installed, sys.executable, "-c", "import tlx; print(tlx.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()) == installed / "tlx" / "__init__.py"
    module = in_it(installed, sys.executable, "-m", "tlx", "--help", cwd=tmp_path)
    # what an installer writes for the entry point
    script = "import sys; from tlx.__main__ import main; sys.argv[0] = 'tlx'; sys.exit(main())"
    entry = in_it(installed, sys.executable, "-c", script, "--help", cwd=tmp_path)
    assert (module.returncode, entry.returncode) == (0, 0), module.stderr + entry.stderr
    assert module.stdout == entry.stdout
    for path in (ROOT / "conf" / "backbone").glob("*.yaml"):
        assert f"    {path.stem} " in module.stdout
    words = ["backbone=small_cnn", "dataset.train=10", "dataset.test=5", "training.epochs=1", "tracking=none"]
    ran = in_it(installed, sys.executable, "-c", script, *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.glob("outputs/*/*/summary.json"))) == 1
