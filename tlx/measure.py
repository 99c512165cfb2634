"""`python -m tlx evaluate RUN dataset=…`: a saved model measured on other data, as a run measures its own."""

import argparse
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.display import MOST, aligned
from tlx.errors import RequestError, nearest, printable, unicode
from tlx.folders import run_folder
from tlx.runtime import atomic

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.config import Config
    from tlx.data import Data, Images, Parts
    from tlx.evaluate import Scores
    from tlx.images import Decoded
    from tlx.levels import Range
    from tlx.model import Model

PARTS = ("train", "val", "test", "all")
OURS = ("dataset", "runtime", "seed", "output")  # what may be said beside the model, which brings all the rest


@dataclass(frozen=True)
class Measured:
    """What a model is worth on a part of a data set.

    Attributes:
        data, part, fingerprint: which images; `all` are those of the three parts.
        of: images of the whole data set, whatever the part.
        files: the path of each, or `<split>/<index>`.
        labels: the class of each, a position in the model's class list.
        absent: classes of the model of which there is no image: precision, recall and F1 do not exist.
        skipped: (path, reason) of files that were left out.
        trained: whether the model has learned from these very images, or was chosen by them.
        mixed: whether it may have learned from some of them: they are of its own data set, but not its test set.
    """

    data: str
    part: str
    fingerprint: str
    of: int
    files: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    absent: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    trained: bool
    mixed: bool
    precision: str
    device: str
    scores: "Scores"

    @property
    def sole(self) -> bool:
        """Whether all images are of one class: its recall is the accuracy, its precision is 1 whatever the model."""
        return len(self.absent) == len(self.classes) - 1

    @property
    def per_class(self) -> dict[str, dict[str, float | None]]:
        """Precision, recall, f1 and images of each class; None where these images cannot say it."""
        figures: dict[str, dict[str, float | None]] = {}
        for name, known in self.scores.per_class.items():
            mute = ("precision", "recall", "f1") if name in self.absent else ("precision", "f1") if self.sole else ()
            figures[name] = {**known, **dict.fromkeys(mute)}
        return figures

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        found = self.scores
        return {
            "data": {"name": self.data, "part": self.part, "fingerprint": self.fingerprint},
            "images": len(self.files),
            "accuracy": found.accuracy,
            "accuracy_interval": list(found.interval),
            "loss": found.loss,
            "classes": list(self.classes),
            "absent": list(self.absent),
            "per_class": self.per_class,
            "confusion": found.confusion,
            "skipped": [list(pair) for pair in self.skipped],
            "seen_in_training": "yes" if self.trained else "perhaps" if self.mixed else "no",
            "precision": self.precision,
            "device": self.device,
        }


def options(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its model/")
    parser.add_argument(
        "overrides", nargs="+", metavar="key=value", help="dataset=…, dataset.<key>=…, runtime.<key>=…, seed, output"
    )
    parser.add_argument(
        "--part", default="test", metavar="PART", help=f"{', '.join(PARTS)} (test); whichever, all files are read"
    )
    parser.add_argument("--csv", metavar="FILE", help="the predictions, to FILE.csv")
    parser.add_argument("--json", metavar="FILE", help="the figures, to FILE.json")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with YAML of your own")


def main(given: argparse.Namespace) -> int:
    """Carries the verb out and gives its exit code."""
    for option, target in (("csv", given.csv), ("json", given.json)):
        if target is not None and (not target.endswith(f".{option}") or Path(os.path.expanduser(target)).is_dir()):
            raise RequestError(f"--{option} {target}: must be a file whose name ends in .{option}")
    found = evaluate(given.run, given.overrides, given.part, given.config_dir)
    if given.csv is not None:
        with atomic(Path(os.path.expanduser(given.csv))) as path:
            table = found.scores.table(found.files, found.labels, found.classes)
            path.write_text(table, encoding="utf-8", newline="")
    if given.json is not None:
        with atomic(Path(os.path.expanduser(given.json))) as path:
            text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
            path.write_text(unicode(text), encoding="utf-8")  # a file's name need not be Unicode
    print("\n".join(map(printable, _lines(found))))
    return 0


def evaluate(run: str, overrides: Sequence[str], part: str = "test", config_dir: str | None = None) -> Measured:
    """Measures the model of `run` on a part of the data set that `overrides` name, in the way a run measures its own.

    On the run's own data its figures are the run's own, to the bit. The seed, which says how a data set without parts
    is split, is the run's own unless it is given.

    Raises:
        RequestError: no such model, data set or part; a key that is not the data's; a class the model does not know.
    """
    if part not in PARTS:
        raise RequestError(f"--part {part}: one of {', '.join(PARTS)}{nearest(part, PARTS)}")
    run_folder(run)
    config = _composed(overrides, config_dir)
    from tlx.build import found, output
    from tlx.decoding import allow
    from tlx.images import Decoded
    from tlx.runtime import device_name, use_precision, use_threads

    allow(config.runtime.max_pixels)
    parts = found(config, fewest=1)
    use_threads(config.runtime.threads)
    import torch

    from tlx.evaluate import scores
    from tlx.model import load

    model = load(run, config.runtime.device)
    use_precision(model.precision)
    position = _positions(parts.classes, model.classes)
    trained_on: Mapping[str, Any] = model.description.get("data", {})
    seed = config.seed if "seed" in _keys(overrides) else trained_on.get("seed", config.seed)
    data = _read(parts, config, seed, part, Decoded.below(output(config)))
    span = _range(model, config)
    for images in (data.train, data.val, data.test):
        images.store.span = span
    sets = [getattr(data, name) for name in (PARTS[:3] if part == "all" else (part,))]
    chosen = [images for images in sets if len(images)]
    labels = [position[label] for images in chosen for label in images.labels.tolist()]
    present = {model.classes[label] for label in labels}
    same = data.fingerprint == trained_on.get("fingerprint")
    own_test = part == "test" and (same or data.test_fingerprint == trained_on.get("test"))
    trained = part != "test" and same
    return Measured(
        data=data.name,
        part=part,
        fingerprint=data.fingerprint,
        of=sum(len(getattr(data, name)) for name in PARTS[:3]),
        files=tuple(file for images in chosen for file in images.files),
        labels=tuple(labels),
        classes=model.classes,
        absent=tuple(name for name in model.classes if name not in present),
        skipped=data.skipped,
        trained=trained,
        mixed=not own_test and not trained and data.name == trained_on.get("name"),
        precision=model.precision,
        device=device_name(model.device),
        scores=scores(_answers(model, chosen, config), torch.tensor(labels), model.classes),
    )


def _range(model: "Model", config: "Config") -> "Range | None":
    """What becomes black and white in images of more than 8 bits: the model's own, or what is given where it has none.

    Raises:
        RequestError: another one is given.
    """
    own, given = model.preprocessing.range, config.dataset.range
    if own is not None and given is not None and own != tuple(given):
        raise RequestError(f"dataset.range={given}: the model brings its own, {list(own)}; leave it out")
    return own if given is None else (given[0], given[1])


def _composed(overrides: Sequence[str], config_dir: str | None) -> "Config":
    """The data set and how to compute, of a configuration whose other parts are not looked at."""
    from omegaconf import open_dict

    from tlx.checks import checked
    from tlx.compose import compose

    for word in overrides:
        key, given, _ = word.partition("=")
        key = key.lstrip("+~")
        if not given:
            raise RequestError(f"{word}: not of the form key=value, as in dataset=image_folder")
        first = key.partition(".")[0].partition("@")[0]
        if first not in OURS:
            raise RequestError(
                f"{word}: the model brings its own; beside it may be said dataset, dataset.<key>, runtime.<key>, seed "
                f"and output{nearest(first, OURS)}"
            )
        if key == "runtime.precision":
            raise RequestError(f"{word}: a model is measured in the number format it was saved with")
    if "dataset" not in _keys(overrides):
        raise RequestError("dataset: measured on which data? as in dataset=image_folder dataset.root=~/photos")
    node = compose(overrides, config_dir)
    with open_dict(node):
        node.pop("hydra")
    return checked(node)


def _keys(overrides: Sequence[str]) -> set[str]:
    return {word.partition("=")[0].lstrip("+") for word in overrides}


def _read(parts: "Parts", config: "Config", seed: int, part: str, decoded: "Decoded") -> "Data":
    """The data set as a run would split it; where a class has too few images for that, all of them as the test set.

    Decoded is what is measured; which images the other parts hold shows without, but where broken ones are left out.

    Raises:
        RequestError: too few for the part that is asked for, or what `split` raises.
    """
    import numpy as np

    from tlx.data import Data, split
    from tlx.images import read_all

    counts = np.bincount(parts.train.labels, minlength=len(parts.classes))
    least, common = int(counts.argmin()), config.dataset
    if parts.val is not None or parts.test is not None or counts[least] >= 3:
        return split(parts, common, seed, decoded, PARTS if part == "all" or common.on_error == "skip" else (part,))
    if part != "all":
        raise RequestError(
            f"--part {part}: class '{parts.classes[least]}' has {counts[least]} of the 3 images that a split needs; "
            "--part all measures all images"
        )
    sets, unreadable = read_all({"test": parts.train}, decoded)
    if unreadable and common.on_error == "fail":
        path, why = unreadable[0]
        raise RequestError(f"{path}: cannot be read as an image ({why}); leave it out with dataset.on_error=skip")
    none = parts.train.subset([])
    skipped = parts.skipped + unreadable
    data = Data(parts.name, parts.classes, none, none, sets["test"], skipped, fingerprint="", source=parts.source)
    return dataclasses.replace(data, fingerprint=data.test_fingerprint)


def _positions(classes: Sequence[str], known: Sequence[str]) -> list[int]:
    """Where each of the data's classes is among the model's.

    Raises:
        RequestError: the model does not know one of them.
    """
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise RequestError(
            f"dataset: the model does not know {', '.join(unknown)}{nearest(unknown[0], known)}; "
            f"classes of the data: {', '.join(classes)}; of the model: {', '.join(known)}"
        )
    return [list(known).index(name) for name in classes]


def _answers(model: "Model", sets: Iterable["Images"], config: "Config") -> "Tensor":
    """The logits of all images of the sets, as a run computes them: float32 `[N, classes]`."""
    import torch

    from tlx.evaluate import logits
    from tlx.rows import Pixels, Through
    from tlx.runtime import reader_processes

    frozen, tail = model.halves
    workers = reader_processes(config.runtime.workers, model.device)
    found = []
    for images in sets:
        pixels = Pixels(images, model.preprocessing, model.device, workers=workers)
        found.append(logits(tail, Through(frozen, pixels), model.precision))
    return torch.cat(found) / model.temperature


def _lines(found: Measured) -> list[str]:
    """What a person is told."""
    scores, number = found.scores, len(found.files)
    low, high = scores.interval
    of = "" if found.part == "all" else f" of {found.of:,} (--part all takes them all)"
    facts = [
        ("accuracy", f"{scores.accuracy:.1%}  (95 % interval {low:.1%} to {high:.1%}, {number} images)"),
        ("loss", f"{scores.loss:.4f} nats"),
        ("data", f"{found.data}, part {found.part}: {number:,} images{of}"),
        ("computed", f"on {found.device}, {found.precision}"),
    ]
    if found.trained:
        facts.append(("note", "the model has learned from these images, or was chosen by them: no measure of new ones"))
    if found.mixed:
        words = "data of the same name as the run's, but not its test set"
        facts.append(("note", f"{words}: the model may have learned from some of these images"))
    if found.sole:
        facts.append(("note", "all images are of one class: the accuracy is its recall; precision and F1 do not exist"))
    if found.absent:
        names = ", ".join(found.absent[:MOST]) + (", …" if len(found.absent) > MOST else "")
        facts.append(("no image of", f"{names} ({len(found.absent)} of {len(found.classes)} classes)"))
    if found.skipped:
        path, why = found.skipped[0]
        more = f" and {len(found.skipped) - 1} more" if len(found.skipped) > 1 else ""
        facts.append(("skipped", f"{path} ({why}){more}"))
    shown = {name: figures for name, figures in found.per_class.items() if name not in found.absent}
    ranked = sorted(shown, key=lambda name: scores.per_class[name]["f1"])
    many = len(shown) > MOST
    rows: list[tuple[str, ...]] = [("class", "images", "precision", "recall", "F1")]
    for name in ranked[:MOST] if many else shown:
        figures = (
            "-" if value is None else f"{value:.3f}" for value in map(shown[name].get, ("precision", "recall", "f1"))
        )
        rows.append((name, f"{shown[name]['images']:.0f}", *figures))
    note = [f"the {MOST} classes of {len(ranked)} with the lowest F1"] if many else []
    return [*aligned(facts, left=2), "", *aligned(rows, left=1), *note]
