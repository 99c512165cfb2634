"""What every test may use: the real data where it is at hand, and a process that runs tlx as a user does."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Workers share the cores: threads that wait for each other cost more than they give.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Where MLflow is: the tests have stores of their own, whatever the shell says.
MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")
for name in MLFLOW:
    os.environ.pop(name, None)

# Ctrl-C and a closed terminal are sent to processes; a shell that starts the tests in the background, or `nohup`, would
# have them ignore these.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent
Tlx = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("TLX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data is not here ({folder}); set TLX_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def no_store_is_set() -> Iterator[None]:
    """What a test sets is not the next one's: `mlflow.set_tracking_uri` writes into the environment."""
    yield
    for name in (*MLFLOW, "TLX_TRACKING_PASSWORDS"):
        os.environ.pop(name, None)


@pytest.fixture
def tlx(tmp_path: Path) -> Tlx:
    """Runs `python -m tlx …` in an empty folder, as a user does, and returns the finished process."""

    def run(*args: str, cwd: Path = tmp_path, **environment: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", **environment}
        return subprocess.run(
            [sys.executable, "-m", "tlx", *args], cwd=cwd, env=env, capture_output=True, text=True, check=False
        )

    return run
