"""The command line as a person meets it: one line for every mistake, values as typed, and nothing left behind."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import tlx as package
from tests.conftest import ROOT, Tlx
from tlx.cli.main import main
from tlx.config.compose import choices
from tlx.config.hydra_errors import GROUPS
from tlx.core.interruption import ENDING

if TYPE_CHECKING:
    import torch

# SQLAlchemy on what MLflow does; the product does not open a store in its own process
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SMALL = ["backbone=small_cnn", "dataset.train=10", "dataset.test=5", "training.epochs=1", "tracking=none"]


@dataclass
class Said:
    code: int
    out: str
    err: str


class Person:
    """Types command lines into this process, in an empty folder, offline and with empty caches."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder, self.captured = folder, captured

    def types(self, *words: str) -> Said:
        self.captured.readouterr()
        code = main(words)
        return Said(code, *self.captured.readouterr())

    def files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}

    def is_refused(self, *words: str) -> str:
        """The one line that a wrong request gets."""
        before = self.files()
        said = self.types(*words)
        assert (said.code, said.out) == (2, ""), said
        assert said.err.startswith("tlx: ")
        assert said.err.count("\n") == 1, said.err
        assert "Traceback" not in said.err
        assert self.files() == before
        return said.err


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Person]:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("TORCH_HOME", "HF_HOME", "TLX_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    handlers = {number: signal.getsignal(number) for number in ENDING}
    yield Person(folder, capsys)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def draw_classes(root: Path, images: dict[str, int]) -> Path:
    for label, (name, number) in enumerate(images.items()):
        (root / name).mkdir(parents=True)
        for i in range(number):
            pixels = np.random.default_rng(100 * label + i).integers(0, 99, (24, 24, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


WRONG = {
    "backbone=resnet5O": "no such backbone (did you mean 'resnet50'?)",
    "sede=3": "no such key (did you mean 'seed'?)",
    "+sede=3": "+sede=3: no such key (did you mean 'seed'?)",
    "+training.epoch=3": "no such key (did you mean 'training.epochs'?)",
    "+dataset.trian=3": "dataset.trian: tlx.datasets.shapes takes no such key (did you mean 'train'?)",
    "backbone=resnet18 strategy=finetune strategy.phases.tune.train_from=layer5": "(did you mean 'layer4'?)",
    "training.lr=-1": "training.lr=-1.0: must be more than 0",
    "training.epochs=none": "training.epochs=none: must be a whole number",
    "seed=null": "seed=null: cannot be null",
    "training=3": "training=3: training holds other keys, as in training.<key>=<value>",
    "backbone=null": "backbone=null: a group takes the name of a choice",
    "optimizer.betas=3": "torch.optim.Adam does not take betas=3",
    "optimizer.weight_decay=-1": "Invalid weight_decay value: -1",
    "schedule=step schedule.every=0": "schedule of phase probe: ",
    "augmentation=flip augmentation.transforms.0.p=3": "augmentation.transforms[0]: torchvision.transforms.v2",
    "dataset=image_folder": "dataset.root: where are the images of image_folder?",
    "dataset=image_folder dataset.root=nowhere": "dataset.root=nowhere: no such folder",
    "dataset=image_folder dataset.root=empty": "dataset.root=empty: is empty",
    "dataset=image_folder dataset.root=one": "one/ has one class only, 'a'",
    "dataset=image_folder dataset.root=few": "class 'b' has 1 image",
    "dataset=image_folder dataset.root=bad": "dataset.on_error=skip",
    "runtime.device=gpu": "runtime.device=gpu: must be auto, cpu",
    "output=/dev/null/x": "cannot write /dev/null/x",
    "-m output=/dev/null/x seed=0,1": "cannot write /dev/null/x",
    "tracking=sqlite tracking.uri=foo": "tracking.uri: 'foo' is not an MLflow store",
    "tracking=server tracking.uri=http://127.0.0.1:9": "cannot be reached",
    "backbone=resnet18 runtime.offline=true": "backbone=efficientnet_lite0 needs no download",
    "backbone=resnet18 runtime.offline=true --dry-run backbone.weights=no.pth": "backbone.weights=no.pth: no such file",
    "backbone.weights=empty/damaged.pth": "empty/damaged.pth: damaged, or no file of weights",
    "head=append": "head=append: this backbone has no fully-connected last layer to keep",
    "backbone=timm backbone.name=resnte18": "(did you mean 'resnet18'?)",
    "experiment=shape_transfer": "no such experiment (did you mean 'shapes_transfer'?)",
    "-m backbone=small_cnn,resnet5O": "no such backbone (did you mean 'resnet50'?)",
    "-m seed=1,a": "seed=a: must be a whole number",
    "-m strategy=full,gradual sede=3": "sede=3: no such key",
    "--nonsense": "--nonsense: no such option; --help lists them",
    "--output there": "no such option; for a run: output=FOLDER; after a subcommand: --output FOLDER",
    "--batch-size=8": "no such option; for a run: training.batch_size=N; after predict, embed: --batch-size N",
    "--strategy full": "--strategy: no such option; for a run: strategy=…",
    "--top 3": "--top: no such option; after predict, drift: --top K",
    "few": "few: is a folder; to train on the images in it: python -m tlx dataset=image_folder dataset.root=few",
    "train seed=3": "train: a run needs no subcommand; write python -m tlx ",
    "--dry-rum": "(did you mean '--dry-run'?)",
    "predct runs photo.jpg": "predct: neither key=value nor a subcommand (did you mean 'predict'?)",
    "predict": "the following arguments are required: RUN, PATH, in this order: RUN PATH",
    "predict few": "the following arguments are required: PATH, in this order: RUN PATH",
    "predict few/a/1.png": "few/a/1.png: an image, no run; RUN comes first: python -m tlx predict latest few/a/1.png",
    "predict few/a/1.png few/b": "RUN comes first: python -m tlx predict latest few/a/1.png",
    "predict nowhere photo.jpg": "nowhere: no such folder, and no such sweep in outputs/sweeps; there is none yet",
    "predict empty bad": "empty: no saved model here",
    "predict empty bad --csv table.txt": "must end in .csv",
    "predict empty bad --batch-size 0": "--batch-size 0: must be at least 1",
    "predict empty bad --batch-size -1": "--batch-size -1: must be at least 1",
    "predict empty bad --batch-size few": "--batch-size: invalid int value: 'few'",
    "predict empty bad --device banana": "--device banana: must be auto, cpu, cuda, cuda:<number> or mps",
    "embed empty bad --out x.npz --device banana": "--device banana: must be auto, cpu, cuda, cuda:<number> or mps",
    "--cfg nothing": "-c/--cfg: invalid choice: 'nothing'",
    "--cfg job -p backbon": "--package backbon: no such part",
    "-p backbone": "--package: needs --cfg",
    "--config-dir nowhere": "--config-dir nowhere: no such folder",
    "--config-dir own strategy=broken": "own/strategy/broken.yaml",
    "--config-dir own strategy=typo": "strategy/typo.yaml: phasen: no such key (did you mean 'phases'?)",
    "-sc": "must be one of install=bash",
}


@pytest.fixture
def laid_out(person: Person) -> Person:
    """With the folders that the wrong requests name."""
    folder = person.folder
    (folder / "empty").mkdir()
    draw_classes(folder / "one", {"a": 5})
    draw_classes(folder / "few", {"a": 5, "b": 1})
    draw_classes(folder / "bad", {"a": 5, "b": 5})
    whole = (folder / "bad/a/1.png").read_bytes()
    (folder / "bad/a/1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "bad/b/2.png").write_text("not an image")
    (folder / "own/strategy").mkdir(parents=True)
    (folder / "own/strategy/broken.yaml").write_text("phases: {probe: [\n")
    (folder / "own/strategy/typo.yaml").write_text("phasen: {}\n")
    return person


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_request_is_one_line_and_leaves_nothing(laid_out: Person, line: str) -> None:
    if "damaged.pth" in line:
        (laid_out.folder / "empty/damaged.pth").write_text("not weights")
    defaults = [] if line.startswith(("-sc", "predict", "predct", "embed")) else SMALL
    groups = {word.partition("=")[0] for word in line.split()}
    kept = [word for word in defaults if word.partition("=")[0] not in groups and "dataset=" not in line]
    if "dataset=" in line:
        kept = [word for word in SMALL if not word.startswith("dataset.")]
    assert WRONG[line] in laid_out.is_refused(*kept, *shlex.split(line))


def test_unreadable_images_are_named_or_skipped_counted_and_listed(laid_out: Person) -> None:
    words = [word for word in SMALL if not word.startswith("dataset.")]
    words += ["dataset=image_folder", "dataset.root=bad"]
    refused = laid_out.is_refused(*words)
    assert re.search(r"bad/(a/1|b/2)\.png: .* and 1 more of 10 files", refused)
    said = laid_out.types(*words, "dataset.on_error=skip")
    assert said.code == 0, said.err
    summary = json.loads(next(laid_out.folder.glob("outputs/2*/*/summary.json")).read_text())
    assert {Path(path).name for path, _ in summary["skipped"]} == {"1.png", "2.png"}
    assert sum(summary["images"].values()) == 8
    assert "skipped: 2 files" in said.err


def test_weights_of_another_architecture_are_refused_by_their_keys(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_1

    save_file(squeezenet1_1(weights=None).state_dict(), person.folder / "squeeze.safetensors")
    words = ["backbone=resnet18", "backbone.weights=squeeze.safetensors", *SMALL[1:]]
    assert re.search(r"squeeze\.safetensors.*conv1\.weight", person.is_refused(*words))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    full = person.types(*words).err  # on request, every key
    assert all(key in full for key in ("layer3.1.conv2.weight", "layer4.1.bn2.running_var", "features.12.squeeze.bias"))


def test_predict_and_a_run_say_the_same_of_a_device(laid_out: Person) -> None:
    of_a_run = laid_out.is_refused("runtime.device=banana")
    of_predict = laid_out.is_refused("predict", "empty", "bad", "--device", "banana")
    assert of_predict.replace("--device ", "runtime.device=") == of_a_run


def test_the_traceback_is_there_for_who_asks(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    said = person.types("sede=3")
    assert said.code == 2
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1].startswith("tlx: sede=3: no such key")


NAMES = ["my photos", "a=b", "photos (2)", "#1", "фото 写真", "~odd", "it's", "[1]{2}", "2024", "50 % & more"]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_taken_as_typed(person: Person, name: str) -> None:
    root = draw_classes(person.folder / name, {"a": 5, "b": 5})
    words = ["backbone=small_cnn", "training.epochs=1", "tracking=none", "dataset=image_folder"]
    said = person.types(*words, f"dataset.root={name}", f"output={name} out")
    assert said.code == 0, said.err
    run = next((person.folder / f"{name} out").glob("2*/*"))
    assert json.loads((run / "summary.json").read_text())["classes"] == ["a", "b"]
    assert [path.name for path in person.folder.iterdir()].count(name) == 1
    predicted = person.types("predict", str(run), str(root / "a"), "--json")
    assert predicted.code == 0
    assert len(predicted.out.splitlines()) == 5


def test_the_home_folder_is_where_tilde_says(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(person.folder / "home"))
    draw_classes(person.folder / "home/photos", {"a": 5, "b": 5})
    words = [word for word in SMALL if not word.startswith("dataset.")]
    words += ["dataset=image_folder", "dataset.root=~/photos"]
    assert person.types(*words, "output=~/one").code == 0
    assert len(list(person.folder.glob("home/one/*/*/summary.json"))) == 1
    assert person.types("-m", *words, "output=~/many (2)", "seed=0,1").code == 0
    assert len(list(person.folder.glob("home/many (2)/sweeps/*/*/summary.json"))) == 2
    assert [path.name for path in person.folder.iterdir()] == ["home"]


def test_help_shows_every_choice_with_a_line_and_some_commands(person: Person) -> None:
    said = person.types("--help")
    assert (said.code, said.err) == (0, "")
    for group in GROUPS:
        assert f"\n  {group}\n" in said.out
        for name, about in choices(group).items():
            assert re.search(rf"^    {name} +\S.{{10}}", said.out, re.MULTILINE), (group, name, about)
    examples = re.findall(
        r"^  python -m tlx.*", said.out.partition("examples:")[2].partition("groups")[0], re.MULTILINE
    )
    assert len(examples) == 8
    for option in ("--dry-run", "--multirun", "--cfg", "--config-dir", "--shell-completion", "predict"):
        assert option in said.out
    with pytest.raises(SystemExit) as left:
        main(["predict", "--help"])
    assert left.value.code == 0


def test_the_version_is_the_packages(person: Person) -> None:
    assert person.types("--version").out == f"tlx {package.__version__}\n"


def test_the_configuration_is_shown_whole_in_part_and_resolved(person: Person) -> None:
    said = person.types("--cfg", "job", "backbone=resnet18")
    assert said.code == 0
    assert re.search(r"\nbackbone:  # .+\n", said.out)
    assert "hydra:" not in said.out
    part = person.types("--cfg", "job", "-p", "backbone", "backbone=resnet18").out
    assert "resize: ${size:256,224}" in part
    assert "seed:" not in part
    resolved = person.types("--cfg", "job", "-p", "backbone", "--resolve", "backbone=resnet18").out
    assert "resize: '256'" in resolved or "resize: 256" in resolved
    assert "hydra:" in person.types("--cfg", "hydra").out
    assert person.files() == set()


def test_a_dry_run_says_what_would_happen_and_writes_nothing(person: Person) -> None:
    said = person.types("--dry-run", "backbone=resnet18", "strategy=finetune")
    assert (said.code, person.files()) == (0, set())
    assert "would be downloaded: resnet18-f37072fd.pth from https://" in said.out
    assert re.search(r"phase tune: layer4 input, [\d,]+ bytes an image", said.out)
    assert re.search(
        r"layer4 input, val: \d+ images, [\d.]+ .iB, computed once from the images and cached in ", said.out
    )
    assert re.search(r"layer4 +8,393,728 +8,393,728 +0\.0001", said.out)
    said = person.types("--dry-run", "experiment=shapes_transfer")
    assert said.out.index("the source task shapes comes first") < said.out.index("then the transfer")
    assert "circle, square, triangle" in said.out
    said = person.types("-m", "--dry-run", "backbone=small_cnn", "seed=0,1")
    assert "job 2 of 2: backbone=small_cnn seed=1" in said.out
    assert person.files() == set()


def test_a_persons_own_yaml_is_a_choice_like_any_other(person: Person) -> None:
    own = person.folder / "my yaml"
    (own / "strategy").mkdir(parents=True)
    text = "# Two epochs of the head: python -m tlx strategy=mine\nphases:\n  probe: {train_from: head, epochs: 2}\n"
    (own / "strategy/mine.yaml").write_text(text)
    assert re.search(r"mine +Two epochs of the head\n", person.types("--config-dir", "my yaml", "--help").out)
    words = [word for word in SMALL if "epochs" not in word]
    assert person.types("--config-dir", "my yaml", *words, "strategy=mine").code == 0
    summary = json.loads(next(person.folder.glob("outputs/2*/*/summary.json")).read_text())
    assert summary["epochs"] == 2
    assert summary["command"].startswith("python -m tlx --config-dir 'my yaml' backbone=small_cnn")
    said = person.types(
        "--config-dir", "my yaml", "-m", *words, "strategy=mine,feature_extraction", "training.epochs=1"
    )
    assert said.code == 0, said.err


def test_the_shell_completes_groups_and_choices(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        said = person.types("-sc", "query=bash")
        assert said.code == 0, said.err
        return said.out.split()

    assert completed("tlx backbone=res") == ["backbone=resnet18", "backbone=resnet50"]
    assert "strategy=gradual" in completed("tlx strategy=")
    assert "training.epochs=" in completed("tlx training.ep")[0]
    for shell in ("bash", "zsh", "fish"):
        assert "tlx" in person.types("-sc", f"install={shell}").out


def test_a_configuration_error_and_help_answer_without_anything_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from tlx.cli.main import main; code = main(sys.argv[1:]);"
        "print(code, *sorted({'torch', 'torchvision', 'timm', 'mlflow', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    for words in (["backbone=resnet5O"], ["-m", "seed=1,a"], ["strategy.phases.probe.train_from=x"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == ("0" if words == ["--help"] else "2")


def test_a_pipe_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    line = f"{shlex.quote(sys.executable)} -m tlx --help | head -1; echo ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_of_the_very_end_shows_no_traceback(number: signal.Signals) -> None:
    code = (
        "import atexit, os, sys, tlx.__main__\n"
        f"atexit.register(os.kill, os.getpid(), {int(number)})\n"  # while libraries clean up
        "sys.argv = ['tlx', 'no_such_word']\n"
        "tlx.__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -number
    assert [line[:5] for line in done.stderr.splitlines()] == ["tlx: "]


def wait_for(process: "subprocess.Popen[str]", folder: Path, epochs: int) -> Path:
    """The run's folder, when it has so many epochs."""
    while process.poll() is None:
        for file in folder.glob("outputs/2*/*/metrics.jsonl"):
            if file.read_text().count("\n") >= epochs:
                return file.parent
        time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_and_names_what_is_done(tmp_path: Path, number: signal.Signals) -> None:
    tracking = ["tracking=sqlite"] if number == signal.SIGINT else ["tracking=none"]
    words = [*SMALL[:3], "training.epochs=100000", *tracking]
    process = subprocess.Popen(
        [sys.executable, "-m", "tlx", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = wait_for(process, tmp_path, 2)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("tlx: interrupted: ")
    assert str(run) in last
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["epochs"] >= 2
    assert summary["test_accuracy"] is None  # the test set was not looked at
    model = package.load(run, device="cpu")
    assert sum(model.probabilities(_grey(64))[0].tolist()) == pytest.approx(1, abs=1e-5)
    if number == signal.SIGINT:
        from mlflow import MlflowClient

        tracked = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").get_run(summary["mlflow_run_id"])
        assert tracked.info.status == "KILLED"


def _grey(size: int) -> "torch.Tensor":
    import torch

    return torch.full((1, 3, size, size), 128, dtype=torch.uint8)


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # bytes a file may have


@pytest.mark.parametrize("tracking", ["none", "sqlite"])
def test_a_full_disk_is_one_line(tmp_path: Path, tracking: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tlx", *SMALL[:4], f"tracking={tracking}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=full_disk,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("tlx: ") == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tlx: cannot write ")
    assert "File too large" in last
    if tracking == "sqlite":
        assert done.stderr.count("warning: MLflow") == 1
    left = [path.name for path in tmp_path.glob("outputs/2*/*/*")]
    assert "model" not in left
    assert not [name for name in left if name.startswith(".")]


def test_a_diverged_run_fails_with_its_reason(tlx: Tlx, tmp_path: Path) -> None:
    done = tlx(*SMALL[:3], "training.epochs=3", "optimizer=sgd", "training.lr=1e30", TLX_HOME=str(tmp_path / "home"))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.match(r"tlx: .*the loss is .*(nan|inf).*take a lower learning rate than 1e\+30", last), last
    summary = json.loads(next(tmp_path.glob("outputs/2*/*/summary.json")).read_text())
    assert summary["status"] == "diverged"
    from mlflow import MlflowClient

    run = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").get_run(summary["mlflow_run_id"])
    assert run.info.status == "FAILED"
    assert "the loss is" in run.data.tags["tlx.error"]


def test_predict_says_a_row_an_image_and_names_what_it_cannot_read(person: Person) -> None:
    words = [word for word in SMALL if not word.startswith("dataset.")]
    root = draw_classes(person.folder / "photos", {"a": 5, "b": 5})
    assert person.types(*words, "dataset=image_folder", "dataset.root=photos").code == 0
    run = str(next(person.folder.glob("outputs/2*/*")))
    (root / "a/broken.png").write_text("no image")
    said = person.types("predict", run, "photos", str(root / "b/0.png"), "--csv", "table.csv", "--json", "rows.json")
    assert said.code == 1
    assert "12 images" in said.err
    assert "1 could not be read" in said.err
    table = (person.folder / "table.csv").read_text().splitlines()
    assert table[0] == "file,prediction,probability,p(a),p(b),error"
    assert len(table) == 13
    rows = [json.loads(line) for line in (person.folder / "rows.json").read_text().splitlines()]
    assert sum("error" in row for row in rows) == 1
    shutil.rmtree(root / "b")
    (root / "b").mkdir()
    assert "b: holds no image" in person.is_refused("predict", run, "photos/b")
