"""A saved model in another format says what it said: run by other programs, loaded by other libraries."""

import csv
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from tests.backbones.test_factories import configured
from tests.conftest import ROOT
from tlx.backbones import factories
from tlx.cli import export as export_command
from tlx.config.schema import Head
from tlx.core.errors import RequestError
from tlx.datasets.image_decoding import decode
from tlx.inference import comparison_images, deployed, export, exporters, predictor, saved_model
from tlx.inference.comparison_images import Content, Pictures, of_file, pictures
from tlx.inference.exporters import ExportError, Parity, compare
from tlx.inference.quantization import Quantize
from tlx.inference.unknown_score import UnknownScore

CLASSES = ("ant", "bee", "été")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "small_cnn": ("small_cnn", {"input_size": 32}),
    "resnet18": ("resnet18", {"weights": "none", "input_size": 64}),
    "squeezenet": ("squeezenet1_1", {"weights": "none", "input_size": 64}),
    "vit": ("timm", {"name": "test_vit", "weights": "none", "input_size": 32}),
}
TEMPERATURE = 2.5


def save(run: Path, network: str, head: Head | None = None, precision: str = "fp32") -> Path:
    """A run's folder with a model that has never been trained, whose classes nevertheless differ between images."""
    name, values = NETWORKS[network]
    backbone, head = configured(name, **values), head or Head()
    net, preprocessing = factories.build(backbone, head, len(CLASSES), seed=0)
    with torch.no_grad():
        net[-1][-1].weight.mul_(20)
    how = saved_model.Format(precision, cut="head")
    saved_model.save(run / "model", net, backbone, head, CLASSES, preprocessing, how, {"identity": "abc"})
    description = run / "model" / "model.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "temperature": TEMPERATURE}))
    (run / "summary.json").write_text(json.dumps({"test_accuracy": 0.75, "test_accuracy_interval": [0.5, 0.9]}))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(tmp_path_factory.mktemp(name) / "run é", name) for name in NETWORKS}


def run_export(*arguments: object) -> int:
    """Runs the subcommand `python -m tlx export`; its exit code."""
    return export_command.SUBCOMMAND.main([str(a) for a in arguments])


def check_outputs(network: Callable[[Tensor], tuple[Any, Any]], run: Path) -> None:
    """Batches of resized images, 1 and 3, none of which the file was made with, have the saved model's logits and
    probabilities."""
    saved = predictor.load(run, "cpu")
    size = saved.preprocessing.input_size
    for n in (1, 3):
        x = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        logits, probabilities = map(torch.as_tensor, network(x))
        assert logits.dtype == probabilities.dtype == torch.float32
        assert logits.shape == probabilities.shape == (n, len(CLASSES))
        with torch.no_grad():
            torch.testing.assert_close(logits, saved.net(x), atol=1e-4, rtol=0)
        torch.testing.assert_close(probabilities, (logits / TEMPERATURE).softmax(1))


SIZES = ((50, 75), (91, 40), (33, 33), (9, 120), (300, 170))  # height × width


def check_pixels(network: Callable[[Tensor], tuple[Any, Any]], run: Path) -> None:
    """Images of any size have the probabilities of `predict`, and as classes the same."""
    saved = predictor.load(run, "cpu")
    for i, (high, wide) in enumerate(SIZES):
        pixels = np.asarray(Image.effect_noise((wide, high), 90).convert("RGB").rotate(90 * i, expand=False)).copy()
        logits, probabilities = map(torch.as_tensor, network(torch.from_numpy(pixels)))
        (expected,) = saved.predict(pixels)
        assert logits.shape == probabilities.shape == (len(CLASSES),)
        assert probabilities.tolist() == pytest.approx(list(expected.probabilities.values()), abs=1e-2)
        assert CLASSES[int(probabilities.argmax())] == expected.prediction


def check_facts(facts: Mapping[str, Any], run: Path) -> None:
    saved = predictor.load(run, "cpu")
    assert facts["classes"] == list(CLASSES)
    assert facts["preprocessing"] == saved.preprocessing.to_dict()
    assert facts["temperature"] == TEMPERATURE
    assert facts["unknown_threshold"] is None
    assert facts["test_accuracy"] == 0.75
    assert facts["test_accuracy_interval"] == [0.5, 0.9]
    assert facts["identity"] == "abc"
    assert facts["tlx"]


def writing(target: object) -> str:
    """All that goes to stderr: nothing of what the libraries would like to say."""
    return f"writing {target}, then comparing it on 16 drawn images (the run's test images are not at hand)\n"


def check_said(out: str, target: Path, of: str = "probability") -> None:
    size = f"{target.stat().st_size / 1e6:.1f} MB"
    first, second = out.splitlines()
    assert first == f"{target}: {size}"
    figure = re.fullmatch(
        r"parity with predict on 16 drawn images \(the run's test images are not at hand\): "
        rf"largest difference of a {of} (\d\.\de[-+]\d\d), same classes",
        second,
    )
    assert figure
    assert float(figure[1]) < (1e-3 if of == "logit" else 1e-2)


def session_of(target: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])


def run_session(session: Any, x: Tensor) -> tuple[Any, Any]:
    (given,) = session.get_inputs()
    logits, probabilities = session.run(["logits", "probabilities"], {given.name: x.numpy()})
    return logits, probabilities


@pytest.mark.parametrize("network", ["squeezenet"])  # others: test_parity
def test_onnx_is_one_file_that_takes_pixels_of_any_size(
    runs: dict[str, Path], network: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = runs[network]
    assert run_export(run, "--format", "onnx") == 0
    said = capfd.readouterr()
    target = run / "export" / "model.onnx"
    check_said(said.out, target)
    assert said.err == writing(target)
    session = session_of(target)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("image", "tensor(uint8)", ["height", "width", 3])
    assert [(given.name, given.shape) for given in session.get_outputs()] == [("logits", [3]), ("probabilities", [3])]
    check_pixels(lambda x: run_session(session, x), run)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["tlx"])
    check_facts(facts, run)
    assert list(facts["input"]) == ["image"]
    assert facts["normalisation"].startswith("inside the model")  # beside mean and std: nobody applies them twice
    assert facts["resize"].endswith("inside the model: do not resize before")
    # Alone it is the model, and it tells nothing of the machine it was made on.
    assert not [file for file in target.parent.iterdir() if file.suffix not in (".onnx", ".pt2", ".safetensors")]
    assert str(ROOT).encode() not in target.read_bytes()


def test_onnx_of_a_batch_predicts_images_of_one_size_as_one_by_one(
    runs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, target = runs["resnet18"], tmp_path / "batch.onnx"
    run_export(run, "--format", "onnx", "--input", "images", "--to", target)
    check_said(capfd.readouterr().out, target)
    session = session_of(target)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.shape) == ("images", ["batch", "height", "width", 3])
    check_pixels(lambda x: tuple(found[0] for found in run_session(session, x[None])), run)
    some = torch.randint(0, 256, (3, 70, 90, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    _, together = run_session(session, some)
    single = [run_session(session, one[None])[1][0] for one in some]
    assert together == pytest.approx(np.stack(single), abs=1e-5)


@pytest.mark.parametrize(("form", "suffix"), [("onnx", ".onnx"), ("torch_export", ".pt2")])
def test_a_file_of_resized_images_is_the_network_itself(
    runs: dict[str, Path], form: str, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, target = runs["vit"], tmp_path / f"model{suffix}"
    run_export(run, "--format", form, "--input", "resized", "--to", target)
    check_said(capfd.readouterr().out, target, of="logit")
    if form == "onnx":
        session = session_of(target)
        assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
        check_outputs(lambda x: run_session(session, x), run)
        assert "do not resize" not in json.loads(session.get_modelmeta().custom_metadata_map["tlx"])["resize"]
    else:
        check_outputs(torch.export.load(target).module(), run)


@pytest.mark.parametrize("network", ["squeezenet"])  # others: test_parity
def test_a_torch_export_program_runs_without_tlx(
    runs: dict[str, Path], network: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = runs[network]
    assert run_export(run / "model", "--format", "torch_export") == 0
    said = capfd.readouterr()
    target = run / "export" / "model.pt2"
    check_said(said.out, target)
    assert said.err == writing(target)
    extra = {"tlx.json": ""}
    check_pixels(torch.export.load(target, extra_files=extra).module(), run)
    check_facts(json.loads(extra["tlx.json"]), run)
    assert str(ROOT).encode() not in target.read_bytes()


@pytest.mark.parametrize("threshold", [0.3, None])
def test_the_score_of_unknown_images_is_in_the_file(threshold: float | None, tmp_path: Path) -> None:
    plain = predictor.load(save(tmp_path / "plain", "small_cnn"), "cpu")
    reference = torch.randint(-127, 128, (5, plain.net[-1][-1].weight.shape[1]), dtype=torch.int8)
    opened = dataclasses.replace(plain, unknown=UnknownScore(reference, 2, threshold))
    target = tmp_path / "model.onnx"
    exporters.onnx(opened, target, export.about(opened, tmp_path, "image"), "image")
    session = session_of(target)
    names = [one.name for one in session.get_outputs()]
    assert names == ["logits", "probabilities", "unknown_score", "unknown"][: 4 if threshold else 3]
    assert list(json.loads(session.get_modelmeta().custom_metadata_map["tlx"])["outputs"]) == names
    random = np.random.default_rng(0)
    for high, wide in SIZES:
        pixels = random.integers(0, 256, (high, wide, 3)).astype(np.uint8)
        (expected,) = opened.predict(pixels)
        found = dict(zip(names, session.run(None, {"image": pixels}), strict=True))
        assert found["unknown_score"] == pytest.approx(expected.unknown_score, abs=1e-3)
        if threshold:
            assert bool(found["unknown"]) == (expected.prediction == "unknown")


def test_quantized_onnx_says_what_it_gains_and_what_it_costs(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = photographs(tmp_path / "photos", 12)
    for network, method in (("vit", "dynamic, matrix products"), ("squeezenet", "static, calibrated on 6 training")):
        saved, model = runs[network], predictor.load(runs[network], "cpu")
        rows = "".join(f"{i},{file},{model.predict(file)[0].prediction}\n" for i, file in enumerate(photos))
        (saved / "predictions.csv").write_text(f"sample,file,label\n{rows}", encoding="utf-8")
        wanted = Quantize(
            lambda n: iter([decode(file) for file in photos[:6]]), lambda found: f"sum {int(found.sum())}"
        )
        target = export.export(str(saved), "onnx", None, quantized=wanted)
        (saved / "predictions.csv").unlink()
        assert target == saved / "export" / "model-int8.onnx"
        first, kind, speed, cost = capsys.readouterr().out.splitlines()
        assert first.startswith(f"{target}: ")
        assert kind.startswith(f"int8 ({method}")
        small, whole = (float(re.findall(r"([\d.]+) MB$", line)[0]) for line in (first, kind))
        assert small < 0.5 * whole
        assert re.match(r"[\d.]+ ms an image on this machine .*; without: [\d.]+ ms$", speed)
        assert re.match(r"accuracy on the run's 12 test images: sum (-\d+|0); largest difference", cost)
        session = session_of(target)
        facts = json.loads(session.get_modelmeta().custom_metadata_map["tlx"])
        assert facts["quantization"].startswith(method)
        assert [one.name for one in session.get_inputs()] == ["image"]
    none = Quantize(lambda n: iter(()), lambda found: "")
    with pytest.raises(RequestError, match=r"those of the run are not at hand$"):
        export.export(str(runs["squeezenet"]), "onnx", str(tmp_path / "m.onnx"), quantized=none)
    assert not (tmp_path / "m.onnx").exists()
    with pytest.raises(RequestError, match=r"^--quantize: only with --format onnx, not state_dict$"):
        run_export(runs["vit"], "--format", "state_dict", "--quantize")


def library_network(network: str) -> nn.Module:
    import timm
    from torchvision import models

    if network == "vit":
        built: nn.Module = timm.create_model("test_vit", img_size=32, num_classes=len(CLASSES))
        return built
    return models.get_model(NETWORKS[network][0], num_classes=len(CLASSES))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("resnet18", "loads strictly into torchvision's resnet18 (num_classes=3)"),
        ("squeezenet", "loads strictly into torchvision's squeezenet1_1 (num_classes=3)"),
        ("vit", "loads strictly into timm's test_vit (num_classes=3)"),
    ],
)
def test_a_state_dict_loads_strictly_where_the_network_comes_from(
    runs: dict[str, Path], network: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, pth = runs[network], tmp_path / "new folder" / "weights.pth"
    for arguments in (["--format", "state_dict"], ["--format", "state_dict", "--to", pth]):
        assert run_export(run, *arguments) == 0
        said = capfd.readouterr()
        assert said.err == writing(arguments[-1] if pth in arguments else run / "export" / "model.safetensors")
        lines = said.out.splitlines()
        assert lines[1] == words
        assert lines[2].startswith("its predictions there on 16 drawn images ")
        # SqueezeNet's own head rectifies before it pools, which ours does not: that is said, and no reason to refuse.
        elsewise = lines[2].endswith(": that network makes something else of the same weights")
        assert elsewise == (network == "squeezenet")
    with safe_open(run / "export" / "model.safetensors", "pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        facts = json.loads(file.metadata()["tlx"])
    check_facts(facts, run)
    assert "input" not in facts
    assert facts["normalisation"].startswith("not in the weights")
    library_network(network).load_state_dict(state, strict=True)
    unpickled = torch.load(pth, weights_only=True)
    library_network(network).load_state_dict(unpickled, strict=True)
    saved = predictor.load(run, "cpu").net.original_state()
    assert saved.keys() == state.keys() == unpickled.keys()
    assert all(torch.equal(saved[key], state[key]) and torch.equal(saved[key], unpickled[key]) for key in saved)


@pytest.mark.parametrize(
    ("network", "head", "words"),
    [
        ("small_cnn", Head(), "loads into small_cnn, but for the keys of its own head: head.bias, head.weight"),
        (
            "vit",
            Head(hidden=[8]),
            "loads into timm's test_vit, but for the keys of its own head: "
            "head.0.bias, head.0.weight, head.3.bias, head.3.weight",
        ),
        (
            "vit",
            Head(append=True),
            "loads into timm's test_vit, but for the keys of its own head: new_head.bias, new_head.weight",
        ),
    ],
)
def test_a_head_that_the_original_does_not_have_is_named(
    network: str, head: Head, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_export(save(tmp_path, network, head), "--format", "state_dict")
    assert capsys.readouterr().out.splitlines()[1:] == [words]


def test_weights_that_do_not_fit_the_original_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    opened = predictor.load(runs["resnet18"], "cpu")
    other = {**opened.description, "backbone": {**opened.description["backbone"], "name": "resnet34"}}
    with pytest.raises(ExportError, match=r"^the weights do not fit torchvision's resnet34: \d+ of \d+ keys missing"):
        exporters.state_dict(dataclasses.replace(opened, description=other), tmp_path / "m.safetensors", {})


def test_what_was_measured_in_16_bit_is_written_in_fp32_and_compared_with_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path, "small_cnn", precision="bf16")
    run_export(run, "--format", "torch_export")
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"parity with the saved network in fp32 on .*: largest difference of a probability ", lines[1])
    pattern = (
        r"to the bf16 model that was measured: largest difference of a probability (\S+), (same|\d+ of 16) class[^;]*; "
        r"no class changes whose margin exceeds it"
    )
    figure = re.fullmatch(pattern, lines[2])
    assert figure
    assert 0 < float(figure[1]) < 0.2
    extra = {"tlx.json": ""}
    program = torch.export.load(run / "export" / "model.pt2", extra_files=extra)
    assert json.loads(extra["tlx.json"])["measured_precision"] == "bf16"
    assert {value.dtype for value in program.state_dict.values()} == {torch.float32}


def test_a_change_is_held_against_the_margin_that_was_measured(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = predictor.load(runs["small_cnn"], "cpu")
    measured = torch.tensor([[0.9, 0.1, 0.0], [0.51, 0.49, 0.0]])
    monkeypatch.setattr(deployed, "logits_of", lambda *_: measured)

    def said(*written: list[float]) -> str:
        logits = torch.tensor(written).log() * TEMPERATURE
        return export._beside_measured(opened, logits, torch.zeros(2)).partition("probability ")[2]

    none = "no class changes whose margin exceeds it"
    assert said([0.88, 0.12, 0.0], [0.52, 0.48, 0.0]) == f"2.0e-02, same classes; {none}"
    assert said([0.87, 0.13, 0.0], [0.49, 0.51, 0.0]) == f"3.0e-02, 1 of 2 classes differ; {none}"
    assert said([0.9, 0.1, 0.0], [0.499, 0.501, 0.0]) == (
        "1.1e-02, 1 of 2 classes differ; 1 class changes whose margin exceeds it"
    )


def test_a_file_that_fails_the_comparison_is_not_there(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "there.pt2"
    target.write_text("what was there before")
    monkeypatch.setattr(exporters, "saved", lambda opened: lambda x: 1 - opened.net(x))
    for name, of, below in (("image", "probability", "0.01"), ("resized", "logit", "0.001")):
        with pytest.raises(ExportError) as caught:
            run_export(runs["small_cnn"], "--format", "torch_export", "--to", target, "--input", name)
        assert re.fullmatch(
            rf"{re.escape(str(target))}: not written: on 16 drawn images \(.*\) the file is not the model: "
            rf"largest difference of a {of} \d\.\de[-+]\d\d, \d+ of 16 classes differ; below {below} needed",
            str(caught.value),
        )
    assert target.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [target]
    assert capsys.readouterr().out == ""


def test_parity_is_both_figures() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compare(a, a) == Parity(2, 0.0, 0)
    assert compare(a, a + 9e-4).holds
    assert not compare(a, a + 2e-3).holds
    tie = torch.tensor([[1e-4, 0.0]])
    assert not compare(tie, -tie).holds
    assert str(compare(tie, -tie)) == "largest difference of a logit 2.0e-04, 1 of 1 classes differ"
    assert not compare(a, a * float("nan")).holds
    assert not compare(a * float("nan"), a).holds
    # Of probabilities, only a tie may change: with 0.01 between two of them they were 0.01 apart at most.
    assert compare(tie, -tie, 1.0).holds
    assert not compare(a, a * 1.1, 1.0).holds
    assert compare(a, a * 1.1, 10.0).holds
    assert not compare(a, a * float("nan"), 1.0).holds


class OneSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class OnValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("layer", [OneSize, OnValues])
def test_a_network_that_cannot_be_traced_for_every_batch_is_one_line(
    runs: dict[str, Path], layer: type[nn.Module], tmp_path: Path
) -> None:
    opened = predictor.load(runs["small_cnn"], "cpu")
    opened.net[-1].append(layer())
    with pytest.raises(ExportError, match=r"^small_cnn has no torch\.export form: .+") as caught:
        exporters.torch_export(opened, tmp_path / "m.pt2", {}, "resized")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_one_onnx_file_cannot_hold_are_said_before_anything_is_made(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters, "ONNX_BYTES", 1000)
    with pytest.raises(RequestError, match=r"^--format onnx: 0\.0 GB of weights are more than one file holds; "):
        run_export(runs["small_cnn"], "--format", "onnx", "--to", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def photographs(folder: Path, n: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = [folder / f"{i:02}.png" for i in range(n)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(file)
    return files


def test_it_compares_on_the_images_given_or_the_tested_or_drawn_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = save(tmp_path / "run", "small_cnn")
    seen = predictor.load(run, "cpu").preprocessing
    files = photographs(tmp_path / "photos", 70)

    def views_of(some: list[Path]) -> Tensor:
        return torch.stack([seen.of(decode(file)) for file in some])

    def shown(given: list[Path], home: Path = run, content: Content = of_file) -> Pictures:
        found = pictures(seen, given, home, content)
        assert torch.equal(found.views, torch.stack([seen.of(pixels) for pixels in found]))
        assert len(found.labels) == len(found.views)
        return found

    assert shown(files[:3]).words == "3 images"
    assert torch.equal(shown(files[:3]).views, views_of(files[:3]))
    monkeypatch.setattr(comparison_images, "MOST", 64)
    assert shown(files).words == "the first 64 of 70 images"
    assert torch.equal(shown(files).views, views_of(files[:64]))

    with (run / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["sample", "file", "label"])
        table.writerows([i, file, "ant" if i % 2 else "bee"] for i, file in enumerate(files))
    chosen = shown([])
    assert chosen.words == "64 of the run's 70 test images"
    assert {"ant", "bee"} == set(chosen.labels)
    monkeypatch.setattr(comparison_images, "MOST", 1000)
    assert shown([]).words == "the run's 70 test images"
    assert torch.equal(shown([]).views, views_of(files))
    files[1].write_bytes(b"no image any more")
    assert shown([]).words == "69 of the run's 70 test images"
    assert torch.equal(shown([]).views, views_of([files[0], *files[2:]]))
    # Images without a file are read by whoever knows the data set.
    grey = np.full((40, 30, 3), 7, np.uint8)
    assert torch.equal(shown([], content=lambda name: grey).views[5], seen.of(grey))

    for file in files:
        file.unlink()
    drawn = shown([])
    assert drawn.words == "16 drawn images (the run's test images are not at hand)"
    assert len({view.numpy().tobytes() for view in drawn.views}) == 16
    assert torch.equal(drawn.views, shown([], tmp_path).views)
    (run / "predictions.csv").write_bytes(b"\xff\x00,\n\xff")  # a damaged table names no images
    assert shown([]).words == drawn.words


@contextmanager
def small_files() -> Iterator[None]:
    """The kernel refuses files above 4 kB, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("torch_export", ".pt2"), ("state_dict", ".pth"), ("state_dict", ".safetensors")],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    runs: dict[str, Path], form: str, suffix: str, tmp_path: Path
) -> None:
    target = tmp_path / f"m{suffix}"
    with (
        small_files(),
        pytest.raises(RequestError, match=rf"^cannot write {re.escape(str(target))}: .*free some space"),
    ):
        run_export(runs["small_cnn"], "--format", form, "--to", target)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_said(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs["small_cnn"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    empty = tmp_path / "empty"
    empty.mkdir()

    def refused(*arguments: object) -> str:
        with pytest.raises(RequestError) as caught:
            run_export(*arguments)
        return str(caught.value)

    assert refused(tmp_path / "no", "--format", "onnx") == (
        f"{tmp_path / 'no'}: no such folder; give a run's folder, as in outputs/<date>/<run>, or latest"
    )
    assert refused(tmp_path, "--format", "state_dict") == (
        f"{tmp_path}: no saved model here ({tmp_path / 'model.safetensors'} is missing); give a run's folder"
    )
    assert refused(run, "--format", "torch_exprot") == (
        "--format torch_exprot: one of onnx, torch_export, state_dict (did you mean 'torch_export'?)"
    )
    assert refused(run, "--format", "onnx", "--input", "imgae") == (
        "--input imgae: one of image, images, resized (did you mean 'image'?)"
    )
    assert refused(run, "--format", "state_dict", "--input", "image") == (
        "--input image: --format state_dict writes weights alone; leave it out"
    )
    assert refused(run, "--format", "onnx", "--to", "m.pt2") == (
        "--to m.pt2: the file's name must end in .onnx for --format onnx"
    )
    assert refused(run, "--format", "state_dict", "--to", "m") == (
        "--to m: the file's name must end in .safetensors or .pth for --format state_dict"
    )
    folder = tmp_path / "a.pt2"
    folder.mkdir()
    assert (
        refused(run, "--format", "torch_export", "--to", folder)
        == f"--to {folder}: is a folder; give the name of a file"
    )
    assert (
        refused(run, "--format", "state_dict", "--images", broken) == f"{broken}: not an image, or of an unknown format"
    )
    assert (
        refused(run, "--format", "state_dict", "--images", tmp_path / "no")
        == f"{tmp_path / 'no'}: no such file or folder"
    )
    assert "holds no image" in refused(run, "--format", "state_dict", "--images", empty)
    damaged = save(tmp_path / "damaged", "small_cnn")
    (damaged / "summary.json").write_text("{")
    assert refused(damaged, "--format", "state_dict").startswith(f"{damaged / 'summary.json'}: damaged (")
    assert not (damaged / "export").exists()


@pytest.mark.parametrize("missing", [["onnxruntime"], ["onnx", "onnxscript"]])
def test_a_package_that_is_missing_is_named_with_the_command_before_anything_heavy_is_imported(
    runs: dict[str, Path], missing: list[str]
) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
from tlx.core.errors import RequestError
from tlx.inference.export import export
try:
    export({str(runs["small_cnn"])!r}, "onnx")
except RequestError as error:
    print(error)
print(*sorted({{"torch", "torchvision", "timm"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"--format onnx: needs {', '.join(missing)}; pip install 'tlx-transfer[onnx]'\n\n"
