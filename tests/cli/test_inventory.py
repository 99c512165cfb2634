"""The subcommands `weights` and `data`: lists need no network; what is fetched, copied and verified."""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

from tests.conftest import ROOT
from tests.datasets.test_archives import serving, tar
from tlx.backbones.pretrained_weights import locate
from tlx.cli import data, weights
from tlx.config.compose import choices, compose
from tlx.core.errors import RequestError
from tlx.core.safe_archive import content_digest
from tlx.datasets.archives import home

CONTENT = b"the weights" * 10_000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
RESNET18 = "resnet18-f37072fd.pth"

Subcommand = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches that are empty and to ourselves, and no proxy between us and the test's server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("TLX_HOME", str(tmp_path / "tlx"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with YAML of the person's own."""
    folder = tmp_path / "my conf"
    for group in ("backbone", "dataset"):
        (folder / group).mkdir(parents=True)
    return folder


@pytest.fixture
def run_subcommand(capsys: pytest.CaptureFixture[str], mine: Path) -> Subcommand:
    """Runs a subcommand: its exit code, stdout and stderr."""

    def run(module: ModuleType, *words: str) -> tuple[int, str, str]:
        code = module.SUBCOMMAND.main([*words, "--config-dir", str(mine)])
        return (code, *capsys.readouterr())

    return run


def rows(printed: str) -> dict[str, str]:
    """The list's rows by name, the lines of each in one."""
    found: dict[str, str] = {}
    name = ""
    for line in printed.split("\n\n")[0].splitlines():
        name = line[:20].strip() or name
        found[name] = f"{found.get(name, '')}\n{line[20:]}".strip()
    return found


def own_backbone(mine: Path, name: str, url: str) -> None:
    keys = {"defaults": ["resnet18", "_self_"], "name": name, "url": url}
    (mine / "backbone" / f"{name}.yaml").write_text(f"# My own {name}: python -m tlx\n{yaml.safe_dump(keys)}")


# ---------------------------------------------------------------- weights


def test_the_list_of_weights_names_every_backbone_and_where_its_file_is(
    run_subcommand: Subcommand, mine: Path, tmp_path: Path
) -> None:
    own_backbone(mine, "mine", f"https://host.invalid/{NAME}")
    code, printed, said = run_subcommand(weights)
    assert (code, said) == (0, "")
    listed = rows(printed)
    assert list(listed) == [*choices("backbone", str(mine))]
    assert all(row.splitlines()[-1].startswith("licence: ") for row in listed.values())
    assert listed["mine"] == f"My own mine\n{NAME}: not here; from https://host.invalid/{NAME}\nlicence: BSD-3-Clause"
    assert listed["resnet18"] == (
        f"ResNet-18 of torchvision, ImageNet weights (45 MB)\n{RESNET18}: not here; from "
        f"https://download.pytorch.org/models/{RESNET18}, or {constants.ENDPOINT}/timm/resnet18.tv_in1k\n"
        "licence: BSD-3-Clause"
    )
    assert "efficientnet-lite0-57934424.pth, 18.8 MB: /" in listed["efficientnet_lite0"]
    assert "needs no file: starts from random weights" in listed["small_cnn"]
    assert "the file depends on the model: python -m tlx weights fetch timm backbone.name=…" in listed["timm"]
    cached = tmp_path / "torch" / "hub" / "checkpoints" / RESNET18
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert f"{RESNET18}, 0.1 MB: {cached}" in rows(run_subcommand(weights)[1])["resnet18"]


def test_what_the_hubs_cache_has_is_listed_without_asking_timm(
    run_subcommand: Subcommand, mine: Path, tmp_path: Path
) -> None:
    keys = {"_target_": "tlx.backbones.timm", "name": "convnext_tiny", "url": "hub://timm"}
    (mine / "backbone" / "tiny.yaml").write_text(yaml.safe_dump(keys))
    assert rows(run_subcommand(weights)[1])["tiny"] == (
        f"convnext_tiny.safetensors: not here; from {constants.ENDPOINT}/timm/convnext_tiny\n"
        "licence: see the model's page"
    )
    cached = tmp_path / "hf" / "models--timm--convnext_tiny.in12k_ft_in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    file = cached / "snapshots" / ("0" * 40) / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(2_000_000))
    assert rows(run_subcommand(weights)[1])["tiny"].startswith(
        f"convnext_tiny.in12k_ft_in1k.safetensors, 2.0 MB: {file}"
    )


def test_the_lists_import_nothing_heavy_and_ask_nobody(tmp_path: Path) -> None:
    code = """
import sys
def refuse(event, _):
    assert not event.startswith("socket."), event
sys.addaudithook(refuse)
from tlx.cli import data, weights
for module in (weights, data):
    assert module.SUBCOMMAND.main([]) == 0
print(*{"torch", "torchvision", "timm", "mlflow", "matplotlib"} & sys.modules.keys())
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
    assert not list(tmp_path.iterdir())


def test_weights_are_fetched_once_and_carried_to_where_they_are_found(
    run_subcommand: Subcommand, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({f"/{NAME}": CONTENT}) as (host, requests):
        own_backbone(mine, "mine", f"{host}/{NAME}")
        own_backbone(mine, "gone", f"{host}/gone-00000000.pth")
        cached = tmp_path / "torch" / "hub" / "checkpoints" / NAME
        for _ in range(2):
            assert run_subcommand(weights, "fetch", "mine", "small_cnn")[:2] == (
                0, f"mine: {cached}\nsmall_cnn: needs no file\n"
            )  # fmt: skip
        folder = tmp_path / "to carry"
        code, printed, _ = run_subcommand(weights, "fetch", "mine", "head=mlp", "--to", str(folder))
        with pytest.raises(RequestError, match=r"gone-00000000\.pth is not here and cannot be fetched \(HTTP 404"):
            run_subcommand(weights, "fetch", "gone", "mine")
    assert requests == {f"/{NAME}": 1, "/gone-00000000.pth": 1}
    assert code == 0
    assert printed == (
        f"mine: {folder / NAME}\n"
        f"  on the other machine: python -m tlx backbone=mine head=mlp backbone.weights={NAME}\n"
        "  or put it into TORCH_HOME/hub/checkpoints there, where backbone=mine finds it\n"
    )
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(NAME, CONTENT)]
    cached.unlink()  # the other machine
    monkeypatch.chdir(folder)
    given = compose(["backbone=mine", f"backbone.weights={NAME}"], str(mine)).backbone
    assert locate(given, offline=True) == Path(NAME)
    shutil.move(NAME, cached)
    assert locate(compose(["backbone=mine"], str(mine)).backbone, offline=True) == cached


def test_a_folder_that_takes_nothing_is_named(run_subcommand: Subcommand, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RequestError, match=r"--to .*file: .*57934424\.pth cannot be written \(file exists\)"):
        run_subcommand(weights, "fetch", "efficientnet_lite0", "--to", str(tmp_path / "file"))
    for _ in range(2):  # into the folder where it is, too
        run_subcommand(weights, "fetch", "efficientnet_lite0", "--to", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["efficientnet-lite0-57934424.pth", "file", "my conf"]


@pytest.mark.parametrize("module", [weights, data])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetsh", "resnet18"], r"fetsh: must be fetch.* \(did you mean 'fetch'\?\), or nothing for the list"),
        (["fetch"], "fetch: needs a name, as the list without fetch has them"),
        (["--to", "x"], "--to: is only for fetch"),
        (["fetch", "cifar"], r"(backbone|dataset)=cifar: no such (backbone|dataset).*; there are "),
        (["fetch", "shapes", "sede=3"], r"(sede=3: no such key \(did you mean 'seed'\?\)|backbone=shapes: no such)"),
    ],
)
def test_what_is_mistyped_is_one_line(
    module: ModuleType, words: list[str], message: str, run_subcommand: Subcommand
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        run_subcommand(module, *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("module", "given", "meant"), [(weights, "resnet5O", "resnet50"), (data, "cifar1", "cifar10")])
def test_the_nearest_name_is_offered(module: ModuleType, given: str, meant: str, run_subcommand: Subcommand) -> None:
    with pytest.raises(RequestError, match=rf"={given}: no such \w+ \(did you mean '{meant}'\?\)"):
        run_subcommand(module, "fetch", given)


def test_a_model_without_a_name_and_a_yaml_that_is_none_are_said(run_subcommand: Subcommand, mine: Path) -> None:
    with pytest.raises(RequestError, match=r"backbone\.name: needs a value, as in backbone\.name=…"):
        run_subcommand(weights, "fetch", "timm")
    own_backbone(mine, "far", "ftp://host/a.pth")
    assert "backbone.url=ftp://host/a.pth: must be https://…" in rows(run_subcommand(weights)[1])["far"]
    (mine / "backbone" / "typo.yaml").write_text("licenze: MIT")
    assert "backbone.licenze: Key 'licenze' not in 'Backbone'" in rows(run_subcommand(weights)[1])["typo"]
    (mine / "backbone" / "broken.yaml").write_text("name: [unclosed")
    with pytest.raises(RequestError, match=r"broken\.yaml"):
        run_subcommand(weights)


# ---------------------------------------------------------------- data


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


PICTURES = {
    f"set/{part}/{name}/{i}.png": picture(i) for part in ("train", "test") for name in ("a", "b") for i in (1, 2)
}


def own_data(mine: Path, url: str, body: bytes, content: str | None = None) -> None:
    archive = {
        "urls": [url], "checksum": f"md5:{hashlib.md5(body).hexdigest()}", "size": 1_000_000, "unpacked": 1_000_000,
        "folder": "set", "content": content, "licence": "CC0-1.0",
    }  # fmt: skip
    keys = {"_target_": "tlx.datasets.image_folder", "name": "mine", "root": None, "archive": archive}
    (mine / "dataset" / "mine.yaml").write_text(f"# My pictures: python -m tlx dataset=mine\n{yaml.safe_dump(keys)}")


def test_the_list_of_data_names_every_data_set_and_what_it_is(run_subcommand: Subcommand, mine: Path) -> None:
    own_data(mine, "https://host.invalid/set.tar.gz", b"")
    code, printed, said = run_subcommand(data)
    assert (code, said) == (0, "")
    listed = rows(printed)
    assert list(listed) == [*choices("dataset", str(mine))]
    assert listed["mine"] == (
        "My pictures\nnot here; up to 1.0 MB: python -m tlx data fetch mine\n"
        "licence: CC0-1.0; from https://host.invalid/set.tar.gz"
    )
    assert "up to 171.0 MB: python -m tlx data fetch cifar10" in listed["cifar10"]
    assert "from https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in listed["cifar10"]
    assert listed["shapes"].endswith("drawn in memory: needs no file")
    assert f"not here: give dataset.root=<folder>, or put the images in {home() / 'data/leaves'}" in listed["leaves"]
    file = home() / "data" / "leaves" / "Train" / "healthy" / "1.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(1_500))
    assert f"here: {home() / 'data/leaves'}, 1 files, 1.5 kB" in rows(run_subcommand(data)[1])["leaves"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"name": "x", "root": None, "archive": {"url": "https://host.invalid"}},
            "dataset.archive: url: no such key (did",
        ),
        ({"name": "x", "root": None, "archive": {"urls": []}}, "dataset.archive: 4 required positional arguments: "),
        ({"root": None}, "dataset.name: needs a value; where the files are put is called by it"),
    ],
)
def test_a_yaml_that_is_wrong_has_its_error_in_its_row(
    keys: dict[str, object], message: str, run_subcommand: Subcommand, mine: Path
) -> None:
    (mine / "dataset" / "wrong.yaml").write_text(yaml.safe_dump({"_target_": "tlx.datasets.image_folder", **keys}))
    listed = rows(run_subcommand(data)[1])
    assert message in listed["wrong"]
    assert set(listed) == {*choices("dataset", str(mine))}


def test_data_is_fetched_verified_and_carried(run_subcommand: Subcommand, mine: Path, tmp_path: Path) -> None:
    body = tar(PICTURES)
    with serving({"/set.tar.gz": body}) as (host, requests):
        own_data(mine, f"{host}/set.tar.gz", body)
        with pytest.raises(RequestError, match=r"mine: is not here \(.*\): python -m tlx data fetch mine, or give"):
            run_subcommand(data, "verify", "mine")
        with pytest.raises(RequestError, match=r"set\.tar\.gz is not here and runtime\.offline=true"):
            run_subcommand(data, "fetch", "mine", "runtime.offline=true")
        assert not requests
        folder = home() / "data" / "mine"
        for _ in range(2):
            assert run_subcommand(data, "fetch", "mine")[:2] == (0, f"mine: {folder}\n")
        carried = tmp_path / "to carry"
        assert run_subcommand(data, "fetch", "mine", "--to", str(carried))[:2] == (
            0, f"mine: {carried / 'mine'}\n  on the other machine: python -m tlx dataset=mine dataset.root=mine\n"
        )  # fmt: skip
    assert requests == {"/set.tar.gz": 1}
    assert content_digest(folder) == content_digest(carried / "mine")
    shutil.rmtree(folder)
    code, printed, _ = run_subcommand(data, "verify", "mine", f"dataset.root={carried / 'mine'}")
    assert code == 0
    assert printed == (
        f"mine: {carried / 'mine'}\nclass    train     test\na            2        2\nb            2        2\n"
        "8 images, each can be read\n"
    )


def test_what_cannot_be_read_or_is_not_the_official_content_is_named(run_subcommand: Subcommand, mine: Path) -> None:
    folder = home() / "data" / "mine"
    for name, body in PICTURES.items():
        file = folder / Path(name).relative_to("set")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    own_data(mine, "https://host.invalid/set.tar.gz", b"", content_digest(folder))
    code, printed, _ = run_subcommand(data, "verify", "mine")
    assert (code, printed.splitlines()[-1]) == (0, "checksum: the official files")
    broken = folder / "test" / "b" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    code, printed, _ = run_subcommand(data, "verify", "mine")
    assert code == 1
    assert re.search(rf"^unreadable: {broken}: .+$", printed, re.MULTILINE)
    assert "8 images, 1 of them cannot be read" in printed
    assert "checksum: not the official files (sha256 over all: not " in printed


def test_what_is_drawn_needs_no_fetching_and_a_folder_of_ones_own_cannot_be_fetched(
    run_subcommand: Subcommand, tmp_path: Path
) -> None:
    assert run_subcommand(data, "fetch", "shapes")[:2] == (0, "shapes: drawn in memory, nothing to fetch\n")
    code, printed, _ = run_subcommand(data, "verify", "shapes", "dataset.train=3", "dataset.test=1")
    assert (code, printed.splitlines()[0], printed.splitlines()[-1]) == (
        0, "shapes: drawn (seed 0)", "12 images, each can be read"
    )  # fmt: skip
    with pytest.raises(
        RequestError, match=r"leaves: a folder of your own, which nobody can fetch; give dataset\.root="
    ):
        run_subcommand(data, "fetch", "leaves")
    with pytest.raises(RequestError, match=r"leaves: is not here \(.*\): give dataset\.root=<folder>"):
        run_subcommand(data, "verify", "leaves")
    with pytest.raises(RequestError, match=r"dataset\.root=.*nowhere: no such folder"):
        run_subcommand(data, "verify", "leaves", f"dataset.root={tmp_path / 'nowhere'}")


def test_the_real_photographs_are_verified(run_subcommand: Subcommand, shared: Path) -> None:
    code, printed, _ = run_subcommand(data, "verify", "ants_bees", f"dataset.root={shared / 'hymenoptera_data'}")
    assert code == 0
    assert "imageNotFound.gif: known not to be an image of its class" in printed
    assert printed.endswith(
        "ants       123       70\nbees       121       83\n397 images, each can be read\nchecksum: the official files\n"
    )
