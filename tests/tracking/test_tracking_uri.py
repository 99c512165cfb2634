"""Where MLflow is when the configuration does not say it; and a server's password, which no file and no word holds."""

import base64
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from tests.cli.test_sync import TRAIN
from tests.conftest import ROOT
from tests.tracking.folders import begun
from tests.tracking.test_tracking import Server
from tlx.cli.main import main
from tlx.config import compose, tracking_uri
from tlx.config.schema import Tracking
from tlx.config.validation import checked
from tlx.core.errors import RequestError, shown
from tlx.runs.request import run_overrides
from tlx.tracking import tracker

# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
USER, SECRET = "mé", "sEcr3t@/:%,ü"


class Guard(http.server.BaseHTTPRequestHandler):
    """A proxy before a real server, which lets in who knows the password, by HTTP's own means."""

    server: Any

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = self.headers.get("Authorization", "")
        if said != "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode():
            self.send(401, b"who are you?")
            return
        headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Authorization")}
        request = urllib.request.Request(self.server.behind + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as found:
                self.send(found.status, found.read())
        except urllib.error.HTTPError as error:
            self.send(error.code, error.read())

    def send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A real server, and the address of the proxy before it."""
    behind = Server(tmp_path_factory.mktemp("server"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guard) as proxy:
        proxy.behind = behind.uri  # type: ignore[attr-defined]
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield behind, f"127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
    behind.kill()


def holding(folder: Path) -> list[str]:
    """The files that hold the password in some spelling."""
    spellings = {SECRET, quote(SECRET, safe=""), quote(SECRET), json.dumps(SECRET)[1:-1]}
    spellings |= {base64.b64encode(f"{USER}:{SECRET}".encode()).decode()}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(one.encode() in path.read_bytes() for one in spellings)]


def arguments_of_all_processes() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield process.read_bytes()
        except OSError:
            continue


def test_a_password_opens_the_server_and_is_nowhere_to_be_found(
    guarded: tuple[Server, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    behind, host = guarded
    monkeypatch.chdir(tmp_path)
    full = f"http://{quote(USER)}:{quote(SECRET, safe='')}@{host}"
    typed = [*TRAIN, "tracking=server", f"tracking.uri={full}", "tracking.register=kept", "sweep.name=s"]
    seen: list[bytes] = []
    changed = tracker.MlflowTracker.changed

    def watched(*given: Any, **more: Any) -> None:
        seen.extend(arguments_of_all_processes())
        changed(*given, **more)

    monkeypatch.setattr(tracker.MlflowTracker, "changed", watched)
    assert main(["-m", *typed, "seed=0"]) == 0
    capfd.readouterr()
    summary = run_overrides([*typed[:-1], "seed=1"])
    (tmp_path / "said").write_text("\n".join(capfd.readouterr()))
    found = MlflowClient(behind.uri)
    run = found.get_run(summary.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert {"summary.json", "plots"} <= {file.path for file in found.list_artifacts(run.info.run_id)}
    assert len(found.search_model_versions("name='kept'")) == 2
    assert f"tracking.uri=http://{quote(USER)}@{host}" in run.data.tags["tlx.command"]
    assert not holding(tmp_path)
    assert not holding(behind.folder)
    assert not [line for line in seen if SECRET.encode() in line or quote(SECRET, safe="").encode() in line]
    # It is not kept: later it must be said again.
    del os.environ[tracking_uri.KEPT]
    assert main(["sync", str(summary.folder)]) == 2
    assert f"the password of '{quote(USER)}' is not known" in capfd.readouterr().err
    assert main(["sync", str(summary.folder), f"tracking.uri={full}"]) == 0
    del os.environ[tracking_uri.KEPT]
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    assert main(["sync", str(summary.folder)]) == 0
    assert not holding(tmp_path)


def test_who_is_not_let_in_reads_so_without_the_password(
    guarded: tuple[Server, str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for user in ("", "me:wr0ng@"):
        assert main([*TRAIN, "tracking=server", f"tracking.uri=http://{user}{guarded[1]}"]) == 2
        said = capfd.readouterr().err
        assert (
            "refuses the login (HTTP 401): it requires a user name and a password; set MLFLOW_TRACKING_USERNAME" in said
        )
        assert "wr0ng" not in said
        assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "address", "password"),
    [
        ("http://u:p@h:5000", "http://u@h:5000", "p"),
        ("http://u:p@ss@h", "http://u@h", "p@ss"),
        ("http://u:1234@h", "http://u@h", "1234"),
        ("https://u:a/b?c#d e@h/path", "https://u@h/path", "a/b?c#d e"),
        ("http://:token@h", "http://@h", "token"),
        ("postgresql+psycopg2://u:p@h/db", "postgresql+psycopg2://u@h/db", "p"),
        ("http://h:5000", "http://h:5000", None),
        ("http://h:5000/a@b", "http://h:5000/a@b", None),
        ("sqlite:////srv/a:b@c.db", "sqlite:////srv/a:b@c.db", None),
        ("http://u:${oc.env:P}@h", "http://u:${oc.env:P}@h", None),
        ("http://u:***@h", "http://u@h", None),
    ],
)
def test_a_password_is_taken_out_of_an_address_and_of_a_command_line(
    uri: str, address: str, password: str | None
) -> None:
    assert tracking_uri.hidden(uri) == address
    assert tracking_uri._kept() == ({} if password is None else {address: password})
    word, quoted, other = tracking_uri.typed([f"tracking.uri={uri}", f"++tracking.uri='{uri}'", "seed=1"])
    assert (word, quoted, other) == (f"tracking.uri={address}", f"++tracking.uri='{address}'", "seed=1")
    assert set(tracking_uri._kept().values()) == ({password} if password else set())
    if password and "://@" not in address and address.startswith("http"):
        assert tracking_uri.opened(address)[1] == ("u", password)
    if password and address.startswith("postgresql"):
        assert tracking_uri.opened(address) == (uri, None)


def test_no_error_shows_a_password() -> None:
    for text in ("http://u:p@ss@h/x", "at 'postgresql://u:p@h/db': no", "tracking.uri=http://u:p/q@h:1 failed"):
        assert "***@h" in shown(text)
        assert "p@" not in shown(text)
        assert "p/q" not in shown(text)
    assert shown("http://h:5000/a@b") == "http://h:5000/a@b"


def settings(*typed: str) -> Tracking:
    return checked(compose.without_hydra(compose.compose(list(typed)))).tracking


def test_mlflows_environment_decides_where_the_configuration_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (settings().uri, settings().experiment) == (None, "tlx")
    assert list(tracking_uri.lines(settings())) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:p@team:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team exp")
    found = settings()
    assert (found.uri, found.experiment) == ("http://u@team:5000", "team exp")
    (line,) = tracking_uri.lines(found)
    assert line == (
        "MLflow: tracking.uri=http://u@team:5000 (MLFLOW_TRACKING_URI says so), "
        "tracking.experiment=team exp (MLFLOW_EXPERIMENT_NAME says so)"
    )
    assert tracking_uri.overrides(found, ["seed=1"]) == [
        "tracking.uri=http://u@team:5000",
        "tracking.experiment=team exp",
    ]
    given = settings("tracking.uri=sqlite:///mine.db", "tracking.experiment=mine")
    assert (given.uri, given.experiment) == ("sqlite:///mine.db", "mine")
    assert list(tracking_uri.lines(given)) == [
        "MLflow: MLFLOW_TRACKING_URI is not used: tracking.uri=sqlite:///mine.db is given",
        "MLflow: MLFLOW_EXPERIMENT_NAME is not used: tracking.experiment=mine is given",
    ]
    assert tracking_uri.overrides(given, []) == []
    assert list(tracking_uri.lines(settings("tracking=none"))) == []


def test_an_experiments_id_in_the_environment_decides_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    found = settings()
    assert (found.uri, found.experiment) == (None, "id:7")
    assert list(tracking_uri.lines(found)) == ["MLflow: tracking.experiment=id:7 (MLFLOW_EXPERIMENT_ID says so)"]
    assert settings(*tracking_uri.overrides(found, [])).experiment == "id:7"
    given = settings("tracking.experiment=mine")
    assert list(tracking_uri.lines(given)) == [
        "MLflow: MLFLOW_EXPERIMENT_ID is not used: tracking.experiment=mine is given"
    ]
    other = settings("tracking.uri=sqlite:///mine.db")
    assert other.experiment == "tlx"
    assert list(tracking_uri.lines(other)) == [
        "MLflow: MLFLOW_EXPERIMENT_ID is not used: it is an id of another store than tracking.uri=sqlite:///mine.db"
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    assert settings().experiment == "id:7"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team exp")
    assert settings().experiment == "team exp"


def test_runs_are_written_to_the_experiment_of_an_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"sqlite:///{tmp_path}/team.db"
    store = MlflowClient(uri)
    known = store.create_experiment("team exp", artifact_location=(tmp_path / "mlartifacts").as_uri())
    found = []
    for number in (known, "99"):
        run = tracker.open(Tracking(uri=uri, experiment=f"id:{number}", system_metrics=False), tmp_path)
        with caplog.at_level("INFO"):
            run.start(begun(tmp_path / number, status="finished"))
            assert run.finish() == ""
        found.append(store.get_experiment(store.get_run(run.run_id).info.experiment_id).name)
    assert found == ["team exp", "tlx"]
    said = "MLflow: tracking.experiment=id:99: this store has no experiment of that id; 'tlx' is taken"
    assert said in caplog.messages


def test_a_store_of_the_environment_that_cannot_be_used_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(RequestError, match=r"^MLFLOW_TRACKING_URI: './mlruns' is not an MLflow store; .*tracking=none"):
        tracker.open(settings(), tmp_path)


def test_a_run_within_mlflow_run_and_a_deleted_experiment(tmp_path: Path) -> None:
    """What `mlflow run` sets does not disturb; an experiment that was deleted comes back, and that is said."""
    uri = f"sqlite:///{tmp_path}/team.db"
    own = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": "team exp", "MLFLOW_EXPERIMENT_ID": "7"}
    env = {**os.environ, **own, "MLFLOW_RUN_ID": "0" * 32, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    store = MlflowClient(uri)
    store.delete_experiment(store.create_experiment("team exp", artifact_location=(tmp_path / "mlartifacts").as_uri()))
    done = subprocess.run(
        [sys.executable, "-m", "tlx", *TRAIN], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert f"MLflow: tracking.uri={uri} (MLFLOW_TRACKING_URI says so)" in done.stderr
    assert "MLflow: the experiment 'team exp' had been deleted: it is back" in done.stderr
    experiment = store.get_experiment_by_name("team exp")
    assert experiment is not None
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert not (tmp_path / "outputs" / "mlflow.db").exists()
    (config,) = tmp_path.glob("outputs/*/*/config.yaml")
    assert re.search(rf"uri: {re.escape(uri)}\n  experiment: team exp\n", config.read_text())
