"""A saved model in another format, compared with it before it is kept."""

import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.core import csv_cells
from tlx.core.activity import doing, importing
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, nearest
from tlx.datasets.image_decoding import UnreadableImage, decode
from tlx.datasets.image_paths import find
from tlx.datasets.image_sources import content_of
from tlx.datasets.pixel_levels import words
from tlx.datasets.synthetic_shapes import SHAPES, draw, generator
from tlx.inference.run_folder import run_folder

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.datasets.preprocessing import Preprocessing
    from tlx.inference.exporters import ExportError
    from tlx.inference.predictor import Model

# Format → how a file's name may end, the first being the default; and the packages that it takes beside our own.
FORMATS = {"onnx": (".onnx",), "torch_export": (".pt2",), "state_dict": (".safetensors", ".pth")}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
TESTED, DRAWN, NOISE = 64, 12, 4  # images of a comparison: of the run's test set, or else made for it


def export(run: str, form: str, to: str | None = None, images: Sequence[str] = ()) -> Path:
    """Writes the model of `run` in a format of `FORMATS`, and prints how the file compares with the saved model.

    The file (`to`, or `RUN/export/model.<suffix>`) is there only if, in fp32, no logit of any image differs by 1e-3
    or more and no class changes; weights, if they load into the network they come from. `images`: files or folders
    (their first 64) to compare on; else the run's first 64 test images that can still be read, else 16 made for it.

    Raises:
        RequestError: no such folder, model, format, package or image; a file's name that does not fit the format.
        ExportError: the model has no such form, or the file fails the comparison.
    """
    home, target = _checked(run, form, to)
    files = list(find(images))
    with importing("torch"):
        from tlx.inference import exporters
        from tlx.inference.predictor import load
    with doing("opening the model"):
        model = load(run, "cpu")
        views, what = pictures(model.preprocessing, files, home)
    print(f"writing {target}, then comparing it on {what}", file=sys.stderr)
    graph = form != "state_dict"
    with doing(f"computing {len(views)} images with the saved model"):
        reference = exporters.logits_of(exporters.saved(model), views)
        beside = [_beside_measured(model, reference, views)] if graph and model.precision != "fp32" else []
    facts = about(model, home)
    with atomic(target, "--to FILE") as path, doing(f"writing {target.name} and comparing it"):
        if not graph:
            del facts["input"], facts["outputs"]
            facts["normalisation"] = "not in the weights: apply the mean and std of preprocessing to pixels in 0..1"
            into, original = exporters.state_dict(model, path, facts)
            lines = [into]
            if original is not None:
                parity = exporters.compare(reference, exporters.logits_of(original, views))
                why = "" if parity.holds else ": that network makes something else of the same weights"
                lines.append(f"its predictions there on {what}: {parity}{why}")
        else:
            written = (exporters.onnx if form == "onnx" else exporters.torch_export)(model, path, facts)
            parity = exporters.compare(reference, exporters.logits_of(written, views))
            if not parity.holds:
                raise _refused(target, what, parity)
            lines = [f"parity on {what}: {parity}", *beside]
        size = path.stat().st_size
    print("\n".join([f"{target}: {size / 1e6:.1f} MB", *lines]))
    return target


def _checked(run: str, form: str, to: str | None) -> tuple[Path, Path]:
    """The run's folder, and the file to write."""
    if form not in FORMATS:
        raise RequestError(f"--format {form}: one of {', '.join(FORMATS)}{nearest(form, FORMATS)}")
    suffixes = FORMATS[form]
    folder = run_folder(run).absolute()
    home = folder.parent if folder.name == "model" else folder
    target = home / "export" / f"model{suffixes[0]}" if to is None else Path(os.path.expanduser(to))
    if target.suffix not in suffixes:
        raise RequestError(f"--to {to}: the file's name must end in {' or '.join(suffixes)} for --format {form}")
    if target.is_dir():
        raise RequestError(f"--to {to}: is a folder; give the name of a file")
    missing = [name for name in PACKAGES.get(form, ()) if find_spec(name) is None]
    if missing:
        raise RequestError(f"--format {form}: needs {', '.join(missing)}; pip install 'tlx-transfer[{form}]'")
    return home, target


def pictures(preprocessing: "Preprocessing", files: Sequence[Path], home: Path) -> tuple["Tensor", str]:
    """Images to compare on, uint8 `[N, 3, S, S]`, and what they are in words.

    Raises:
        RequestError: one of `files` cannot be read; those of the run's test set are then left out.
    """
    import torch

    def view(file: Path) -> "Tensor":
        try:
            return preprocessing.of(decode(content_of(file), preprocessing.range, str(file)))
        except (UnreadableImage, RequestError) as error:
            raise RequestError(f"{file}: {error}") from error

    def readable() -> Iterator["Tensor"]:
        for file in tested_files(home):
            with suppress(RequestError):
                yield view(file)

    if files:
        some = files[:TESTED]
        of = f"the first {len(some)} of {len(files):,}" if len(some) < len(files) else str(len(some))
        return torch.stack([view(file) for file in some]), f"{of} images"
    tested = list(islice(readable(), TESTED))
    if tested:
        return torch.stack(tested), f"{len(tested)} of the run's test images"
    # No picture of anybody's: shapes in the size of the network, and noise, which has all frequencies.
    size, names = preprocessing.input_size, list(SHAPES)
    drawn = [draw(names[i % len(names)], generator(0, names[i % len(names)], "export", i), size) for i in range(DRAWN)]
    noise = [generator(0, "noise", "export", i).integers(0, 256, (size, size, 3)).astype("uint8") for i in range(NOISE)]
    made = [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in (*drawn, *noise)]
    return torch.stack(made), f"{len(made)} drawn images (the run's test images are not at hand)"


def tested_files(home: Path) -> Iterator[Path]:
    """The files of the run's test set, as far as its table names any."""
    with suppress(OSError, ValueError, csv.Error), (home / "predictions.csv").open(encoding="utf-8") as table:
        yield from (Path(csv_cells.text(row.get("file") or "")) for row in csv.DictReader(table))


def about(model: "Model", home: Path) -> dict[str, Any]:
    """What a file says of itself: classes, what it takes and gives, how images are resized, what was measured."""
    from tlx.core.version import __version__

    seen, classes = model.preprocessing, len(model.classes)
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
        "input": {"images": f"uint8 [N, 3, {side}, {side}], RGB, 0..255, resized, not normalised"},
        "normalisation": "inside the model: it applies the mean and std itself; do not apply them again",
        "outputs": {
            "logits": f"float32 [N, {classes}]",
            "probabilities": f"float32 [N, {classes}], softmax(logits / temperature)",
        },
        "preprocessing": seen.to_dict(),
        **deep,
        "resize": f"{rule}{crop} ({seen.interpolation}, antialiased)",
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
    from tlx.inference.exporters import differ, logits_of

    measured, ours = logits_of(model.probabilities, views), (reference / model.temperature).softmax(1)
    largest = float((ours - measured).abs().max())
    changed = ours.argmax(1) != measured.argmax(1)
    best = measured.topk(min(2, measured.shape[1])).values
    beyond = int((changed & (best[:, 0] - best[:, -1] > largest)).sum())
    differing = differ(int(changed.sum()), len(ours))
    margins = f"{beyond or 'no'} class{'es change' if beyond > 1 else ' changes'} whose margin exceeds it"
    words = f"largest difference of a probability {largest:.1e}, {differing}; {margins}"
    return f"to the {model.precision} model that was measured: {words}"


def _refused(target: Path, what: str, parity: object) -> "ExportError":
    from tlx.inference.exporters import TOLERANCE, ExportError

    return ExportError(
        f"{target}: not written: on {what} the file is not the model: {parity}; below {TOLERANCE} needed"
    )
