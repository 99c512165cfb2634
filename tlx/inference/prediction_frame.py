"""Predictions as a table for Python, with the columns of the CSV of `predict`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tlx.core.data_frames import frame

if TYPE_CHECKING:
    from pandas import DataFrame

    from tlx.inference.predictor import Prediction


def prediction_frame(predictions: "Iterable[Prediction]", classes: Sequence[str]) -> "DataFrame":
    """A row an image; of one that could not be read `error` alone has a value.

    Raises:
        RequestError: pandas is not installed.
    """
    columns = ["file", "prediction", "probability", *(f"p({name})" for name in classes), "error"]
    none = [None] * (len(classes) + 2)
    rows = (
        [p.file, *none, p.error]
        if p.error
        else [p.file, p.prediction, p.probability, *(p.probabilities[name] for name in classes), None]
        for p in predictions
    )
    return frame(rows, columns)
