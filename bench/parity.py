"""python -m bench.parity: what a run said of its test images, said again in every way that a model can be used.

For each backbone of conf/ at its own input size: the run's own table, `predict`, the Python object, an ONNX file, a
torch.export program, MLflow's pyfunc, and a real `mlflow models serve`. Nothing goes over the network.
"""

import argparse
import base64
import contextlib
import csv
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.predict import labelled
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError
from tlx.datasets.image_decoding import decode

TOLERANCE = 1e-3  # of a probability, in fp32
BACKBONES = {
    "efficientnet_lite0": (), "mobilenet_v2": (), "resnet18": (), "resnet50": (), "squeezenet1_1": (), "alexnet": (),
    "vgg16": (), "small_cnn": (), "timm": ("backbone.name=vit_tiny_patch16_224",),
}  # fmt: skip
START = 120  # seconds that a server has to start

# A row for each image: the most probable class, and its probability.
Table = list[tuple[str, float]]


@dataclass(frozen=True)
class Agreement:
    """How two tables compare: the largest difference of a probability, and images whose class differs."""

    difference: float
    changed: int

    @property
    def holds(self) -> bool:
        """Whether they say the same."""
        return self.difference < TOLERANCE and not self.changed


def compare(a: Table, b: Table) -> Agreement:
    """Two tables of the same images."""
    pairs = list(zip(a, b, strict=True))
    apart = [abs(one[1] - other[1]) for one, other in pairs]
    largest = max(apart, key=lambda d: (math.isnan(d), d))  # what is no number is the largest
    return Agreement(largest, sum(one[0] != other[0] for one, other in pairs))


def tested(run: Path) -> tuple[list[Path], Table]:
    """The run's test images, and what it said of them."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Path(row["file"]) for row in rows], most_probable(rows)


def by_predict(run: Path, files: Sequence[Path], folder: Path) -> Table:
    """By the subcommand, as a table in `folder`."""
    from tlx.cli.predict import predict

    target = folder / "predict.csv"
    assert predict(str(run), [str(file) for file in files], {"csv": str(target)}, unknown=False) == 0
    with target.open(encoding="utf-8", newline="") as file:
        return most_probable(list(csv.DictReader(file)))


def by_object(run: Path, files: Sequence[Path]) -> Table:
    """By `tlx.load`, from the files' bytes."""
    import tlx

    contents = [file.read_bytes() for file in files]
    return [(p.prediction, p.probability) for p in tlx.load(run).predict(contents, unknown=False)]


def by_onnx(run: Path, files: Sequence[Path], folder: Path) -> Table:
    """By a file that onnxruntime runs, from decoded pixels."""
    import onnxruntime

    from tlx.inference.export import export

    file = export(str(run), "onnx", str(folder / "model.onnx"))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return _best(run, [session.run(["probabilities"], {"image": decode(file)})[0] for file in files])


def by_torch_export(run: Path, files: Sequence[Path], folder: Path) -> Table:
    """By a program that torch alone opens, from decoded pixels."""
    import torch

    from tlx.inference.export import export

    program = torch.export.load(export(str(run), "torch_export", str(folder / "model.pt2"))).module()
    with torch.no_grad():
        return _best(run, [program(torch.from_numpy(decode(file)))[1] for file in files])


def by_pyfunc(uri: str, files: Sequence[Path]) -> Table:
    """By MLflow, from the files in base64."""
    import mlflow.pyfunc
    import pandas as pd

    found = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"image": texts(files)}))
    return most_probable(found.to_dict("records"))


def texts(files: Sequence[Path]) -> list[str]:
    """Files in base64."""
    return [base64.b64encode(file.read_bytes()).decode() for file in files]


def by_server(address: str, files: Sequence[Path]) -> Table:
    """By a server that listens at `address`."""
    body = json.dumps({"dataframe_records": [{"image": text} for text in texts(files)]}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return most_probable(json.load(answer)["predictions"])


@contextlib.contextmanager
def served(uri: str, store: str) -> Iterator[str]:
    """The address of an `mlflow models serve` of its own, on this machine only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by its name
    root = str(Path(__file__).resolve().parent.parent)
    words = ["serve", "-m", uri, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", *words],
        env={**os.environ, "PATH": path, "PYTHONPATH": root, "MLFLOW_TRACKING_URI": store},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + START
    try:
        while True:
            try:
                with urllib.request.urlopen(f"{address}/ping", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the server did not start") from None
                time.sleep(0.2)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def most_probable(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Of rows of predictions; one that is predicted as unknown has a most probable class, too."""
    shares = [row.get("probabilities") or {row["prediction"]: row["probability"]} for row in rows]
    return [
        (max(each, key=lambda name: each[name]), float(row["probability"]))
        for each, row in zip(shares, rows, strict=True)
    ]


def _best(run: Path, probabilities: Any) -> Table:
    classes = json.loads((run / "model" / "model.json").read_text(encoding="utf-8"))["classes"]
    return [(classes[int(row.argmax())], float(row.max())) for row in probabilities]


def measured(name: str, words: Sequence[str], data: Path, folder: Path) -> tuple[int, dict[str, Agreement]]:
    """One backbone: the number of test images, and how each way compares with the run's own table."""
    import mlflow

    import tlx

    common = ["dataset=image_folder", f"dataset.root={data}", f"output={folder}", "runtime.offline=true"]
    # A rate at which no network diverges: one that has says the same of every image, whichever network predicts it.
    common += ["runtime.precision=fp32", "runtime.device=cpu", "training.epochs=3", "training.lr=1e-5"]
    common += [f"tracking.register={name}", "tracking.system_metrics=false", f"backbone={name}", *words]
    try:
        summary = tlx.run(common)
    except RequestError:  # its weights are not here
        summary = tlx.run([*common, "backbone.weights=none"])
    run, store, uri = summary.folder, f"sqlite:///{folder}/mlflow.db", f"models:/{name}@champion"
    mlflow.set_tracking_uri(store)
    files, table = tested(run)
    ways: dict[str, Callable[[], Table]] = {
        "predict": lambda: by_predict(run, files, folder),
        "object": lambda: by_object(run, files),
        "ONNX": lambda: by_onnx(run, files, folder),
        "torch.export": lambda: by_torch_export(run, files, folder),
        "pyfunc": lambda: by_pyfunc(uri, files),
    }
    found = {way: compare(table, said()) for way, said in ways.items()}
    with served(uri, store) as address:
        found["served"] = compare(table, by_server(address, files))
    return len(files), found


def markdown(results: Mapping[str, tuple[int, Mapping[str, Agreement]]]) -> str:
    """A row for each backbone: the largest difference of a probability from the run's own, by way."""
    ways = list(next(iter(results.values()))[1])
    lines = [f"| backbone | images | {' | '.join(ways)} |", "|---" * (len(ways) + 2) + "|"]
    for name, (images, found) in results.items():
        cells = [f"{a.difference:.1e}" + (f", {a.changed} classes differ" if a.changed else "") for a in found.values()]
        lines.append(f"| {name} | {images} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every way agrees within 1e-3, 1 where one does not."""
    parser = argparse.ArgumentParser(prog="python -m bench.parity", description=str(__doc__).partition(": ")[2])
    parser.add_argument("--only", nargs="+", choices=BACKBONES, default=list(BACKBONES), metavar="BACKBONE")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), metavar="FOLDER")
    given = parser.parse_args(argv)
    results = {}
    with tempfile.TemporaryDirectory(prefix="tlx-bench-") as place:
        data = labelled(Path(place) / "data", 10, 20)
        for name in given.only:
            with contextlib.redirect_stdout(io.StringIO()):
                results[name] = measured(name, BACKBONES[name], data, Path(place) / name)
            print(markdown({name: results[name]}).splitlines()[-1], file=sys.stderr)
    text = markdown(results)
    with atomic(given.out / "parity.md") as path:
        path.write_text(text, encoding="utf-8")
    print(text, end="")
    return 0 if all(a.holds for _, found in results.values() for a in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
