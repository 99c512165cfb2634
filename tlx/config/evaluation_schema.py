"""What chooses a model, and what is measured of it."""

from dataclasses import dataclass
from typing import Any

from tlx.config.key_rules import key
from tlx.core.choose_by import RULES


@dataclass
class UnknownImages:
    """Images of none of the classes: when a prediction is `unknown`, and on which such images that is measured."""

    rate: float | None = key(
        0.05,
        above=0,
        maximum=0.9,
        help="share of the images of the classes that may be predicted as unknown; null: no image is",
    )
    dataset: Any = key(
        None,
        help="images of none of the classes, to measure how well they are separated: a data set's name, or a folder; "
        "null: none",
    )


@dataclass
class Evaluation:
    """What chooses, and what is measured beyond the test set before and after training."""

    choose_by: str = key(
        "val_loss",
        choices=RULES,
        help="validation metric that chooses epoch, trial and configuration; val_loss is after the temperature",
    )
    after_each_phase: bool = key(False, help="measure the test set after each phase too")
    samples: Any = key(None, help="a data set reader; its test images are predicted, as a picture in the run's folder")
    unknown: UnknownImages = key(factory=UnknownImages, help="images of none of the classes")
