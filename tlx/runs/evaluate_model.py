"""A saved model measured on other data, as a run measures its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlx.core.activity import doing, importing
from tlx.core.errors import RequestError, nearest, precomposed
from tlx.inference.run_folder import run_folder
from tlx.runs.evaluation_data import PARTS, composed, read, span, typed_keys

if TYPE_CHECKING:
    from tlx.config.schema import Config
    from tlx.datasets.images import Images
    from tlx.datasets.splits import Data
    from tlx.inference.predictor import Model
    from tlx.training.metrics import Scores


@dataclass(frozen=True)
class Measured:
    """What a model is worth on a part of a data set.

    Attributes:
        data, part, fingerprint: which images; `all` are those of the three parts, or of a data set that has none.
        of: images of the whole data set, whatever the part.
        files: the path of each, or `<split>/<index>`.
        labels: the class of each, a position in the model's class list.
        absent: classes of the model of which there is no image: precision, recall and F1 do not exist.
        skipped: (path, reason) of files that were left out.
        seen: of each image, `train` or `val` where the model was trained on it or chosen by it, else ""; None where
            that cannot be known: the model was saved without the digests of its images.
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
    seen: tuple[str, ...] | None
    precision: str
    device: str
    temperature: float
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

    @property
    def others(self) -> "tuple[float, tuple[float, float], int] | None":
        """Accuracy, its interval and number of the images that the model has not learned from, where there are both."""
        from tlx.core.statistics import wilson

        rows = zip(self.seen or (), self.labels, self.scores.predictions, strict=self.seen is not None)
        right = [label == predicted for split, label, predicted in rows if not split]
        if not right or len(right) == len(self.files):
            return None
        return sum(right) / len(right), wilson(sum(right), len(right)), len(right)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        found, others = self.scores, self.others
        return {
            "data": {"name": self.data, "part": self.part, "fingerprint": self.fingerprint},
            "images": len(self.files),
            "accuracy": found.accuracy,
            "accuracy_interval": list(found.interval),
            "loss": found.loss,
            "calibration": {"temperature": self.temperature, **found.calibration},
            "metrics": [metric.to_dict() for metric in found.metrics],
            "classes": list(self.classes),
            "absent": list(self.absent),
            "per_class": self.per_class,
            "confusion": found.confusion.written(),
            "skipped": [list(pair) for pair in self.skipped],
            "seen_in_training": "unknown" if self.seen is None else "yes" if any(self.seen) else "no",
            "in_training": None if self.seen is None else self.seen.count("train"),
            "in_validation": None if self.seen is None else self.seen.count("val"),
            "others": others and dict(zip(("accuracy", "accuracy_interval", "images"), others, strict=True)),
            "precision": self.precision,
            "device": self.device,
        }


def evaluate(run: str, overrides: Sequence[str], part: str = "all", config_dir: str | None = None) -> Measured:
    """Measures the model of `run` on the data set that `overrides` name, or a part, in the way a run measures its own.

    On the run's own test set its figures are the run's own, to the bit. The seed, which says how a data set without
    parts is split, is the run's own unless it is given.

    Raises:
        RequestError: no such model, data set or part; a key that is not the data's; a class the model does not know.
    """
    if part not in PARTS:
        raise RequestError(f"--part {part}: one of {', '.join(PARTS)}{nearest(part, PARTS)}")
    run_folder(run)
    config = composed(overrides, config_dir)
    from tlx.core.device import device_name, use_precision, use_threads
    from tlx.datasets.content_digests import Decoded
    from tlx.datasets.image_decoding import allow
    from tlx.runs.output_layout import output
    from tlx.runs.prepare import found

    allow(config.runtime.max_pixels)
    with doing("reading the data"):
        parts = found(config, fewest=1)
    with importing("torch"):
        use_threads(config.runtime.threads)
        from tlx.inference.predictor import load

    with doing("opening the model"):
        model = load(run, config.runtime.device)
    use_precision(model.precision)
    position = _positions(parts.classes, model.classes)
    trained_on: Mapping[str, Any] = model.description.get("data", {})
    seed = config.seed if "seed" in typed_keys(overrides) else trained_on.get("seed", config.seed)
    data = read(parts, config, seed, part, Decoded.below(output(config)))
    for images in (data.train, data.val, data.test):
        images.store.span = span(model, config)
    sets = [getattr(data, name) for name in (PARTS[:3] if part == "all" else (part,))]
    chosen = [images for images in sets if len(images)]
    labels = [position[label] for images in chosen for label in images.labels.tolist()]
    present = {model.classes[label] for label in labels}
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
        seen=_seen(run, data, chosen, trained_on),
        precision=model.precision,
        device=device_name(model.device),
        temperature=model.temperature,
        scores=_scores(model, chosen, labels, part, config),
    )


def _seen(run: str, data: "Data", chosen: Sequence["Images"], trained_on: Mapping[str, Any]) -> tuple[str, ...] | None:
    """In which split of the model's own each measured image was: by content, or for a model that was saved without the
    digests, where the whole split or the test set is its own."""
    from tlx.inference import seen_images

    folder = run_folder(run)
    kept = seen_images.read(folder / "model" if (folder / "model").is_dir() else folder)
    if kept is not None:
        return tuple(split for images in chosen for split in seen_images.split_of(kept, images.digests()))
    own = data.fingerprint == trained_on.get("fingerprint")
    if not own and not (chosen == [data.test] and data.test_fingerprint == trained_on.get("test")):
        return None
    splits = {id(data.train): "train", id(data.val): "val"}
    return tuple(splits.get(id(images), "") for images in chosen for _ in images.files)


def _positions(classes: Sequence[str], known: Sequence[str]) -> list[int]:
    """Where each of the data's classes is among the model's.

    Raises:
        RequestError: the model does not know one of them.
    """
    places = {precomposed(name): place for place, name in enumerate(known)}
    unknown = [name for name in classes if precomposed(name) not in places]
    if unknown:
        raise RequestError(
            f"dataset: the model does not know {', '.join(unknown)}{nearest(unknown[0], known)}; "
            f"classes of the data: {', '.join(classes)}; of the model: {', '.join(known)}"
        )
    return [places[precomposed(name)] for name in classes]


def _scores(model: "Model", sets: Iterable["Images"], labels: Sequence[int], part: str, config: "Config") -> "Scores":
    """The figures of all images of the sets, computed as a run does."""
    import torch

    from tlx.core.device import reader_processes
    from tlx.features.batches import Pixels, Through
    from tlx.training.evaluation import outputs
    from tlx.training.metrics import scores

    frozen, tail = model.halves
    workers = reader_processes(config.runtime.workers, model.device)
    found, far = [], []
    for images in sets:
        seen = model.preprocessing
        pixels = Pixels(images, seen, model.device, workers=workers, further=seen.views)
        with doing(f"measuring {len(images):,} images"):
            features, logits = outputs(tail, Through(frozen, pixels), model.precision)
            found.append(logits)
            far += [] if model.unknown is None else [model.unknown(features)]
    return scores(
        torch.cat(found),
        torch.tensor(labels),
        model.classes,
        part,
        model.temperature,
        unknown=torch.cat(far) if far else None,
        threshold=model.unknown_threshold,
    )


def seen_lines(found: Measured) -> Iterator[tuple[str, str]]:
    """How many of the images the model has learned from, and what that means."""
    if found.seen is None:
        yield "seen before", "unknown: the model was saved without the digests of its training images"
        return
    trained, chose, number = found.seen.count("train"), found.seen.count("val"), len(found.files)
    if not trained and not chose:
        yield "seen before", "none of these images, in training or validation"
        return
    yield "seen before", f"{trained:,} of these {number:,} images in training, {chose:,} in validation"
    if found.others is None:
        yield "note", "all of these images were used to train or choose the model: this does not measure new images"
    else:
        accuracy, (low, high), left = found.others
        yield "the others", f"{accuracy:.1%}  (95 % interval {low:.1%} to {high:.1%}, {left:,} images)"
