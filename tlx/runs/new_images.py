"""New images beside those that a run was measured on: the features and predictions of both, and what differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.drift import Drift, drift
from tlx.core.activity import State, doing, importing
from tlx.core.errors import RequestError
from tlx.runs.page_images import images_of
from tlx.runs.run_files import read

if TYPE_CHECKING:
    from tlx.inference.predictor import Model, Prediction

__all__ = ["Compared", "compared"]
MOST = 4_000  # test images that are compared with, evenly chosen
FEWEST = 2


@dataclass(frozen=True)
class Compared:
    """What new images are like.

    Attributes:
        test: test images that could be read, and whose features are compared with.
        images: the predictions of the new images that could be read.
        unread: those of the others, with the error of each.
        unknown: new images that are predicted as none of the classes; None where the model has no threshold.
    """

    drift: Drift
    classes: tuple[str, ...]
    test: int
    images: "Sequence[Prediction]"
    unread: "Sequence[Prediction]"
    unknown: int | None

    @property
    def strangest(self) -> list[int]:
        """The new images, least like the test images first."""
        order: list[int] = np.argsort(self.drift.similarity, kind="stable").tolist()
        return order

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        found, shares = self.drift, self.drift.counts / self.drift.counts.sum(axis=1, keepdims=True)
        apart = found.apart
        return {
            "drift": found.found,
            "images": {"test": self.test, "new": len(self.images), "unread": len(self.unread)},
            "area": None if apart is None else apart.area,
            "area_interval": None if apart is None else [apart.low, apart.high],
            "matched": found.matched,
            "far": found.far,
            "far_interval": list(found.far_interval),
            "predicted_shares": {
                name: {"test": float(shares[0, place]), "new": float(shares[1, place])}
                for place, name in enumerate(self.classes)
            },
            "predicted_shares_p": found.shares.p,
            "unknown": self.unknown,
            "files": [
                {
                    "file": self.images[row].file,
                    "similarity": round(float(found.similarity[row]), 4),
                    "prediction": self.images[row].prediction,
                    "probability": self.images[row].probability,
                }
                for row in self.strangest
            ],
        }


def compared(folder: Path, files: Sequence[str | Path], device: str = "auto") -> Compared:
    """Compares new images with the test images of a run.

    Raises:
        RequestError: no model in the run, its test images are not at hand, fewer than two images could be read.
    """
    run = read(folder)
    if run.predicted is None:
        raise RequestError(f"{folder}: this run has not been measured: it has no predictions.csv")
    with doing("looking for the run's test images"):
        content = images_of(run)
        chosen = np.linspace(0, len(run.predicted.files) - 1, min(MOST, len(run.predicted.files))).round().astype(int)
        names = [run.predicted.files[place] for place in dict.fromkeys(chosen.tolist())]
    with importing("torch"):
        from tlx.inference.predictor import UNKNOWN, load
    with doing("opening the model"):
        model = load(folder, device)
    pictures = (picture for name in names if (picture := content(name)) is not None)
    known, of_known, _ = _embedded(model, pictures, len(names), "test images")
    if len(of_known) < FEWEST:
        raise RequestError(
            f"{folder}: its test images are not at hand (as {names[0]}), so that nothing can be compared with them"
        )
    new, of_new, unread = _embedded(model, files, len(files), "new images")
    if len(of_new) < FEWEST:
        raise RequestError(f"drift: {len(of_new)} of {len(files)} images could be read; give {FEWEST} or more")
    place = {name: number for number, name in enumerate(model.classes)}
    predicted = [[place[one.top(1)[0][0]] for one in some] for some in (of_known, of_new)]
    with doing("comparing the images"):
        found = drift(known, new, (predicted[0], predicted[1]), len(model.classes))
    unknown = None if model.unknown_threshold is None else sum(one.prediction == UNKNOWN for one in of_new)
    return Compared(found, model.classes, len(of_known), of_new, unread, unknown)


def _embedded(
    model: "Model", pictures: Any, number: int, what: str
) -> "tuple[NDArray[np.float32], list[Prediction], list[Prediction]]":
    """Features and predictions of the images that can be read, and what is said of the others."""
    from tlx.inference.embedding import embedded

    vectors, predictions, unread = list[NDArray[np.float32]](), list["Prediction"](), list["Prediction"]()

    def now() -> State:
        done = len(predictions) + len(unread)
        return State([f"{what}: {done:,} of {number:,}"], min(done / max(number, 1), 1.0))

    with doing(now):
        for prediction, features in embedded(model, pictures):
            if features is None:
                unread.append(prediction)
            else:
                vectors.append(features)
                predictions.append(prediction)
    return (np.stack(vectors) if vectors else np.empty((0, 0), np.float32)), predictions, unread
