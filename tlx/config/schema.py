"""What a run is made of: the typed schema of everything with a fixed shape.

Each key has its rule beside it: range or choices, and a line of help. Validation, `--help`, `--cfg job` and
docs/keys.md take them from here.
"""

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from tlx.config.dataset_schema import Dataset, common
from tlx.config.key_rules import key
from tlx.core.choose_by import RULES

SELECTORS = ("all", "norm", "bias")  # of strategy
SOLVERS = ("sgd",)  # of solvers
DEVICES = (r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:<number> or mps")  # the form, and in words
_NUMBER: dict[str, Any] = {"form": r"auto|[1-9]\d*", "words": "auto or a number from 1"}


@dataclass
class Backbone:
    """A network, its weights and the preprocessing that belongs to them."""

    _target_: str = key(MISSING, help="what makes it: tlx.backbones.torchvision, timm or small_cnn")
    name: str = key(MISSING, help="the model's name there")
    weights: str = key("imagenet", help="imagenet, none, a file, or an earlier run's folder")
    url: str | None = key(
        None, help="where the imagenet weights are; the file's name ends in the first digits of its sha256"
    )
    licence: str = key("see the model's page", help="licence of the imagenet weights")
    input_size: int | None = key(None, minimum=8, maximum=4096, help="pixels; null: as the weights say")
    resize: str | None = key(
        "auto",
        form=r"auto|squash|[1-9]\d*",
        words="a number of pixels, squash or auto",
        help="pixels of the short side; squash: both sides, without a crop; auto: as the weights say",
    )
    crop: str | None = key(
        "auto",
        form=r"auto|[1-9]\d*",
        words="a number of pixels, null or auto",
        help="pixels of the square taken from the middle; null: none; auto: as the weights say",
    )
    mean: list[float] | None = key(
        None, help="subtracted from each channel, with pixels from 0 to 1; null: as the weights say"
    )
    std: list[float] | None = key(None, help="each channel is divided by it; null: as the weights say")
    interpolation: str = key(
        "auto",
        form=r"auto|nearest|bilinear|bicubic",
        words="nearest, bilinear, bicubic or auto",
        help="how pictures are resized; auto: as the weights say",
    )
    stages: dict[str, list[str]] | None = key(
        None, help="each stage's name and its submodules, input side first; null: found by running the model"
    )
    classifier: str = key("head", help="the stage where the classifier starts")
    arguments: dict[str, Any] = key(factory=dict, help="for the network's constructor")


def names_weights(argument: str) -> bool:
    """Whether an argument of a network's constructor says where weights come from: only `backbone.weights` may."""
    return re.search("pretrained|checkpoint|cache|weights", argument) is not None


@dataclass
class Head:
    """The new last layers, `[N, D]` → `[N, classes]`."""

    append: bool = key(False, help="retain the pretrained 1000-way layer and add to it")
    hidden: list[int] = key(factory=list, minimum=1, help="the width of each layer before the last")
    dropout: float = key(
        0.0, minimum=0, maximum=0.99, help="share of the inputs dropped in training, after each hidden layer"
    )


@dataclass
class Augmentation:
    """Random views for training: torchvision transforms of the decoded `image`, or of its evaluation `view`."""

    input: str = key(
        "view", choices=("image", "view"), help="what the transforms get: the decoded image, or its evaluation view"
    )
    transforms: list[Any] = key(factory=list, help="in order, each by its _target_; sizes as shares, 256/224")


@dataclass
class Phase:
    """What learns, and by which solver. What is null comes from `training` and the groups."""

    train_from: str = key(MISSING, help="the first stage that learns: its name, or head, classifier, last, all")
    train_to: str | None = key(None, help="the last stage that learns; null: the end")
    learns: list[str] = key(factory=lambda: ["all"], choices=SELECTORS, help="which parameters in these stages")
    statistics: str = key("learning", choices=("learning", "all", "none"), help="whose BatchNorm statistics adapt")
    solver: Any = key("sgd", choices=SOLVERS, help="how the phase is trained; or its own, as the optimizer")
    optimizer: Any = key(None, help="its own: +optimizer@strategy.phases.<name>.optimizer=adam; null: the group's")
    schedule: Any = key(None, help="its own, in the same way; null: the group's")
    epochs: int | None = key(None, minimum=1, help="epochs of the phase; null: training.epochs")
    min_steps: int | None = key(
        None, minimum=0, maximum=1_000_000, help="steps of the optimizer at least; null: training.min_steps"
    )
    lr: float | None = key(None, above=0, help="learning rate; null: training.lr")
    lr_decay: float = key(1.0, above=0, maximum=1, help="learning rate of a stage ÷ that of the stage after it")
    batch_size: int | None = key(None, minimum=1, help="images in a batch; null: training.batch_size")
    patience: int | None = key(None, minimum=1, help="epochs without a better one; null: training.patience")


if TYPE_CHECKING:
    Phases = dict[str, Phase]  # once checked
else:
    Phases = dict[str, Phase | None]


@dataclass
class Strategy:
    """An ordered set of phases."""

    phases: Phases = key(factory=dict, each=Phase, help="in order; null, also when typed, leaves a phase out")
    weights: str | None = key(
        None, choices=("none",), help="none: start from random weights, whatever the backbone says"
    )


@dataclass
class Training:
    """What every phase inherits."""

    epochs: int = key(10, minimum=1, help="epochs of each phase")
    min_steps: int = key(
        0,
        minimum=0,
        maximum=1_000_000,
        help="steps of the optimizer in a phase: on few images it has as many more epochs",
    )
    batch_size: int = key(32, minimum=1, help="images in a batch")
    lr: float = key(1e-3, above=0, help="learning rate")
    lr_factor: float = key(1.0, above=0, help="factor on the learning rate of every phase")
    patience: int | None = key(
        None, minimum=1, help="epochs without a better one (evaluation.choose_by) before a phase ends; null: none"
    )
    label_smoothing: float = key(0.0, minimum=0, maximum=0.99, help="share of the label given to all classes")
    class_weights: str | None = key(
        None, choices=("balanced",), help="balanced: an image counts by how rare its class is; null: all alike"
    )
    clip_norm: float | None = key(None, above=0, help="the gradient's largest norm; null: as it is")
    accumulate: int = key(1, minimum=1, help="micro-batches in which a batch is computed")
    refit: bool = key(False, help="once the epochs are chosen: as many again, from the start, on train and val images")


@dataclass
class Features:
    """How the output of the frozen stages is cached."""

    mode: str = key("auto", choices=("auto", "live", "exact"), help="live: no cache; exact: in fp32, nothing fused")
    views: int | None = key(
        None, minimum=1, help="random views of each training image that are cached; null: new ones in each epoch"
    )
    budget: int | None = key(None, minimum=0, help="bytes in memory; null: a share of what is free")
    store: int = key(
        20_000_000_000, minimum=0, help="bytes cached across runs in <output>/features, oldest out first; 0: none"
    )


@dataclass
class Evaluation:
    """What chooses, and what is measured beyond the test set before and after training."""

    choose_by: str = key(
        "val_loss",
        choices=RULES,
        help="figure of the validation images that chooses the epoch, a search's trial, a sweep's configuration",
    )
    after_each_phase: bool = key(False, help="measure the test set after each phase, too")
    samples: Any = key(None, help="a data set's reader whose images are drawn into the run's folder and predicted")


@dataclass
class Runtime:
    """Where and how the run computes."""

    device: str = key("auto", form=DEVICES[0], words=DEVICES[1], help="auto: a GPU where there is one")
    precision: str = key("auto", choices=("auto", "fp32", "bf16"), help="auto: bf16 where the device has units for it")
    threads: str = key("auto", **_NUMBER, help="threads of the processor")
    workers: str = key("auto", form=r"auto|\d+", words="auto or a number from 0", help="processes that read images")
    devices: str = key("1", **_NUMBER, help="ranks that share the run; auto: all GPUs")
    offline: bool = key(False, help="never touch the network")
    max_pixels: int = key(100_000_000, minimum=1, help="pixels of an image; a larger one is not read")


@dataclass
class Tracking:
    """Where MLflow stores the run."""

    enabled: bool = key(True, help="whether MLflow gets anything")
    uri: str | None = key(None, help="null: MLFLOW_TRACKING_URI, else sqlite:///<output>/mlflow.db")
    experiment: str | None = key(None, help="null: MLFLOW_EXPERIMENT_NAME or _ID, else tlx; id:7 is the one of that id")
    model: bool = key(True, help="log the saved model")
    register: str | None = key(
        None,
        form=r"\w[\w .-]*",
        words="a name of letters, digits, spaces, dots, - and _",
        help="the model's name in the registry; null: not registered",
    )
    system_metrics: bool = key(True, help="log the load of processor, memory and GPU")


@dataclass
class Sweep:
    """Runs that belong together (`-m`)."""

    name: str | None = key(
        None,
        form=r"[\w+-][\w .+-]*",
        words="a folder's name: letters, digits, spaces, dots, +, - and _",
        help="its folder, and what a later launch goes on with; null: the time",
    )


@dataclass
class Source:
    """A task that the backbone learns from scratch before it is transferred; `none` has no data set."""

    name: str = key("none", help="none: there is no such task")
    dataset: Any = key(factory=lambda: common(), of=Dataset, help="as dataset")  # `Dataset` once checked
    augmentation: Augmentation = key(factory=Augmentation, help="as augmentation")
    strategy: Strategy = key(factory=Strategy, help="as strategy")
    optimizer: Any = key(None, help="as optimizer")
    schedule: Any = key(None, help="as schedule")
    training: Training = key(factory=Training, help="as training")


@dataclass
class Config:
    """One run."""

    seed: int = key(0, minimum=0, maximum=2**32 - 1, help="of splits, new layers, the order of images and random views")
    seeds: int | None = key(None, minimum=2, maximum=1000, help="so many seeds from `seed` on, as a sweep")
    folds: int | None = key(None, minimum=2, maximum=1000, help="cross-validation in so many folds, as a sweep")
    output: str = key("outputs", help="the folder of all runs")
    resume: str = key("never", choices=("auto", "never"), help="auto: go on with an interrupted run that is the same")
    sweep: Sweep = key(factory=Sweep, help="runs that belong together")
    backbone: Backbone = key(MISSING, help="a network, its weights and its preprocessing")
    head: Head = key(factory=Head, help="the new last layers")
    dataset: Any = key(factory=lambda: common(), of=Dataset, help="images and labels")  # `Dataset` once checked
    augmentation: Augmentation = key(factory=Augmentation, help="random views for training")
    strategy: Strategy = key(MISSING, help="an ordered set of phases")
    optimizer: Any = key(MISSING, help="by its _target_ and what that takes; the learning rate is training.lr")
    schedule: Any = key(MISSING, help="of the learning rate, by its _target_")
    source: Source = key(factory=Source, help="a task that is learned before, from scratch")
    training: Training = key(factory=Training, help="what every phase inherits")
    features: Features = key(factory=Features, help="how the output of the frozen stages is cached")
    evaluation: Evaluation = key(factory=Evaluation, help="what chooses, and what is measured")
    runtime: Runtime = key(factory=Runtime, help="where and how the run computes")
    tracking: Tracking = key(factory=Tracking, help="where MLflow stores the run")


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
