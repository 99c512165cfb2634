"""A run's model in MLflow: loaded and served as it was saved, offline; and champion only where it has won."""

import base64
import io
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

import tlx
from tests.backbones.test_factories import configured
from tests.conftest import ROOT
from tests.tracking.folders import begun, says
from tests.tracking.test_tracking import client, free_port, until
from tlx.backbones import factories
from tlx.config.schema import Head, Tracking
from tlx.core import statistics
from tlx.inference import saved_model
from tlx.inference.mlflow_pyfunc import MAX_BYTES, Served
from tlx.tracking import run_facts
from tlx.tracking import tracker as tracking
from tlx.tracking.mlflow_worker import model_registry

CLASSES = ("ant", "bee", "été")
# MLflow's tables use what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def save(run: Path) -> Path:
    """A run's folder with a network that has never been trained."""
    backbone = configured("timm", name="resnet10t", weights="none", input_size=32)
    net, preprocessing = factories.build(backbone, Head(), len(CLASSES), seed=0)
    views = [preprocessing.view(torch.from_numpy(np.array(picture)).permute(2, 0, 1)) for picture in pictures()]
    with torch.no_grad():  # so that the pictures differ in their predictions
        net[-1][-1].weight.mul_(100)
        net[-1][-1].bias.sub_(net.eval()(torch.stack(views)).mean(0))
    facts = {"data": {"name": "insects", "test": "f" * 64}}
    saved_model.save(
        run / "model", net, backbone, Head(), CLASSES, preprocessing, saved_model.Format("fp32", cut="head"), facts
    )
    begun(run, status="finished")
    return with_predictions(run, [True])


def with_predictions(run: Path, correct: Sequence[bool], folder: str = "/data") -> Path:
    """The table that says which test images a run has right."""
    rows = [f"{i},{folder}/{i}.png,ant,{'ant' if right else 'bee'},0.9,{right:d}\n" for i, right in enumerate(correct)]
    (run / "predictions.csv").write_text("sample,file,label,prediction,probability,correct\n" + "".join(rows))
    return run


def weightless(
    run: Path, data: str = "f" * 64, weights: str = "", val: str = "v", loss: float = 0.5, rule: str = "val_loss"
) -> Path:
    """A run whose model nobody opens: what a registry asks of it.

    `weights`: their checksum. `data`, `val`: fingerprints of the test and the validation images. `loss`: of the
    validation images in the epoch that was kept; the accuracy is as good as that. `rule`: what chooses.
    """
    (run / "model").mkdir(parents=True)
    known = {"test": data, "fingerprint": data + val} | ({"val": val} if val else {})
    (run / "model" / "model.json").write_text(json.dumps({"data": known, "weights": weights}))
    rows = [
        {"epoch": 1, "val_loss": 0.0, "val_accuracy": 1.0},
        {"epoch": 2, "val_loss": loss, "val_accuracy": 1 - loss},
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    begun(run, key=uuid.uuid4().hex, status="finished", best_epoch=2, epochs=2, choose_by=rule)
    return run


def log(output: Path, run: Path, register: str | None) -> str:
    """What a run that is through tells MLflow; its id."""
    run_facts.remember(run, key=uuid.uuid4().hex)
    tracker = tracking.open(Tracking(system_metrics=False, register=register), output)
    tracker.start(run)
    tracker.finish()
    return tracker.run_id


def pictures() -> list[Image.Image]:
    """Of several sizes, and different enough for several predictions of a network that has never been trained."""
    rng = np.random.default_rng(0)
    kinds = [((32, 32), (0, 0, 250)), ((50, 70), (250, 250, 0)), ((33, 200), (0, 250, 0)), ((64, 48), (250, 0, 250))]
    return [Image.fromarray((rng.integers(0, 6, (*size, 3)) + colour).astype(np.uint8)) for size, colour in kinds]


def content(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def text(image: Image.Image, kind: str = "PNG") -> str:
    return base64.b64encode(content(image, kind)).decode()


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out puts é")


@pytest.fixture(scope="module")
def run(output: Path) -> Path:
    """A run whose model is registered as `insects`."""
    run = save(output / "run")
    log(output, run, "insects")
    return run


@pytest.fixture(scope="module")
def expected(run: Path) -> list[dict[str, Any]]:
    """What the saved model itself says about the pictures."""
    predictions = tlx.load(run, "cpu").predict(pictures())
    assert len({one.prediction for one in predictions}) > 1
    return [row(a.prediction, a.probability, dict(a.probabilities)) for a in predictions]


def row(prediction: str = "", probability: float = 0.0, each: dict[str, float] | None = None, error: str = "") -> Any:
    return {"prediction": prediction, "probability": probability, "probabilities": each or {}, "error": error}


def offline(output: Path) -> dict[str, str]:
    """The environment of one who serves: the store, and a network that leads nowhere."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), nowhere)
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{output}/mlflow.db", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by its name
    return {**os.environ, **proxies, **own, "PATH": path, "NO_PROXY": "127.0.0.1", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Service:
    """A real `mlflow models serve`."""

    def __init__(self, output: Path, folder: Path) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/insects@champion"),
                *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            ],
            cwd=folder, env=offline(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        until(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, "the server did not start, or has ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def ask(self, body: bytes) -> tuple[int, Any]:
        """The status, and what is said."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)["predictions"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def rows(self, **request: Any) -> Any:
        status, rows = self.ask(json.dumps(request).encode())
        assert status == 200, rows
        return rows


@pytest.fixture(scope="module")
def service(output: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(output, tmp_path_factory.mktemp("served from"))
    yield service
    os.killpg(service.process.pid, signal.SIGKILL)
    service.process.wait()


def artifacts(output: Path, name: str, version: str = "1") -> Path:
    """Where the files of a registered model lie."""
    found = client(output).get_model_version(name, version)
    return output / "mlartifacts" / "models" / str(found.source).removeprefix("models:/") / "artifacts"


def agree(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one == {
            **other,
            "probability": pytest.approx(other["probability"], abs=1e-6),
            "probabilities": pytest.approx(other["probabilities"], abs=1e-6),
        }


def test_what_is_logged_is_data_alone_with_all_that_mlflow_asks_of_a_model(output: Path, run: Path) -> None:
    folder = artifacts(output, "insects")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files - {"registered_model_meta"} == {  # MLflow's own, once the model is registered
        *("MLmodel", "requirements.txt", "python_env.yaml", "input_example.json", "serving_input_example.json"),
        *("model/model.json", "model/model.safetensors"),
    }
    for name in files - {"model/model.safetensors"}:
        assert b"pickle" not in (folder / name).read_bytes()
        assert b"pkl" not in (folder / name).read_bytes()
    for name in ("model.json", "model.safetensors"):
        assert (folder / "model" / name).read_bytes() == (run / "model" / name).read_bytes()
    assert os.path.samefile(folder / "model" / "model.safetensors", run / "model" / "model.safetensors")
    assert not os.path.samefile(folder / "model" / "model.json", run / "model" / "model.json")
    needs = (folder / "requirements.txt").read_text().splitlines()
    assert {"mlflow", "torch", "torchvision", "timm"} <= {line.partition("==")[0] for line in needs}
    assert all(line.partition("==")[2] for line in needs)
    found = client(output)
    version = found.get_model_version_by_alias("insects", "champion")
    assert int(version.version) == 1
    assert version.tags["tlx.data"] == "f" * 64
    logged = found.get_logged_model(folder.parent.name)
    assert (logged.status, logged.source_run_id, logged.name) == ("READY", version.run_id, "model")
    outputs = found.get_run(str(version.run_id)).outputs.model_outputs
    assert [one.model_id for one in outputs] == [logged.model_id]


# Everything that an attack would need is refused while the model is loaded and predicts: a connection, an unpickled
# global, a process, code from the model's folder.
LOADED = """
import json, os, sys
import mlflow.pyfunc, pandas as pd, numpy as np
import tlx.inference.mlflow_pyfunc
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "pickle.find_class", "subprocess.Popen", "os.system"):
        raise AssertionError(f"{event} {arguments}")
    if event == "exec" and "artifacts" in arguments[0].co_filename:
        raise AssertionError(f"code of the artifact: {arguments}")
mlflow.MlflowClient().search_experiments()  # SQLAlchemy has what it needs
sys.addaudithook(watch)
found = mlflow.pyfunc.load_model("models:/insects@champion")
given = json.load(sys.stdin)
arrays = [np.array(pixels, np.uint8) for pixels in given["arrays"]]
inputs = {
    "example": found.input_example,
    "texts": pd.DataFrame({"image": given["texts"]}, index=range(7, 7 + len(given["texts"]))),
    "bytes": pd.DataFrame({"image": [__import__("base64").b64decode(t) for t in given["texts"]]}),
    "arrays": pd.DataFrame({"image": arrays}),
    "series": pd.Series(arrays, name="image"),
    "batch": {"image": np.stack([arrays[0], arrays[0]])},
    "one": {"image": arrays[0]},
}
said = {name: found.predict(what) for name, what in inputs.items()}
assert list(said["texts"].index) == list(inputs["texts"].index)
print(json.dumps({name: rows.to_dict("records") for name, rows in said.items()}))
"""


def test_pyfunc_without_a_network_says_what_the_saved_model_says_and_executes_nothing(
    output: Path, run: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = artifacts(output, "insects")
    traps = ["model/__init__.py", "model/tlx.py", "tlx/__init__.py", "sitecustomize.py", "code/torch.py", "torch.py"]
    for trap in traps:
        (folder / trap).parent.mkdir(exist_ok=True)
        (folder / trap).write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    arrays = [np.asarray(picture).tolist() for picture in pictures()]
    given = {"texts": [text(picture) for picture in pictures()], "arrays": arrays}
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOADED],
            cwd=tmp_path, env=offline(output), input=json.dumps(given), capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        for trap in traps:
            (folder / trap).unlink()
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert not (tmp_path / "sprung").exists()
    said = json.loads(done.stdout)
    for way in ("texts", "bytes", "arrays", "series"):
        agree(said[way], expected)
    agree(said["batch"], [expected[0]] * 2)
    agree(said["one"], expected[:1])
    assert said["example"][0]["prediction"] in CLASSES


def test_the_served_process_says_what_the_saved_model_says_in_every_form_of_a_request(
    output: Path, service: Service, expected: list[dict[str, Any]]
) -> None:
    texts = [text(picture) for picture in pictures()]
    arrays = [np.asarray(picture).tolist() for picture in pictures()]
    agree(service.rows(dataframe_split={"columns": ["image"], "data": [[one] for one in texts]}), expected)
    agree(service.rows(dataframe_records=[{"image": one} for one in texts]), expected)
    lines = [base64.encodebytes(content(picture)).decode() for picture in pictures()]
    agree(service.rows(dataframe_records=[{"image": one.replace("\n", "\r\n")} for one in lines]), expected)
    agree(service.rows(inputs=lines), expected)
    agree(service.rows(dataframe_records=[{"image": one} for one in arrays]), expected)
    agree(service.rows(dataframe_records=[{"image": texts[0]}, {"image": arrays[1]}]), expected[:2])
    for key in ("inputs", "instances"):
        agree(service.rows(**{key: texts}), expected)
    agree(service.rows(inputs={"image": texts}), expected)
    agree(service.rows(inputs={"image": texts[2]}), expected[2:3])
    agree(service.rows(inputs={"image": texts[2:3]}), expected[2:3])
    agree(service.rows(instances=[{"image": one} for one in texts]), expected)
    agree(service.rows(instances=[{"image": arrays[0]}] * 2), [expected[0]] * 2)
    agree(service.rows(inputs={"image": [arrays[0], arrays[0]]}), [expected[0]] * 2)
    agree(service.rows(inputs={"image": arrays[1]}), expected[1:2])
    example = json.loads((artifacts(output, "insects") / "serving_input_example.json").read_text())
    assert service.rows(**example)[0]["error"] == ""


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


def test_what_is_no_image_gets_a_row_that_says_why_and_the_others_their_answers(
    service: Service, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    good = [text(picture) for picture in pictures()]
    photo = tmp_path / "photo.png"
    pictures()[0].save(photo)
    refused: list[tuple[Any, str]] = [
        ("!!! not base64 !!!", "not base64; give the bytes of an image file in base64, or uint8 [H, W, 3]"),
        (str(photo), "not base64; give the bytes of an image file in base64, or uint8 [H, W, 3]"),
        (f"http://127.0.0.1:{service.port}/ping", "not base64; give the bytes of an image file in base64, or"),
        ("", "the file is empty"),
        ("AAAA", "not an image, or of an unknown format"),
        (base64.b64encode(pickle.dumps(Trap(tmp_path / "sprung"))).decode(), "not an image, or of an unknown format"),
        (base64.b64encode(content(pictures()[0])[:-40]).decode(), "truncated"),
        (text(Image.new("1", (20_000, 6_000))), "20000 x 6000 pixels are more than 100,000,000"),
        (text(Image.new("1", (20_000, 20_000))), "400,000,000 pixels are more than 100,000,000"),  # Pillow's own limit
        (text(Image.new("L", (1, 1_000_000))), "1 x 1000000 pixels are too narrow"),
        (None, "no image; give the bytes of an image file in base64, or uint8 [H, W, 3]"),
        (3.5, "no image"),
        ({"a": 1}, "no image"),
        ([], "an array of float64 [0]; it must be uint8 [H, W, 3]"),
        ([[[0, 0, 256]]], "an array of int64 [1, 1, 3]; it must be uint8 [H, W, 3]"),
        ([[[0, 0, 0.5]]], "an array of float64 [1, 1, 3]; it must be uint8 [H, W, 3]"),
        ([[[0, 0]]], "an array of uint8 [1, 1, 2]; it must be uint8 [H, W, 3]"),
        ([[[0, 0, 0]], [[0]]], "lists of unequal length"),
        ([[["a", "b", "c"]]], "it must be uint8 [H, W, 3]"),
    ]
    records = [{"image": one} for pair in zip(refused, good * 9, strict=False) for one in (pair[0][0], pair[1])]
    rows = service.rows(dataframe_records=records)
    for (_, why), found in zip(refused, rows[::2], strict=True):
        assert why in found["error"]
        assert "\n" not in found["error"]
        assert found == row(error=found["error"])
    agree(rows[1::2], (expected * 9)[: len(refused)])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "valid JSON"),
        (b"[1]", "Received a list"),
        (b'{"dataframe_records": [{"picture": "AAAA"}]}', "Model is missing inputs ['image']"),
        (b'{"path": "a.png"}', "exactly one of the input fields"),
        (b"[" * 100_000, ""),
        (b"\xff\xfe", "valid JSON"),
    ],
)
def test_a_request_that_asks_nothing_is_refused_and_the_server_lives(service: Service, body: bytes, said: str) -> None:
    status, answer = service.ask(body)
    assert status == 400 or (not said and status == 500)
    assert said in answer
    assert service.answers()


def test_a_file_that_is_too_long_is_not_even_decoded(run: Path) -> None:
    served = Served(tlx.load(run, "cpu"))
    long = "A" * (MAX_BYTES // 3 * 4 + 8)
    answers = served.predict(pd.DataFrame({"image": [long, b"\0" * (MAX_BYTES + 1), text(pictures()[0])]}))
    assert list(answers["error"]) == ["the file has more than 64 MiB"] * 2 + [""]
    assert list(served.predict(pd.DataFrame({"image": []})).columns) == list(answers.columns)


def verdicts(output: Path, name: str) -> tuple[str, str]:
    """The champion's version, and what was said of the latest one."""
    found = client(output)
    latest = max(found.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    return str(found.get_registered_model(name).aliases["champion"]), latest.tags["tlx.champion"]


def test_the_alias_moves_where_validation_says_so_and_the_test_images_decide_nothing(
    output: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def registered(loss: float, correct: Sequence[bool], folder: str = "/data", **more: str) -> tuple[str, str]:
        run = weightless(tmp_path / f"run {len(list(tmp_path.iterdir()))}", loss=loss, **more)
        log(output, with_predictions(run, correct, folder), "shoes")
        return verdicts(output, "shoes")

    poor, good = [True] * 10 + [False] * 10, [True] * 19 + [False]
    with caplog.at_level(logging.INFO, logger="tlx.tracking"):
        assert registered(0.5, poor) == ("1", "is champion: the first one")
        # Better on the test images, with certainty, and not by validation.
        won = "9 of 20 test images are correct in this model only, 0 in the other only, p = 0.0039"
        why = f"not better by validation (val_loss 0.6000 against 0.5000); beside it: {won}"
        assert registered(0.6, good) == ("1", f"version 1 stays champion: {why}")
        why = "version 1 stays champion: not better by validation (val_loss 0.5000 against 0.5000); beside it: "
        assert registered(0.5, poor) == (
            "1",
            f"{why}0 of 20 test images are correct in this model only, 0 in the other only, p = 1",
        ), "of equals the first"
        # Another folder is no other data: that is what the fingerprint says.
        better = "is champion: better by validation (val_loss 0.4000 against 0.5000); beside it: "
        assert registered(0.4, poor[1:] + poor[:1], folder="/elsewhere")[0] == "4"
        assert registered(0.3, good, data="e" * 64)[1].endswith("against 0.4000); beside it: other test data")
        stays = "version 5 stays champion: other validation images, whose figures cannot be compared"
        assert registered(0.1, good, val="w") == ("5", stays)
        assert registered(0.1, good, rule="val_macro_f1") == (
            "5",
            "version 5 stays champion: val_macro_f1 of both is not known, there is nothing to compare",
        )
        by_accuracy = registered(0.2, poor, rule="val_accuracy", data="e" * 64)
        assert by_accuracy[0] == "8"
        assert "better by validation (val_accuracy 80.0% against 70.0%); beside it: 0 of 20" in by_accuracy[1]
        assert registered(0.1, [True] * 25, data="e" * 64)[1].endswith("beside it: other test images")
    messages = [message for message in caplog.messages if message.startswith("MLflow: registered")]
    assert messages[0] == "MLflow: registered as shoes version 1, is champion: the first one"
    assert messages[3].startswith(f"MLflow: registered as shoes version 4, {better}")


def test_a_champion_that_says_too_little_or_one_that_others_named(output: Path, tmp_path: Path) -> None:
    run = with_predictions(weightless(tmp_path / "run"), [True])
    shutil.rmtree(output / "mlartifacts" / log(output, run, "bare"))
    better = with_predictions(weightless(tmp_path / "better", loss=0.1), [True])
    log(output, better, "bare")
    why = "val_loss of both is not known, there is nothing to compare"
    assert verdicts(output, "bare") == ("1", f"version 1 stays champion: {why}")
    client(output).delete_model_version_tag("bare", "1", "tlx.validation")
    log(output, better, "bare")
    why = "other validation images, whose figures cannot be compared"
    assert verdicts(output, "bare") == ("1", f"version 1 stays champion: {why}")
    client(output).delete_registered_model_alias("bare", "champion")
    log(output, run, "bare")
    assert verdicts(output, "bare") == ("4", "is champion: the first one")


def test_a_champion_of_an_earlier_version_is_compared_where_all_its_data_is_the_same(
    output: Path, tmp_path: Path
) -> None:
    """Its model does not say which images it was chosen by, its summary not by which figure."""
    old, new = weightless(tmp_path / "old", val=""), weightless(tmp_path / "new", loss=0.1)
    (old / "summary.json").write_text(json.dumps({"status": "finished", "best_epoch": 2, "epochs": 2}))
    (old / "predictions.csv").write_text("")
    for run in (old, new):
        run_facts.remember(run, data={"name": "photos", "digest": "f" * 64 + "v", "source": "/data"})
        says(run, images={"train": 1}, classes=["ant", "bee"])
        run_id = log(output, with_predictions(run, [True]), "older")
        if run == old:
            (output / "mlartifacts" / run_id / "artifacts" / "predictions.csv").unlink()
    champion, said = verdicts(output, "older")
    assert (champion, said) == (
        "2",
        "is champion: better by validation (val_loss 0.1000 against 0.5000); beside it: its test predictions are gone",
    )


def outputs(found: MlflowClient, run_id: str) -> list[str]:
    """The logged models that a run's page shows."""
    shown = found.get_run(run_id).outputs
    return [str(one.model_id) for one in shown.model_outputs] if shown else []


def logged(found: MlflowClient, run_id: str) -> dict[str, str]:
    """The logged models that came of a run, and what is known of their weights."""
    models = found.search_logged_models([found.get_run(run_id).info.experiment_id], f"source_run_id = '{run_id}'")
    return {str(one.model_id): one.tags[model_registry.WEIGHTS] for one in models}


def test_a_run_that_goes_on_has_its_model_once_and_registers_it_once(output: Path, tmp_path: Path) -> None:
    run, found = weightless(tmp_path / "run", weights="sha256:a"), client(output)
    with_predictions(run, [True])
    says(run, test_accuracy=1.0, test_accuracy_interval=[0.207, 1.0])
    run_id = found.create_run(found.create_experiment("goes on", (output / "mlartifacts").as_uri())).info.run_id
    # Killed while the files were copied.
    half = found.create_logged_model(found.get_run(run_id).info.experiment_id, "model", run_id)
    model_id = model_registry.log(found, run_id, run / "model")
    assert logged(found, run_id) == {model_id: "sha256:a"}
    assert half.model_id != model_id
    assert outputs(found, run_id) == [model_id]
    said = model_registry.register(found, run_id, model_id, "once", run)
    assert said == "registered as once version 1, is champion: the first one"
    assert model_registry.log(found, run_id, run / "model") == model_id
    assert model_registry.register(found, run_id, model_id, "once", run) == f"already {said}"
    (version,) = found.search_model_versions("name = 'once'")
    assert version.description.startswith("**Test accuracy 100.0%** (95 % interval 20.7% to 100.0%)")
    listed = json.loads(found.get_logged_model(model_id).tags[model_registry.VERSIONS])
    assert listed == [{"name": "once", "version": "1"}]
    assert outputs(found, run_id) == [model_id]
    # What is registered stays where the weights are others.
    (run / "model/model.json").write_text(json.dumps({"data": {"test": "f" * 64}, "weights": "sha256:b"}))
    other = model_registry.log(found, run_id, run / "model")
    assert logged(found, run_id) == {model_id: "sha256:a", other: "sha256:b"}


def test_a_model_whose_run_was_killed_before_it_was_linked_is_linked_now(output: Path, tmp_path: Path) -> None:
    run, found = weightless(tmp_path / "run", weights="sha256:a"), client(output)
    run_id = found.create_run(found.create_experiment("not linked", (output / "mlartifacts").as_uri())).info.run_id
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(MlflowClient, "log_outputs", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            model_registry.log(found, run_id, run / "model")
    assert outputs(found, run_id) == []
    model_id = model_registry.log(found, run_id, run / "model")
    assert outputs(found, run_id) == list(logged(found, run_id)) == [model_id]


def test_who_becomes_champion_during_a_comparison_is_compared_too(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = client(output)
    experiment = found.create_experiment("race", (output / "mlartifacts").as_uri())

    def registered(name: str, loss: float) -> str:
        run = with_predictions(weightless(tmp_path / name, loss=loss), [True])
        run_id = found.create_run(experiment).info.run_id
        for file in ("predictions.csv", "metrics.jsonl", "summary.json"):
            found.log_artifact(run_id, str(run / file))
        return model_registry.register(found, run_id, model_registry.log(found, run_id, run / "model"), "raced", run)

    assert registered("poor", 0.9).endswith("version 1, is champion: the first one")
    compare, others = model_registry.compare, [("perfect", 0.0)]

    def slowly(old: str, new: str) -> str:
        while others:  # another run is faster
            assert "is champion: better by validation (val_loss 0.0000 against 0.9000)" in registered(*others.pop())
        return compare(old, new)

    monkeypatch.setattr(model_registry, "compare", slowly)
    said = registered("middling", 0.5)
    why = "not better by validation (val_loss 0.5000 against 0.0000); beside it: "
    why += "0 of 1 test images are correct in this model only, 0 in the other only, p = 1"
    assert said == f"registered as raced version 2, version 3 stays champion: {why}"
    assert verdicts(output, "raced")[0] == "3"


def test_a_model_that_is_not_to_be_registered_is_logged_all_the_same(output: Path, run: Path) -> None:
    before = {found.name for found in client(output).search_registered_models()}
    run_id = log(output, run, None)
    found: MlflowClient = client(output)
    assert {found.name for found in found.search_registered_models()} == before
    (logged,) = found.get_run(run_id).outputs.model_outputs
    assert found.get_logged_model(logged.model_id).status == "READY"


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 5), (3, 3), (2, 9), (9, 2), (12, 30), (400, 480)])
def test_exact_mcnemar_is_twice_the_binomial_tail(lost: int, won: int) -> None:
    n = lost + won
    tail = sum(comb(n, k) for k in range(min(lost, won) + 1)) / 2**n
    assert statistics.exact(lost, won) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)
    assert statistics.exact(lost, won) == statistics.exact(won, lost)
