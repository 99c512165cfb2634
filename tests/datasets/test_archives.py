"""What comes over the network is the official file or nothing: checked, unpacked safely, whole or not there."""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import random
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.conftest import ROOT
from tlx.core import safe_archive as unpacking
from tlx.core.errors import RequestError
from tlx.core.http_download import probe
from tlx.core.safe_archive import Refused, content_digest, unpack
from tlx.datasets import archives, readers
from tlx.datasets.archives import Archive, home, obtain, pending

FILES = {"data/a/1.txt": b"one", "data/a/2.txt": b"two" * 1000, "data/b.txt": b"", "data/.DS_Store": b"litter"}
WANTED = {"a/1.txt": b"one", "a/2.txt": b"two" * 1000, "b.txt": b""}


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Host(http.server.BaseHTTPRequestHandler):
    """Serves `files`; `cut` says after how many bytes the connection ends."""

    files: ClassVar[dict[str, bytes]]
    requests: ClassVar[Counter[str]]
    cut: ClassVar[int | None] = None

    def do_GET(self) -> None:
        self.requests[self.path] += 1
        body = self.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write((body or b"")[: self.cut])

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(files: dict[str, bytes], cut: int | None = None) -> Iterator[tuple[str, Counter[str]]]:
    requests: Counter[str] = Counter()
    handler = type("Handler", (Host,), {"files": files, "requests": requests, "cut": cut})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def dropping() -> Iterator[str]:
    """An address that drops packets: its queue of connections is full, so the kernel ignores every new one."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        time.sleep(0.1)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def archive(body: bytes, *urls: str, **changes: object) -> Archive:
    checksum = f"md5:{hashlib.md5(body).hexdigest()}"
    whole = Archive(urls, checksum, size=1_000_000, unpacked=1_000_000, folder="data")
    return dataclasses.replace(whole, **changes)


# ---------------------------------------------------------------- downloading


@pytest.mark.parametrize("pack", [tar, zipped])
def test_the_archives_folder_appears_and_nothing_else(pack: functools.partial[bytes], tmp_path: Path) -> None:
    body = pack(FILES)
    with serving({"/x/set.tar.gz": body}) as (host, requests):
        wanted = archive(body, f"{host}/x/set.tar.gz")
        target = tmp_path / "home" / "set"
        assert pending(wanted, target) == f"set.tar.gz (up to 1 MB) from {host}/x/set.tar.gz to {target}"
        obtain(wanted, target, offline=False)
        assert content(target) == WANTED
        assert pending(wanted, target) is None
        obtain(wanted, target, offline=True)  # it is there
    assert requests == {"/x/set.tar.gz": 1}
    assert {p.name for p in target.parent.iterdir()} <= {"set", ".set.lock"}


def test_a_download_is_announced_with_name_size_and_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = tar(FILES)
    with serving({"/set.tar.gz": body}) as (host, _):
        obtain(archive(body, f"{host}/set.tar.gz"), tmp_path / "set", offline=False)
    out, err = capsys.readouterr()
    assert err == f"downloading set.tar.gz (0 MB) from {host}/set.tar.gz\n"
    assert out == ""


@pytest.mark.parametrize("trouble", ["closed", "dropping", "missing", "other content", "no archive", "cut", "longer"])
def test_the_second_source_is_used_when_the_first_fails(
    trouble: str, tmp_path: Path, closed: str, dropping: str
) -> None:
    body = tar(FILES)
    first = {"missing": {}, "other content": {"/set.tar.gz": tar({"data/a": b"other"})}}.get(
        trouble, {"/set.tar.gz": body}
    )
    if trouble == "no archive":
        first = {"/set.tar.gz": b"<html>sorry</html>"}
    if trouble == "longer":
        first = {"/set.tar.gz": body + bytes(1_000_000)}
    with serving(first, 100 if trouble == "cut" else None) as (one, _), serving({"/set.tar.gz": body}) as (two, _):
        one = {"closed": closed, "dropping": dropping}.get(trouble, one)
        obtain(archive(body, f"{one}/set.tar.gz", f"{two}/set.tar.gz"), tmp_path / "set", offline=False)
    assert content(tmp_path / "set") == WANTED


@pytest.mark.parametrize(
    ("served", "cut", "reason"),
    [
        ({}, None, "Not Found"),
        ({"/set.tar.gz": b"other"}, None, "its checksum is md5:795f3202b17cb6bc3d4b771d8c6c9eaf, not md5:"),
        ({"/set.tar.gz": tar(FILES)}, 50, "it breaks off: |the connection ended after 50 of"),
        ({"/set.tar.gz": bytes(1_000_001)}, None, "it is larger than the 1,000,000 bytes expected at most"),
    ],
)
def test_a_download_that_fails_says_why_and_leaves_nothing(
    served: dict[str, bytes], cut: int | None, reason: str, tmp_path: Path
) -> None:
    with serving(served, cut) as (host, _), pytest.raises(RequestError, match=reason) as caught:
        obtain(archive(tar(FILES), f"{host}/set.tar.gz"), tmp_path / "set", offline=False)
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "set.tar.gz cannot be had",
        f"{host}/set.tar.gz",
        f"put the file at {tmp_path / 'set.tar.gz'}",
        "dataset.root=",
    ):
        assert part in text
    assert {p.name for p in tmp_path.iterdir()} <= {".set.lock"}


@pytest.mark.parametrize("offline", [True, False])
def test_an_archive_put_there_by_hand_needs_no_network(offline: bool, tmp_path: Path, closed: str) -> None:
    body = tar(FILES)
    (tmp_path / "set.tar.gz").write_bytes(body)
    obtain(archive(body, f"{closed}/set.tar.gz"), tmp_path / "set", offline=offline)
    assert content(tmp_path / "set") == WANTED


def test_a_damaged_archive_put_there_by_hand_is_named(tmp_path: Path, closed: str) -> None:
    (tmp_path / "set.tar.gz").write_bytes(b"half")
    with pytest.raises(RequestError, match=rf"{tmp_path / 'set.tar.gz'}: its checksum is md5:\w+, not md5:"):
        obtain(archive(tar(FILES), f"{closed}/set.tar.gz"), tmp_path / "set", offline=True)


def test_offline_says_which_file_which_url_and_where_and_asks_nobody(tmp_path: Path) -> None:
    body = tar(FILES)
    with serving({"/set.tar.gz": body}) as (host, requests):
        with pytest.raises(RequestError) as caught:
            obtain(archive(body, f"{host}/set.tar.gz"), tmp_path / "home" / "set", offline=True)
        assert not requests
    text = str(caught.value)
    for part in (
        "set.tar.gz",
        "runtime.offline=true",
        f"{host}/set.tar.gz",
        str(tmp_path / "home" / "set.tar.gz"),
        "dataset.root=",
    ):
        assert part in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["closed", "dropping"])
def test_unreachable_hosts_are_given_up_within_three_seconds(
    kind: str, tmp_path: Path, closed: str, dropping: str
) -> None:
    hosts = {"closed": [closed] * 3, "dropping": [dropping] * 3}[kind]
    began = time.monotonic()
    with pytest.raises(
        RequestError, match=r"set\.tar\.gz cannot be downloaded, no host answers \(http://127.*put the file at"
    ):
        obtain(archive(b"", *(f"{host}/set.tar.gz" for host in hosts)), tmp_path / "home" / "set", offline=False)
    assert time.monotonic() - began < 3
    assert not list(tmp_path.iterdir())


def test_a_name_that_nobody_resolves_does_not_hold_up_a_host_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    real, stop = socket.getaddrinfo, threading.Event()

    def slow(host: str, *args: object, **kwargs: object) -> object:  # a resolver whose packets are dropped
        if host == "nowhere.invalid":
            stop.wait(20)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with serving({}) as (host, _):
        began = time.monotonic()
        responses = probe(["http://nowhere.invalid/x", f"{host}/x"], seconds=0.5)
        assert [(response.status, response.refused) for response in responses.values()] == [
            (None, "no answer within 0.5 s"),
            (501, "HTTP 501 Unsupported method ('HEAD')"),
        ]
        assert time.monotonic() - began < 1
    stop.set()


def test_behind_a_proxy_it_is_the_proxy_that_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as (proxy, _):
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", proxy)
        assert probe(["http://nowhere.invalid/x"])["http://nowhere.invalid/x"].status == 501


def test_two_at_once_download_once(tmp_path: Path) -> None:
    body = tar(FILES)
    with serving({"/set.tar.gz": body}) as (host, requests):
        wanted = archive(body, f"{host}/set.tar.gz")
        threads = [
            threading.Thread(target=obtain, args=(wanted, tmp_path / "set"), kwargs={"offline": False})
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert requests == {"/set.tar.gz": 1}
    assert content(tmp_path / "set") == WANTED


def test_an_archive_packed_anew_is_accepted_by_its_content_alone(tmp_path: Path) -> None:
    obtain_from = tmp_path / "official"
    unpack_bytes(tar(FILES), obtain_from)
    digest = content_digest(obtain_from)
    with serving({"/set.zip": zipped(FILES), "/bad.zip": zipped({**FILES, "data/b.txt": b"x"})}) as (host, _):
        wanted = archive(b"", f"{host}/set.zip", checksum="sha256:0", content=digest)
        obtain(wanted, tmp_path / "set", offline=False)
        other = dataclasses.replace(wanted, urls=[f"{host}/bad.zip"])
        with pytest.raises(RequestError, match="not sha256:0, and its content is another"):
            obtain(other, tmp_path / "other", offline=False)
    assert content(tmp_path / "set") == WANTED
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits a process's files, as only POSIX can")
def test_a_disk_that_takes_no_more_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    body = tar({"data/big": os.urandom(300_000)})
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from pathlib import Path; from tlx.core.errors import RequestError\n"
        "from tlx.datasets.archives import Archive, obtain\n"
        "try: obtain(Archive([sys.argv[1]], sys.argv[2], 10**6, 10**6, 'data'), Path(sys.argv[3]), offline=False)\n"
        "except RequestError as error: print(error)"
    )
    with serving({"/set.tar.gz": body}) as (host, _):
        args = [f"{host}/set.tar.gz", f"md5:{hashlib.md5(body).hexdigest()}", str(tmp_path / "set")]
        root = ROOT
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.startswith(f"{tmp_path / 'set'}: cannot be written: file too large; set TLX_HOME")
    assert {p.name for p in tmp_path.iterdir()} <= {".set.lock"}


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    body = tar(FILES)
    monkeypatch.setattr(archives, "unpack", interrupt)
    with serving({"/set.tar.gz": body}) as (host, _), pytest.raises(KeyboardInterrupt):
        obtain(archive(body, f"{host}/set.tar.gz"), tmp_path / "set", offline=False)
    assert {p.name for p in tmp_path.iterdir()} <= {".set.lock"}


def test_home_is_what_tlx_home_says_else_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TLX_HOME", "~/models and data")
    assert home() == Path.home() / "models and data"
    monkeypatch.delenv("TLX_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert home() == tmp_path / "tlx"


# ---------------------------------------------------------------- unpacking


def unpack_bytes(body: bytes, target: Path, limit: int = 1_000_000, folder: str = "data") -> None:
    file = target.parent / f"{target.name}.archive"
    file.write_bytes(body)
    try:
        unpack(file, target, folder=folder, limit=limit)
    finally:
        file.unlink()


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["../out", "data/../../out", "/tlx-out", "data/..\\..\\out", "C:\\out", "C:/out"])
def test_a_path_that_leads_outside_is_refused(pack: functools.partial[bytes], name: str, tmp_path: Path) -> None:
    target = tmp_path / "inner" / "target"
    target.parent.mkdir()
    with pytest.raises(Refused, match="leads outside"):
        unpack_bytes(pack({"data/ok": b"", name: b"x"}), target)
    assert content(tmp_path) == {"inner/target/ok": b""}
    assert not Path("/tlx-out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        member = tarfile.TarInfo("data/link")
        member.type, member.linkname = kind, "/etc/passwd"
        packed.addfile(member)
    with pytest.raises(Refused, match="holds a link or a device: data/link"):
        unpack_bytes(out.getvalue(), tmp_path / "target")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        info = zipfile.ZipInfo("data/link")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(Refused, match="holds a link or a device: data/link"):
        unpack_bytes(out.getvalue(), tmp_path / "target")


@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_bomb_is_stopped_at_the_limit(pack: functools.partial[bytes], tmp_path: Path) -> None:
    body = pack({"data/a": bytes(600_000), "data/b": bytes(50_000_000)})
    assert len(body) < 100_000
    with pytest.raises(Refused, match="larger than the 400,000 bytes expected at most"):
        unpack_bytes(body, tmp_path / "target")
    assert sum(map(len, content(tmp_path / "target").values())) <= 1_000_000


def long_header(size: int) -> bytes:
    """A tar whose first member is preceded by an extended header of `size` bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as packed:
        member = tarfile.TarInfo("data/a")
        member.pax_headers = {"comment": "x" * size}
        packed.addfile(member)
    return out.getvalue()


@pytest.mark.parametrize(
    "body",
    [long_header(5_000_000), tar({"elsewhere/a": bytes(5_000_000), "data/a": b"x"})],
    ids=["header", "beside the folder"],
)
def test_what_a_tar_holds_beside_its_content_has_a_limit(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(body) < 100_000
    unpack_bytes(body, tmp_path / "whole")
    monkeypatch.setattr(unpacking, "SLACK", 100_000)
    with pytest.raises(Refused, match="it unpacks to more than 1,100,000 bytes"):
        unpack_bytes(body, tmp_path / "target")
    assert content(tmp_path / "target") == {}


@pytest.mark.parametrize("pack", [tar, zipped])
def test_more_files_than_the_limit_are_refused(
    pack: functools.partial[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MAX_FILES", 3)
    three = {f"data/{i}": b"" for i in range(3)}
    unpack_bytes(pack(three), tmp_path / "three")
    with pytest.raises(Refused, match="it holds more than 3 files"):
        unpack_bytes(pack({**three, "data/3": b""}), tmp_path / "four")


@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_name_that_no_disk_takes_is_refused(pack: functools.partial[bytes], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="it holds a path that cannot be: 'data/nnn"):
        unpack_bytes(pack({f"data/{'n' * 300}": b""}), tmp_path / "target")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_usual_way_of_packing_a_tar_is_known(mode: str, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as packed:  # type: ignore[call-overload]
        member = tarfile.TarInfo("data/a")
        member.size = 3
        packed.addfile(member, io.BytesIO(b"abc"))
    unpack_bytes(out.getvalue(), tmp_path / "target")
    assert content(tmp_path / "target") == {"a": b"abc"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no archive at all", "cannot be unpacked"),
        (tar({"data/a": os.urandom(5_000)})[:2_000], "breaks off"),
        (zipped(FILES)[:200], "cannot be unpacked"),
        (tar({"elsewhere/a": b""}), "holds no folder data"),
        (zipped({"data/.DS_Store": b""}), "holds no folder data"),
        (tar({"data/a": b"", "data/a/b": b""}), "holds a path twice"),
    ],
    ids=["text", "cut tar", "cut zip", "another folder", "litter only", "file and folder"],
)
def test_what_is_no_such_archive_is_refused_with_its_reason(body: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=reason):
        unpack_bytes(body, tmp_path / "target")


def test_a_damaged_member_of_a_zip_is_refused(tmp_path: Path) -> None:
    body = bytearray(zipped({"data/a": os.urandom(5_000)}))
    body[1_000] ^= 255
    with pytest.raises(Refused, match=r"breaks off|cannot be unpacked"):
        unpack_bytes(bytes(body), tmp_path / "target")


def test_the_content_digest_is_of_names_and_bytes_and_not_of_litter_or_place(tmp_path: Path) -> None:
    digests = []
    for number, files in enumerate(
        [WANTED, {**WANTED, ".DS_Store": b"x"}, {**WANTED, "c": b""}, {**WANTED, "b.txt": b"1"}]
    ):
        for name, body in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        digests.append(content_digest(tmp_path / str(number)))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


# ---------------------------------------------------------------- damage


def mutated(body: bytes, number: int) -> bytes:
    """The bytes with some changed, cut off, put in, doubled or swapped; the same for the same number."""
    rng = random.Random(number)
    out = bytearray(body)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at, length = rng.randrange(len(out)), rng.choice([1, 2, 4, 16, 100])
        what = rng.choice(["flip", "fill", "cut", "drop", "put", "double"])
        if what == "flip":
            out[at] ^= 1 << rng.randrange(8)
        elif what == "fill":
            out[at : at + length] = bytes([rng.choice([0, 0x7F, 0x80, 0xFF])]) * len(out[at : at + length])
        elif what == "cut":
            del out[max(at, 1) :]
        elif what == "drop":
            del out[at : min(at + length, at + len(out) - 1)]
        elif what == "put":
            out[at:at] = rng.randbytes(length)
        else:
            out[at:at] = out[at : at + length]
    return bytes(out)


def plain_tar(files: dict[str, bytes]) -> bytes:
    with io.BytesIO(tar(files)) as packed, gzip.open(packed) as stream:
        return stream.read()


@pytest.mark.parametrize("pack", [tar, plain_tar, zipped])
@pytest.mark.parametrize("known", ["its checksum", "its content"])
def test_a_damaged_archive_gives_the_content_or_a_line_and_nothing_else(
    pack: functools.partial[bytes], known: str, tmp_path: Path
) -> None:
    unpack_bytes(tar(FILES), tmp_path / "official")
    digest = content_digest(tmp_path / "official")
    refused, count = 0, 20 if known == "its checksum" else 60
    for number in range(count):
        place = tmp_path / str(number) / "home"
        place.mkdir(parents=True)
        (place / "set.zip").write_bytes(mutated(pack(FILES), number))
        wanted = archive(pack(FILES), "http://127.0.0.1:9/set.zip", content=digest if known == "its content" else None)
        try:
            obtain(wanted, place / "set", offline=True)
        except RequestError as error:
            refused += 1
            line = str(error)
        else:
            line = ""
            assert content(place / "set") == WANTED
        assert re.fullmatch(rf"(set\.zip cannot be had: {place / 'set.zip'}: it[^\n]+)?", line)
        assert {path.name for path in place.iterdir()} <= {"set.zip", "set", ".set.lock"}
        assert [path.name for path in place.parent.iterdir()] == ["home"]
    assert refused > count // 3


def test_a_damaged_batch_of_cifar10_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / readers.CIFAR10_FOLDER
    root.mkdir()
    official = {}
    for name in readers.CIFAR10:
        body = pickle.dumps({"data": [], "labels": [], "label_names": ["a", "b"]})
        (root / name).write_bytes(body)
        official[name] = hashlib.md5(body).hexdigest()
    monkeypatch.setattr(readers, "CIFAR10", official)
    wanted = dataclasses.asdict(archive(b"", "http://127.0.0.1:9/x.zip", to=readers.CIFAR10_FOLDER))
    opened: list[object] = []
    monkeypatch.setattr(pickle, "loads", lambda *args, **_: opened.append(args))
    body = (root / "data_batch_1").read_bytes()
    for number in range(20):
        damaged = mutated(body, number)
        if damaged != body:
            (root / "data_batch_1").write_bytes(damaged)
            with pytest.raises(RequestError, match=r"data_batch_1: its md5 is \w+, not .* not opened"):
                readers.cifar10(str(tmp_path), archive=wanted)
    assert not opened
