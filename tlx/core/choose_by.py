"""The one rule by which an epoch, a trial, a configuration and a champion are chosen: `evaluation.choose_by`.

It names a figure of the validation images. The test set is only used for the final evaluation.
"""

from collections.abc import Mapping
from typing import Any

RULES = ("val_loss", "val_accuracy", "val_macro_f1", "val_balanced_accuracy")
DEFAULT = RULES[0]
CHOICE = "choice_score"  # of a row: by the validation images and others that the model has not learned from
_TIE = 1e-6  # what the loss can change of a score: less than one image of half a million


def score(figures: Mapping[str, Any], rule: str) -> float:
    """How good an epoch is by the rule; higher is better.

    Every figure but the loss has only as many values as there are images: of two epochs that are equal by it, the one
    with the lower validation loss is better.
    """
    loss = float(figures["val_loss"])
    return -loss if rule == "val_loss" else float(figures[rule]) + _TIE / (1 + loss)


def score_of(row: Mapping[str, Any], rule: str) -> float:
    """How good an epoch's row is: its score where more images than those for validation have chosen, else theirs."""
    return float(row[CHOICE]) if CHOICE in row else score(row, rule)


def better(one: float, other: float, rule: str) -> bool:
    """Whether a figure is better than another by the rule."""
    return one < other if rule == "val_loss" else one > other


def shown(value: float, rule: str) -> str:
    """The figure for a person: nats, or percent."""
    return f"{value:.4f}" if rule == "val_loss" else f"{value:.1%}"
