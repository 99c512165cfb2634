"""What chooses a model, and what is measured of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlx.config.key_rules import key
from tlx.core.choose_by import RULES
from tlx.core.errors import nearest

VIEW = {"flip": False, "side": 1.0, "top": 0.0, "left": 0.0}  # the keys of a further view, with their defaults


def view_problem(node: Any) -> str | None:
    """What is wrong with a further view of an image; None where nothing is."""
    given = ", ".join(f"{name}: {value}" for name, value in node.items()) if isinstance(node, Mapping) else str(node)
    where = f"evaluation.views: {{{given}}}"
    if not isinstance(node, Mapping) or not node:
        return f"{where}: each must be {{flip: true}} or a part, as {{side: 0.875, top: 0, left: 0.125}}"
    if unknown := next((str(name) for name in node if name not in VIEW), None):
        return f"{where}: no such key {unknown}{nearest(unknown, VIEW)}; {', '.join(VIEW)}"
    view = {**VIEW, **node}
    if not isinstance(view["flip"], bool):
        return f"{where}: flip must be true or false"
    shares = [view[name] for name in ("side", "top", "left")]
    if any(isinstance(share, bool) or not isinstance(share, int | float) for share in shares):
        return f"{where}: side, top and left must be numbers"
    side, top, left = shares
    if not 0 < side <= 1 or min(top, left) < 0 or max(top, left) + side > 1 + 1e-9:
        return f"{where}: side must be above 0, and the part within the view: top + side and left + side at most 1"
    return None


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
    views: list[Any] = key(
        factory=list,
        help="further views of each image: the model averages the logits over them (recipe=tta_flip); []: none",
    )
    unknown: UnknownImages = key(factory=UnknownImages, help="images of none of the classes")
