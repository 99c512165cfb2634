"""The keys of every data set, whoever reads it, and what a data set is called."""

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any

from tlx.config.key_rules import key
from tlx.core.errors import RequestError, printable


@dataclass
class Limit:
    """At most so many images of a split; null: all."""

    train: int | None = key(None, minimum=1, help="at most so many training images; null: all")
    val: int | None = key(None, minimum=1, help="at most so many validation images; null: all")
    test: int | None = key(None, minimum=1, help="at most so many test images; null: all")


@dataclass
class Splits:
    """Which folder, below the data set's own, each split is read from; null: the one whose name says so."""

    train: str | None = key(None, help="the folder of the training images; null: the one whose name says so")
    val: str | None = key(None, help="the folder of the validation images; null: the one whose name says so")
    test: str | None = key(None, help="the folder of the test images; null: the one whose name says so")


@dataclass
class Dataset:
    """What every data set has, whoever reads it; the reader's own keys are beside these in the YAML."""

    val_fraction: float = key(
        0.2, above=0, maximum=0.9, help="of the training split, where the data set has no validation split"
    )
    test_fraction: float = key(
        0.2, above=0, maximum=0.9, help="of everything, where the data set has no test split either"
    )
    splits: Splits = key(factory=Splits, help="which folder is which split")
    limit: Limit = key(factory=Limit, help="at most so many images of a split, stratified, the first by seed")
    per_class: int | None = key(None, minimum=1, help="few-shot: training images per class; null: all")
    folds: int | None = key(
        None, minimum=2, help="cross-validation: how many folds the images are divided into; null: none"
    )
    fold: int | None = key(None, minimum=0, help="which of them this run holds out, from 0")
    on_error: str = key("fail", choices=("fail", "skip"), help="where a file is no image that can be read")
    range: list[float] | None = key(
        None, help="[black, white] of images of more than 8 bits; null: as their headers say, or measured"
    )
    reader: dict[str, Any] = key(factory=dict, help="")  # `_target_`, `name`, `root` and what else the reader takes

    def __post_init__(self) -> None:
        if self.range is not None and not (
            len(self.range) == 2 and -math.inf < self.range[0] < self.range[1] < math.inf
        ):
            raise RequestError(
                f"dataset.range={self.range}: must be two numbers, the values that become black and white, the lower "
                "one first, as in dataset.range=[0, 4095]"
            )
        if (self.folds is None) != (self.fold is None):
            given, other = ("fold", "folds") if self.folds is None else ("folds", "fold")
            raise RequestError(
                f"dataset.{given}={getattr(self, given)}: needs dataset.{other} beside it, as in dataset.folds=5 "
                "dataset.fold=0"
            )
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise RequestError(
                f"dataset.fold={self.fold}: must be less than dataset.folds={self.folds}; the first is 0"
            )


def common() -> dict[str, Any]:
    """The keys of every data set, so that Hydra knows them."""
    return {name: value for name, value in dataclasses.asdict(Dataset()).items() if name != "reader"}


def data_name(name: str, reader: str, root: str | None, *, published: bool = False) -> str:
    """What a data set is called: its name, or where that is only its reader's (`image_folder`), its folder's.

    `published`: it has an archive, and so a name of its own, wherever it lies (`cifar10`).
    """
    if root is None or published or name != reader.rpartition(".")[2]:
        return name
    return printable(os.path.basename(os.path.abspath(os.path.expanduser(root)))) or name
