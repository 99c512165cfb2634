"""A sweep's jobs run through each launcher: one after the other, in processes, as jobs of SLURM, on two machines."""

import functools
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tests.conftest import ROOT
from tlx.config.compose import choices, compose
from tlx.config.hydra_errors import GROUPS
from tlx.config.hydra_launchers import KNOWN, Elsewhere, LostJob, reachable
from tlx.config.multirun import launch
from tlx.core.errors import RequestError

PLUGINS = {"joblib": "joblib", "slurm": "submitit", "slurm_local": "submitit", "ray": "ray"}


def package(preset: str) -> None:
    """Skips the test where the launcher's package is not installed."""
    if preset in PLUGINS:
        pytest.importorskip(f"hydra_plugins.hydra_{PLUGINS[preset]}_launcher", reason=f"launch={preset} is an extra")


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.05)


# The tasks: each is found by its name in the processes that launchers start.


def answer(node: DictConfig) -> dict[str, Any]:
    """What a job sees, resolvers and a configuration composed within it included."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "done").write_text(str(node.seed))
    inner = compose([f"seed={node.seed + 1}"])
    return {
        "seed": node.seed,
        "root": node.dataset.root,
        "folder": str(folder),
        "own": HydraConfig.get().run.dir.rsplit("/", 1)[1][9:],  # through our resolver, after the time
        "crop": node.backbone.resize,
        "inner": inner.seed,
        "phases": sorted(node.strategy.phases),
        "cwd": os.getcwd(),
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def dies(node: DictConfig, seed: int) -> int:
    """Dies like a process out of memory if it is the job of this seed."""
    if node.seed == seed:
        os.kill(os.getpid(), signal.SIGKILL)
    return int(node.seed)


def waits(node: DictConfig, folder: Path) -> int:
    """Says that it is there, and ends when it may."""
    (folder / f"{node.seed}-{os.getpid()}.pid").touch()
    until((folder / "go").exists)
    return int(node.seed)


def jobs(preset: str, *more: str, number: int = 4) -> list[list[str]]:
    return [[f"launch={preset}", f"seed={i}", f"hydra.sweep.subdir=job {i}", *more] for i in range(number)]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own; afterwards everything is as before, and no process is left but joblib's two trackers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    before = set(psutil.Process().children(recursive=True))
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    left = [p for p in psutil.Process().children(recursive=True) if p not in before and p.is_running()]
    assert not [p for p in left if "resource_tracker" not in " ".join(p.cmdline())]
    assert not HydraConfig.initialized()


@pytest.fixture
def two_machines() -> Iterator[Any]:
    """A Ray cluster of two nodes with a core each; RAY_ADDRESS names it."""
    package("ray")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        patch.setenv("RAY_TMPDIR", folder)  # short, for sockets lie in it
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 80_000_000}
        cluster = Cluster()
        try:
            cluster.add_node(**small, include_dashboard=False)
            cluster.add_node(**small)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield cluster
        finally:
            cluster.shutdown()
            signal.signal(signal.SIGTERM, handler)  # starting nodes has changed it


@pytest.mark.parametrize("preset", choices("launch"))
def test_a_preset_names_a_launcher_and_changes_nothing_else(preset: str) -> None:
    package(preset)
    node = compose([f"launch={preset}"])
    name = str(node.hydra.runtime.choices["hydra/launcher"])
    assert preset == KNOWN.get(name, [name])[0]
    plain = compose([])
    assert {key: node[key] for key in node if key != "hydra"} == {key: plain[key] for key in plain if key != "hydra"}
    assert "launch" in GROUPS


def check(found: list[Any], folder: Path) -> None:
    assert [one["seed"] for one in found] == [0, 1, 2, 3]
    for i, one in enumerate(found):
        assert one["root"] == "a b (2)/ü=#"
        assert one["folder"] == str(folder / f"job {i}")
        assert (folder / f"job {i}" / "done").read_text() == str(i)
        assert one["own"] == "small_cnn-ü-mine"  # the data set is called as its folder
        assert one["phases"] == ["probe"]
        assert one["inner"] == i + 1
        assert one["cwd"] == str(Path.cwd())


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A folder with a user's own strategy, relative, as typed."""
    (tmp_path / "my conf" / "strategy").mkdir(parents=True)
    (tmp_path / "my conf" / "strategy" / "mine.yaml").write_text("# Mine\nphases:\n  probe: {train_from: head}\n")
    return "my conf"


TYPED = ["backbone=small_cnn", "strategy=mine", "dataset=image_folder", "dataset.root=a b (2)/ü=#"]


@pytest.mark.parametrize("preset", ["basic", "joblib", "slurm_local"])
def test_four_jobs_give_four_answers_in_their_order(preset: str, tmp_path: Path, own: str) -> None:
    package(preset)
    more = ["hydra.sweeper.max_batch_size=2"] if preset == "slurm_local" else []
    folder = tmp_path / "my outputs (1)" / "s=1"
    found = launch(jobs(preset, *TYPED, *more), answer, folder, own)
    check(found, folder)
    processes = {one["pid"] for one in found}
    assert (processes == {os.getpid()}) == (preset == "basic")
    if preset == "joblib":  # two at a time: each has half of the cores
        from joblib import cpu_count

        assert {one["threads"] for one in found} == {str(max(1, cpu_count() // 2))}
    if preset == "slurm_local":
        assert len(processes) == 4


def test_ray_loses_only_a_job_that_dies_again_and_again_and_repeats_those_of_a_dead_machine(
    two_machines: Any, tmp_path: Path, own: str
) -> None:
    """One test, for one cluster: at its end both machines have a job when one of them is killed."""
    check(launch(jobs("ray", *TYPED), answer, tmp_path / "sweep", own), tmp_path / "sweep")

    more = "hydra.launcher.ray.remote.max_retries=0"
    found = launch(jobs("ray", more), functools.partial(dies, seed=1), tmp_path / "sweep")
    assert [found[0], *found[2:]] == [0, 2, 3]
    assert isinstance(found[1], LostJob)
    assert "died" in found[1].reason

    node = next(node for node in two_machines.list_all_nodes() if node is not two_machines.head_node)

    def kill() -> None:
        until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in [*raylet.children(recursive=True), raylet]:
            process.kill()
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    found = launch(jobs("ray"), functools.partial(waits, folder=tmp_path), tmp_path / "sweep")
    killer.join()
    assert found == [0, 1, 2, 3]
    assert len(list(tmp_path.glob("*.pid"))) == 5  # four jobs, and one of them twice


def test_slurm_loses_only_the_job_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package("slurm_local")
    from submitit import Job

    monkeypatch.setattr(Job, "_results_timeout_s", 0)  # how long a network's file system may take
    more = "hydra.sweeper.max_batch_size=3"
    found = launch(jobs("slurm_local", more, number=3), functools.partial(dies, seed=1), tmp_path)
    assert [found[0], found[2]] == [0, 2]
    assert isinstance(found[1], LostJob)
    assert "ended without an answer; the last line of " in found[1].reason


def test_joblib_ends_all_jobs_when_one_dies_and_works_again(tmp_path: Path) -> None:
    package("joblib")
    task = functools.partial(dies, seed=1)
    found = launch(jobs("joblib"), task, tmp_path)
    assert found == [LostJob("a worker process died (out of memory, or killed), and that ends all of them")] * 4
    assert launch([job for job in jobs("joblib") if "seed=1" not in job], task, tmp_path) == [0, 2, 3]


@pytest.mark.parametrize("preset", ["joblib", "slurm_local"])
def test_an_interrupt_ends_the_jobs(preset: str, tmp_path: Path) -> None:
    package(preset)
    code = f"""
import functools, pathlib
from tests.sweeps.test_launch import jobs, waits; from tlx.config.multirun import launch
here = pathlib.Path.cwd()
launch(jobs({preset!r}), functools.partial(waits, folder=here), here / "sweep")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    until(lambda: list(tmp_path.glob("*.pid")))
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[1]
    until(lambda: not [p for p in tmp_path.glob("*.pid") if psutil.pid_exists(int(p.stem.split("-")[1]))])
    assert process.returncode == -signal.SIGINT


def test_a_machine_that_lacks_the_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    task = Elsewhere(answer)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").rmdir()
    lost = task(DictConfig({}))
    assert lost == LostJob(f"{tmp_path}/mine is not on {os.uname().nodename}; several machines need a shared folder")


def raised(preset: str, *more: str) -> str:
    package(preset)
    with pytest.raises(RequestError) as error:
        launch(jobs(preset, *more), answer, Path("sweep"))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_launched_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    typo = "hydra.launcher.n_job: launch=joblib has no such setting (did you mean 'n_jobs'?)"
    assert raised("joblib", "hydra.launcher.n_job=3") == typo
    absent = "hydra.launcher.n_jobs: launch=basic has no such setting; with launch=joblib it has"
    assert raised("basic", "hydra.launcher.n_jobs=3") == absent
    assert raised("joblib", "hydra.launcher.n_jobs=0") == "launch=joblib: n_jobs == 0 in Parallel has no meaning"
    assert "launch=jobli: no such launch (did you mean 'joblib'?)" in raised("jobli")
    two = [["launch=joblib", "seed=0"], ["launch=basic", "seed=0"]]
    with pytest.raises(RequestError, match="launch=joblib: a sweep has one launcher, the same for all of its jobs"):
        launch(two, answer, Path("sweep"))
    monkeypatch.setenv("PATH", "")
    nothing = "launch=slurm: this machine has no sbatch; launch=slurm_local needs no cluster"
    assert raised("slurm") == nothing
    nowhere = "hydra.launcher.ray.init.address=127.0.0.1:9"
    assert raised("ray", nowhere).startswith("launch=ray: no cluster answers at 127.0.0.1:9 (")


def test_what_starts_the_jobs_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def slurm(sinfo: str) -> str:
        for name, does in (("sbatch", "exit 1"), ("srun", "exit 1"), ("sinfo", sinfo)):
            (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
            (tmp_path / name).chmod(0o755)
        try:
            reachable("submitit_slurm", {})
        except RequestError as error:
            return str(error)
        return ""

    assert slurm('echo "main* up"') == ""
    head = "launch=slurm: SLURM's controller does not answer"
    assert slurm("echo 'slurm_load_partitions: Unable to contact' >&2; exit 1") == (
        f"{head} (slurm_load_partitions: Unable to contact)"
    )
    assert slurm("exit 3") == f"{head} (exit code 3)"
    assert slurm("exec sleep 60") == f"{head} (sinfo waited 5 s)"

    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        reachable("ray", {"ray": {"init": {"address": here}}})
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{here}")
        reachable("ray", {"ray": {"init": {"address": None}}})
    with pytest.raises(RequestError, match=rf"launch=ray: no cluster answers at ray://{here} \("):
        reachable("ray", {"ray": {"init": {}}})
    for name in ("basic", "joblib", "submitit_local"):
        reachable(name, {})


MISSING = {
    "joblib": "launch=joblib: needs the package hydra-joblib-launcher; pip install 'tlx-transfer[joblib]'",
    "slurm": "launch=slurm: needs the package hydra-submitit-launcher; pip install 'tlx-transfer[slurm]'",
    "slurm_local": "launch=slurm_local: needs the package hydra-submitit-launcher; pip install 'tlx-transfer[slurm]'",
    "ray": "launch=ray: needs the package hydra-ray-launcher; pip install 'tlx-transfer[ray]'",
}


def test_a_launcher_whose_package_is_missing_is_said_in_one_line() -> None:
    code = f"""
import sys
sys.modules["hydra_plugins"] = None  # as where none is installed
from tlx.config.compose import compose
from tlx.core.errors import RequestError
compose(["launch=basic"])
for preset, line in {MISSING!r}.items():
    try:
        compose([f"launch={{preset}}"])
    except RequestError as error:
        assert str(error) == line, error
    else:
        raise AssertionError(preset)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_extras_bring_what_the_presets_need() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for _, name, extra in KNOWN.values():
        assert any(one.startswith(name) for one in extras[extra])
        assert extra in extras["dev"][0]
    assert {preset for preset, _, _ in KNOWN.values()} | {"basic"} == set(choices("launch"))
    assert importlib.util.find_spec("tests.sweeps.test_launch")  # where the processes find the tasks
