"""What a run is made of: the typed schema of everything with a fixed shape, components by name, a run's identity."""

import dataclasses
import math
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from tlx.core.errors import RequestError, printable


@dataclass
class Backbone:
    """A network, its weights and the preprocessing that belongs to them."""

    _target_: str = MISSING  # tlx.backbones.torchvision | timm | small_cnn
    name: str = MISSING
    weights: str = "imagenet"  # imagenet | none | a file | an earlier run's folder
    url: str | None = None  # of the imagenet weights; the file's name ends in the first digits of its sha256
    licence: str = "see the model's page"
    input_size: int | None = None  # pixels; null: as the weights say
    resize: str | None = "auto"  # pixels of the short side, or squash; auto: as the weights say
    crop: str | None = "auto"  # pixels; null takes none
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str = "auto"
    stages: dict[str, list[str]] | None = None  # name → submodules, input side first; null: found by running the model
    classifier: str = "head"  # the stage where the classifier starts
    arguments: dict[str, Any] = field(default_factory=dict)  # for the network's constructor


def names_weights(argument: str) -> bool:
    """Whether an argument of a network's constructor says where weights come from: only `backbone.weights` may."""
    return re.search("pretrained|checkpoint|cache|weights", argument) is not None


@dataclass
class Head:
    """The new last layers, `[N, D]` → `[N, classes]`."""

    append: bool = False  # retain the pretrained 1000-way layer and add to it
    hidden: list[int] = field(default_factory=list)
    dropout: float = 0.0


@dataclass
class Limit:
    """At most so many images of a split; null: all."""

    train: int | None = None
    val: int | None = None
    test: int | None = None


@dataclass
class Splits:
    """Which folder, below the data set's own, each split is read from; null: the one whose name says so."""

    train: str | None = None
    val: str | None = None
    test: str | None = None


@dataclass
class Dataset:
    """What every data set has, whoever reads it; the reader's own keys are beside these in the YAML."""

    val_fraction: float = 0.2  # of the training split, where the data set has no validation split
    test_fraction: float = 0.2  # of everything, where the data set has no test split either
    splits: Splits = field(default_factory=Splits)
    limit: Limit = field(default_factory=Limit)
    per_class: int | None = None  # few-shot: training images per class
    folds: int | None = None  # cross-validation: how many folds the images are divided into
    fold: int | None = None  # which of them this run holds out, from 0
    on_error: str = "fail"  # fail | skip
    range: list[float] | None = None  # [black, white] of images of more than 8 bits; null: by header, or measured
    reader: dict[str, Any] = field(default_factory=dict)  # `_target_`, `name`, `root` and what else the reader takes

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


def _common() -> dict[str, Any]:
    """The keys of every data set, so that Hydra knows them."""
    return {name: value for name, value in dataclasses.asdict(Dataset()).items() if name != "reader"}


@dataclass
class Augmentation:
    """Random views for training: torchvision transforms of the decoded `image`, or of its evaluation `view`."""

    input: str = "view"
    transforms: list[Any] = field(default_factory=list)


@dataclass
class Phase:
    """What learns, and by which solver. What is null comes from `training` and the groups."""

    train_from: str = MISSING  # a stage, or head | classifier | last | all
    train_to: str | None = None  # the last stage that learns; null: the end
    learns: list[str] = field(default_factory=lambda: ["all"])  # all | norm | bias
    statistics: str = "learning"  # which BatchNorm statistics adapt: learning | all | none
    solver: str = "sgd"
    optimizer: Any = None
    schedule: Any = None
    epochs: int | None = None
    min_steps: int | None = None
    lr: float | None = None
    lr_decay: float = 1.0  # learning rate of a stage ÷ that of the stage after it
    batch_size: int | None = None
    patience: int | None = None


if TYPE_CHECKING:
    Phases = dict[str, Phase]  # once checked
else:
    Phases = dict[str, Phase | None]


@dataclass
class Strategy:
    """An ordered set of phases."""

    phases: Phases = field(default_factory=dict)  # null, in YAML and on the command line, leaves a phase out
    weights: str | None = None  # none: start from random weights, whatever the backbone says


@dataclass
class Training:
    """What every phase inherits."""

    epochs: int = 10
    min_steps: int = 0  # of the optimizer in a phase: on few images it has as many more epochs
    batch_size: int = 32
    lr: float = 1e-3
    lr_factor: float = 1.0  # on the learning rate of every phase
    patience: int | None = None  # epochs without a better one (evaluation.choose_by) before a phase ends
    label_smoothing: float = 0.0
    class_weights: str | None = None  # null | balanced
    clip_norm: float | None = None
    accumulate: int = 1  # micro-batches in which a batch is computed
    refit: bool = False  # once the epochs are chosen: as many again, from the start, on train and val images


@dataclass
class Features:
    """How the output of the frozen stages is cached."""

    mode: str = "auto"  # auto | live | exact
    views: int | None = None  # random views of each training image that are cached; null: new ones in each epoch
    budget: int | None = None  # bytes in memory; null: a share of what is free
    store: int = 20_000_000_000  # bytes cached across runs in <output>/features, oldest out first; 0: nothing


@dataclass
class Evaluation:
    """What chooses, and what is measured beyond the test set before and after training."""

    # Of the validation images: by it the epoch, a search's trial, a sweep's configuration and the champion are chosen.
    choose_by: str = "val_loss"  # val_loss | val_accuracy | val_macro_f1 | val_balanced_accuracy
    after_each_phase: bool = False
    samples: Any = None  # a data set's reader whose images are drawn into the run's folder and predicted


@dataclass
class Runtime:
    """Where and how the run computes."""

    device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps
    precision: str = "auto"  # auto | fp32 | bf16
    threads: str = "auto"  # a number, or auto
    workers: str = "auto"  # processes that read images; a number, or auto
    devices: str = "1"  # ranks that share the run: a number, or auto (all GPUs)
    offline: bool = False  # never touch the network
    max_pixels: int = 100_000_000  # of an image; a larger one is not read


@dataclass
class Tracking:
    """Where MLflow stores the run."""

    enabled: bool = True
    uri: str | None = None  # null: MLFLOW_TRACKING_URI, else sqlite:///<output>/mlflow.db
    experiment: str | None = None  # null: MLFLOW_EXPERIMENT_NAME, else tlx
    model: bool = True  # log the saved model
    register: str | None = None  # a name in the model registry
    system_metrics: bool = True


@dataclass
class Sweep:
    """Runs that belong together (`-m`)."""

    name: str | None = None  # its folder, and what a later launch goes on with; null: the time


@dataclass
class Source:
    """A task that the backbone learns from scratch before it is transferred; `none` has no data set."""

    name: str = "none"
    dataset: Any = field(default_factory=lambda: _common())  # `Dataset` once checked
    augmentation: Augmentation = field(default_factory=Augmentation)
    strategy: Strategy = field(default_factory=Strategy)
    optimizer: Any = None
    schedule: Any = None
    training: Training = field(default_factory=Training)


@dataclass
class Config:
    """One run."""

    seed: int = 0
    seeds: int | None = None  # so many seeds from `seed` on, as a sweep
    folds: int | None = None  # cross-validation in so many folds, as a sweep
    output: str = "outputs"
    resume: str = "never"  # auto | never: go on with an interrupted run of the same identity
    sweep: Sweep = field(default_factory=Sweep)
    backbone: Backbone = MISSING
    head: Head = field(default_factory=Head)
    dataset: Any = field(default_factory=lambda: _common())  # `Dataset` once checked
    augmentation: Augmentation = field(default_factory=Augmentation)
    strategy: Strategy = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    source: Source = field(default_factory=Source)
    training: Training = field(default_factory=Training)
    features: Features = field(default_factory=Features)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Tracking = field(default_factory=Tracking)


def source_task(config: Config) -> Config | None:
    """The run that trains the backbone on the source data set, or None where there is no source."""
    source = config.source
    if source.dataset is None:
        return None
    return dataclasses.replace(
        config,
        **{name: getattr(source, name) for name in _SOURCE_PARTS},
        backbone=dataclasses.replace(config.backbone, weights="none"),
        head=Head(),
        source=Source(dataset=None),
        evaluation=Evaluation(choose_by=config.evaluation.choose_by),
        tracking=dataclasses.replace(config.tracking, register=None),
    )


_SOURCE_PARTS = ("dataset", "augmentation", "strategy", "optimizer", "schedule", "training")


def data_name(name: str, reader: str, root: str | None, *, published: bool = False) -> str:
    """What a data set is called: its name, or where that is only its reader's (`image_folder`), its folder's.

    `published`: it has an archive, and so a name of its own, wherever it lies (`cifar10`).
    """
    if root is None or published or name != reader.rpartition(".")[2]:
        return name
    return printable(os.path.basename(os.path.abspath(os.path.expanduser(root)))) or name
