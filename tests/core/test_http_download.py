"""What a host may do to a download: keep silent, stall, lie, send too much; it is known in time and leaves nothing."""

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datasets.test_archives import serving
from tlx.core import http_download
from tlx.core.http_download import download, intact, making, probe, transfer
from tlx.core.safe_archive import Refused

CONTENT = b"weights" * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def stalling() -> Iterator[str]:
    """An address that promises 1,000 bytes, sends 10, and keeps the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(10_000)
                client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")
                done.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_all_hosts_are_tried_at_once_and_silence_is_a_result(silent: str) -> None:
    began = time.monotonic()
    with serving({}) as (host, _):
        responses = probe([f"{silent}/a", f"{silent}/b", f"{host}/c"], seconds=0.5)
    assert time.monotonic() - began < 1.5
    assert [response.status for response in responses.values()] == [None, None, 501]
    assert all(response.refused in ("no answer within 0.5 s", "timed out") for response in list(responses.values())[:2])


def test_a_proxy_that_hangs_is_no_answer(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", silent)
        (response,) = probe([f"{scheme}://nowhere.invalid/x"], seconds=0.3).values()
        assert response.status is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:0/x", "http://[::1/x", "nothing", "http:///x", ""])
def test_an_address_that_is_none_is_refused_with_a_reason_in_one_line(url: str) -> None:
    (response,) = probe([url]).values()
    assert response.status is None
    assert response.refused
    assert "\n" not in response.refused


def test_a_transfer_that_stalls_is_given_up(stalling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_download, "STALL_SECONDS", 0.3)
    with pytest.raises(Refused, match="it breaks off: timed out"):
        transfer(f"{stalling}/x", tmp_path / "x")


def test_more_bytes_than_the_limit_are_refused(tmp_path: Path) -> None:
    with serving({"/x": CONTENT}) as (host, _):
        with pytest.raises(Refused, match="larger than the 6,999 bytes expected at most"):
            transfer(f"{host}/x", tmp_path / "x", limit=6_999)
        assert transfer(f"{host}/x", tmp_path / "x", limit=7_000).read_bytes() == CONTENT


def test_a_long_transfer_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http_download, "SAID_EVERY", 0.0)
    with serving({"/x": bytes(3_000_000)}) as (host, _):
        transfer(f"{host}/x", tmp_path / "x")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"downloading x (3 MB) from {host}/x"
    assert said[-1] == "x: 3 MB so far"


def test_a_download_replaces_what_is_damaged_and_keeps_what_is_whole(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"half")
    assert not intact(tmp_path / NAME)
    with serving({f"/{NAME}": CONTENT}) as (host, requests):
        for _ in range(2):
            download(f"{host}/{NAME}", tmp_path / NAME)
        assert (tmp_path / NAME).read_bytes() == CONTENT
        assert requests == {f"/{NAME}": 1}
    assert left(tmp_path) == {NAME}


def test_another_file_never_takes_the_place_of_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"half")
    with (
        serving({f"/{NAME}": b"other"}) as (host, _),
        pytest.raises(Refused, match="the downloaded file is a different one: sha256 d9298a10…, not"),
    ):
        download(f"{host}/{NAME}", tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == b"half"
    assert left(tmp_path) == {NAME}


def test_one_at_a_time_makes_a_file(tmp_path: Path) -> None:
    inside, most = 0, 0

    def make() -> None:
        nonlocal inside, most
        with making(tmp_path / "new" / "x"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert left(tmp_path / "new") == set()


def test_a_file_that_a_host_lacks_leaves_not_even_a_folder(tmp_path: Path) -> None:
    class Lacking(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lacking) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(Refused, match="HTTP 404 Not Found"):
                download(f"http://127.0.0.1:{server.server_port}/{NAME}", tmp_path / "new" / NAME)
        finally:
            server.shutdown()
            thread.join()
    assert not list(tmp_path.iterdir())
