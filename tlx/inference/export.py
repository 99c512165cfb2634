"""A saved model in another format, compared with it before it is kept."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tlx.core.activity import doing, importing
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, nearest
from tlx.datasets.image_paths import find
from tlx.datasets.pixel_levels import words
from tlx.inference.comparison_images import Content, Pictures, of_file, pictures
from tlx.inference.deployed_inputs import INPUTS, takes
from tlx.inference.run_folder import run_folder

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.datasets.image_decoding import Pixels
    from tlx.inference.deployed import Logits
    from tlx.inference.exporters import ExportError, Parity
    from tlx.inference.predictor import Model
    from tlx.inference.quantization import Quantize

# Format → how a file's name may end, the first being the default; and the packages that it takes beside our own.
FORMATS = {"onnx": (".onnx",), "torch_export": (".pt2",), "state_dict": (".safetensors", ".pth")}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def export(
    run: str,
    form: str,
    to: str | None = None,
    images: Sequence[str] = (),
    name: str | None = None,
    content: Content = of_file,
    quantized: "Quantize | None" = None,
) -> Path:
    """Writes the model of `run` in a format of `FORMATS`, and prints how the file compares with the saved model.

    A file that takes pixels of any size is there only if, in fp32, no probability of any image differs by 0.01 or
    more; one that takes resized images, if no logit differs by 1e-3 or more and no class changes; weights, if they
    load into the network they come from.

    Args:
        to: the file; default: `RUN/export/model.<suffix>`.
        images: files or folders (their first 1,000) to compare on; else the run's test images that can still be read,
            at most 1,000 of them; else 16 made for it.
        name: what the file takes, one of `INPUTS`; default: `image`.
        content: reads the run's test images by the names that its table has.
        quantized: what writes ONNX in 8-bit integers instead, by default as `model-int8.onnx`. That file is written
            whatever its accuracy, and what it costs is printed.

    Raises:
        RequestError: no such folder, model, format, package or image; a file's name that does not fit the format.
        ExportError: the model has no such form, or the file fails the comparison.
    """
    home, target = _checked(run, form, to, "model" if quantized is None else "model-int8")
    name = _named(form, name)
    files = list(find(images))
    with importing("torch"):
        from tlx.inference import deployed, exporters
        from tlx.inference.predictor import load
    with doing("opening the model"):
        model = load(run, "cpu")
    with doing("reading the images to compare on"):
        shown = pictures(model.preprocessing, files, home, content)
    print(f"writing {target}, then comparing it on {shown.words}", file=sys.stderr)
    with doing(f"computing {len(shown.views)} images with the saved model"):
        # Weights alone have no further views of an image.
        seen = dataclasses.replace(model.preprocessing, views=())
        whole = dataclasses.replace(model, preprocessing=seen) if form == "state_dict" else model
        reference = deployed.logits_of(exporters.saved(whole), shown.views)
    facts = about(model, home, name)
    with atomic(target, "--to FILE") as path, doing(f"writing {target.name} and comparing it"):
        if form == "state_dict":
            lines = _weights(model, path, facts, reference, shown)
        elif quantized is not None:
            lines = _integers(model, path, facts, name, reference, shown, target, quantized)
        else:
            written = (exporters.onnx if form == "onnx" else exporters.torch_export)(model, path, facts, name)
            lines = _compared(model, written, name, reference, shown, target)
        size = path.stat().st_size
    print("\n".join([f"{target}: {size / 1e6:.1f} MB", *lines]))
    return target


def _integers(
    model: "Model",
    path: Path,
    facts: dict[str, Any],
    name: str,
    reference: "Tensor",
    shown: Pictures,
    target: Path,
    given: "Quantize",
) -> list[str]:
    """Writes ONNX in 8-bit integers; what that gains and costs, in words."""
    import torch

    from tlx.inference import exporters
    from tlx.inference.quantization import CALIBRATION, milliseconds, outcomes, quantize

    def inputs(images: "Iterable[Pixels]") -> "Iterator[Tensor]":
        for pixels in images:
            one = model.preprocessing.of(pixels) if name == "resized" else torch.from_numpy(pixels)
            yield one if name == "image" else one[None]

    with TemporaryDirectory() as folder:
        whole = Path(folder) / "model.onnx"
        before = exporters.onnx(model, whole, facts, name)
        _compared(model, before, name, reference, shown, target)
        method = quantize(whole, path, name, lambda: [one.numpy() for one in inputs(given.training(CALIBRATION))])
        size = whole.stat().st_size
    after = exporters.opened(path)
    found = _logits(after, name, shown)
    parity = exporters.compare(reference, found, model.temperature)
    times = [f"{milliseconds(network, inputs(shown)):.1f}" for network in (after, before)]
    cost = f"not measured, for no label is known of the {shown.words}"
    if any(label in model.classes for label in shown.labels):
        cost = f"on {shown.words}: {given.difference(outcomes(shown.labels, model.classes, reference, found))}"
    return [
        f"int8 ({method}); without: {size / 1e6:.1f} MB",
        f"{times[0]} ms an image on this machine (median, one at a time); without: {times[1]} ms",
        f"accuracy {cost}; {parity}",
    ]


def _logits(network: "Logits", name: str, shown: Pictures) -> "Tensor":
    """The logits of a file for all images."""
    from tlx.inference import deployed

    if name == "resized":
        return deployed.logits_of(network, shown.views)
    return deployed.logits_of_pixels(network, name, shown)


def _weights(model: "Model", path: Path, facts: dict[str, Any], reference: "Tensor", shown: Pictures) -> list[str]:
    """Writes the weights alone; where they load, and what that network makes of them, in words."""
    from tlx.inference import deployed, exporters

    del facts["input"], facts["outputs"]
    facts["normalisation"] = "not in the weights: apply the mean and std of preprocessing to pixels in 0..1"
    into, original = exporters.state_dict(model, path, facts)
    if original is None:
        return [into]
    parity = exporters.compare(reference, deployed.logits_of(original, shown.views))
    why = "" if parity.holds else ": that network makes something else of the same weights"
    return [into, f"its predictions there on {shown.words}: {parity}{why}"]


def _compared(
    model: "Model", written: "Logits", name: str, reference: "Tensor", shown: Pictures, target: Path
) -> list[str]:
    """How a file compares with the model, in words.

    Raises:
        ExportError: it is not the model.
    """
    from tlx.inference import exporters

    temperature = None if name == "resized" else model.temperature
    parity = exporters.compare(reference, _logits(written, name, shown), temperature)
    if not parity.holds:
        raise _refused(target, shown.words, parity)
    whole = model.precision == "fp32"
    beside = [] if whole else [_beside_measured(model, reference, shown.views)]
    of = "predict" if whole else "the saved network in fp32"
    return [f"parity with {of} on {shown.words}: {parity}", *beside]


def _named(form: str, name: str | None) -> str:
    """What the file takes."""
    if name is not None and form == "state_dict":
        raise RequestError(f"--input {name}: --format state_dict writes weights alone; leave it out")
    if name is not None and name not in INPUTS:
        raise RequestError(f"--input {name}: one of {', '.join(INPUTS)}{nearest(name, INPUTS)}")
    return name or next(iter(INPUTS))


def _checked(run: str, form: str, to: str | None, stem: str) -> tuple[Path, Path]:
    """The run's folder, and the file to write."""
    if form not in FORMATS:
        raise RequestError(f"--format {form}: one of {', '.join(FORMATS)}{nearest(form, FORMATS)}")
    suffixes = FORMATS[form]
    folder = run_folder(run).absolute()
    home = folder.parent if folder.name == "model" else folder
    target = home / "export" / f"{stem}{suffixes[0]}" if to is None else Path(os.path.expanduser(to))
    if target.suffix not in suffixes:
        raise RequestError(f"--to {to}: the file's name must end in {' or '.join(suffixes)} for --format {form}")
    if target.is_dir():
        raise RequestError(f"--to {to}: is a folder; give the name of a file")
    missing = [name for name in PACKAGES.get(form, ()) if find_spec(name) is None]
    if missing:
        raise RequestError(f"--format {form}: needs {', '.join(missing)}; pip install 'tlx-transfer[{form}]'")
    return home, target


def about(model: "Model", home: Path, name: str) -> dict[str, Any]:
    """What a file says of itself: classes, what it takes and gives, how images are resized, what was measured."""
    from tlx.core.version import __version__
    from tlx.inference.deployed import outputs

    seen, classes = model.preprocessing, len(model.classes)
    several, of_all = ("", "") if name == "image" else ("N, ", "N")
    given = {
        "logits": f"float32 [{several}{classes}]",
        "probabilities": f"float32 [{several}{classes}], softmax(logits / temperature)",
        "unknown_score": f"float32 [{of_all}], how far an image is from the training images, 0..2",
        "unknown": f"bool [{of_all}], whether the score is above {model.unknown_threshold}: none of the classes",
    }
    side = seen.input_size
    whole = (
        f"the long side to {side} pixels, then borders of the mean colour"
        if seen.pad
        else f"both sides to {side} pixels"
    )
    rule = whole if seen.resize is None else f"the short side to {seen.resize} pixels"
    crop = "" if seen.crop is None else f", then a centre crop of {seen.crop}"
    deep = {} if seen.range is None else {"range": f"images of more than 8 bits: {words(seen.range)} is black to white"}
    return {
        "tlx": __version__,
        "backbone": model.description["backbone"]["name"],
        "classes": list(model.classes),
        "input": {name: takes(name, side)},
        "normalisation": "inside the model: it applies the mean and std itself; do not apply them again",
        "outputs": {one: given[one] for one in outputs(model)},
        "preprocessing": seen.to_dict(),
        **deep,
        "resize": f"{rule}{crop} ({seen.interpolation}, antialiased)"
        + ("" if name == "resized" else ", inside the model: do not resize before"),
        "temperature": model.description.get("temperature"),
        "unknown_threshold": model.unknown_threshold,
        "measured_precision": model.precision,
        "identity": model.description.get("identity"),
        **_figures(model, home),
    }


def _figures(model: "Model", home: Path) -> dict[str, Any]:
    """The test accuracy and its interval, from the run's summary or else from the model's description."""
    file = home / "summary.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise RequestError(f"{file}: damaged ({error})") from error
    known = {**model.description, **model.description.get("metrics", {}), **found}
    return {name: known.get(name) for name in ("test_accuracy", "test_accuracy_interval")}


def _beside_measured(model: "Model", reference: "Tensor", views: "Tensor") -> str:
    """How far the network in fp32, which is what is written, is from the one that was measured in 16 bit.

    A prediction may change where the two most probable classes are closer to each other than the two networks are.
    """
    from tlx.inference.deployed import logits_of
    from tlx.inference.exporters import differ

    measured, ours = logits_of(model.probabilities, views), (reference / model.temperature).softmax(1)
    largest = float((ours - measured).abs().max())
    changed = ours.argmax(1) != measured.argmax(1)
    best = measured.topk(min(2, measured.shape[1])).values
    beyond = int((changed & (best[:, 0] - best[:, -1] > largest)).sum())
    differing = differ(int(changed.sum()), len(ours))
    margins = f"{beyond or 'no'} class{'es change' if beyond > 1 else ' changes'} whose margin exceeds it"
    words = f"largest difference of a probability {largest:.1e}, {differing}; {margins}"
    return f"to the {model.precision} model that was measured: {words}"


def _refused(target: Path, what: str, parity: "Parity") -> "ExportError":
    from tlx.inference.exporters import ExportError

    return ExportError(
        f"{target}: not written: on {what} the file is not the model: {parity}; below {parity.needed} needed"
    )
