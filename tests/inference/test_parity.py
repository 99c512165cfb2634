"""What a run said of its test images is said again in every way that a model can be used, whatever the network."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tlx
from bench import parity
from bench.predict import labelled
from tlx.inference import mlflow_pyfunc
from tlx.runs.run_summary import Summary
from tlx.tracking.mlflow_worker import model_description

NETWORKS = {
    "efficientnet_lite0": ("backbone=efficientnet_lite0", "backbone.input_size=64"),
    "test_vit": ("backbone=timm", "backbone.name=test_vit", "backbone.input_size=32"),
}
# MLflow warns of its own type hints while it is imported
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("parity é") / "data", 4, 6)


def learned(data: Path, output: Path, *words: str) -> Summary:
    common = ["dataset=image_folder", f"dataset.root={data}", f"output={output}", "tracking=none", "seed=1"]
    common += ["runtime.device=cpu", "runtime.precision=fp32", "runtime.offline=true", "backbone.weights=none"]
    return tlx.run([*common, "training.epochs=1", "training.batch_size=2", "training.lr=1e-3", *words])


@pytest.mark.parametrize("network", NETWORKS)
def test_every_way_to_a_prediction_gives_the_table_of_the_runs_own_test(
    data: Path, tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    run = learned(data, tmp_path / "out", *NETWORKS[network]).folder
    files, table = parity.tested(run)
    assert len(files) == 12
    shares = [share if name == "dark" else 1 - share for name, share in table]
    assert max(shares) - min(shares) > 0.02  # the images differ in their predictions
    logged = tmp_path / "logged"
    shutil.copytree(run / "model", logged / "model")
    model_description.describe(logged, "m-1", "r-1", 1)
    by_loader = mlflow_pyfunc._load_pyfunc(str(logged / "model")).predict(pd.DataFrame({"image": parity.texts(files)}))
    found = {
        "predict": parity.by_predict(run, files, tmp_path),
        "object": parity.by_object(run, files),
        "onnx": parity.by_onnx(run, files, tmp_path),
        "torch.export": parity.by_torch_export(run, files, tmp_path),
        "pyfunc": parity.by_pyfunc(str(logged), files),
        "served": parity.most_probable(by_loader.to_dict("records")),
    }
    apart = {way: parity.compare(table, said) for way, said in found.items()}
    assert not {way: agreement for way, agreement in apart.items() if not agreement.holds}
    for way in ("predict", "object", "pyfunc", "served"):  # the very computation that was measured
        assert apart[way].difference < 1e-6, way


def test_tables_agree_or_not() -> None:
    table = [("a", 0.9), ("b", 0.6)]
    assert parity.compare(table, table).holds
    assert parity.compare(table, [("a", 0.9009), ("b", 0.6)]).holds
    assert not parity.compare(table, [("a", 0.9011), ("b", 0.6)]).holds
    assert not parity.compare(table, [("a", 0.9), ("a", 0.6)]).holds
    assert not parity.compare(table, [("a", 0.9), ("b", float("nan"))]).holds
    text = parity.markdown({"net": (2, {"way": parity.compare(table, [("a", 0.8), ("a", 0.6)])})})
    assert text.splitlines()[-1] == "| net | 2 | 1.0e-01, 1 classes differ |"
