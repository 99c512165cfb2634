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
    """The maximum number of images of each split; null: all."""

    train: int | None = key(None, minimum=1, help="maximum number of training images; null: all")
    val: int | None = key(None, minimum=1, help="maximum number of validation images; null: all")
    test: int | None = key(None, minimum=1, help="maximum number of test images; null: all")


@dataclass
class Splits:
    """Which folder, shards or split of the data set each split is read from; null: recognised by its name."""

    train: str | None = key(None, help="folder, shards or split of the training images; null: recognised by its name")
    val: str | None = key(None, help="folder, shards or split of the validation images; null: recognised by its name")
    test: str | None = key(None, help="folder, shards or split of the test images; null: recognised by its name")


@dataclass
class DatasetConfig:
    """What every data set has, whoever reads it; the reader's own keys are beside these in the YAML."""

    val_fraction: float = key(
        0.2,
        above=0,
        maximum=0.9,
        help="share of the training images used for validation, if the data set has no validation split",
    )
    test_fraction: float = key(
        0.2, above=0, maximum=0.9, help="share of all images used for testing, if the data set has no test split"
    )
    splits: Splits = key(factory=Splits, help="which part of the data set is which split")
    limit: Limit = key(factory=Limit, help="maximum number of images of a split, stratified, chosen by seed")
    per_class: int | None = key(None, minimum=1, help="few-shot: number of training images per class; null: all")
    folds: int | None = key(None, minimum=2, help="cross-validation: number of folds; null: no cross-validation")
    fold: int | None = key(None, minimum=0, help="index of the fold that this run holds out, from 0")
    group: str | None = key(
        None,
        help="what is never on two sides of a split: a table's column, or a regular expression on the image's path; "
        "null: a table's column called group; none: no groups",
    )
    on_error: str = key(
        "fail",
        choices=("fail", "skip"),
        help="fail: stop at a file that cannot be read as an image; skip: leave it out and list it",
    )
    audit: str = key(
        "warn",
        choices=("warn", "fail", "off"),
        help="findings of the audit before a run: warn: shown in short; fail: an error ends the run; off: no audit",
    )
    drop_duplicates: bool = key(
        False, help="leave copies of train, val and test images out of train; never anything out of test"
    )
    exclude: str | None = key(
        None, help="file with a path a line, of images to leave out of train and val; never out of test"
    )
    range: list[float] | None = key(
        None, help="[black, white] of images of more than 8 bits; null: from the file headers, else measured"
    )
    pretraining_overlap: str | None = key(
        None,
        help="which of the images ImageNet has, too, with the source of this; said by the audit, changes no result",
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
    return {name: value for name, value in dataclasses.asdict(DatasetConfig()).items() if name != "reader"}


PLACES = ("root", "images")  # keys of a reader that say where its files lie: their content is what counts
ARCHIVES = (".zip", ".tar")
TABLES = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".parquet", ".pq")  # endings of files that list images


def data_name(name: str, reader: str, root: str | None, *, published: bool = False) -> str:
    """What a data set is called: its name, or where that is only its reader's (`image_folder`), its folder's, or
    its table's without the ending.

    `published`: it has an archive, and so a name of its own, wherever it lies (`cifar10`).
    """
    if root is None or published or name != reader.rpartition(".")[2]:
        return name
    place = os.path.abspath(os.path.expanduser(root))
    if any(sign in os.path.basename(place) for sign in "{*?"):  # a pattern of files: the folder's name
        place = os.path.dirname(place)
    called = os.path.basename(place)
    stem, ending = os.path.splitext(called)
    return printable(stem if ending.lower() in TABLES + ARCHIVES else called) or name
