"""The README and docs/ are true: every command in them is run; those that need a download say so offline."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision

import tlx
from tests.conftest import ROOT
from tests.inference.test_predictor import write_images
from tlx.cli.main import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
# From a user's first run to the model in use.
STEPS = README[README.index("## 1.") : README.index("## Choices and keys")]


def commands(text: str) -> list[str]:
    """The lines of its shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [re.split(r"\s+# ", line)[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


COMMANDS = list(dict.fromkeys(commands(README + PAGES)))
SERVERS = [command for command in COMMANDS if re.search(r" -m tlx (ui|serve)( |$)", command)]  # they do not end
# The same commands on less data: what they say, not how good they become, is tested here.
LESS = {
    "shapes": ["dataset.train=5", "dataset.test=2", "training.epochs=1"],
    "photos": ["training.epochs=1"],
    "shards": ["training.epochs=1"],
    "beans": ["training.epochs=1"],
    "source": ["source.dataset.train=5", "source.training.epochs=1"],
    "leaves": ["source.training.epochs=1", "training.epochs=1"],
}
NEEDS_DOWNLOAD = (
    "backbone=resnet50",
    "convnext_tiny",
    "resnet18 runtime.offline",
    "resnet50_mlp",
    "alexnet_",
    "vgg16_",
    "cifar10_",
    "dataset.name=beans",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's home: photos, leaves, shoes, a weights file, YAML of their own; commands run in it."""
    folder = tmp_path_factory.mktemp("home")
    for part in ("train", "val"):
        write_images(folder / "photos" / part, ("ants", "bees"), n=10)
    for photo in re.findall(r"~/(photos/val/\w+/\w+\.jpg)", README):
        (folder / photo).parent.joinpath("1.png").rename(folder / photo)
    photos = sorted(file.relative_to(folder / "photos") for file in folder.glob("photos/*/*/*"))
    rows = [f"{file.as_posix()},{file.parent.name},{i // 2}" for i, file in enumerate(photos)]
    (folder / "labels.csv").write_text("\n".join(["file,label,colony", *rows]))
    for name, classes in (("Leaves", ("a", "b", "c")), ("Shoes", ("Heels", "Oxfords"))):
        for part in ("Train", "Test"):
            write_images(folder / name / part, classes[:3])
    torch.save(torchvision.models.resnet18().state_dict(), folder / "my_resnet18.pth")
    yaml = re.search(r"```yaml\n# (my_conf/\S+): .*?\n(.*?)```", PAGES, re.DOTALL)
    assert yaml
    (folder / yaml[1]).parent.mkdir(parents=True)
    (folder / yaml[1]).write_text(f"# Mine\n{yaml[2]}")
    (folder / "photo.jpg").write_bytes((folder / "photos" / "val" / "ants" / "2.png").read_bytes())
    write_shards(folder / "shards", [folder / "photos" / photo for photo in photos])
    write_hub_set(folder / "sets" / "beans", [folder / "photos" / photo for photo in photos])
    return folder


def write_shards(folder: Path, photos: list[Path]) -> None:
    """A hundred tar files with a sample of each class."""
    folder.mkdir()
    for number in range(100):
        with tarfile.open(folder / f"{number:02}.tar", "w") as shard:
            for photo in (photos[number % len(photos)], photos[-1 - number % len(photos)]):
                shard.add(photo, f"{photo.parent.name}{number}.png")
                label = tarfile.TarInfo(f"{photo.parent.name}{number}.cls")
                label.size = len(photo.parent.name)
                shard.addfile(label, io.BytesIO(photo.parent.name.encode()))


def write_hub_set(folder: Path, photos: list[Path]) -> None:
    """A data set as the `datasets` library saves one."""
    library = pytest.importorskip("datasets")
    names = sorted({photo.parent.name for photo in photos})
    columns = library.Features({"image": library.Image(), "labels": library.ClassLabel(names=names)})
    rows = {"image": [str(photo) for photo in photos], "labels": [photo.parent.name for photo in photos]}
    library.DatasetDict({"train": library.Dataset.from_dict(rows, features=columns)}).save_to_disk(str(folder))


def environment(home: Path) -> dict[str, str]:
    caches = {name: str(home / "cache") for name in ("TORCH_HOME", "HF_HOME", "TLX_HOME", "XDG_CACHE_HOME")}
    return {**os.environ, **caches, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def shell(home: Path, command: str) -> "subprocess.CompletedProcess[str]":
    command = re.sub(r"^python ", f"{sys.executable} ", command)
    return subprocess.run(
        ["bash", "-c", command], cwd=home, env=environment(home), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def finished(home: Path) -> Path:
    """A finished run on the photos, for the commands that use one."""
    done = shell(home, "python -m tlx dataset=image_folder dataset.root=~/photos training.epochs=1 output=outputs/x")
    assert done.returncode == 0, done.stderr
    return next((home / "outputs" / "x").glob("*-*/*"))


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) > 25


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in (*SERVERS, *commands(STEPS)) and "make " not in c])
def test_a_command_of_the_readme_or_of_a_page_runs(
    command: str,
    home: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home)
    for of_ours in ("outputs/RUN1", "outputs/RUN2", "outputs/RUN"):
        command = command.replace(of_ours, str(finished))

    def types(*more: str) -> tuple[int, str, str]:
        code = main([*words(command), *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    if any(part in command for part in NEEDS_DOWNLOAD):
        code, _, said = types("runtime.offline=true")
        assert code == 2, said
        assert re.search(r"cannot be (fetched|had from the Hugging Face hub) \(runtime.offline=true", said)
        assert len(said.splitlines()) == 1
        return
    kind = next((kind for kind in ("photos", "leaves", "shards", "beans") if kind in command), "shapes")
    subcommand = re.match(r"python -m tlx [a-z]+( |$)", command)
    extra = [] if subcommand else [word for word in LESS[kind] if word.partition("=")[0] not in command]
    extra = [*extra, *(LESS["source"] if "shapes_transfer" in command else [])]
    if " latest" in command:  # of the fixture, not of whichever test was before
        extra = ["--output", "outputs/x"]
    if "search" in command:
        extra = [*LESS[kind], "tracking=none"]
    if " recommend " in command:  # of one network, and what is quick
        quick = ["backbone=efficientnet_lite0", "strategy=linear_probe", "tracking=none"]
        extra = [word for word in quick if word.partition("=")[0] not in command]
    if " curve " in command:
        extra = ["strategy=linear_probe", "seed=0", "dataset.limit.train=4,8", "tracking=none"]
    if " resume " in command:
        code, _, said = types()
        assert (code, "this run is finished; there is nothing to resume" in said) == (2, True), said
        return
    code, out, said = types(*extra)
    assert code == 0, said
    assert out.strip()


def words(command: str) -> list[str]:
    """What follows `python -m tlx`, as a shell makes it."""
    typed = command.removeprefix("python -m tlx").strip()
    shown = subprocess.run(["bash", "-c", f"printf '%s\\0' {typed}"], capture_output=True, text=True, check=True)
    return list(filter(None, shown.stdout.split("\0")))


def masked(line: str) -> str:
    """A line of output without what depends on the images, the machine and the moment."""
    line = re.sub(r"\S*outputs/\S+?(?=: |$)", "FOLDER", line)
    line = re.sub(r"[+-]?\d[\d.,]*(e-\d+)?", "N", line)
    line = re.sub(r"N min N s|N (s|ms)\b", "TIME", re.sub(r"N [KM]i?B", "SIZE", line))
    line = re.sub(r"head=\w+", "head=H", re.sub(r"ants|bees|unknown", "CLASS", line))
    line = re.sub(r"(N \(N to N\), p (< )?N, (not distinguishable|better|worse)|chosen)$", "DIFFERENCE", line)
    return " ".join(line.split())


def test_the_steps_of_the_readme_in_their_order_show_what_it_shows(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**environment(home), "HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    new = home / "new"
    new.mkdir()
    monkeypatch.chdir(new)
    lines: set[str] = set()
    compared, audited = 0, False
    for kind, block in re.findall(r"```(sh|text)\n(.*?)```", STEPS, re.DOTALL):
        if kind == "text":
            if audited:  # what is found depends on the images: these are drawn
                block = block.splitlines()[-1].partition(":")[0]
            begins = [masked(line.partition("…")[0]) for line in block.splitlines()]  # "…": what follows is left out
            assert not [begin for begin in begins if not any(line.startswith(begin) for line in lines)], sorted(lines)
            compared += sum(map(bool, begins))
            continue
        lines, audited = set(), " audit " in block.replace("\n", " ")
        for command in commands(f"```sh\n{block}```"):
            if command in SERVERS:
                continue
            typed = [word for word in words(command) if not word.startswith("training.epochs=")]
            run = re.match(r"python -m tlx( -m)? \w+=", command)
            assert main([*typed, *(["training.epochs=1"] if run else [])]) == 0, command
            lines |= {masked(line) for said in capsys.readouterr() for line in said.splitlines()}
    assert compared > 15
    assert all((new / name).stat().st_size for name in ("predictions.csv", "gallery.html"))
    code = re.search(r"```python\n(# onnx_predict.py.*?)```", README, re.DOTALL)
    assert code
    (model,) = (new / "outputs" / "sweeps" / "first").glob("*/export/model.onnx")
    photo = home / "photos" / "val" / "ants" / "2.png"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code[1], str(model), str(photo)], capture_output=True, text=True, check=True
    )
    (expected,) = tlx.load(model.parents[1]).predict(photo)
    name, probability = done.stdout.split()
    assert name == expected.top(1)[0][0]
    assert float(probability) == pytest.approx(expected.probability, abs=0.01)


def test_the_python_of_the_readme_runs(home: Path) -> None:
    code = re.search(r"```python\n(import tlx\n.*?)```", README, re.DOTALL)
    assert code
    done = subprocess.run(
        [sys.executable, "-c", code[1].replace("seed=1)", 'seed=1, training={"epochs": 1})')],
        cwd=home, env=environment(home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures, prediction, columns, *rows = done.stdout.splitlines()
    assert re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", figures)
    assert re.fullmatch(r"(ants|bees) [\d.]+", prediction)
    assert columns.split() == ["configuration", "test_accuracy", "low", "high"]
    assert len(rows) == 2
    assert str(home) in rows[-1]  # the folder of the chosen run


def test_what_the_readme_links_to_is_there_also_in_the_source_distribution() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    of_pages = re.findall(r"\]\((?!https?:|#)([^)]+)\)", PAGES)  # relative to docs/
    links += [link.removeprefix("../") if link.startswith("../") else f"docs/{link}" for link in of_pages]
    assert links
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    included = build["targets"]["sdist"]["include"]
    for link in links:
        link, _, heading = link.partition("#")
        assert (ROOT / link).is_file(), link
        text = (ROOT / link).read_text(encoding="utf-8") if heading else ""
        headings = [re.sub(r"[^\w -]", "", line.lstrip("# ").lower()) for line in text.splitlines() if line[:1] == "#"]
        assert not heading or heading in [line.replace(" ", "-") for line in headings], f"{link}#{heading}"
        assert {f"/{link}", f"/{link.partition('/')[0]}"} & set(included), link


def test_make_run_is_one_run(home: Path) -> None:
    done = make(home, "run", f"ARGS=output={home}/made {' '.join(LESS['shapes'])}")
    assert done.returncode == 0, done.stderr
    summaries = list((home / "made").glob("*-*/*/summary.json"))
    assert [json.loads(file.read_text())["status"] for file in summaries] == ["finished"]


def test_make_test_is_pytest(home: Path) -> None:
    done = make(home, "test", "--dry-run")
    assert " -m pytest" in done.stdout


def test_make_help_lists_every_target(home: Path) -> None:
    listed = {line.split()[0] for line in make(home, "help").stdout.splitlines()}
    targets = {
        "help",
        "install",
        "run",
        "test",
        "oldest",
        "lint",
        "types",
        "sweep",
        "ui",
        "bench",
        "keys",
        "wheel",
        "clean",
    }
    assert listed == targets


def test_make_ui_is_the_subcommand(home: Path) -> None:
    assert '-m tlx ui --output "some where"' in make(home, "ui", "--dry-run", "OUTPUT=some where").stdout
    assert make(home, "ui", "--dry-run", "PORT=5005").stdout.strip().endswith('--output "outputs" --port 5005')


class Server:
    """A subcommand of the README that serves until Ctrl-C, as a process, on a port that is free.

    `ending`: the signal that ends it in place of Ctrl-C's.
    """

    def __init__(self, command: str, home: Path, *words: str, ending: signal.Signals = signal.SIGINT) -> None:
        self.lines: list[str] = []
        self.ending = ending
        self.process = subprocess.Popen(
            [sys.executable, *shlex.split(command)[1:], "--output", "outputs/x", "--port", "0", *words],
            cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> "Server":
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line == "Ctrl-C ends it\n":
                return self
        raise AssertionError(self.process.communicate()[1])

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(self.ending)
        said = self.process.communicate()[1]
        assert self.process.returncode == 0, said
        assert "Traceback" not in said
        with pytest.raises(urllib.error.URLError):  # it has ended, and what it has started
            self.get("/")

    def get(self, path: str) -> bytes:
        address = next(found[0] for line in self.lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        with urllib.request.urlopen(address + path) as answer:
            content: bytes = answer.read()
            return content


def test_ui_shows_the_runs_of_the_folder_on_this_machine_only(home: Path, finished: Path) -> None:
    (command,) = (command for command in SERVERS if " ui" in command)
    with Server(command, home, "--no-browser", ending=signal.SIGHUP) as server:  # its terminal is closed
        assert server.lines[1].startswith("all of MLflow on outputs/x/mlflow.db: http://127.0.0.1:")
        assert server.get("/health") == b"OK"
        view = re.search(
            r"/#/experiments/(\d+)/runs\?viewStateShareKey=(\w+)&workflowType=machine_learning$", server.lines[0]
        )
        assert view, server.lines
        experiment = json.loads(server.get(f"/api/2.0/mlflow/experiments/get?experiment_id={view[1]}"))["experiment"]
        assert experiment["name"] == "tlx"
        assert f"mlflow.sharedViewState.{view[2]}" in [tag["key"] for tag in experiment["tags"]]


def test_serve_prints_a_curl_command_that_takes_an_image_file(home: Path, finished: Path) -> None:
    (command,) = (command for command in SERVERS if " serve" in command)
    with Server(command.replace(" first", f" {finished.relative_to(home)}"), home) as server:
        assert server.lines[0].startswith(f"serving {finished.relative_to(home)} on http://127.0.0.1:")
        said = shell(home, server.lines[1])
        assert said.returncode == 0, said.stderr
        (answer,) = json.loads(said.stdout)["predictions"]
        file = home / server.lines[1].partition("< ")[2].partition(" ")[0]  # one of the run's test images
        (expected,) = tlx.load(finished).predict(file)
        assert (answer["prediction"], answer["error"]) == (expected.prediction, "")
        assert answer["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-5)


def arguments() -> list[str]:
    # The environment that runs the tests, taken as it is.
    return [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed"]


def make(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "--no-print-directory", *arguments(), *words],
        cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False,
    )  # fmt: skip
