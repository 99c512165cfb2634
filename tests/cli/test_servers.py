"""`ui` and `serve`: which port, what is printed, and one line where they cannot start; README's tests start them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlx.cli import serve
from tlx.cli.main import main
from tlx.core.errors import RequestError
from tlx.tracking import local_server
from tlx.tracking.local_server import HOST, LocalServer, ServerError, port_to_use


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_a_port_in_use_is_passed_over_or_named(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = port_to_use(None, taken)
    assert taken < free <= taken + local_server.TRIED
    assert port_to_use(free, taken) == free
    assert port_to_use(0, taken) not in (0, taken)
    with pytest.raises(RequestError, match=rf"^--port {taken}: is in use; \d+ is free, and --port 0 takes any that is"):
        port_to_use(taken, 1)
    with pytest.raises(RequestError, match=r"^--port 70000: must be from 1 to 65535, or 0 for any that is free$"):
        port_to_use(70000, 1)
    monkeypatch.setattr(local_server, "TRIED", 1)
    with pytest.raises(RequestError, match=f"^--port {taken}: it and the next 1 ports are in use"):
        port_to_use(None, taken)


def test_a_server_that_does_not_start_is_one_line() -> None:
    code = "import sys; print('Traceback'); sys.exit('the reason')"
    with (
        pytest.raises(ServerError, match=r"^the server has not started: the reason$"),
        LocalServer([sys.executable, "-c", code], 9) as server,
    ):
        server.wait_until_it_answers("/")


def test_what_a_server_has_started_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
import os, time
if (inner := os.fork()):
    with open({str(pid)!r}, "w") as file:
        file.write(str(inner))
time.sleep(600)
"""
    with LocalServer([sys.executable, "-c", code], 9):
        while not pid.exists() or not pid.read_text():
            pass
    alive = subprocess.run(["ps", "-o", "stat=", "-p", pid.read_text()], capture_output=True, text=True).stdout.strip()
    assert alive[:1] in ("", "Z")  # gone, or waiting for who has adopted it to see that


def test_what_cannot_be_shown_or_served_is_one_line(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*words: str) -> str:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        return err.strip()

    assert refused("ui") == (
        "tlx: outputs/mlflow.db: no such file, so MLflow has no run of this folder; python -m tlx makes one, "
        "--output FOLDER names another folder"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    assert "; MLFLOW_TRACKING_URI sends runs to http://me:***@host:5000; " in refused("ui")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mlflow.db").touch()
    assert refused("ui", "--port", str(taken)).startswith(f"tlx: --port {taken}: is in use; ")
    assert refused("serve", "latest").startswith("tlx: latest: no run is finished in outputs; ")
    assert refused("serve", "outputs") == (
        "tlx: outputs: no saved model here (outputs/model.safetensors is missing); give a run's folder"
    )


def test_the_curl_command_quotes_a_files_name_and_goes_round_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    image = tmp_path / "it's a photo.jpg"
    image.write_bytes(bytes(range(256)) * 10)
    command = serve.curl("http://127.0.0.1:1", str(image))
    assert "--noproxy" not in command
    sent = subprocess.run(["sh", "-c", command.partition(" | curl")[0]], capture_output=True, text=True, check=True)
    assert sent.stdout.startswith('{"inputs": ["AAECAw')
    assert "\n" not in sent.stdout
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert "curl -s --noproxy '*' http://127.0.0.1:1/invocations" in serve.curl("http://127.0.0.1:1", str(image))
