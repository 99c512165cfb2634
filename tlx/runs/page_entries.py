"""The test images of a page: in which order they are shown, and what stands below each."""

from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from tlx.runs.run_reader import Predictions
from tlx.runs.small_pictures import SmallPictures


class Entries:
    """The rows of `predictions.csv`, and their pictures."""

    def __init__(self, predicted: Predictions, pictures: SmallPictures) -> None:
        self.files, self.labels, self.predictions = predicted.files, predicted.labels, predicted.predictions
        self.probabilities = np.array([_number(text) for text in predicted.probabilities])
        self.correct = predicted.correct == 1
        self.pictures = pictures

    @cached_property
    def mistakes(self) -> list[int]:
        """The rows that are wrong, the most confident first."""
        return self._ordered(~self.correct, -self.probabilities)

    @cached_property
    def hits(self) -> list[int]:
        """The rows that are correct, the least confident first."""
        return self._ordered(self.correct, self.probabilities)

    def entry(self, row: int, *, short: bool = False) -> dict[str, Any]:
        """An image as the template takes it. `short`: its classes are said elsewhere."""
        lines = [f"{self.predictions[row]} {self.probabilities[row]:.1%}"]
        if not self.correct[row]:
            lines.append(f"is {self.labels[row]}")
        return {
            "picture": self.pictures.of(self.files[row]),
            "lines": [f"{self.probabilities[row]:.1%}"] if short else lines,
            **named(self.files[row]),
        }

    def _ordered(self, which: np.ndarray, by: np.ndarray) -> list[int]:
        rows = np.flatnonzero(which)
        found: list[int] = rows[np.argsort(by[rows], kind="stable")].tolist()
        return found


def named(file: str) -> dict[str, str]:
    """A file's whole name, and the last part of it."""
    return {"file": file, "name": PurePath(file.replace("\\", "/")).name or file}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
