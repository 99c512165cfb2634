"""What `pip install .` puts on a machine: all of conf/, the `tlx` script, and the package from any directory."""

import configparser
import email
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tlx").rglob("*.py")}
    conf = {f"tlx/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(conf) > 40
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tlx/reporting/templates").iterdir()}
    assert len(templates) >= 3
    tables = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tlx").rglob("*.yaml")}
    assert names == modules | conf | templates | tables


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
    script = "import sys; from tlx.cli.main import main; sys.argv[0] = 'tlx'; sys.exit(main())"
    entry = in_it(installed, sys.executable, "-c", script, "--help", cwd=tmp_path)
    assert (module.returncode, entry.returncode) == (0, 0), module.stderr + entry.stderr
    assert module.stdout == entry.stdout
    for path in (ROOT / "conf" / "backbone").glob("*.yaml"):
        assert f"    {path.stem} " in module.stdout
    words = ["backbone=small_cnn", "dataset.train=10", "dataset.test=5", "training.epochs=1", "tracking=none"]
    ran = in_it(installed, sys.executable, "-c", script, *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.glob("outputs/*/*/summary.json"))) == 1


# What a run does without, and what only these bring with them; everything else that is declared is needed.
REST = ("mlflow", "simplejpeg", "pandas", "scipy", "sklearn", "requests")


def test_without_mlflow_and_simplejpeg_a_run_trains_and_measures(tmp_path: Path) -> None:
    """A GPU's machine that not all can be installed on: JPEGs are decoded by Pillow, and tracking is refused."""
    code = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {REST} else super().find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
import bench.__main__
from tlx.cli.main import main
sys.exit(main())
"""
    (tmp_path / "bare.py").write_text(code)
    words = ["backbone=small_cnn", "dataset=image_folder", f"dataset.root={pictures(tmp_path / 'pictures')}"]
    words += ["training.epochs=1", "tracking=none", "backbone.input_size=32"]
    ran = in_it(ROOT, sys.executable, str(tmp_path / "bare.py"), *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.glob("outputs/*/*/curves.png"))) == 1
    assert re.search(r"^test accuracy +\d", ran.stdout, re.MULTILINE)
    refused = in_it(ROOT, sys.executable, str(tmp_path / "bare.py"), *words[:-2], cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (
        2, "tlx: tracking: the package mlflow is not installed; install it, or run with tracking=none\n"
    )  # fmt: skip


def pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name / f"{i}.jpg")
    return folder
