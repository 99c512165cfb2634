"""The saved model: weights, stage table, classes and preprocessing in one folder; from image files to probabilities."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tlx import backbones
from tlx.config import Backbone, Head
from tlx.decoding import Pixels, UnreadableImage, decode
from tlx.errors import RequestError
from tlx.pixels import Preprocessing
from tlx.rows import as_input
from tlx.runtime import atomic, autocast, device_of
from tlx.stages import Net

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image; `error` is set, and the rest empty, where the image could not be read."""

    file: str
    prediction: str = ""
    probability: float = 0.0
    probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Model:
    """A network with everything that is needed to use it as it was measured."""

    net: Net
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    precision: str
    description: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device

    def predict(self, images: Iterable[Path | str | Pixels], batch_size: int = 32) -> Iterator[Prediction]:
        """A prediction for each image (a path, or uint8 `[H, W, 3]`), in order, as they are computed.

        A file that is no image gives a prediction with an `error`; it does not end the others.
        """
        self.net.eval()
        waiting = iter(images)
        while some := list(islice(waiting, batch_size)):
            views, names, errors = [], [], []
            for image in some:
                try:
                    pixels = image if isinstance(image, np.ndarray) else decode(Path(image))
                    views.append(self.preprocessing.view(torch.from_numpy(pixels).permute(2, 0, 1)))
                    errors.append("")
                except (UnreadableImage, RequestError) as error:
                    errors.append(str(error))
                names.append("" if isinstance(image, np.ndarray) else str(image))
            answers = iter(self.probabilities(torch.stack(views)).tolist() if views else [])
            for name, problem in zip(names, errors, strict=True):
                yield Prediction(name, error=problem) if problem else self._prediction(name, next(answers))

    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """uint8 `[N, 3, S, S]` → float32 `[N, classes]` on the CPU, each row summing to 1."""
        with torch.no_grad(), autocast(self.device, self.precision):
            logits: torch.Tensor = self.net(as_input(x.to(self.device), self.precision))
        return logits.float().softmax(1).cpu()

    def _prediction(self, name: str, probabilities: list[float]) -> Prediction:
        by_class = dict(zip(self.classes, probabilities, strict=True))
        best = max(by_class, key=lambda c: by_class[c])
        return Prediction(name, best, by_class[best], by_class)


def save(
    folder: Path,
    net: Net,
    backbone: Backbone,
    head: Head,
    classes: Iterable[str],
    preprocessing: Preprocessing,
    precision: str,
    facts: Mapping[str, Any],
) -> None:
    """Writes the model's folder, whole or not at all.

    Weights go under the original network's own key names. `facts` (data, metrics) is added to `model.json`.
    """
    # What rebuilds the network: no weights of its own, and its stage table written out so that nothing is searched.
    seen = preprocessing.to_dict()
    size = "squash" if seen["resize"] is None else str(seen["resize"])
    crop = None if seen["crop"] is None else str(seen["crop"])
    table = None if net.layout.table is None else {stage: list(parts) for stage, parts in net.layout.table.items()}
    architecture = dataclasses.asdict(
        dataclasses.replace(
            backbone,
            weights="none",
            url=None,
            stages=table,
            input_size=seen["input_size"],
            resize=size,
            crop=crop,
            mean=seen["mean"],
            std=seen["std"],
            interpolation=seen["interpolation"],
        )
    )
    description = {
        "format": FORMAT,
        "backbone": architecture,
        "head": dataclasses.asdict(head),
        "classes": list(classes),
        "preprocessing": seen,
        "precision": precision,
        "temperature": 1.0,
        "unknown_threshold": None,
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm")},
        **facts,
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.original_state().items()}
    with atomic(folder) as temporary:
        temporary.mkdir()
        try:
            save_file(state, temporary / WEIGHTS)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def load(folder: str | Path, device: str = "auto") -> Model:
    """Opens a saved model: a run's folder or its `model/`. Nothing is executed or downloaded.

    Raises:
        RequestError: there is no whole model of a known format.
    """
    path = Path(os.path.expanduser(folder))
    path = path / "model" if (path / "model").is_dir() else path
    for name in (WEIGHTS, DESCRIPTION):
        if not (path / name).is_file():
            raise RequestError(f"{folder}: no saved model here ({path / name} is missing); give a run's folder")
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise RequestError(f"{path}: format {description['format']}; this version of tlx reads format {FORMAT}")
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        classes, precision = tuple(description["classes"]), description["precision"]
        backbone, head = Backbone(**description["backbone"]), Head(**description["head"])
        state = load_file(path / WEIGHTS)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RequestError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    net, _ = backbones.build(backbone, head, len(classes), seed=0, offline=True, drawn=False)
    net.load_original(state)
    target = device_of(device)
    net = net.to(target).to(memory_format=torch.channels_last)
    net.eval().requires_grad_(False)
    return Model(net, preprocessing, classes, precision, description)
